"""Whoever is silent or slow keeps nobody out; probes are answered when everything is full."""

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from integration.listener.test_listener_faults import UPGRADE, connect, ended, open_h2
from support.hub_kit import descriptors
from support.listener.http_site import (
    HttpSite,
    Peer,
    Reply,
    answer,
    get,
    http_site,
    post,
    read_all,
)
from support.listener.listener_site import Site, open_site
from support.listener.tls_client import open_tls_stream
from support.listener.ws_raw import DEADLINE, H2Link, StreamLink, open_plain, read_answer
from syncbridge_server.listener import capacity

ATTACKER = "127.0.0.2"
SLOW_BODY = get("/echo", "Content-Length: 10", method="POST")
PROBE = {"probe_paths": frozenset({"/probe"})}


class Held:
    """An application whose request is held until `go`; `begun` counts them."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        await self.go.wait()
        await answer(send, b"held")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read_all(receive))


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


def routes(held: Held | None = None) -> dict[str, Any]:
    return {"/": hello, "/echo": echo, "/probe": hello, "/held": held or Held()}


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the server has come so far."""
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def attack(
    port: int, count: int, data: bytes = b"", address: str = ATTACKER
) -> list[trio.SocketStream]:
    """So many connections of another address that say so much and no more."""
    streams = []
    for _ in range(count):
        stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=address)
        if data:
            await stream.send_all(data)
        streams.append(stream)
    return streams


async def hang_up(streams: list[trio.SocketStream]) -> None:
    for stream in streams:
        await trio.aclose_forcefully(stream)


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"GET /w", UPGRADE[:-4]])
async def test_silent_connections_keep_no_handshake_out(tmp_path: Path, said: bytes) -> None:
    """With the real bounds: 1,100 sockets that say nothing, or half of it, and 60 handshakes."""
    with descriptors(4_096):
        async with open_site(tmp_path, "plain") as site:
            streams = await attack(site.ports["plain"], 1_100, said)
            answers = [await open_plain(site.ports["plain"]) for _ in range(60)]
            slow = StreamLink(await trio.open_tcp_stream("127.0.0.1", site.ports["plain"]))
            await slow.send(UPGRADE[:20])
            await trio.testing.wait_all_tasks_blocked(0.01)
            await slow.send(UPGRADE[20:])
            answers.append(await read_answer(slow))
            for one in answers:
                await one.link.abort()
            await hang_up(streams)

    assert {101} == {one.status for one in answers}


@pytest.mark.parametrize(("said", "status"), [(b"", 0), (b"GET /w", 503), (UPGRADE[:-2], 503)])
async def test_the_oldest_unfinished_handshake_gives_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: bytes, status: int
) -> None:
    """It is told why if it has said something; the newer one stays and is served."""
    async with open_site(tmp_path, "plain", max_handshakes=2) as site:
        held = [await connect(site) for _ in range(2)]
        for link in held:
            await link.send(said)
            await trio.testing.wait_all_tasks_blocked(0.01)
        third = await connect(site)
        if status:
            told = await read_answer(held[0])
            assert (status, "overloaded") == (told.status, json.loads(told.body)["code"])
        assert await ended(held[0])
        for link, rest in ((held[1], UPGRADE[len(said) :]), (third, UPGRADE)):
            await link.send(rest)
            assert 101 == (await read_answer(link)).status
            await link.abort()

    assert 1 == sum("bound of 2 handshakes" in message for message in caplog.messages)


async def half_head(site: HttpSite) -> Peer:
    peer = await site.connect()
    await peer.send(get("/")[:-4])
    return peer


async def half_line(site: HttpSite) -> Peer:
    peer = await site.connect()
    await peer.send(b"PO")
    return peer


async def empty_lines(site: HttpSite) -> Peer:
    peer = await site.connect()
    await peer.send(b"\r")
    return peer


async def kept_alive(site: HttpSite) -> Peer:
    peer = await site.connect()
    assert 200 == (await peer.ask(get())).status
    return peer


async def half_body(site: HttpSite) -> Peer:
    peer = await site.connect()
    await peer.send(SLOW_BODY + b"abc")
    return peer


async def half_rest(site: HttpSite) -> Peer:
    """The answer came before the body, whose rest is read and dropped."""
    peer = await site.connect()
    assert 200 == (await peer.ask(get("/", "Content-Length: 10", method="POST"))).status
    return peer


KINDS = {
    half_line: "503",
    half_head: "503",
    empty_lines: "503",
    half_body: "503",
    kept_alive: "",
    half_rest: "",
}


