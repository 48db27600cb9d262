"""A graceful stop: in which order things end, and what a client notices of it."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from support.listener.listener_site import (
    SUBPROTOCOLS,
    EchoSink,
    certificate,
    lifespan,
    port_of,
)
from support.listener.tls_client import open_tls_stream
from support.listener.ws_raw import DEADLINE, StreamLink, open_plain, open_tls, read_answer
from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.serve import serve


class Stage:
    """A server whose one route waits until it is released, and a log of what happened."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.sink = EchoSink()
        self.started = trio.Event()
        self.release = trio.Event()
        self.stop = trio.Event()
        self.stopped = trio.Event()
        self.port = 0
        self.secure = False

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            self.log.append("lifespan shutdown")
            return
        if scope["path"] == "/slow":
            self.started.set()
            await self.release.wait()
        self.log.append("answer")
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    def on_stop(self) -> None:
        self.log.append("not ready")
        self.sink.refusal = Refusal(503, "draining", "comes back soon", 1)

    async def drain(self) -> None:
        self.log.append("drain")
        await self.sink.drain()

    async def run(self, config: ListenerConfig, task_status: Any) -> None:
        await serve(
            self.app,
            config,
            self.sink,
            shutdown_trigger=self.stop.wait,
            drain=self.drain,
            on_stop=self.on_stop,
            task_status=task_status,
        )
        self.stopped.set()

    async def connect(self) -> StreamLink:
        if self.secure:
            return StreamLink(await open_tls_stream(self.port))
        return StreamLink(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def get(self, path: bytes) -> StreamLink:
        link = await self.connect()
        await link.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        return link

    async def end(self) -> None:
        with trio.fail_after(DEADLINE):
            await self.stopped.wait()


@pytest.fixture(params=["plain", "tls"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[30.0])
async def stage(request: pytest.FixtureRequest, way: str, tmp_path: Path) -> AsyncIterator[Stage]:
    certfile, keyfile = certificate(tmp_path) if way == "tls" else (None, None)
    config = ListenerConfig(
        binds=("127.0.0.1:0",),
        subprotocols=SUBPROTOCOLS,
        drain_timeout=request.param,
        certfile=certfile,
        keyfile=keyfile,
    )
    async with trio.open_nursery() as nursery:
        stage = Stage()
        stage.secure = way == "tls"
        nursery.start_soon(stage.sink.run)
        stage.port = port_of(await nursery.start(partial(_start, stage, config)))
        yield stage
        nursery.cancel_scope.cancel()


async def _start(stage: Stage, config: ListenerConfig, *, task_status: Any) -> None:
    await stage.run(config, task_status)


async def test_the_order_of_a_stop(stage: Stage) -> None:
    """Not ready first; sockets are asked to go while a running request ends; lifespan last."""
    client = (await (open_tls if stage.secure else open_plain)(stage.port)).open
    slow = await stage.get(b"/slow")
    await stage.started.wait()
    stage.stop.set()

    assert (1012, "server restarts") == await client.closing()
    with pytest.raises(OSError, match=r"refused|connect"):
        await stage.connect()
    stage.release.set()
    assert b"ok" == (await read_answer(slow)).body
    await stage.end()
    assert ["not ready", "drain", "answer", "lifespan shutdown"] == stage.log
    for link in (client.link, slow):
        await link.abort()


async def test_a_running_request_has_the_whole_drain(
    stage: Stage, mock_clock: trio.testing.MockClock
) -> None:
    """What hurries idle connections leaves it alone, also when it takes long."""
    slow = await stage.get(b"/slow")
    await stage.started.wait()
    stage.stop.set()
    for _ in range(10):
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(2.0)
    stage.release.set()

    assert b"ok" == (await read_answer(slow)).body
    await slow.abort()


async def test_a_websocket_has_the_whole_drain(
    stage: Stage, mock_clock: trio.testing.MockClock
) -> None:
    """A client that takes its time for the closing handshake is waited for."""
    client = (await (open_tls if stage.secure else open_plain)(stage.port)).open
    stage.stop.set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    mock_clock.jump(3.0)
    await trio.testing.wait_all_tasks_blocked(0.01)

    assert (1012, "server restarts") == await client.closing()
    await client.link.abort()
    await stage.stopped.wait()


async def test_an_idle_connection_does_not_hold_the_stop(stage: Stage) -> None:
    """Kept-alive connections without a request are closed, silent ones after a second."""
    idle = await stage.get(b"/")
    assert b"ok" == (await read_answer(idle)).body
    silent = await stage.connect()
    stage.stop.set()

    await stage.end()
    for link in (idle, silent):
        assert b"" == await link.receive()
        await link.abort()


async def test_a_kept_connection_is_told_to_go(stage: Stage) -> None:
    """A new request on one that was served before is 503 with Retry-After, and its last."""
    kept = await stage.get(b"/")
    assert b"ok" == (await read_answer(kept)).body
    stage.stop.set()
    await trio.testing.wait_all_tasks_blocked()
    await kept.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    refused = await read_answer(kept)

    assert (503, "1") == (refused.status, refused.headers["retry-after"])
    assert b'"draining"' in refused.body
    assert "close" == refused.headers["connection"]
    await kept.abort()


async def test_who_has_connected_already_gets_an_answer(stage: Stage) -> None:
    """A request in the accept queue at the moment of the stop is answered, not reset."""
    stage.stop.set()
    late = await stage.get(b"/")

    assert b"ok" == (await read_answer(late)).body
    await late.abort()


@pytest.mark.parametrize("stage", [0.2], indirect=True)
async def test_what_does_not_end_is_cut_off(stage: Stage) -> None:
    """After the drain timeout a request that hangs is dropped, and the stop goes on."""
    slow = await stage.get(b"/slow")
    await stage.started.wait()
    stage.stop.set()

    await stage.end()
    assert ["not ready", "drain", "lifespan shutdown"] == stage.log
    assert b"" == await slow.receive()
    await slow.abort()


async def test_an_address_in_use_is_an_error(stage: Stage) -> None:
    """Binding fails at once, before the application starts."""
    config = ListenerConfig(binds=(f"127.0.0.1:{stage.port}",))

    with pytest.raises(OSError, match="in use"):
        await serve(stage.app, config, stage.sink, shutdown_trigger=stage.stop.wait)


async def test_an_application_that_fails_to_start_is_an_error() -> None:
    """A failed lifespan startup ends serve, and nothing listens any more."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no store"})

    sink = EchoSink()
    config = ListenerConfig(binds=("127.0.0.1:0",))
    try:
        with pytest.raises(BaseExceptionGroup) as raised:
            await serve(broken, config, sink, shutdown_trigger=trio.sleep_forever)
    finally:
        sink.hub.shutdown()

    assert "no store" in str(raised.value.exceptions[0])
