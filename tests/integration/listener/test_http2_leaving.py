"""HTTP/2 clients that leave, stop reading or never finish: each is gone within a deadline.

Gone means: its task has ended, its socket is closed, and its place among the connections is free.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest
import trio
import trio.testing

from support.listener.http_site import HttpSite, answer, http_site, read_all
from support.listener.tls_client import open_tls_stream
from support.listener.ws_raw import DEADLINE, TEXT, H2Link, frame

SIZE = 200_000
"""Above every window and buffer on the way."""
ROOM = 3

Leave = Callable[[H2Link], Awaitable[None]]


async def large(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"x" * SIZE)


async def small(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"ok")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read_all(receive))


async def endless(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})
        await trio.lowlevel.checkpoint()


async def stubborn(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()


ROUTES = {"/": small, "/large": large, "/echo": echo, "/endless": endless, "/stubborn": stubborn}


class H2Client(H2Link):
    """A client of one connection; `window` is what each stream of it may have under way.

    A `frugal` one opens a stream's window only when it is told to.
    """

    frugal = False

    def _take(self, event: h2.events.Event) -> None:
        if self.frugal and isinstance(event, h2.events.DataReceived):
            self.data += event.data
            self.h2.increment_flow_control_window(event.flow_controlled_length)
        else:
            super()._take(event)

    async def begin(self, window: int | None = None) -> None:
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        await self.flush()
        while not self.settled:
            await self.step()

    async def ask(
        self, path: str, stream_id: int = 1, method: str = "GET", end: bool = True
    ) -> None:
        self.id, self.headers, self.over = stream_id, None, False
        fields = {":method": method, ":path": path, ":scheme": "https", ":authority": "a"}
        self.h2.send_headers(stream_id, list(fields.items()), end_stream=end)
        await self.flush()

    async def status(self) -> str:
        """Of the answer to what was asked last."""
        with trio.fail_after(DEADLINE):
            while self.headers is None:
                assert not self.over
                await self.step()
        return self.headers[":status"]

    async def ends(self) -> None:
        """Read to the end of the connection, whatever comes before; a reset is one too."""
        with trio.fail_after(DEADLINE):
            try:
                while await self.stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                pass


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Applications have a moment only to notice that their client is gone."""
    for module in ("http2", "http2_request"):
        monkeypatch.setattr(f"syncbridge_server.listener.{module}.GONE_SECONDS", 0.1)


async def connect(site: HttpSite, window: int | None = None) -> H2Client:
    client = H2Client(await open_tls_stream(site.port, "h2"))
    await client.begin(window)
    return client


@asynccontextmanager
async def small_site(**settings: Any) -> AsyncIterator[HttpSite]:
    values = {"max_connections": ROOM, "write_timeout": 3600, "keep_alive_timeout": 3600.0}
    async with http_site("tls", ROUTES, **(values | {"body_timeout": 3600.0} | settings)) as site:
        yield site


async def has_room(site: HttpSite) -> None:
    """Wait until as many connections as there may be are served at the same time."""
    with trio.fail_after(DEADLINE):
        while not await served_together(site):
            pass


async def served_together(site: HttpSite) -> bool:
    """Whether ROOM connections have a place of their own; one of them gives way where not."""
    clients: list[H2Client] = []
    try:
        for _ in range(ROOM):
            clients.append(await connect(site))
        for client in clients:
            await client.ask("/")
            while not client.over:
                await client.step()
    except (OSError, trio.BrokenResourceError, h2.exceptions.ProtocolError):
        return False
    finally:
        for client in clients:
            await client.abort()
    return all(client.headers and client.headers[":status"] == "200" for client in clients)


async def close(link: H2Link) -> None:
    await link.abort()


async def half_close(link: H2Link) -> None:
    await link.stream.send_eof()  # type: ignore[attr-defined]


async def half_close_of_tcp(link: H2Link) -> None:
    link.stream.socket.shutdown(1)  # type: ignore[attr-defined]


async def reset(link: H2Link) -> None:
    await link.stream.reset()  # type: ignore[attr-defined]


async def goaway(link: H2Link) -> None:
    link.h2.close_connection()
    await link.flush()


LEAVES: dict[str, Leave] = {
    "close": close,
    "half-close": half_close,
    "half-close of TCP": half_close_of_tcp,
    "reset": reset,
    "GOAWAY": goaway,
}


