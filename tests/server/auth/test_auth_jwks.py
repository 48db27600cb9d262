"""Keys of another issuer: fetched, rotated, bounded, and never fetched too often."""

import json
from typing import Any

import httpx
import jwt
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from support.auth_kit import NOW, REFRESH_SECRET, Clock, MemoryBus, MemoryCommands
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.auth.authenticator import Authenticator
from syncbridge_server.auth.jwks import MAX_BYTES, JwksKeys
from syncbridge_server.auth.keys import HmacKey, KeyVerifier
from syncbridge_server.auth.revocation import Revocations
from syncbridge_server.auth.tokens import TokenRules, Tokens

FIRST, SECOND = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
CURVE = ec.generate_private_key(ec.SECP256R1())


def entry(key: rsa.RSAPrivateKey, kid: str, **changes: Any) -> dict[str, Any]:
    """A JWKS entry."""
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **changes}


def token(key: Any, kid: str | None, algorithm: str = "RS256", user: str = "alice") -> str:
    """A token of that issuer."""
    claims = {
        "sub": user,
        "role": "user",
        "typ": "access",
        "jti": "j",
        "iat": NOW,
        "exp": NOW + 900,
    }
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)


class Issuer:
    """Serves a key set over a mock transport."""

    def __init__(self, *keys: Any, clock: Any = None) -> None:
        self.body: bytes = json.dumps({"keys": keys}).encode()
        self.status = 200
        self.requests = 0
        self.clock: Any = clock or Clock()
        self.keys = JwksKeys(
            "https://id.example/jwks",
            ("RS256",),
            client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(self._answer)),
            clock=self.clock,
        )
        tokens = Tokens(TokenRules(), KeyVerifier(self.keys), None, HmacKey(REFRESH_SECRET))
        self.keys.on_change = tokens.forget
        rules = Revocations(MemoryCommands(), MemoryBus(), Clock(), fail_open=True)
        self.door = Authenticator(tokens, rules, [self.keys], Clock())

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return httpx.Response(self.status, content=self.body)

    def publish(self, *keys: Any) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    async def refused(self, text: str) -> bool:
        """True when the token is TOKEN_INVALID."""
        with pytest.raises(SyncBridgeError) as caught:
            await self.door.authenticate(text)
        return caught.value.code is ErrorCode.TOKEN_INVALID


async def test_first_token_fetches_the_keys() -> None:
    """An unknown key is fetched once, then known without waiting."""
    issuer = Issuer(entry(FIRST, "a"))

    assert "alice" == (await issuer.door.authenticate(token(FIRST, "a"))).user_id
    assert "bob" == issuer.door.verify(token(FIRST, "a", user="bob")).user_id
    assert 1 == issuer.requests


async def test_unknown_keys_are_fetched_once_a_minute() -> None:
    """Tokens with made-up key ids do not make us hammer the issuer."""
    issuer = Issuer(entry(FIRST, "a"))
    for n in range(20):
        assert await issuer.refused(token(SECOND, f"made-up-{n}"))
    assert 1 == issuer.requests

    issuer.publish(entry(FIRST, "a"), entry(SECOND, "b"))
    assert await issuer.refused(token(SECOND, "b"))
    issuer.clock.now += 60
    assert "alice" == (await issuer.door.authenticate(token(SECOND, "b"))).user_id


async def test_a_withdrawn_key_is_no_longer_good() -> None:
    """Taking a key from the set refuses its tokens, also those verified before."""
    issuer = Issuer(entry(FIRST, "a"))
    await issuer.door.authenticate(token(FIRST, "a"))
    issuer.publish(entry(SECOND, "b"))
    issuer.clock.now += 60
    await issuer.keys.refresh()

    assert await issuer.refused(token(FIRST, "a"))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (200, b"not json"),
        (200, b"[]"),
        (200, b"[" * 10_000),
        (200, b'{"keys": 3}'),
        (200, b"x" * (MAX_BYTES + 1)),
        (302, b""),
        (200, json.dumps({"keys": [{}] * 65}).encode()),
    ],
)
async def test_a_failed_fetch_changes_nothing(status: int, body: bytes) -> None:
    """The keys that are known stay when the issuer answers nonsense."""
    issuer = Issuer(entry(FIRST, "a"))
    await issuer.keys.refresh()
    issuer.status, issuer.body = status, body
    issuer.clock.now += 60

    assert not await issuer.keys.refresh()
    assert "alice" == issuer.door.verify(token(FIRST, "a")).user_id


async def test_only_fitting_keys_are_taken() -> None:
    """Keys for encryption, of other algorithms, secret or broken, verify nothing."""
    curve = {**ECAlgorithm.to_jwk(CURVE.public_key(), as_dict=True), "kid": "e"}
    secret = {"kty": "oct", "kid": "o", "k": "AAAA", "alg": "HS256"}
    issuer = Issuer(
        entry(FIRST, "enc", use="enc"),
        entry(FIRST, "alg", alg="RS512"),
        {"kid": "broken", "kty": "RSA", "n": "!"},
        curve,
        secret,
        "nonsense",
        entry(SECOND, "good"),
    )

    assert "alice" == (await issuer.door.authenticate(token(SECOND, "good"))).user_id
    for kid in ("enc", "alg", "broken", "o"):
        assert await issuer.refused(token(FIRST, kid))
    assert await issuer.refused(token(CURVE, "e", "ES256"))
    assert await issuer.refused(token("A" * 40, "o", "HS256"))


async def test_without_a_key_id_the_only_key_is_meant() -> None:
    """One key in the set serves tokens that name none; with two, the token must say."""
    issuer = Issuer(entry(FIRST, "a"))
    await issuer.keys.refresh()
    assert "alice" == issuer.door.verify(token(FIRST, None)).user_id

    issuer.publish(entry(FIRST, "a"), entry(SECOND, "b"))
    issuer.clock.now += 60
    await issuer.keys.refresh()
    assert await issuer.refused(token(FIRST, None))


async def test_callers_that_come_together_wait_for_one_fetch() -> None:
    """Ten tokens with a new key cost one request, and all are accepted."""
    issuer = Issuer(entry(FIRST, "a"))
    seen: list[str] = []

    async def enter(user: str) -> None:
        seen.append((await issuer.door.authenticate(token(FIRST, "a", user=user))).user_id)

    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(enter, f"user-{n}")

    assert {f"user-{n}" for n in range(10)} == set(seen)
    assert 1 == issuer.requests


async def test_background_reading(autojump_clock: trio.testing.MockClock) -> None:
    """Keys are read at the start, on demand a minute later, and every 15 minutes."""
    issuer = Issuer(entry(FIRST, "a"), clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(issuer.keys.run)
        await trio.testing.wait_all_tasks_blocked()
        assert "alice" == issuer.door.verify(token(FIRST, "a")).user_id

        issuer.publish(entry(SECOND, "b"))
        with pytest.raises(SyncBridgeError, match="unknown key"):
            issuer.door.verify(token(SECOND, "b"))
        await trio.sleep(61)
        assert "alice" == issuer.door.verify(token(SECOND, "b")).user_id

        issuer.publish(entry(FIRST, "a"))
        await trio.sleep(901)
        assert "alice" == issuer.door.verify(token(FIRST, "a")).user_id
        assert 3 == issuer.requests
        nursery.cancel_scope.cancel()
