"""Other issuers whose access tokens are accepted: names, keys and claim mappings.

The claim `iss` selects the issuer's keys before the signature is checked. That is safe because the
claim is checked again in the signed payload, and because an issuer's keys never verify a token that
names another issuer.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from syncbridge_server.auth.claims import ClaimMapping
from syncbridge_server.auth.keys import KeyVerifier, Verifier

if TYPE_CHECKING:
    from syncbridge_server.auth.jwks import JwksKeys

ALGORITHMS = ("RS256", "ES256")


class Issuer(NamedTuple):
    """One issuer. `name`: the `iss` of its tokens."""

    name: str
    keys: "JwksKeys"
    verifier: Verifier
    mapping: ClaimMapping


class _Named(msgspec.Struct):
    """The only claim that is read before the signature is checked."""

    iss: str = ""


class Issuers:
    """The issuers by their names."""

    def __init__(self, keys: "Iterable[tuple[str, JwksKeys]]", mapping: ClaimMapping) -> None:
        self._known = {
            name: Issuer(name, source, KeyVerifier(source), mapping) for name, source in keys
        }
        self._decoder = msgspec.json.Decoder(_Named)

    @property
    def keys(self) -> "list[JwksKeys]":
        """The key sets to refresh."""
        return [issuer.keys for issuer in self._known.values()]

    def of(self, token: str) -> Issuer | None:
        """The issuer that a token names, unverified; None for any other text. O(len(token))."""
        part = token.split(".", 2)[1:2]
        try:
            payload = base64.urlsafe_b64decode("".join(part) + "==")
            return self._known.get(self._decoder.decode(payload).iss)
        except (binascii.Error, ValueError, RecursionError):
            return None
