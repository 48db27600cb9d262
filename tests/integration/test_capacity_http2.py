"""HTTP/2 clients that take no answer, or send no body, keep nobody out, however they go about it.

Each test fills a bound with such clients, of both ways into HTTP/2, and asks beside them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import pytest
import trio
import trio.testing

from integration.listener.test_http2_leaving import H2Client, hurried
from integration.test_capacity import PROBE, Held, routes, until
from support.listener.http_site import HttpSite, answer, get, http_site
from support.listener.tls_client import open_tls_stream
from support.listener.ws_raw import DEADLINE, TEXT, frame
from syncbridge_server.listener import capacity, http2_restless

LARGE = 100_000
NEVER: dict[str, Any] = {
    "write_timeout": 3600.0,
    "body_timeout": 3600.0,
    "keep_alive_timeout": 3600.0,
}


async def large(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"x" * LARGE)


async def endless(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})


__all__ = ["hurried"]


@pytest.fixture(params=["tls", "plain"])
def way(request: pytest.FixtureRequest) -> str:
    """TLS with ALPN, and plain TCP with prior knowledge."""
    return str(request.param)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes its answers at the rate that is asked for has all the time in the world."""
    monkeypatch.setattr(capacity, "STALL_SECONDS", 3600.0)


@asynccontextmanager
async def site_of(way: str, held: Held | None = None, **settings: Any) -> AsyncIterator[HttpSite]:
    served = routes(held) | {"/large": large, "/endless": endless}
    knows = {"http2_prior_knowledge": way == "plain"}
    async with http_site(way, served, **(NEVER | knows | PROBE | settings)) as site:
        yield site


async def connect(site: HttpSite, window: int | None = None) -> H2Client:
    if site.way == "tls":
        client = H2Client(await open_tls_stream(site.port, "h2"))
    else:
        client = H2Client(await trio.open_tcp_stream("127.0.0.1", site.port))
    await client.begin(window)
    return client


async def synced(client: H2Client) -> list[h2.events.Event]:
    """Wait until the server has done with what it was sent; returns what it had to say."""
    client.h2.ping(b"have you")
    await client.flush()
    events: list[h2.events.Event] = []
    with trio.fail_after(DEADLINE):
        while not any(isinstance(event, h2.events.PingAckReceived) for event in events):
            came = client.h2.receive_data(bytes(await client.stream.receive_some(65_536)))
            for event in came:
                client._take(event)
            events += came
            await client.flush()
    await trio.testing.wait_all_tasks_blocked(0.01)
    return events


async def ask_many(
    client: H2Client, path: str, ids: range, body: bool = False
) -> list[h2.events.Event]:
    """Ask so often; with a body that never comes, if so."""
    for stream_id in ids:
        await client.ask(path, stream_id, "POST" if body else "GET", end=not body)
    return await synced(client)


async def reset(client: H2Client, ids: range) -> None:
    for stream_id in ids:
        try:
            client.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.StreamClosedError:
            pass  # the server was faster
    await client.flush()


async def hang_up(*clients: H2Client) -> None:
    for client in clients:
        await client.abort()


async def over_http2(site: HttpSite, path: str) -> tuple[str, bytes]:
    """What a new client is answered."""
    client = await connect(site)
    await client.ask(path)
    status = await client.status()
    with trio.fail_after(DEADLINE):
        while not client.over:
            await client.step()
    await client.abort()
    return status, bytes(client.data)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("path", ["/probe", "/", "/large"])
async def test_answers_that_nobody_takes_keep_no_request_out(way: str, path: str) -> None:
    """Window 0: their applications are done, so their places are free; reset or not."""
    limits = {"max_requests": 2, "max_probes": 2}
    async with site_of(way, **limits) as site:
        clients = [await connect(site, window=0) for _ in range(2)]
        for start in (1, 101, 201):
            ids = range(start, start + 40, 2)
            for client in clients:
                await ask_many(client, path, ids)
            for _ in range(3):
                assert (200, b"hello") == ((r := await site.ask(get("/probe"))).status, r.body)
                assert (200, b"hello") == ((r := await site.ask(get())).status, r.body)
                assert ("200", b"hello") == await over_http2(site, "/")
            if start != 101:
                for client in clients:
                    await reset(client, ids)
        await hang_up(*clients)


async def test_large_answers_that_nobody_takes_are_few(way: str) -> None:
    """One may wait without a place; of more, only as many as there are places are kept."""
    async with site_of(way, max_requests=2) as site:
        client = await connect(site, window=0)
        events = await ask_many(client, "/large", range(1, 41, 2))
        events += await synced(client)
        asked = [event for event in events if isinstance(event, h2.events.ResponseReceived)]
        large = {
            e.stream_id for e in asked if ("content-length", "100000") in list(e.headers or [])
        }
        large -= {e.stream_id for e in events if isinstance(e, h2.events.StreamReset)}
        await client.abort()

    assert 1 <= len(large) <= 3


async def bodies(client: H2Client) -> None:
    await ask_many(client, "/echo", range(1, 7, 2), body=True)


async def stalled(client: H2Client) -> None:
    await ask_many(client, "/endless", range(1, 7, 2))


async def untaken(client: H2Client) -> None:
    await ask_many(client, "/", range(1, 7, 2))


async def mixed(client: H2Client) -> None:
    await ask_many(client, "/echo", range(1, 7, 2), body=True)
    await ask_many(client, "/endless", range(7, 13, 2))


