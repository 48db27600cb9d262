"""Access and refresh tokens: signed from claims, and verified into an `Identity`.

A token that names another issuer (`Issuers`) is verified by that issuer's keys and read through the
claim mapping. Any other one is verified by our own key and has our own claims, unless a mapping is
set and `typ` is not ours.

Pure: time is an argument. Checks, cheapest first: size, signature (with the key's algorithm), shape
and type of every claim, kind (`typ`), issuer and audience when configured, times. No message ever
quotes the token.

A token may not live longer than `max_life`: revocations are kept exactly that long, so a
longer-lived token would become valid again.

The 16,384 most recent verified access tokens are cached under the SHA-256 of their text: a
reconnect or a second request costs a digest instead of a signature. An entry covers only signature
and claims; expiry is checked on each use, and the caller checks revocation.
"""

import hashlib
import re
import uuid
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, Role
from syncbridge_server.auth.claims import ACCESS, REFRESH, ClaimMapping, Claims, Grant, invalid
from syncbridge_server.auth.issuers import Issuers
from syncbridge_server.auth.keys import (
    BadToken,
    HmacKey,
    Readable,
    Signer,
    UnknownKey,
    Verifier,
)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_TIME = 253_402_300_800.0
"""Unix time of the year 10000; later times are refused."""


class _Kind(msgspec.Struct):
    """The claim that identifies our own tokens."""

    typ: str = ""


_KIND = msgspec.json.Decoder(_Kind)


class TokenRules(NamedTuple):
    """Bounds for tokens. Times in seconds."""

    access_ttl: float = 900.0
    refresh_ttl: float = 604_800.0
    max_life: float = 604_800.0
    leeway: float = 60.0
    token_bytes: int = 4_096
    id_bytes: int = 64
    cache_entries: int = 16_384
    issuer: str = ""
    audience: tuple[str, ...] = ()


class KeyNotKnown(SyncBridgeError):
    """The token's `kid` is not known.

    With a `source`, reading that again may help, so the error asks for a retry (OVERLOADED);
    without one, the token is invalid (TOKEN_INVALID).
    """

    def __init__(self, source: Readable | None = None) -> None:
        if source is None:
            super().__init__(
                ErrorCode.TOKEN_INVALID, "token refused: it is signed with an unknown key"
            )
        else:
            detail = "the keys of the token's issuer are being read"
            super().__init__(ErrorCode.OVERLOADED, detail, retry_after=1.0)
        self.source = source


