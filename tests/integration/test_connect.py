"""The application is asked who may join which session: a real HTTP endpoint, two nodes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role

AUTH, AUTH_SUCCESS, AUTH_FAILURE, STATE_UPDATE = 7, 8, 9, 5


@dataclass
class Application:
    """The application's endpoint. `answers`: by user, a status and a body; none: silence."""

    url: str = ""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    let_go: trio.Event = field(default_factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            data += await stream.receive_some(65_536)
        head, _, body = data.partition(b"\r\n\r\n")
        question = json.loads(body)
        self.asked.append(question)
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        self.keys.add(headers.get("Authorization", ""))
        answer = self.answers.get(question["user_id"])
        if answer is None:
            await self.let_go.wait()
            return
        head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (answer[0], len(answer[1]))
        await stream.send_all(head + b"connection: close\r\n\r\n" + answer[1])


@asynccontextmanager
async def application() -> AsyncIterator[Application]:
    app = Application()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, app.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        app.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/may-join"
        yield app
        app.let_go.set()
        nursery.cancel_scope.cancel()


async def try_auth(node: Node, token: str, session_id: str) -> tuple[str, int]:
    """Error code and close code of an AUTH; empty when it succeeds."""
    async with await Device.open(node.port) as device:
        payload = {"token": token, "device_id": "phone", "session_id": session_id}
        await device.send(AUTH, payload)
        answer = await device.receive(AUTH_SUCCESS, AUTH_FAILURE)
        if answer["type"] == AUTH_SUCCESS:
            return "", 0
        return answer["payload"]["code"], (await device.closed()).code


ALLOW, DENY = b'{"allow": true}', b'{"allow": false, "reason": "not a member"}'


async def test_the_application_decides_once_for_a_token_and_session(redis_url: str) -> None:
    """Each node asks once; a reconnect does not; another session and another token do. Services are
    not asked about, and REST is held to the verdict as sockets are."""
    session_id, token = new_session(), mint("ann")
    async with application() as app:
        app.answers = {"ann": (200, ALLOW), "bob": (200, DENY), "eve": (403, b"{}")}
        gated = {"connect_url": app.url, "connect_key": "a-key"}
        async with running_node(redis_url, **gated) as node, node.http() as http:
            welcome = [await try_auth(node, token, session_id) for _ in range(3)]
            once = list(app.asked)
            await try_auth(node, token, new_session())
            await try_auth(node, mint("ann"), session_id)
            asked = len(app.asked)
            refused = [await try_auth(node, mint(user), new_session()) for user in ("bob", "eve")]
            await try_auth(node, mint("robot", Role.SERVICE), session_id)
            path, state = f"/session/{session_id}", {"session_id": session_id, "state_data": {}}
            allowed = await http.get(path, headers=bearer(token))
            body = state | {"user_id": "bob", "device_id": "d"}
            denied = await http.post("/session/snapshot", json=body, headers=bearer(mint("bob")))

    assert [("", 0)] * 3 == welcome
    expected = {"user_id": "ann", "session_id": session_id, "device_id": "phone", "role": "user"}
    assert [expected] == once
    assert 3 == asked
    assert [("forbidden", 4003)] * 2 == refused
    assert (404, 403) == (allowed.status_code, denied.status_code)
    assert "not a member" == denied.json()["detail"]
    assert {"Bearer a-key"} == app.keys


@pytest.mark.parametrize(
    "answer",
    [None, (500, b""), (200, b"yes"), (200, b'{"allow": "yes"}'), (200, b" " * 10_000)],
    ids=["silence", "500", "no JSON", "no verdict", "too long"],
)
async def test_without_a_verdict_nobody_gets_in(
    redis_url: str, answer: tuple[int, bytes] | None
) -> None:
    """The client is told to come back; the next attempt asks again."""
    session_id, token = new_session(), mint("ann")
    async with application() as app:
        if answer is not None:
            app.answers["ann"] = answer
        gated = {"connect_url": app.url, "connect_timeout": 0.3}
        async with running_node(redis_url, **gated) as node:
            refused = await try_auth(node, token, session_id)
            app.answers["ann"] = (200, ALLOW)
            accepted = await try_auth(node, token, session_id)

    assert ("overloaded", 4012) == refused
    assert ("", 0) == accepted


async def test_fifty_questions_at_once(redis_url: str) -> None:
    """The 51st is told to come back at once; what came behind an AUTH waits for the verdict."""
    async with application() as app:
        gated = {"connect_url": app.url, "connect_timeout": 10.0}
        async with running_node(redis_url, **gated) as node, trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(try_auth, node, mint(f"user-{n}"), new_session())
            with trio.fail_after(20):
                while len(app.asked) < 50:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            refused = await try_auth(node, mint("ann"), new_session())
            app.let_go.set()
            nursery.cancel_scope.cancel()

    assert ("overloaded", 4012) == refused


async def test_what_comes_behind_auth_waits_for_the_verdict(redis_url: str) -> None:
    """And is carried out after it, in order."""
    async with application() as app:
        async with running_node(redis_url, connect_url=app.url) as node:
            async with await Device.open(node.port) as device:
                payload = {"token": mint("ann"), "device_id": "phone"}
                app.answers["ann"] = (200, ALLOW)
                await device.send(AUTH, payload)
                for n in range(3):
                    await device.send(STATE_UPDATE, {"key": "a", "value": n, "operation": "SET"})
                kinds = [(await device.receive())["type"] for _ in range(4)]

    assert [AUTH_SUCCESS, STATE_UPDATE, STATE_UPDATE, STATE_UPDATE] == kinds