@pytest.mark.parametrize("way", ["plain", "tls"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_oldest_connection_that_waits_gives_way(
    way: str, kind: Callable[[HttpSite], Awaitable[Peer]]
) -> None:
    """A new one is answered at once; the newer one that waits is left alone."""
    async with http_site(way, routes(), max_connections=2) as site:
        old = await kind(site)
        await trio.testing.wait_all_tasks_blocked(0.01)
        newer = await kept_alive(site)

        assert b"hello" == (await site.ask(get())).body
        if KINDS[kind]:
            reply = await old.reply()
            assert (503, "overloaded", "1") == (
                reply.status,
                reply.code,
                reply.headers["retry-after"],
            )
        assert await old.ended()
        assert b"hello" == (await newer.ask(get())).body


async def test_a_handshake_of_tls_gives_way() -> None:
    """Neither silent connections nor half a ClientHello keep TLS clients out."""
    hello_part = b"\x16\x03\x01\x02\x00\x01\x00"
    async with http_site("tls", routes(), max_connections=2) as site:
        stuck = await attack(site.port, 4, hello_part)
        await trio.testing.wait_all_tasks_blocked(0.01)
        replies = [await site.ask(get()) for _ in range(3)]
        for stream in stuck[:3]:
            with trio.fail_after(DEADLINE):
                assert b"" == await stream.receive_some(1)
        await hang_up(stuck)

    assert [b"hello"] * 3 == [reply.body for reply in replies]


@pytest.mark.parametrize("way", ["plain", "tls"])
async def test_a_connection_that_is_worked_on_does_not_give_way(way: str) -> None:
    """Whoever waits for the application keeps its place; the new one is told to come back."""
    held = Held()
    async with http_site(way, routes(held), max_connections=1) as site:
        busy = await site.connect()
        await busy.send(get("/held"))
        await until(lambda: held.begun == 1)
        refused = await site.ask(get())
        held.go.set()

        assert (503, "overloaded", "1") == (
            refused.status,
            refused.code,
            refused.headers["retry-after"],
        )
        assert b"held" == (await busy.reply()).body


async def test_the_slowest_body_gives_way_to_a_new_request() -> None:
    """Not the oldest one, if it comes at the rate that is asked for."""
    async with http_site("plain", routes(), max_requests=2, min_body_rate=1) as site:
        steady, slow = await half_body(site), await site.connect()
        await slow.send(SLOW_BODY)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await steady.send(b"defg")
        await trio.testing.wait_all_tasks_blocked(0.01)

        assert b"hello" == (await site.ask(get())).body
        assert (503, "overloaded") == ((reply := await slow.reply()).status, reply.code)
        assert await slow.ended()
        await steady.send(b"hij")
        assert b"abcdefghij" == (await steady.reply()).body


async def test_a_body_that_drips_does_not_become_younger() -> None:
    """Single bytes below the rate do not save the oldest one."""
    limits = {"max_requests": 2, "min_body_rate": 1_000_000}
    async with http_site("plain", routes(), **limits) as site:
        old = await half_body(site)
        await trio.testing.wait_all_tasks_blocked(0.01)
        newer = await half_body(site)
        for _ in range(3):
            await trio.sleep(0.001)
            await old.send(b"x")
            await trio.testing.wait_all_tasks_blocked(0.01)

        assert b"hello" == (await site.ask(get())).body
        assert 503 == (await old.reply()).status
        await newer.send(b"defghij")
        assert b"abcdefghij" == (await newer.reply()).body


@pytest.mark.parametrize("way", ["plain", "tls"])
async def test_a_body_that_nobody_reads_keeps_nobody_out(way: str) -> None:
    """Connections that end because their body was not read give way to a new one at once."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 415)

    body = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    async with http_site(way, {"/": hello, "/early": early}, max_connections=2) as site:
        for _ in range(2):
            assert 415 == (await site.ask(body)).status
        reply = await site.ask(get())

    assert (200, b"hello") == (reply.status, reply.body)


async def test_an_answer_that_nobody_takes_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment without progress; the place of the request is free, too."""
    monkeypatch.setattr(capacity, "STALL_SECONDS", 0.05)
    sent: list[int] = []

    async def much(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            sent.append(1)
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})

    limits = {"max_connections": 1, "max_requests": 1}
    async with http_site("plain", routes() | {"/much": much}, **limits) as site:
        peer = await site.connect()
        await peer.send(get("/much"))
        with trio.fail_after(DEADLINE):
            while (reply := await site.ask(get())).status != 200:
                assert 503 == reply.status

        assert b"hello" == reply.body
        assert len(sent) < 1_000


@pytest.mark.parametrize("way", ["plain", "tls"])
async def test_a_complete_answer_that_nobody_takes_has_no_request_place(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the time since something of it was taken; its connection is left alone."""
    monkeypatch.setattr(capacity, "STALL_SECONDS", 3600.0)

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 10_000_000)

    async with http_site(way, routes() | {"/large": large}, max_requests=1, **PROBE) as site:
        for _ in range(2):
            peer = await site.connect()
            await peer.send(get("/large"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            for path in ("/", "/probe"):
                assert (200, b"hello") == ((r := await site.ask(get(path))).status, r.body)
        assert 10_000_000 == len((await peer.reply()).body)


async def fill(site: HttpSite, held: Held, count: int = 1) -> list[Peer]:
    """Take places that nobody gives up."""
    busy = []
    for number in range(count):
        busy.append(await site.connect())
        await busy[-1].send(get("/held"))
        await until(lambda number=number: held.begun == number + 1)  # type: ignore[misc]
    return busy


FULL = {"connections": {"max_connections": 1}, "requests": {"max_requests": 1}}


@pytest.mark.parametrize("way", ["plain", "tls"])
@pytest.mark.parametrize("bound", [*FULL, "both"])
async def test_probes_are_answered_when_all_is_full(way: str, bound: str) -> None:
    """Nothing else is, and the places that are worked on stay."""
    held = Held()
    limits = FULL["connections"] | FULL["requests"] if bound == "both" else FULL[bound]
    async with http_site(way, routes(held), **limits, **PROBE) as site:
        (busy,) = await fill(site, held)
        for _ in range(3):
            assert (200, b"hello") == ((r := await site.ask(get("/probe?x"))).status, r.body)
            assert 200 == (await site.ask(get("/probe", method="HEAD"))).status
            for other in (get(), get("/probe/"), post(b"x", path="/probe")):
                assert (503, "overloaded") == ((r := await site.ask(other)).status, r.code)
        held.go.set()

        assert b"held" == (await busy.reply()).body


@pytest.mark.parametrize("way", ["plain", "tls"])
async def test_the_reserve_serves_one_probe_a_connection(way: str) -> None:
    """Then the connection is closed, so that the place is free for the next one."""
    held = Held()
    async with http_site(way, routes(held), max_connections=1, max_probes=1, **PROBE) as site:
        await fill(site, held)
        for _ in range(3):
            peer = await site.connect()
            reply = await peer.ask(get("/probe"))
            assert (200, "close") == (reply.status, reply.headers["connection"])
            assert await peer.ended()


@pytest.mark.parametrize("said", [b"G", get("/probe")[:-2], b"POST /x HTTP/1.1\r\n"])
async def test_the_reserve_cannot_be_filled_with_silence(said: bytes) -> None:
    """In it the oldest that waits gives way, too."""
    held = Held()
    async with http_site("plain", routes(held), max_connections=1, max_probes=2, **PROBE) as site:
        await fill(site, held)
        silent = await attack(site.port, 10, said)
        await trio.testing.wait_all_tasks_blocked(0.01)
        replies = [await site.ask(get("/probe")) for _ in range(3)]
        await hang_up(silent)

    assert [200] * 3 == [reply.status for reply in replies]


async def test_a_place_in_the_reserve_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dawdles in it loses it, whatever the other deadlines are."""
    monkeypatch.setattr("syncbridge_server.listener.accept.RESERVE_SECONDS", 0.1)
    held = Held()
    async with http_site("plain", routes(held), max_connections=1, **PROBE) as site:
        await fill(site, held)
        peer = await site.connect()
        await peer.send(b"POST /")

        assert await peer.ended()


async def test_no_websocket_in_the_reserve() -> None:
    """A handshake over TLS needs a connection that may last: 503, and none is opened."""
    held = Held()
    async with http_site("tls", routes(held), max_connections=1, **PROBE) as site:
        await fill(site, held)
        reply = await site.ask(UPGRADE)

        assert (503, "overloaded") == (reply.status, reply.code)
        assert [] == site.sink.clients


async def ask_h2(link: H2Link, stream_id: int, path: str, body: bytes | None = None) -> None:
    """Send a request over HTTP/2; with a body it stays open."""
    method = "GET" if body is None else "POST"
    fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "a")]
    link.id, link.headers, link.over = stream_id, None, False
    link.h2.send_headers(stream_id, fields, end_stream=body is None)
    if body:
        link.h2.send_data(stream_id, body)
    await link.flush()


