"""Signing and verification keys, each bound to one algorithm.

A token's header never chooses how it is verified (RFC 8725 section 3.1). Each key source returns
one algorithm and a key object of that algorithm's type; a token with another `alg` is refused. So
`none` and a public key used as an HMAC secret are never accepted.
"""

import binascii
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS
from jwt.warnings import InsecureKeyLengthWarning

from syncbridge_server.settings import MIN_SECRET_BYTES, ConfigError

MIN_RSA_BITS = 2048
_SEGMENT = re.compile(rb"[A-Za-z0-9_-]*")
_STANDARD, _URL = bytes.maketrans(b"-_", b"+/"), bytes.maketrans(b"+/", b"-_")
"""Translates between the two alphabets of base64 (RFC 4648 sections 4 and 5)."""


class BadToken(Exception):
    """The token is invalid. The message gives the reason and never quotes it."""


class Readable(Protocol):
    """Keys that are read repeatedly from somewhere."""

    async def refresh(self) -> bool:
        """Read them now, unless that was just done. Raises OVERLOADED."""


class UnknownKey(BadToken):
    """No key with the token's `kid` is known.

    `source`: reading it again may bring a new key; None when it was just read.
    """

    def __init__(self, reason: str, source: Readable | None = None) -> None:
        super().__init__(reason)
        self.source = source


class Jws(PyJWS):
    """PyJWT's parser, which checks each character in Python; that costs more than the HMAC.

    Well-formed tokens are decoded here, by the same rules; PyJWT refuses the others. If a later
    PyJWT renames this method, its own parser is used again.
    """

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        if _SEGMENT.fullmatch(segment) is not None and len(segment) % 4 != 1:
            data = binascii.a2b_base64(segment.translate(_STANDARD) + b"=" * (-len(segment) % 4))
            again = binascii.b2a_base64(data, newline=False).rstrip(b"=")
            if again.translate(_URL) == segment:
                return data
        return PyJWS._decode_base64url_segment(segment, name)


class Key(NamedTuple):
    """A verification key and its one algorithm."""

    algorithm: str
    material: Any


class KeySource(Protocol):
    """A source of verification keys."""

    algorithms: tuple[str, ...]

    def find(self, kid: str) -> Key:
        """The key for a token header's `kid` ("" when it has none). Raises UnknownKey."""


class Verifier(Protocol):
    """Checks signatures."""

    def payload(self, token: str) -> bytes:
        """The payload of a token with a valid signature. Raises BadToken."""


class Signer(Protocol):
    """Makes tokens."""

    def sign(self, payload: bytes) -> str:
        """The compact form of a signed payload (RFC 7515 section 7.1)."""


class HmacKey:
    """HS256: one secret that signs and verifies."""

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ConfigError("a secret for HS256 is missing")
        if is_short(secret):  # only development gets here; it says so once, in its own words
            warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)
        self._secret = secret.encode()
        self._jws: PyJWS = Jws(algorithms=["HS256"])
        self._jws.unregister_algorithm("HS256")
        self._jws.register_algorithm("HS256", PreparedHmac(self._secret))
        self._verifier = KeyVerifier(OneKey(Key("HS256", self._secret)), self._jws)

    def sign(self, payload: bytes) -> str:
        return self._jws.encode(payload, self._secret, "HS256", {"typ": "JWT"})

    def payload(self, token: str) -> bytes:
        return self._verifier.payload(token)


class PreparedHmac(HMACAlgorithm):
    """HS256 with one secret. PyJWT checks once, not for each token, that it is no public key or
    JWK. Raises ConfigError for one that is."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        try:
            self._prepared = super().prepare_key(secret)
        except jwt.InvalidKeyError:
            raise ConfigError("a secret for HS256 must not be a public key") from None

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared


class KeyVerifier:
    """Any algorithm, through PyJWT: the one of the key."""

    def __init__(self, keys: KeySource, jws: PyJWS | None = None) -> None:
        self._keys = keys
        self._jws = jws or Jws(algorithms=list(keys.algorithms))

    def payload(self, token: str) -> bytes:
        _ascii(token)
        try:
            key = self._keys.find(self._kid(token))
            signed = self._jws.decode_complete(token, key.material, algorithms=[key.algorithm])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise BadToken(_reason(error)) from None
        payload: bytes = signed["payload"]
        return payload

    def _kid(self, token: str) -> str:
        """The `kid` of a token; empty if the source has only one key."""
        if isinstance(self._keys, OneKey):
            return ""
        kid: str = self._jws.get_unverified_header(token).get("kid", "")
        return kid


class PrivateKey:
    """RS256 or ES256 signing."""

    def __init__(self, algorithm: str, pem: str) -> None:
        self._algorithm = algorithm
        self._key = _checked(algorithm, load_private(pem))
        self._jws = PyJWS(algorithms=[algorithm])

    def sign(self, payload: bytes) -> str:
        return self._jws.encode(payload, self._key, algorithm=self._algorithm)

    def public(self) -> Key:
        """The key that verifies its signatures."""
        return Key(self._algorithm, self._key.public_key())


class OneKey:
    """A source with a single key, whatever the `kid`."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self.algorithms: tuple[str, ...] = (key.algorithm,)

    def find(self, kid: str) -> Key:
        return self._key


def public_key(algorithm: str, pem: str) -> Key:
    """Key from PEM text or the path of a PEM file. Raises ConfigError for an unsuitable key."""
    try:
        return Key(algorithm, _checked(algorithm, load_pem_public_key(_pem_bytes(pem))))
    except ValueError:
        raise ConfigError("the public key for tokens is not a PEM public key") from None


def load_private(pem: str) -> Any:
    try:
        return load_pem_private_key(_pem_bytes(pem), password=None)
    except (ValueError, TypeError):
        raise ConfigError("the private key for tokens is not an unencrypted PEM key") from None


def jwk_key(algorithm: str, jwk: dict[str, Any]) -> Key | None:
    """Key of a JWKS entry, or None if it has another use (RFC 7517 section 4)."""
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        return None
    try:
        return Key(algorithm, _checked(algorithm, jwt.PyJWK(jwk, algorithm).key))
    except (jwt.PyJWTError, ConfigError, ValueError, TypeError, KeyError):
        return None


def is_short(secret: str) -> bool:
    """True for a secret that production refuses (RFC 7518 section 3.2)."""
    return len(secret.encode()) < MIN_SECRET_BYTES


def _checked(algorithm: str, key: Any) -> Any:
    if algorithm == "RS256":
        fits = isinstance(key, (rsa.RSAPublicKey, rsa.RSAPrivateKey))
        if fits and key.key_size < MIN_RSA_BITS:
            raise ConfigError(f"an RSA key for tokens needs {MIN_RSA_BITS} bits or more")
    else:
        fits = isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey))
        fits = fits and key.curve.name == "secp256r1"
    if not fits:
        raise ConfigError(f"the key for tokens does not fit {algorithm}")
    return key


def _pem_bytes(text: str) -> bytes:
    if "-----BEGIN" in text:
        return text.replace("\\n", "\n").encode()  # one-line spelling, usual in variables
    try:
        return Path(text).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the key file {text}: {error.strerror}") from None


def _ascii(token: str) -> bytes:
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise BadToken("a token is ASCII text") from None


def _reason(error: Exception) -> str:
    if isinstance(error, jwt.InvalidAlgorithmError):
        return "the algorithm is not accepted"
    if isinstance(error, jwt.InvalidSignatureError):
        return "the signature is wrong"
    return "it is not a signed JWT"
