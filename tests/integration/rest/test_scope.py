"""What a token is bound to holds at every route and message; see `scope_table` for the routes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.routing import Route

from support.redis_servers import RedisServer
from support.scope_table import (
    CALLERS,
    CHANNEL,
    EXPECTED,
    OTHER,
    REFUSALS,
    ROWS,
    WADDLE,
    Caller,
    Row,
    S,
)
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.source_tree import text
from support.voice.voice_kit import VoiceRig, voice_mint, voice_server
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge_server.app import Server

SNAPSHOT_RESPONSE, STATE_UPDATE, ERROR, AUTH, AUTH_SUCCESS, AUTH_FAILURE, ADMIN_UPDATE = (
    4,
    5,
    6,
    7,
    8,
    9,
    14,
)
PRIVATE = [row for row in ROWS if row.kind != "public"]


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


@pytest.fixture
async def rig(redis_server: RedisServer) -> AsyncIterator[VoiceRig]:
    """A server with everything: a session S of ann, and a call in the channel."""
    async with voice_server(redis_server.url) as running:
        body = {"session_id": S, "user_id": "ann", "state_data": {}}
        made = await running.ask("POST", "/session/snapshot", mint("ann"), body)
        assert 201 == made.status_code
        await running.token("ann", CHANNEL)
        yield running


def token_of(caller: Caller) -> str:
    """A new token of that kind."""
    return voice_mint(
        caller.user,
        caller.role,
        waddle=WADDLE,
        channel=CHANNEL if caller.granted else "another",
        session=caller.session,
        device=caller.device,
    )


async def ask(rig: VoiceRig, row: Row, name: str, device: str = "") -> httpx.Response:
    """A row's request, by a caller of `CALLERS`."""
    caller = CALLERS[name]
    headers = bearer(token_of(caller)) if caller is not None else {}
    if device:
        headers["X-Device-ID"] = device
    body = row.body(name) if row.body is not None else None
    return await rig.http.request(row.method, rig.url + row.path, json=body, headers=headers)


def outcome(answer: httpx.Response) -> str:
    """What refused, `ok` if nothing did; another failure is shown as it is."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return "ok"
    problem = answer.json()
    refused = REFUSALS.get(problem["code"])
    if refused is None:
        return "ok" if answer.status_code < 500 else f"{answer.status_code} {answer.text}"
    assert answer.status_code == (401 if refused == "token" else 403)
    return refused


def served(server: Server) -> set[tuple[str, str]]:
    """(method, path) of each route that an application has."""
    routes = (route for route in server.routes if isinstance(route, Route))
    return {
        (method, route.path)
        for route in routes
        for method in (route.methods or {"GET"})
        if method != "HEAD"
    }


async def test_every_route_has_a_row(rig: VoiceRig) -> None:
    """A new route without a row in the table fails here, and so does a row without a route."""
    assert served(rig.node.server) == {(row.method, row.route) for row in ROWS}


async def test_every_token_at_every_route(rig: VoiceRig) -> None:
    """Each caller gets what the table says at each route; who was refused has changed nothing."""
    wrong, written = [], {}
    for row in ROWS:
        for name in CALLERS:
            got = outcome(await ask(rig, row, name))
            if got != EXPECTED[row.kind][name]:
                wrong.append(f"{row.method} {row.route}, {name}: {got}")
        if row.route == "/session/incremental":
            answer = await rig.ask("GET", f"/session/{S}", mint("root", Role.ADMIN))
            written = answer.json()["state_data"]

    assert [] == wrong
    assert {name for name, got in EXPECTED["device"].items() if got == "ok"} == set(written)


async def test_no_token_for_a_device_says_that_it_is_another(rig: VoiceRig) -> None:
    """X-Device-ID against the token's device is refused wherever the token is looked at at all."""
    refused = {}
    for row in PRIVATE:
        answer = await ask(rig, row, "root:watch", device="phone")
        refused[row.method, row.route] = outcome(answer)

    assert {"device"} == set(refused.values()), refused


async def test_named_by_the_header_of_ones_own_device(rig: VoiceRig) -> None:
    """The header may say what the token says."""
    row = next(row for row in ROWS if row.route == "/session/{session_id}")
    answer = await ask(rig, row, "ann:phone", device="phone")

    assert "ok" == outcome(answer)


def test_the_page_names_every_route() -> None:
    """docs/tokens.md has each route of the table."""
    page = text(Path("docs/tokens.md"))
    private = {row.route.replace(":path", "") for row in PRIVATE}

    assert [] == sorted(route for route in private if f"{route}`" not in page)


