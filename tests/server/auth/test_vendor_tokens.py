"""The examples of docs/authentication.md, settings and tokens as they stand there, each run.

A token of the vendor's shape is signed by a key of this test, whose key set a server on this
machine publishes; only the address of the keys is another one than in the document.
"""

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from support.server_kit import Node, bearer, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge_server.settings import Settings, variable

PAGE = (Path(__file__).parents[3] / "docs" / "authentication.md").read_text("utf-8")
EXAMPLE = re.compile(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```sh\n(.*?)```\n\n```json\n(.*?)```", re.M | re.S
)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE_KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEY_SET = {
    "keys": [
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "r", "use": "sig"},
        {**ECAlgorithm.to_jwk(CURVE_KEY.public_key(), as_dict=True), "kid": "e", "alg": "ES256"},
    ]
}
FIELDS = {variable(name): name for name in Settings.model_fields}


class Example(NamedTuple):
    """One section of the document."""

    vendor: str
    values: dict[str, Any]
    claims: dict[str, Any]

    def token(self, key: Any = None, /, **changes: Any) -> str:
        """A token of this vendor's, good for a quarter of an hour; None takes a claim away."""
        now = int(time.time())
        claims = {**self.claims, "iat": now, "exp": now + 900, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        curved = self.vendor in ("Supabase", "Your own back end")
        algorithm, kid, known = ("ES256", "e", CURVE_KEY) if curved else ("RS256", "r", RSA_KEY)
        if key is not None:
            algorithm, kid = "RS256", "r"
        return jwt.encode(claims, key or known, algorithm, headers={"kid": kid})

    def settings(self, keys_url: str) -> dict[str, Any]:
        """The settings of the document, with the keys read from `keys_url`."""
        values = {FIELDS[name]: value for name, value in self.values.items()}
        if "jwt_jwks_url" in values:
            return {**values, "jwt_jwks_url": keys_url}
        return {**values, "jwt_issuers": f"{values['jwt_issuers']}={keys_url}"}


EXAMPLES = [
    Example(name, dict(line.split("=", 1) for line in block.split()), json.loads(payload))
    for name, block, payload in EXAMPLE.findall(PAGE)
]
USERS = {
    "Auth0": "auth0|65f0c2a1b7d94e0c8a1f3b52",
    "Firebase": "Kq3vXz0cT1fJ8rYbL5wN2mPd7Hs2",
    "Supabase": "6b1f3c52-94e0-4c8a-9f3b-52d7a1c0e4b8",
    "Keycloak": "f3b52d7a-1c0e-4b86-b1f3-c5294e04c8a9",
    "Amazon Cognito": "a3b4c5d6-7081-70f2-b3a4-95e6f7081920",
    "Your own back end": "ann",
}


class KeyServer:
    """Answers GET with a status and a body by path; 404 for every other path."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {"/keys": json.dumps(KEY_SET).encode()}
        self.asked: list[str] = []
        self.gate = trio.Event()
        self.gate.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                head += chunk
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            await self.gate.wait()
            body = self.answers.get(path)
            line = b"HTTP/1.1 200 OK" if body is not None else b"HTTP/1.1 404 Not Found"
            length = b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body or b"")
            await stream.send_all(line + length + (body or b""))


@asynccontextmanager
async def key_server() -> AsyncIterator[KeyServer]:
    """A server of key sets on a free port of this machine."""
    server = KeyServer()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()


async def answer(node: Node, token: str) -> tuple[int, str]:
    """What a request for a session that is not there gets: 404 once the token was accepted."""
    async with node.http() as http:
        return await answer_to(http, token)


async def answer_to(http: httpx.AsyncClient, token: str) -> tuple[int, str]:
    got = await http.get(f"/session/{new_session()}", headers=bearer(token))
    return got.status_code, got.json()["code"]


ACCEPTED = (404, "session_not_found")


def test_every_vendor_has_an_example() -> None:
    """The document has one for each of the five and for one's own."""
    assert list(USERS) == [example.vendor for example in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.vendor)
async def test_example_works(redis_url: str, example: Example) -> None:
    """Over HTTP the token is its user's, with the mapped role; and it opens a socket."""
    async with (
        key_server() as keys,
        running_node(redis_url, **example.settings(keys.url + "/keys")) as node,
    ):
        token = example.token()

        assert ACCEPTED == await answer(node, token)
        identity = node.server.auth.authenticator.verify(token)
        assert (USERS[example.vendor], Role.SERVICE) == (identity.user_id, identity.role)
        assert 0 < len(identity.jti) <= 64
        async with await Device.open(node.port) as socket:
            await socket.auth(token, example.claims.get("device", "tablet-1"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.vendor)
async def test_example_refuses_what_is_not_its_own(redis_url: str, example: Example) -> None:
    """Another key, audience, issuer, kind or time is refused, and so is a token without a user."""
    async with (
        key_server() as keys,
        running_node(redis_url, **example.settings(keys.url + "/keys")) as node,
    ):
        assert ACCEPTED == await answer(node, example.token())
        user = "account" if node.server.settings.jwt_claim_user else "sub"
        for bad in (
            example.token(STRANGER),
            example.token(aud="another", client_id="another"),
            example.token(aud=None, client_id=None),
            example.token(iss="https://evil.example"),
            example.token(iss=None),
            example.token(typ="ID"),
            example.token(typ="Refresh"),
            example.token(token_use="id"),
            example.token(exp=int(time.time()) + 31 * 86_400),
            example.token(exp=None),
            example.token(iat=None),
            example.token(nbf=int(time.time()) + 600),
            example.token(**{user: None}),
        ):
            assert (401, "token_invalid") == await answer(node, bad)
        expired = example.token(iat=int(time.time()) - 900, exp=int(time.time()) - 120)
        assert (401, "token_expired") == await answer(node, expired)


async def test_claims_that_are_not_mapped_give_nothing(redis_url: str) -> None:
    """`role`, `session_id`, `voice` and `typ: access` of another issuer are not ours."""
    supabase = EXAMPLES[2]
    async with key_server() as keys:
        values = {**supabase.settings(keys.url + "/keys"), "jwt_claim_role": ""}
        async with running_node(redis_url, **values) as node:
            text = supabase.token(
                role="admin", typ="access", device_id="d", voice=[{"waddle": "*", "channel": "*"}]
            )
            assert ACCEPTED == await answer(node, text)
            identity = node.server.auth.authenticator.verify(text)

    assert (Role.USER, "", "", ()) == (
        identity.role,
        identity.session_id,
        identity.device_id,
        identity.voice,
    )
    assert supabase.claims["session_id"] == identity.family


async def test_a_default_role_of_none_refuses(redis_url: str) -> None:
    """Then only a token that names a role of ours is accepted."""
    keycloak = EXAMPLES[3]
    async with key_server() as keys:
        values = {**keycloak.settings(keys.url + "/keys"), "jwt_default_role": "none"}
        async with running_node(redis_url, **values) as node:
            without = keycloak.token(realm_access={"roles": ["editor"]})

            assert ACCEPTED == await answer(node, keycloak.token())
            assert (401, "token_invalid") == await answer(node, without)


async def test_a_token_without_jti_is_revoked_by_the_derived_one(redis_url: str) -> None:
    """Its id is made from what is signed, so it is the same on every node."""
    auth0 = EXAMPLES[0]
    async with (
        key_server() as keys,
        running_node(redis_url, **auth0.settings(keys.url + "/keys")) as node,
    ):
        text = auth0.token(sub="auth0|revoked")
        assert ACCEPTED == await answer(node, text)
        jti = node.server.auth.authenticator.verify(text).jti
        async with node.http() as http:
            done = await http.post("/auth/revoke", json={"jti": jti}, headers=bearer(text))

        assert 200 == done.status_code
        assert (401, "token_revoked") == await answer(node, text)


async def test_own_tokens_go_on_beside_issuers(redis_url: str) -> None:
    """Tokens that SyncBridge mints are accepted, and name the first audience or all of them."""
    auth0 = EXAMPLES[0]
    async with (
        key_server() as keys,
        running_node(redis_url, **auth0.settings(keys.url + "/keys")) as node,
    ):
        async with node.http() as http:
            pair = await http.post(
                "/auth/token", json={"user_id": "ann"}, headers=bearer(await service(node, auth0))
            )

        assert 200 == pair.status_code
        assert ACCEPTED == await answer(node, pair.json()["access_token"])


async def service(node: Node, example: Example) -> str:
    """A token of the issuer with the role service, its keys read."""
    token = example.token()
    assert ACCEPTED == await answer(node, token)
    return token


@pytest.mark.parametrize("path", ["/tenant", "/tenant/"])
async def test_keys_are_found_by_discovery(redis_url: str, path: str) -> None:
    """With no URL of the keys they are where the issuer's document says; once for many tokens."""
    async with key_server() as keys:
        issuer = keys.url + path
        document = {"issuer": issuer, "jwks_uri": keys.url + "/keys"}
        keys.answers["/tenant/.well-known/openid-configuration"] = json.dumps(document).encode()
        values = {"jwt_issuers": issuer, "jwt_audience": "app"}
        async with running_node(redis_url, **values) as node:
            for user in ("ann", "bob"):
                text = EXAMPLES[0].token(iss=issuer, aud="app", sub=user)
                assert ACCEPTED == await answer(node, text)

        assert ["/tenant/.well-known/openid-configuration", "/keys"] == keys.asked


async def test_keys_are_where_they_usually_are_without_discovery(redis_url: str) -> None:
    """An issuer without the document publishes its keys at /.well-known/jwks.json."""
    async with key_server() as keys:
        keys.answers["/.well-known/jwks.json"] = keys.answers.pop("/keys")
        values = {"jwt_issuers": keys.url, "jwt_audience": "app"}
        async with running_node(redis_url, **values) as node:
            assert ACCEPTED == await answer(node, EXAMPLES[0].token(iss=keys.url, aud="app"))


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://another.example", "jwks_uri": "{url}/keys"},
        {"issuer": "{url}", "jwks_uri": "http://keys.example/keys"},
        {"issuer": "{url}"},
        [],
    ],
)
async def test_discovery_that_cannot_be_believed(redis_url: str, document: Any) -> None:
    """Another issuer's document, or keys over plain HTTP elsewhere: no token is accepted."""
    async with key_server() as keys:
        text = json.dumps(document).replace("{url}", keys.url)
        keys.answers["/.well-known/openid-configuration"] = text.encode()
        values = {"jwt_issuers": keys.url, "jwt_audience": "app"}
        async with running_node(redis_url, **values) as node:
            got = await answer(node, EXAMPLES[0].token(iss=keys.url, aud="app"))

    assert (503, "overloaded") == got