async def window_by_byte(client: H2Client) -> None:
    await ask_many(client, "/endless", range(1, 7, 2))
    for _ in range(3):
        client.h2.increment_flow_control_window(1, 1)
        await client.flush()
        await synced(client)


async def body_by_byte(client: H2Client) -> None:
    await ask_many(client, "/echo", range(1, 7, 2), body=True)
    for _ in range(3):
        client.h2.send_data(1, b"x")
        await client.flush()
        await synced(client)


async def asked_anew(client: H2Client) -> None:
    for start in (1, 11, 21):
        await ask_many(client, "/endless", range(start, start + 6, 2))
        await reset(client, range(start, start + 6, 2))
    await ask_many(client, "/endless", range(31, 37, 2))


async def refused_websockets(client: H2Client) -> None:
    for stream_id in range(1, 7, 2):
        await websocket(client, stream_id, "/nowhere")
    await synced(client)


async def websocket(client: H2Client, stream_id: int, path: str) -> None:
    client.id, client.headers, client.over = stream_id, None, False
    fields = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": path}
    fields |= {":authority": "a", "sec-websocket-version": "13"}
    client.h2.send_headers(stream_id, list(fields.items()))
    await client.flush()


SHAPES: list[Callable[[H2Client], Any]] = [
    bodies,
    stalled,
    untaken,
    mixed,
    window_by_byte,
    body_by_byte,
    asked_anew,
    refused_websockets,
]


@pytest.mark.usefixtures("patient", "hurried")
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_connection_whose_streams_all_wait_gives_way(
    way: str, shape: Callable[[H2Client], Any]
) -> None:
    """Each newcomer is served, whatever the older ones wait for."""
    async with site_of(way, max_connections=2) as site:
        clients = []
        for _ in range(3):
            clients.append(await connect(site, window=0))
            await shape(clients[-1])
        for _ in range(3):
            assert (200, b"hello") == ((r := await site.ask(get())).status, r.body)
            assert ("200", b"hello") == await over_http2(site, "/")
        await clients[0].ends()
        await hang_up(*clients)


@pytest.mark.usefixtures("patient")
async def test_a_connection_with_one_stream_that_is_worked_on_stays(way: str) -> None:
    """Whatever its other streams wait for; the newcomer is refused."""
    held = Held()
    async with site_of(way, held, max_connections=1) as site:
        client = await connect(site, window=0)
        await mixed(client)
        await client.ask("/held", 13)
        await until(lambda: held.begun == 1)
        assert 503 == (await site.ask(get())).status
        held.go.set()
        assert "200" == await client.status()
        await client.abort()


async def test_an_open_websocket_is_work(way: str) -> None:
    """Its connection stays, although nothing is said and other streams wait."""
    async with site_of(way, max_connections=1) as site:
        client = await connect(site)
        await websocket(client, 1, "/ws")
        assert "200" == await client.status()
        await ask_many(client, "/echo", range(3, 7, 2), body=True)
        assert 503 == (await site.ask(get())).status

        client.id = 1
        client.h2.send_data(1, frame(TEXT, b"still here"))
        await client.flush()
        with trio.fail_after(DEADLINE):
            while b"still here" not in client.data:
                await client.step()
        await client.abort()


@pytest.mark.usefixtures("patient")
async def test_a_client_that_takes_its_answer_stays(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the rate that is asked for; its window is closed most of the time nevertheless."""
    monkeypatch.setattr("syncbridge_server.listener.uptake.TAKEN_RATE", 1)
    async with site_of(way, max_connections=1) as site:
        client = await connect(site)
        client.frugal = True
        await client.ask("/endless")
        for _ in range(3):
            await synced(client)
            assert 503 == (await site.ask(get())).status
            client.h2.increment_flow_control_window(16_384, 1)
            await client.flush()
            size = len(client.data)
            with trio.fail_after(DEADLINE):
                while len(client.data) == size:
                    await client.step()
        await client.abort()


async def test_a_client_that_does_not_read_keeps_no_request_out(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows are open, but TCP is full, so that even the heads of answers wait."""
    monkeypatch.setattr(capacity, "STALL_SECONDS", 0.05)
    async with site_of(way, max_requests=2) as site:
        client = await connect(site, window=2**31 - 1)
        client.h2.increment_flow_control_window(2**30)
        for stream_id in range(1, 41, 2):
            await client.ask("/endless", stream_id)
        with trio.fail_after(DEADLINE):
            while (reply := await site.ask(get())).status != 200:
                assert 503 == reply.status
        await client.abort()

    assert b"hello" == reply.body


async def test_a_websocket_that_is_refused_does_not_stop_the_connection(way: str) -> None:
    """Its answer waits for the window, and the connection is read all the same."""
    async with site_of(way) as site:
        client = await connect(site, window=0)
        await websocket(client, 1, "/nowhere")
        assert "404" == await client.status()
        await client.ask("/", 3)
        assert "200" == await client.status()
        await client.abort()


async def test_streams_that_are_reset_at_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many applications as a connection may have streams go on; more are refused."""
    monkeypatch.setattr(http2_restless, "RESET_COST", 0.0)  # so many would be a flood
    held = Held()
    async with site_of(way, held) as site:
        client = await connect(site)
        for start in range(1, 801, 100):
            await ask_many(client, "/held", range(start, start + 100, 2))
            await reset(client, range(start, start + 100, 2))
        await synced(client)
        begun = held.begun
        assert (200, b"hello") == ((r := await site.ask(get())).status, r.body)
        held.go.set()
        await synced(client)
        await client.ask("/", 901)
        assert "200" == await client.status()
        await client.abort()

    assert begun == 200