@pytest.mark.parametrize("way", LEAVES)
async def test_leaving_before_the_body(way: str) -> None:
    """Head taken, window 0, then away: no timeout is needed to notice."""
    async with small_site() as site:
        clients = [await connect(site, window=0) for _ in range(ROOM)]
        for client in clients:
            await client.ask("/large")
            assert "200" == await client.status()
            await LEAVES[way](client)

        await has_room(site)
        for client in clients:
            await client.abort()


@pytest.mark.parametrize("path", ["/endless", "/stubborn"])
@pytest.mark.parametrize("way", LEAVES)
@pytest.mark.usefixtures("hurried")
async def test_leaving_an_application_that_goes_on(way: str, path: str) -> None:
    """One that does not notice is cancelled a while after its client has gone."""
    async with small_site() as site:
        clients = [await connect(site, window=0) for _ in range(ROOM)]
        for client in clients:
            await client.ask(path)
            await LEAVES[way](client)

        await has_room(site)
        for client in clients:
            await client.abort()


async def test_a_window_that_stays_closed() -> None:
    """The stream is cancelled after the write timeout, and the connection goes on."""
    async with small_site(write_timeout=0.2) as site:
        client = await connect(site, window=0)
        await client.ask("/large")
        assert "200" == await client.status()
        with trio.fail_after(DEADLINE):
            while not client.over:
                await client.step()
        assert b"" == client.data
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        await client.ask("/large", 3)

        assert SIZE == len(await everything(client))
        await client.abort()


async def everything(client: H2Client) -> bytes:
    with trio.fail_after(DEADLINE):
        while not client.over:
            await client.step()
    return bytes(client.data)


async def test_a_window_that_stays_closed_and_a_client_that_is_silent() -> None:
    """After the write timeout its stream is gone, after the keep-alive timeout the connection."""
    async with small_site(write_timeout=0.1, keep_alive_timeout=0.1) as site:
        clients = [await connect(site, window=0) for _ in range(ROOM)]
        for client in clients:
            await client.ask("/large")

        for client in clients:
            await client.ends()
            await client.abort()


async def test_a_slow_reader_is_served_to_the_end(mock_clock: trio.testing.MockClock) -> None:
    """The write timeout counts from the last byte that was taken."""
    async with small_site(write_timeout=10.0) as site:
        client = await connect(site, window=0)
        await client.ask("/large")
        assert "200" == await client.status()
        client.frugal = True
        for granted in range(20_000, SIZE + 1, 20_000):
            mock_clock.jump(4.0)
            client.h2.increment_flow_control_window(20_000, 1)
            await client.flush()
            while len(client.data) < granted:
                await client.step()
                assert not client.was_reset

        await client.abort()


@pytest.mark.usefixtures("hurried")
async def test_a_reader_that_takes_nothing_of_tcp() -> None:
    """Windows wide open, but the socket is never read: the write timeout ends the connection."""
    async with small_site(write_timeout=0.2) as site:
        clients = [await connect(site, window=2**31 - 1) for _ in range(ROOM)]
        for client in clients:
            client.h2.increment_flow_control_window(2**30)
            await client.ask("/endless")

        await has_room(site)
        for client in clients:
            await client.abort()


async def test_the_application_waits_for_a_closed_window() -> None:
    """A stream that nobody takes is not made in memory."""
    pieces: list[int] = []

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            pieces.append(number)
            await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})
            await trio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b""})

    async with http_site("tls", {"/": counting}) as site:
        client = await connect(site, window=0)
        await client.ask("/")
        assert "200" == await client.status()
        await trio.testing.wait_all_tasks_blocked(0.05)
        made = len(pieces)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        await client.flush()

        assert made <= 4
        assert 100 * 16_384 == len(await everything(client))
        await client.abort()


@pytest.mark.parametrize("path", ["/large", "/endless", "/stubborn"])
@pytest.mark.usefixtures("hurried")
async def test_a_stream_that_is_reset(path: str) -> None:
    """RST_STREAM at window 0, then silence: the connection is idle and ends as an idle one."""
    async with small_site(keep_alive_timeout=0.2) as site:
        clients = [await connect(site, window=0) for _ in range(ROOM)]
        for client in clients:
            await client.ask(path)
            client.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
            await client.flush()

        for client in clients:
            await client.ends()
            await client.abort()


async def test_a_stream_that_is_reset_harms_nobody() -> None:
    """The next one of the connection is answered."""
    async with small_site() as site:
        client = await connect(site, window=0)
        for stream_id in range(1, 41, 2):
            await client.ask("/large", stream_id)
            assert "200" == await client.status()
            client.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        await client.ask("/large", 41)

        assert SIZE == len(await everything(client))
        await client.abort()


