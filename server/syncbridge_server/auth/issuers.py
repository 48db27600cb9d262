"""Other issuers whose access tokens are accepted: each with its name, its keys and how it is read.

Which issuer's keys verify a token is decided by the claim `iss` before the signature is checked.
That is safe because the same claim is looked at again in what was signed, and because an issuer's
keys never verify a token that names another.
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
    """One issuer. `name`: what its tokens have as `iss`."""

    name: str
    keys: "JwksKeys"
    verifier: Verifier
    mapping: ClaimMapping


class _Named(msgspec.Struct):
    """The one claim that is read before the signature is checked."""

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
        """What must be kept fresh."""
        return [issuer.keys for issuer in self._known.values()]

    def of(self, token: str) -> Issuer | None:
        """The issuer that a token names, not verified; None for every other text. O(len(token))."""
        part = token.split(".", 2)[1:2]
        try:
            payload = base64.urlsafe_b64decode("".join(part) + "==")
            return self._known.get(self._decoder.decode(payload).iss)
        except (binascii.Error, ValueError, RecursionError):
            return None
