"""The ASGI bridge alone, with messages instead of a server: what the sink and the client learn."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from support.listener.listener_site import SUBPROTOCOLS, EchoSink
from support.listener.ws_raw import DEADLINE
from syncbridge_server.listener.bridge import explain_refusal, websocket_bridge
from syncbridge_server.listener.contract import ListenerConfig, Refusal

CONFIG = ListenerConfig(subprotocols=SUBPROTOCOLS)
SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/ws",
    "query_string": b"",
    "headers": [(b"host", b"app.example")],
    "client": ("192.0.2.7", 5000),
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}


class Peer:
    """The ASGI server's side: messages to the application and messages from it."""

    def __init__(self, sink: EchoSink) -> None:
        self.sink = sink
        self.over = trio.Event()
        self._in, self._receive = trio.open_memory_channel[dict[str, Any]](100)
        self._send, self._out = trio.open_memory_channel[dict[str, Any]](100)

    async def run(self, scope: dict[str, Any]) -> None:
        receive, send = self._receive.receive, self._send.send
        await websocket_bridge(scope, receive, send, self.sink, CONFIG)
        self.over.set()

    async def put(self, kind: str, **fields: Any) -> None:
        await self._in.send({"type": f"websocket.{kind}", **fields})

    async def get(self) -> dict[str, Any]:
        with trio.fail_after(DEADLINE):
            return await self._out.receive()

    async def ended(self) -> None:
        with trio.fail_after(DEADLINE):
            await self.over.wait()


@pytest.fixture
async def sink() -> AsyncIterator[EchoSink]:
    async with trio.open_nursery() as nursery:
        sink = EchoSink()
        nursery.start_soon(sink.run)
        yield sink
        nursery.cancel_scope.cancel()


@pytest.fixture
async def peer(sink: EchoSink) -> AsyncIterator[Peer]:
    """A bridge that runs; `connect` has not been sent."""
    async with trio.open_nursery() as nursery:
        peer = Peer(sink)
        nursery.start_soon(peer.run, SCOPE)
        yield peer
        nursery.cancel_scope.cancel()


async def accepted(peer: Peer) -> None:
    await peer.put("connect")
    assert "websocket.accept" == (await peer.get())["type"]


async def test_text_goes_both_ways(peer: Peer) -> None:
    """A text message of the client comes back from the sink as one."""
    await accepted(peer)
    await peer.put("receive", text="h\u00e9llo", bytes=None)

    assert {"type": "websocket.send", "text": "h\u00e9llo"} == await peer.get()


async def test_the_clients_code_reaches_the_sink(peer: Peer) -> None:
    """`disconnect` with a code closes the sink's connection with that code."""
    await accepted(peer)
    await peer.put("disconnect", code=4321)

    assert 4321 == (await peer.sink.how_ended())[0]
    await peer.ended()


@pytest.mark.parametrize(("code", "seen"), [(1005, 1005), (1006, 1006), (None, 1005)])
async def test_codes_that_no_frame_may_carry(peer: Peer, code: int | None, seen: int) -> None:
    """No code is an empty close frame, a lost client is the end of the stream."""
    await accepted(peer)
    await peer.put("disconnect", **({"code": code} if code else {}))

    assert seen == (await peer.sink.how_ended())[0]
    await peer.ended()


async def test_the_sinks_code_reaches_the_client(peer: Peer) -> None:
    """A close of the sink is `websocket.close`; then the client's leave is awaited."""
    await accepted(peer)
    await peer.put("receive", text="close 4009 again")

    assert {"type": "websocket.close", "code": 4009, "reason": "again"} == await peer.get()
    assert not peer.over.is_set()
    await peer.put("receive", text="too late")
    await peer.put("disconnect", code=4009)
    await peer.ended()


async def test_an_abort_of_the_sink_is_an_internal_error_to_the_client(peer: Peer) -> None:
    """ASGI has no way to cut a connection; 1011 tells the client to come back."""
    await accepted(peer)
    await peer.put("receive", text="abort")

    assert 1011 == (await peer.get())["code"]