async def test_issuers_do_not_speak_for_each_other(redis_url: str) -> None:
    """A key of one issuer verifies no token that names the other, nor one of our own."""
    async with key_server() as keys, key_server() as others:
        entry = {**RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True), "kid": "r"}
        others.answers["/keys"] = json.dumps({"keys": [entry]}).encode()
        values = {
            "jwt_issuers": f"https://a.example={keys.url}/keys,https://b.example={others.url}/keys",
            "jwt_audience": "app",
        }
        async with running_node(redis_url, **values) as node:
            one = EXAMPLES[0]
            assert ACCEPTED == await answer(node, one.token(iss="https://a.example", aud="app"))
            second = one.token(STRANGER, iss="https://b.example", aud="app")
            assert ACCEPTED == await answer(node, second)
            for bad in (
                one.token(STRANGER, iss="https://a.example", aud="app"),
                one.token(iss="https://b.example", aud="app"),
                one.token(STRANGER, iss="", aud="app"),
            ):
                assert (401, "token_invalid") == await answer(node, bad)


async def test_slow_keys_hold_up_only_those_who_need_them(redis_url: str) -> None:
    """While an issuer does not answer, 64 requests wait for it and others are told to come again.

    Tokens of another issuer, tokens of our own and health are answered meanwhile; those who wait
    are answered when the keys come.
    """
    async with key_server() as slow, key_server() as quick:
        slow.gate = trio.Event()
        values = {
            "jwt_issuers": f"https://s.example={slow.url}/keys,https://q.example={quick.url}/keys",
            "jwt_audience": "app",
        }
        unbounded = httpx.Limits(max_connections=None)
        async with (
            running_node(redis_url, **values) as node,
            httpx.AsyncClient(base_url=node.url, timeout=30.0, limits=unbounded) as http,
            trio.open_nursery() as nursery,
        ):
            token = EXAMPLES[0].token(iss="https://s.example", aud="app")
            got: list[tuple[int, str]] = []
            some = trio.Event()

            async def ask() -> None:
                got.append(await answer_to(http, token))
                if len(got) == 80 - 64:
                    some.set()

            for _ in range(80):
                nursery.start_soon(ask)
            await some.wait()
            other = EXAMPLES[0].token(iss="https://q.example", aud="app")
            assert ACCEPTED == await answer_to(http, other)
            async with await Device.open(node.port) as socket:
                refused = await socket.request(7, {"token": token, "device_id": "tablet-1"})
                closed = await socket.closed()
            assert [(503, "overloaded")] * 16 == got
            assert ("overloaded", 4012) == (refused["payload"]["code"], closed.code)
            slow.gate.set()

        assert [ACCEPTED] * 64 == got[16:]
        assert ["/keys"] == slow.asked