async def test_a_bound_service_leaves_the_call_of_nobody_else(rig: VoiceRig) -> None:
    """A grant lets it see the channel; to act for another user it must not be bound."""
    path, body = f"/voice/channels/{CHANNEL}/leave", {"userId": "ann"}
    bound = await rig.ask("POST", path, voice_mint("bot", Role.SERVICE, session=S), body)
    free = await rig.ask("POST", path, voice_mint("bot", Role.SERVICE), body)

    assert ("session", "ok") == (outcome(bound), outcome(free))


# The first AUTH


PLACES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"session": S}, {"session_id": OTHER}, "wrong_session"),
    ({"device": "phone"}, {"device_id": "watch"}, "wrong_device"),
    ({"role": Role.VIEWER}, {}, "insufficient_role"),
]


@pytest.mark.parametrize(("claims", "payload", "code"), PLACES)
async def test_first_auth_is_held_to_the_token(
    node: Node, claims: dict[str, Any], payload: dict[str, Any], code: str
) -> None:
    """AUTH_FAILURE that says which binding refused, then 4003; a viewer has no socket."""
    async with await Device.open(node.port) as device:
        answer = await device.request(
            AUTH, {"token": mint("ann", **claims), "device_id": "phone", **payload}
        )
        closed = await device.closed()

    assert (AUTH_FAILURE, code, 4003) == (answer["type"], answer["payload"]["code"], closed.code)


@pytest.mark.parametrize("place", ["payload", "envelope"])
async def test_the_envelope_names_a_place_as_the_payload_does(node: Node, place: str) -> None:
    """A token for one session is refused whichever of the two names another."""
    named = {"session_id": OTHER}
    message: dict[str, Any] = {
        "type": AUTH,
        "payload": {"token": mint("ann", session=S), "device_id": "phone"},
    }
    (message["payload"] if place == "payload" else message).update(named)
    async with await Device.open(node.port) as device:
        await device.send_text(httpx.Request("POST", "http://x", json=message).content.decode())
        answer = await device.receive()

    assert (AUTH_FAILURE, "wrong_session") == (answer["type"], answer["payload"]["code"])


BAD_AUTH = {
    "no uuid": ({"device_id": "phone", "session_id": "}{"}, "invalid_field"),
    "no device": ({}, "invalid_field"),
    "device of the wrong type": ({"device_id": 5}, "invalid_message"),
    "version out of range": (
        {"device_id": "phone", "resume": {"epoch": "e", "version": -5}},
        "invalid_field",
    ),
}


@pytest.mark.parametrize("name", BAD_AUTH)
async def test_every_refused_auth_is_a_failure_and_the_end(node: Node, name: str) -> None:
    """AUTH_FAILURE with the fields of ERROR and a close code, also for a field that is not good."""
    payload, code = BAD_AUTH[name]
    async with await Device.open(node.port) as device:
        answer = await device.request(AUTH, {"token": mint("ann"), **payload})
        closed = await device.closed()

    assert (AUTH_FAILURE, code) == (answer["type"], answer["payload"]["code"])
    assert {"code", "message", "retryable"} <= set(answer["payload"])
    assert 4002 == closed.code


async def test_capacity_is_a_failure_too(redis_url: str) -> None:
    """A session that is full: AUTH_FAILURE, then 4011."""
    async with running_node(redis_url, max_devices_per_session=1) as node:
        async with await Device.open(node.port) as first, await Device.open(node.port) as second:
            session = new_session()
            await first.auth(mint("ann"), "phone", session_id=session)
            payload = {"token": mint("ann"), "device_id": "watch", "session_id": session}
            answer = await second.request(AUTH, payload)
            closed = await second.closed()

    assert (AUTH_FAILURE, "too_many_devices", 4011) == (
        answer["type"],
        answer["payload"]["code"],
        closed.code,
    )


async def test_what_follows_a_refused_auth_is_dropped_with_it(node: Node) -> None:
    """A second, good AUTH in the same write is not looked at any more."""
    async with await Device.open(node.port) as device:
        bad, good = (auth_text(token) for token in ("nonsense", mint("ann")))
        await device.send_many([bad, good])
        closed = await device.closed()

    assert 4002 == closed.code
    assert [AUTH_FAILURE] == [message["type"] for message in device.seen]


def auth_text(token: str) -> str:
    """AUTH as text."""
    return f'{{"type":7,"payload":{{"token":"{token}","device_id":"phone"}}}}'


# Renewal


RENEWALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another user": ({"user": "bob"}, {}, "forbidden"),
    "another session": ({"user": "ann", "session": OTHER}, {}, "wrong_session"),
    "another device": ({"user": "ann", "device": "watch"}, {}, "wrong_device"),
    "a viewer": ({"user": "ann", "role": Role.VIEWER}, {}, "insufficient_role"),
    "asks for another session": ({"user": "ann"}, {"session_id": OTHER}, "wrong_session"),
    "asks for another device": ({"user": "ann"}, {"device_id": "watch"}, "wrong_device"),
    "the same": ({"user": "ann", "session": S, "device": "phone"}, {}, ""),
    "says where it is": ({"user": "ann"}, {"session_id": S, "device_id": "phone"}, ""),
    "without the claims": ({"user": "ann"}, {}, ""),
}


@pytest.mark.parametrize("name", RENEWALS)
async def test_renewal_is_held_to_the_socket(node: Node, name: str) -> None:
    """A token for another place is AUTH_FAILURE and 4003; what was sent behind it is dropped."""
    claims, payload, code = RENEWALS[name]
    first = mint("ann", session=S, device="phone")
    async with await Device.open(node.port) as device, await Device.open(node.port) as other:
        await device.auth(first, "phone")
        await other.auth(mint("ann"), "writer", session_id=S)
        before = other.welcome["version"]
        answer = await device.request(AUTH, {"token": mint(**claims), **payload})
        if not code:
            ack = await device.set("mood", new_session())
            assert (AUTH_SUCCESS, STATE_UPDATE) == (answer["type"], ack["type"])
            return
        closed = await device.closed()
        ack = await other.set("mine", new_session())

    assert (AUTH_FAILURE, code, 4003) == (answer["type"], answer["payload"]["code"], closed.code)
    assert before == ack["payload"]["prev_version"]


async def test_a_write_behind_a_refused_renewal_is_not_done(node: Node) -> None:
    """They come in one piece; the socket closes, and the session stays as it is."""
    session = new_session()
    async with await Device.open(node.port) as device:
        await device.auth(mint("ann"), "phone", session_id=session)
        await device.set("mood", "calm")
        write = '{"type":5,"payload":{"key":"mood","value":"stolen","operation":"SET"}}'
        await device.send_many([auth_text(mint("bob")), write])
        closed = await device.closed()
        async with node.http() as http:
            state = await http.get(f"/session/{session}", headers=bearer(mint("ann")))

    assert 4003 == closed.code
    assert {"mood": "calm"} == state.json()["state_data"]


async def test_a_renewal_with_a_bad_field_ends_the_socket(node: Node) -> None:
    """AUTH is AUTH, first or repeated."""
    async with await Device.open(node.port) as device:
        await device.auth(mint("ann"), "phone")
        answer = await device.request(AUTH, {"token": 7})
        closed = await device.closed()

    assert (AUTH_FAILURE, "invalid_message") == (answer["type"], answer["payload"]["code"])
    assert 4002 == closed.code


@pytest.mark.parametrize("written", [True, False])
async def test_a_service_that_renews_as_user_leaves_the_sessions_of_others(
    redis_url: str, written: bool
) -> None:
    """It hears nothing more of ann's session, on another node too, whoever came first."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with await Device.open(one.port) as bot, await Device.open(two.port) as ann:
            if written:
                await ann.auth(mint("ann"), "phone", session_id=session)
                await ann.set("a", 1)
            await bot.auth(mint("bot", Role.SERVICE), "bot", session_id=session)
            if not written:
                await ann.auth(mint("ann"), "phone", session_id=session)
            answer = await bot.request(AUTH, {"token": mint("bot")})
            closed = await bot.closed()
            seen = len(bot.seen)
            await ann.set("secret", 2)

    assert (AUTH_FAILURE, "forbidden", 4003) == (
        answer["type"],
        answer["payload"]["code"],
        closed.code,
    )
    assert seen == len(bot.seen)
    assert "secret" not in str(bot.seen)


@pytest.mark.parametrize(("owner", "expected"), [("ann", [AUTH_FAILURE]), ("bot", None)])
async def test_what_comes_behind_a_renewal_waits_for_it(
    node: Node, owner: str, expected: list[int] | None
) -> None:
    """A service that renews as user is shown nothing more of others; its own is answered after."""
    session = new_session()
    async with await Device.open(node.port) as mate, await Device.open(node.port) as bot:
        await mate.auth(mint(owner), "tablet", session_id=session)
        await mate.set("secret", 1)
        await bot.auth(mint("bot", Role.SERVICE), "phone", session_id=session)
        seen = len(bot.seen)
        await bot.send_many([auth_text(mint("bot")), '{"type":3,"payload":{}}'])
        if expected is None:
            answers = [(await bot.receive())["type"] for _ in range(2)]
            assert [AUTH_SUCCESS, SNAPSHOT_RESPONSE] == answers
        else:
            assert 4003 == (await bot.closed()).code
            assert expected == [message["type"] for message in bot.seen[seen:]]


async def test_a_service_in_a_session_of_its_own_may_renew_as_user(node: Node) -> None:
    """The session is the user's, so that nothing is taken away but the role; nobody is told."""
    session = new_session()
    async with await Device.open(node.port) as bot, await Device.open(node.port) as other:
        await other.auth(mint("bot"), "other", session_id=session)
        await bot.auth(mint("bot", Role.SERVICE), "bot", session_id=session)
        await other.receive(10)
        renewed = await bot.request(AUTH, {"token": mint("bot")})
        await bot.set("a", 1)
        seen = await other.receive()

    assert (AUTH_SUCCESS, "user") == (renewed["type"], renewed["payload"]["role"])
    assert STATE_UPDATE == seen["type"]