async def reply_h2(link: H2Link) -> Reply:
    with trio.fail_after(DEADLINE):
        while not link.over:
            await link.step()
    assert link.headers is not None
    body = bytes(link.data)
    link.data.clear()
    return Reply(int(link.headers[":status"]), link.headers, body)


async def connect_h2(site: HttpSite) -> H2Link:
    return await open_h2(Site(site.sink, {"tls": site.port}))


async def test_an_idle_http2_connection_gives_way() -> None:
    """It is told so by GOAWAY; one with a request that is worked on stays."""
    held = Held()
    async with http_site("tls", routes(held), max_connections=2) as site:
        busy, idle = await connect_h2(site), await connect_h2(site)
        await ask_h2(busy, 1, "/held")
        await until(lambda: held.begun == 1)
        third = await connect_h2(site)
        await ask_h2(third, 1, "/")
        assert b"hello" == (await reply_h2(third)).body
        with trio.fail_after(DEADLINE):
            while not idle.over:
                await idle.step()
        assert idle.terminated
        held.go.set()
        assert b"held" == (await reply_h2(busy)).body
        for link in (busy, idle, third):
            await link.abort()


async def test_requests_of_http2_count_and_give_way() -> None:
    """Those that are worked on fill the bound; a slow body gives way, and ends alone."""
    held = Held()
    async with http_site("tls", routes(held), max_requests=2) as site:
        link = await connect_h2(site)
        await ask_h2(link, 1, "/held")
        await until(lambda: held.begun == 1)
        await ask_h2(link, 3, "/echo", b"abc")
        await trio.testing.wait_all_tasks_blocked(0.01)
        other = await connect_h2(site)
        await ask_h2(other, 1, "/held")
        assert (503, "overloaded") == ((r := await reply_h2(link)).status, r.code)
        await until(lambda: held.begun == 2)
        refused = await connect_h2(site)
        await ask_h2(refused, 1, "/")
        assert (503, "1") == ((r := await reply_h2(refused)).status, r.headers["retry-after"])
        held.go.set()
        assert b"held" == (await reply_h2(other)).body
        for one in (link, other, refused):
            await one.abort()


