"""Who may be on a socket, and for how long."""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import trio

from support.server_kit import (
    ACCESS_SECRET,
    REFRESH_SECRET,
    Node,
    bearer,
    mint,
    new_session,
    running_node,
)
from support.ws_client import Device, Refused
from syncbridge.identity import Role

AUTH, AUTH_SUCCESS, AUTH_FAILURE, ERROR = 7, 8, 9, 6


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {"sub": "ann", "role": "user", "typ": "access", "jti": "j", "iat": now, "exp": now + 600}
    return {k: v for k, v in (base | changes).items() if v is not None}


def signed(secret: str = ACCESS_SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm)


def unsigned() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}."


BAD_TOKENS = {
    "expired": (lambda: signed(iat=int(time.time()) - 900, exp=int(time.time()) - 100), 4004),
    "alg none": (unsigned, 4002),
    "another key": (lambda: signed("x" * 40), 4002),
    "another algorithm": (lambda: signed(ACCESS_SECRET * 2, "HS512"), 4002),
    "refresh token": (lambda: signed(REFRESH_SECRET, typ="refresh"), 4002),
    "typ refresh": (lambda: signed(typ="refresh"), 4002),
    "no sub": (lambda: signed(sub=None), 4002),
    "no exp": (lambda: signed(exp=None), 4002),
    "unknown role": (lambda: signed(role="root"), 4002),
    "from the future": (lambda: signed(iat=int(time.time()) + 5000), 4002),
    "not a token": (lambda: "hello", 4002),
    "empty": (lambda: "", 4002),
    "huge": (lambda: "a." * 5000, 4002),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_bad_token_is_told_and_closed(node: Node, name: str) -> None:
    """AUTH_FAILURE with a code that does not quote the token, then the close code."""
    make, code = BAD_TOKENS[name]
    token = make()
    async with await Device.open(node.port) as device:
        answer = await device.request(AUTH, {"token": token, "device_id": "phone"})
        closed = await device.closed()

    assert AUTH_FAILURE == answer["type"]
    assert not token or token not in json.dumps(answer)
    assert code == closed.code


async def test_nothing_but_auth_before_auth(node: Node) -> None:
    """Other messages are refused, and the socket stays open for AUTH."""
    async with await Device.open(node.port) as device:
        answer = await device.request(5, {"key": "a", "value": 1})
        await device.auth(mint("ann"), "phone")

    assert "auth_required" == answer["payload"]["code"]


async def test_no_auth_in_time(redis_url: str) -> None:
    """Whoever says nothing is closed with 4001."""
    async with (
        running_node(redis_url, auth_timeout=1.0) as node,
        await Device.open(node.port) as device,
    ):
        closed = await device.closed()

    assert 4001 == closed.code


async def test_session_of_another_user_is_refused(node: Node) -> None:
    """Neither an existing session nor one that somebody waits for can be joined by another."""
    written, awaited = new_session(), new_session()
    async with await Device.open(node.port) as ann, await Device.open(node.port) as waiting:
        await ann.auth(mint("ann"), "phone", session_id=written)
        await ann.set("secret", 1)
        await waiting.auth(mint("ann"), "phone", session_id=awaited)
        for session in (written, awaited):
            async with await Device.open(node.port) as bob:
                payload = {"token": mint("bob"), "device_id": "b", "session_id": session}
                answer = await bob.request(AUTH, payload)
                closed = await bob.closed()

                assert "forbidden" == answer["payload"]["code"]
                assert 4003 == closed.code


async def test_service_may_join_any_session(node: Node) -> None:
    """Role service writes into a user's session; it stays the user's."""
    session = new_session()
    async with await Device.open(node.port) as ann, await Device.open(node.port) as service:
        await ann.auth(mint("ann"), "phone", session_id=session)
        await ann.set("a", 1)
        welcome = await service.auth(mint("bot", Role.SERVICE), "bot", session_id=session)
        await service.set("b", 2)
        seen = await ann.receive(5)

    assert {"a": 1} == welcome["state_data"]
    assert ("ann", "bot") == (seen["user_id"], seen["device_id"])


async def test_token_for_one_session_and_device_opens_no_other(node: Node) -> None:
    """session_id and device_id in the token bind it."""
    session = new_session()
    token = mint("ann", session=session, device="phone")
    wrongs = (
        ("wrong_session", {"session_id": new_session()}),
        (
            "wrong_device",
            {"device_id": "tablet"},
        ),
    )
    for code, wrong in wrongs:
        async with await Device.open(node.port) as device:
            answer = await device.request(AUTH, {"token": token, **wrong})

            assert code == answer["payload"]["code"]
    async with await Device.open(node.port) as device:
        answer = await device.request(AUTH, {"token": token})

        assert (session, "phone") == (answer["payload"]["session_id"], answer["device_id"])


async def test_expiry_is_announced_then_closes(redis_url: str) -> None:
    """A warning before, 4004 after the grace."""
    async with (
        running_node(redis_url, expiry_warning=1.0, expiry_grace=1.0) as node,
        await Device.open(node.port) as device,
    ):
        await device.auth(mint("ann", ttl=2.0), "phone")
        warning = await device.receive(ERROR)
        closed = await device.closed()

    assert ("token_expiring", True) == (
        warning["payload"]["code"],
        warning["payload"]["retryable"],
    )
    assert 4004 == closed.code


async def test_refresh_in_band_keeps_the_socket(redis_url: str) -> None:
    """AUTH again with a newer token: the old expiry no longer counts."""
    async with (
        running_node(redis_url, expiry_warning=1.0, expiry_grace=1.0) as node,
        await Device.open(node.port) as device,
    ):
        first = await device.auth(mint("ann", ttl=2.0), "phone")
        await device.receive(ERROR)
        renewed = await device.request(AUTH, {"token": mint("ann", ttl=600.0)})
        with trio.move_on_after(3.0) as waited:
            await device.receive()

    assert AUTH_SUCCESS == renewed["type"]
    assert renewed["payload"]["token_expires_at"] > first["token_expires_at"]
    assert waited.cancelled_caught, "neither a warning nor a close came"


@pytest.mark.parametrize("what", ["jti", "user_id", "device_id"])
async def test_revocation_reaches_open_sockets_on_every_node(redis_url: str, what: str) -> None:
    """Revoked on one node, closed with 4005 on the other; others stay."""
    user = new_session()
    token = mint(user)
    value = {
        "jti": jwt.decode(token, options={"verify_signature": False})["jti"],
        "user_id": user,
        "device_id": user,
    }[what]
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with await Device.open(one.port) as device, await Device.open(one.port) as other:
            await device.auth(token, user)
            await other.auth(mint("somebody"), "phone")
            async with two.http() as http:
                admin = bearer(mint("root", Role.ADMIN))
                answer = await http.post("/auth/revoke", json={what: value}, headers=admin)
            closed = await device.closed()
            alive = await other.request(1)
        async with await Device.open(one.port) as again:
            refused = await again.request(AUTH, {"token": token, "device_id": user})

    assert answer.is_success
    assert 4005 == closed.code
    assert 2 == alive["type"]
    assert (AUTH_FAILURE, "token_revoked") == (refused["type"], refused["payload"]["code"])


async def test_token_is_never_taken_from_the_url(node: Node) -> None:
    """A token in the query is refused at the handshake, with the reason."""
    with pytest.raises(Refused) as caught:
        await Device.open(node.port, path=f"/ws?token={mint('ann')}")

    assert 400 == caught.value.status