async def test_an_admin_that_renews_as_user_hears_no_more_of_administration(
    redis_url: str,
) -> None:
    """ADMIN_UPDATE ends with the role."""
    async with running_node(redis_url, admin_update=0.1) as node:
        async with await Device.open(node.port) as device:
            await device.auth(mint("root", Role.ADMIN), "writer")
            await device.receive(ADMIN_UPDATE)
            await device.request(AUTH, {"token": mint("root")})
            seen = len(device.seen)
            with trio.move_on_after(0.5):
                await device.receive(ADMIN_UPDATE)

    assert [] == device.seen[seen:]


async def test_other_refusals_leave_the_socket_open(node: Node) -> None:
    """Only AUTH ends it: another message before AUTH is an ERROR, and AUTH works then."""
    async with await Device.open(node.port) as device:
        answer = await device.request(STATE_UPDATE, {"key": "a", "value": 1})
        await device.auth(mint("ann"), "phone")

    assert (ERROR, "auth_required") == (answer["type"], answer["payload"]["code"])


# Other messages


ADDRESSES = [
    ({"session_id": OTHER}, "wrong_session"),
    ({"session_id": "no uuid"}, "invalid_field"),
    ({"device_id": "watch"}, "wrong_device"),
    ({"user_id": "bob"}, "forbidden"),
    ({"session_id": S.upper(), "device_id": "phone", "user_id": "ann"}, ""),
    ({"session_id": "", "device_id": None}, ""),
]


@pytest.mark.parametrize(("address", "code"), ADDRESSES)
async def test_an_envelope_for_another_place_is_refused(
    node: Node, address: dict[str, Any], code: str
) -> None:
    """Instead of being taken for one of this socket; the socket stays open."""
    async with await Device.open(node.port) as device:
        await device.auth(mint("ann"), "phone", session_id=S)
        payload = {"key": "k", "value": new_session(), "operation": "SET"}
        message = {"type": STATE_UPDATE, "payload": payload, "correlation_id": "c", **address}
        await device.send_text(httpx.Request("POST", "http://x", json=message).content.decode())
        answer = await device.receive(STATE_UPDATE, ERROR)
        alive = await device.request(1)

    assert (ERROR if code else STATE_UPDATE, "c") == (answer["type"], answer["correlation_id"])
    assert code == answer["payload"].get("code", "")
    assert 2 == alive["type"]


async def test_the_pair_keeps_its_bounds_over_refreshes(node: Node) -> None:
    """What /auth/token bound is bound after two rotations, and another device rotates nothing."""
    body = {"user_id": "ann", "session_id": S, "device_id": "phone"}
    async with node.http() as http:
        made = await http.post("/auth/token", json=body, headers=bearer(mint("bot", Role.SERVICE)))
        pair = made.json()
        for _ in range(2):
            again = {"refresh_token": pair["refresh_token"]}
            stolen = await http.post("/auth/refresh", json=again, headers={"X-Device-ID": "watch"})
            pair = (await http.post("/auth/refresh", json=again)).raise_for_status().json()
        elsewhere = await http.get(f"/session/{OTHER}", headers=bearer(pair["access_token"]))
        lying = await http.get(
            f"/session/{S}", headers=bearer(pair["access_token"]) | {"X-Device-ID": "watch"}
        )

    assert ("device", "session", "device") == tuple(map(outcome, (stolen, elsewhere, lying)))
