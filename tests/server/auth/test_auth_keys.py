"""Servers with keys of two halves: which settings make them mint, verify, or refuse to start."""

import time
from base64 import urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.api_jws import PyJWS

from support.server_kit import bearer, mint, running_node, settings
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.keys import Jws
from syncbridge_server.settings import ConfigError

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
PUBLIC = (
    KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
RSA = {"jwt_algorithm": "RS256", "jwt_secret": ""}
ANN = Grant("ann", Role.USER)


def minted() -> str:
    """A token of whoever has the private half."""
    tokens, _ = build_tokens(settings("unix:///nowhere", **RSA, jwt_private_key=PRIVATE))
    return tokens.mint_access(ANN, time.time(), 900)[0]


@pytest.mark.parametrize(
    "half", [{"jwt_private_key": PRIVATE}, {"jwt_public_key": PUBLIC}], ids=["private", "public"]
)
def test_either_half_verifies(half: dict[str, str]) -> None:
    """The private half is enough, and so is the public one."""
    tokens, keys = build_tokens(settings("unix:///nowhere", **RSA, **half))

    assert keys == []
    assert "ann" == tokens.verify_access(minted(), time.time()).user_id


def test_the_public_half_alone_mints_nothing() -> None:
    """Access tokens are then another issuer's matter."""
    tokens, _ = build_tokens(settings("unix:///nowhere", **RSA, jwt_public_key=PUBLIC))

    with pytest.raises(SyncBridgeError) as refused:
        tokens.mint_access(ANN, time.time(), 900)
    assert ErrorCode.UNSUPPORTED is refused.value.code


def test_no_key_at_all_is_a_mistake() -> None:
    """It is found when the server is put together, with the variable's name."""
    with pytest.raises(ConfigError, match="SYNCBRIDGE_JWT_PUBLIC_KEY"):
        build_tokens(settings("unix:///nowhere", **RSA))


def test_a_key_set_is_asked_before_the_public_half() -> None:
    """With a JWKS URL the tokens' keys come from there: one that is not in it is not accepted."""
    tokens, keys = build_tokens(
        settings(
            "unix:///nowhere",
            **RSA,
            jwt_public_key=PUBLIC,
            jwt_jwks_url="https://id.example/jwks",
        )
    )

    assert len(keys) == 1
    with pytest.raises(SyncBridgeError) as refused:
        tokens.verify_access(minted(), time.time())
    assert ErrorCode.OVERLOADED is refused.value.code  # come again: the set has not been read


async def test_server_with_a_public_key(redis_url: str) -> None:
    """It takes tokens of that key, and none that are signed with its own secrets or the PEM."""
    session = "0b5a4cf1-6d0a-4a55-9d1e-2f8d1f5e7a10"
    values = {**RSA, "jwt_public_key": PUBLIC}
    async with running_node(redis_url, **values) as node, node.http() as http:
        path = f"/session/{session}"
        good = await http.get(path, headers=bearer(minted()))
        foreign = await http.get(path, headers=bearer(mint("ann")))

    assert (404, "session_not_found") == (good.status_code, good.json()["code"])
    assert (401, "token_invalid") == (foreign.status_code, foreign.json()["code"])


@given(
    st.one_of(
        st.binary(max_size=9),
        st.text(alphabet="AQgw09-_+/=\n ", max_size=9).map(str.encode),
        st.binary(max_size=60).map(lambda data: urlsafe_b64encode(data).rstrip(b"=")),
    )
)
def test_segments_are_decoded_as_by_the_library(segment: bytes) -> None:
    """What one takes, the other does, with the same result."""

    def decoded(kind: type[PyJWS]) -> bytes | None:
        try:
            return kind._decode_base64url_segment(segment, "payload")
        except jwt.DecodeError:
            return None

    assert decoded(Jws) == decoded(PyJWS)