async def test_a_window_that_stays_closed_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer over HTTP/2 that nobody takes keeps no request out; its connection goes on."""
    monkeypatch.setattr(capacity, "STALL_SECONDS", 0.05)

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 100_000)

    async with http_site("tls", routes() | {"/large": large}, max_requests=1) as site:
        stuck = await connect_h2(site)
        await ask_h2(stuck, 1, "/large")
        with trio.fail_after(DEADLINE):
            while stuck.headers is None:
                await stuck.step()
            while (reply := await site.ask(get())).status != 200:
                assert 503 == reply.status
            while not stuck.over:
                await stuck.step()

        assert b"hello" == reply.body
        await ask_h2(stuck, 3, "/")
        assert b"hello" == (await reply_h2(stuck)).body[-5:]
        await stuck.abort()


async def test_probes_over_http2_are_answered_when_all_is_full() -> None:
    """In the reserve, a probe and nothing else."""
    held = Held()
    limits = {"max_connections": 1, "max_requests": 1}
    async with http_site("tls", routes(held), **limits, **PROBE) as site:
        await fill(site, held)
        link = await connect_h2(site)
        await ask_h2(link, 1, "/probe")
        assert b"hello" == (await reply_h2(link)).body
        await ask_h2(link, 3, "/")
        assert (503, "overloaded") == ((r := await reply_h2(link)).status, r.code)
        await link.abort()


async def test_a_log_line_says_that_a_bound_is_reached(caplog: pytest.LogCaptureFixture) -> None:
    """One, not one for each connection."""
    async with http_site("plain", routes(), max_connections=1) as site:
        with caplog.at_level(logging.WARNING):
            for _ in range(20):
                await kept_alive(site)

    assert 1 == len([m for m in caplog.messages if "bound of 1 connections" in m])


async def test_tls_clients_after_a_flood_of_handshakes() -> None:
    """A client that is through with its handshake is not the first to go."""
    async with http_site("tls", routes(), max_connections=3) as site:
        stuck = await attack(site.port, 2, b"\x16\x03\x01")
        stream = await open_tls_stream(site.port, "http/1.1")
        client = Peer(stream)
        site.peers.append(client)
        stuck += await attack(site.port, 2, b"\x16\x03\x01")
        await trio.testing.wait_all_tasks_blocked(0.01)

        assert b"hello" == (await client.ask(get())).body
        await hang_up(stuck)


@pytest.mark.parametrize("forwarding", [False, True])
async def test_an_address_with_its_share_leaves_room_for_others(forwarding: bool) -> None:
    """Idle connections of one address, also one that forwards: its own oldest give way. Those of
    another address stay, and one from this machine is served."""
    headers = ["X-Forwarded-For: 203.0.113.1"] if forwarding else []
    async with http_site("plain", routes(), max_connections=32) as site:
        guests = [Peer(one) for one in await attack(site.port, 2, address="127.0.0.3")]
        for peer in guests:
            assert 200 == (await peer.ask(get())).status
        streams = await attack(site.port, 40, get("/", *headers))
        await until(lambda: site.bounds.connections.evicted >= 16)
        answers = [(await peer.ask(get())).status for peer in guests]
        newcomer = await site.connect()
        answers.append((await newcomer.ask(get())).status)
        held = site.bounds.connections.held
        await hang_up([*streams, *(peer.stream for peer in guests)])

    assert [200, 200, 200] == answers
    assert held <= 26