async def test_a_client_that_never_leaves_is_left(
    sink: EchoSink, autojump_clock: trio.testing.MockClock
) -> None:
    """Some seconds after the sink's close the bridge ends, `disconnect` or not."""
    async with trio.open_nursery() as nursery:
        peer = Peer(sink)
        nursery.start_soon(peer.run, SCOPE)
        await accepted(peer)
        await peer.put("receive", text="close 4009 x")
        assert 4009 == (await peer.get())["code"]

        await peer.ended()


async def test_the_scope_decides_what_is_agreed(sink: EchoSink) -> None:
    """Subprotocol, request id and client address come from the scope."""
    scope = SCOPE | {
        "subprotocols": ["chat", "syncbridge.proto.v1"],
        "headers": [(b"host", b"app.example"), (b"x-request-id", b"mine")],
    }
    async with trio.open_nursery() as nursery:
        peer = Peer(sink)
        nursery.start_soon(peer.run, scope)
        await peer.put("connect")
        answer = await peer.get()
        nursery.cancel_scope.cancel()

    assert {
        "type": "websocket.accept",
        "subprotocol": "syncbridge.proto.v1",
        "headers": [(b"x-request-id", b"mine")],
    } == answer
    assert ["192.0.2.7"] == sink.clients


async def refusals(sink: EchoSink, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Every message of a bridge that refuses."""
    peer = Peer(sink)
    await peer.put("connect")
    await peer.run(scope)
    peer._send.close()
    return [message async for message in peer._out]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"query_string": b"token=x"}, 400),
        ({"headers": [(b"host", b"a"), (b"origin", b"https://b")]}, 403),
        ({"headers": [(b"host", b"a"), (b"host", b"b")]}, 400),
        ({"headers": [(b"host", b"a"), (b"sec-websocket-version", b"8")]}, 426),
    ],
)
async def test_refusals_are_problem_documents(
    sink: EchoSink, changed: dict[str, Any], status: int
) -> None:
    """With the response extension the client gets status and body, and the sink is not asked."""
    start, body = await refusals(sink, SCOPE | changed)

    assert ("websocket.http.response.start", status) == (start["type"], start["status"])
    assert b'"code"' in body["body"]
    assert [] == sink.clients


async def test_a_refusal_without_the_extension_is_a_close(sink: EchoSink) -> None:
    """A server that cannot send a response closes instead of accepting."""
    sink.refusal = Refusal(503, "draining", "later")

    assert ["websocket.close"] == [
        message["type"] for message in await refusals(sink, SCOPE | {"extensions": {}})
    ]


async def asked_plainly(sink: EchoSink, **changed: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and code of the answer to a plain request at the path."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = SCOPE | {"type": "http", "http_version": "1.1"} | changed
    await explain_refusal(scope, trio.sleep_forever, send, sink, CONFIG)  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])["code"]


async def test_plain_http_at_the_path_is_asked_to_upgrade(sink: EchoSink) -> None:
    """426 names the protocol, in HTTP/1.1 where an upgrade can be asked for."""
    status, headers, _ = await asked_plainly(sink)

    assert (426, b"websocket") == (status, headers[b"upgrade"])


async def test_plain_http_at_the_path_is_told_why_a_handshake_would_be_refused(
    sink: EchoSink,
) -> None:
    """A page sees 1006 and nothing else of a refused handshake; this is where it can ask."""
    foreign = [(b"host", b"a"), (b"origin", b"https://b")]
    assert (403, "origin_refused") == (await asked_plainly(sink, headers=foreign))[::2]
    assert (400, "token_in_url") == (await asked_plainly(sink, query_string=b"token=x"))[::2]

    sink.refusal = Refusal(503, "draining", "later", 7)
    status, headers, code = await asked_plainly(sink)
    assert (503, b"7", "draining") == (status, headers[b"retry-after"], code)
    assert b"upgrade" not in headers