async def test_a_body_that_does_not_come() -> None:
    """408 on its stream after the body timeout; the connection goes on."""
    async with small_site(body_timeout=0.2) as site:
        client = await connect(site)
        await client.ask("/echo", method="POST", end=False)

        assert "408" == await client.status()
        await everything(client)
        await client.ask("/", 3)
        assert "200" == await client.status()
        await client.abort()


async def test_a_body_above_the_bound() -> None:
    """413, as in HTTP/1.1."""
    async with small_site(max_body_bytes=1_000) as site:
        client = await connect(site)
        await client.ask("/echo", method="POST", end=False)
        client.h2.send_data(1, b"x" * 1_001)
        await client.flush()

        assert "413" == await client.status()
        await client.abort()


async def test_a_body_that_nobody_reads() -> None:
    """More pieces than are kept for the application, which has answered and is gone."""
    async with small_site() as site:
        client = await connect(site)
        await client.ask("/", method="POST", end=False)
        for _ in range(40):
            client.h2.send_data(1, b"x" * 100)
            await client.flush()
        assert "200" == await client.status()
        await everything(client)
        await client.ask("/", 3)
        assert "200" == await client.status()
        await client.abort()

        await has_room(site)


async def test_a_crash_within_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The stream is reset, so that the client cannot take what it got for the whole."""

    async def crash(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise ValueError("a bug")

    async with http_site("tls", {"/": crash, "/small": small}) as site:
        client = await connect(site)
        await client.ask("/")
        assert b"part".startswith(await everything(client))
        assert client.was_reset
        await client.ask("/small", 3)
        assert "200" == await client.status()
        await client.abort()

    errors = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["request failed"] == errors


async def test_a_connection_with_many_requests() -> None:
    """Hypercorn's bound of 1,000 would take the next request and not answer it."""
    async with small_site() as site:
        client = await connect(site)
        for number in range(1_010):
            await client.ask("/", 2 * number + 1)
            assert "200" == await client.status()
            await everything(client)
        await client.abort()


@pytest.mark.parametrize("way", LEAVES)
async def test_websockets_whose_client_leaves(way: str) -> None:
    """The sink hears of it, also when the window was closed and much was waiting."""
    async with small_site() as site:
        client = await connect(site, window=0)
        fields = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "https",
            ":path": "/ws",
        }
        fields |= {":authority": "127.0.0.1", "sec-websocket-version": "13"}
        client.h2.send_headers(1, list(fields.items()))
        await client.flush()
        assert "200" == await client.status()
        client.h2.send_data(1, frame(TEXT, b"count 10000"))
        await client.flush()
        await LEAVES[way](client)

        await site.sink.how_ended()
        await has_room(site)
        await client.abort()


async def test_a_websocket_whose_window_stays_closed() -> None:
    """After the write timeout its stream is cancelled, and the sink is told."""
    async with small_site(write_timeout=0.2) as site:
        client = await connect(site, window=0)
        fields = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "https",
            ":path": "/ws",
        }
        fields |= {":authority": "127.0.0.1", "sec-websocket-version": "13"}
        client.h2.send_headers(1, list(fields.items()))
        await client.flush()
        assert "200" == await client.status()
        client.h2.send_data(1, frame(TEXT, b"count 10000"))
        await client.flush()

        await site.sink.how_ended()
        await everything(client)
        assert client.was_reset
        await client.abort()


@pytest.mark.parametrize(("method", "path"), [("GET", "/é"), ("GÉT", "/")])
async def test_a_target_that_is_not_ascii_ends_its_stream_only(method: str, path: str) -> None:
    """PROTOCOL_ERROR for the stream, as for any malformed request (RFC 9113 section 8.1.1)."""
    async with small_site() as site:
        client = await connect(site)
        await client.ask(path, method=method)
        with trio.fail_after(DEADLINE):
            while not client.over:
                await client.step()
        assert (True, None) == (client.was_reset, client.headers)
        await client.ask("/", 3)
        assert "200" == await client.status()
        await client.abort()


async def test_requests_that_come_in_a_stop_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Also behind the GOAWAY that the end of the last request brings; nothing is logged."""
    async with small_site() as site:
        client = await connect(site, window=0)
        for stream_id in range(1, 7, 2):
            await client.ask("/", stream_id)
            assert "200" == await client.status()
        site.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        for stream_id in range(1, 7, 2):
            client.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        for stream_id in range(7, 47, 2):
            fields = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "a"}
            client.h2.send_headers(stream_id, list(fields.items()), end_stream=True)
        await client.flush()
        await client.ends()
        await client.abort()

    assert [] == [record.message for record in caplog.records if record.levelname == "ERROR"]