class Tokens:
    """Mints and verifies tokens.

    Args:
        rules: see `TokenRules`.
        access: verifies access tokens. signer: signs them; None if only others do. refresh: signs
            and verifies refresh tokens, which are only for this server.
        new_id: makes `jti` and family ids.
        issuers: other accepted issuers. mapping: for tokens of our own key without our claims;
            None: they are refused.
    """

    def __init__(
        self,
        rules: TokenRules,
        access: Verifier,
        signer: Signer | None,
        refresh: HmacKey,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        issuers: Issuers | None = None,
        mapping: ClaimMapping | None = None,
    ) -> None:
        self.rules = rules
        self.new_id = new_id
        self._access = access
        self._signer = signer
        self._refresh = refresh
        self._issuers = issuers
        self._mapping = mapping
        self._decoder = msgspec.json.Decoder(Claims)
        self._encoder = msgspec.json.Encoder()
        self._seen: dict[bytes, Identity] = {}

    @property
    def signs(self) -> bool:
        """Whether access tokens can be signed here."""
        return self._signer is not None

    def mint_access(self, grant: Grant, now: float, ttl: float | None = None) -> tuple[str, Claims]:
        """A signed access token and its claims. Raises UNSUPPORTED without a signing key."""
        if self._signer is None:
            raise SyncBridgeError(ErrorCode.UNSUPPORTED, "this server does not issue tokens")
        claims = self._claims(grant, ACCESS, now, ttl or self.rules.access_ttl)
        return self._signer.sign(self._encoder.encode(claims)), claims

    def mint_refresh(self, grant: Grant, now: float) -> tuple[str, Claims]:
        """A signed refresh token and its claims."""
        claims = self._claims(grant, REFRESH, now, self.rules.refresh_ttl)
        return self._refresh.sign(self._encoder.encode(claims)), claims

    def verify_access(self, token: str, now: float) -> Identity:
        """The holder of a token.

        Raises SyncBridgeError TOKEN_INVALID or TOKEN_EXPIRED, and KeyNotKnown. O(len(token)).
        """
        self._check_size(token)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        identity = self._seen.pop(digest, None)
        if identity is None:
            identity = self._checked(self._access_claims(token), ACCESS, now).identity()
            if len(self._seen) >= self.rules.cache_entries:
                del self._seen[next(iter(self._seen))]  # the one not seen for longest makes room
        elif now >= identity.expires_at + self.rules.leeway:
            raise _expired()
        self._seen[digest] = identity
        return identity

    def verify_refresh(self, token: str, now: float) -> Claims:
        """The claims of a refresh token. Raises as `verify_access`. Not cached."""
        self._check_size(token)
        claims = _decoded(self._decoder.decode, self._payload(self._refresh, token))
        claims = self._checked(claims, REFRESH, now)
        if not claims.fam:
            raise invalid("claim fam is missing")
        return claims

    def forget(self) -> None:
        """Empty the cache; needed when verification keys change."""
        self._seen.clear()

    def _claims(self, grant: Grant, kind: str, now: float, ttl: float) -> Claims:
        claims = Claims(
            sub=grant.user_id,
            role=grant.role,
            typ=kind,
            jti=self.new_id(),
            iat=round(now, 3),
            exp=round(now + min(ttl, self.rules.max_life), 3),
            session_id=grant.session_id,
            device_id=grant.device_id,
            voice=grant.voice,
            fam=grant.family,
            name=grant.name,
            iss=self.rules.issuer,
            aud=self.rules.audience[0] if len(self.rules.audience) == 1 else self.rules.audience,
        )
        try:
            self._check_shape(claims)
        except SyncBridgeError as error:
            detail = error.detail.replace("token refused", "token not issued")
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail) from None
        return claims

    def _check_size(self, token: str) -> None:
        if not token or len(token) > self.rules.token_bytes:
            raise invalid(f"a token has 1 to {self.rules.token_bytes} bytes")

    def _payload(self, verifier: Verifier, token: str) -> bytes:
        try:
            return verifier.payload(token)
        except UnknownKey as error:
            raise KeyNotKnown(error.source) from None
        except BadToken as error:
            raise invalid(str(error)) from None

    def _access_claims(self, token: str) -> Claims:
        """The claims of an access token, verified by its issuer's key."""
        issuer = self._issuers.of(token) if self._issuers is not None else None
        if issuer is not None:
            claims = _decoded(issuer.mapping.read, self._payload(issuer.verifier, token))
            if claims.iss != issuer.name:
                raise invalid("claim iss appears twice")
            return claims
        payload = self._payload(self._access, token)
        if self._mapping is not None and _kind(payload) != ACCESS:
            claims = _decoded(self._mapping.read, payload)
        else:
            claims = _decoded(self._decoder.decode, payload)
        if self.rules.issuer and claims.iss != self.rules.issuer:
            raise invalid("claim iss is not the configured issuer")
        return claims

    def _checked(self, claims: Claims, kind: str, now: float) -> Claims:
        if claims.typ != kind:
            raise invalid(f"claim typ must be {kind}")
        self._check_shape(claims)
        self._check_audience(claims)
        self._check_times(claims, now)
        return claims

    def _check_shape(self, claims: Claims) -> None:
        for name, value, least in (
            ("sub", claims.sub, 1),
            ("jti", claims.jti, 1),
            ("device_id", claims.device_id, 0),
            ("fam", claims.fam, 0),
        ):
            if not least <= len(value.encode()) <= self.rules.id_bytes:
                raise invalid(f"claim {name} needs {least} to {self.rules.id_bytes} bytes")
            if not value.isprintable():
                raise invalid(f"claim {name} has characters that are not printable")
        if claims.session_id and not is_canonical_uuid(claims.session_id):
            raise invalid("claim session_id must be a lower-case UUID")

    def _check_audience(self, claims: Claims) -> None:
        named = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        ours = self.rules.audience
        if ours and claims.typ == ACCESS and not any(audience in ours for audience in named):
            raise invalid("claim aud does not name the configured audience")

    def _check_times(self, claims: Claims, now: float) -> None:
        leeway = self.rules.leeway
        if not (0 <= claims.iat < _MAX_TIME and 0 < claims.exp < _MAX_TIME):
            raise invalid("claims iat and exp must be Unix seconds")
        if claims.iat > now + leeway or claims.nbf > now + leeway:
            raise invalid("it is not valid yet")
        if not 0 < claims.exp - claims.iat <= self.rules.max_life + 1:
            raise invalid(f"its lifetime must be above 0 and at most {self.rules.max_life:.0f} s")
        if now >= claims.exp + leeway:
            raise _expired()


def is_canonical_uuid(text: str) -> bool:
    """Whether it is a UUID in lower case (RFC 9562 section 4)."""
    return _UUID.fullmatch(text) is not None


def _decoded(read: Callable[[bytes], Claims], payload: bytes) -> Claims:
    try:
        return read(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(_claim_problem(error)) from None


def _kind(payload: bytes) -> str:
    """The claim `typ`; empty if missing or no text."""
    try:
        return _KIND.decode(payload).typ
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _expired() -> SyncBridgeError:
    return SyncBridgeError(ErrorCode.TOKEN_EXPIRED, "the token has expired")


def _claim_problem(error: Exception) -> str:
    """msgspec names the claim and the expected type; it never quotes a value."""
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        return f"claim role must be one of {', '.join(Role)}" if "$.role" in text else text
    return "its payload is not a JSON object"
