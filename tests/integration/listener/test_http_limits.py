"""What the HTTP engine refuses, how long it waits, and what ends a connection."""

import json
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.listener.http_site import HttpSite, Peer, answer, get, http_site, post, read_all
from support.listener.ws_raw import DEADLINE

CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read_all(receive))


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


def patient(log: list[str]) -> Any:
    """An application that reads to the end, whatever the end is, and then answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = {"type": "", "more_body": True}
        while message.get("more_body"):
            message = await receive()
        log.append(message["type"])
        await answer(send, b"read")

    return app


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (get("/" + "a" * 8_192), 414, "uri_too_long"),
        (b"GET /" + b"a" * 9_000, 414, "uri_too_long"),
        (get("/", "X: " + "a" * 20_000), 431, "headers_too_large"),
        (get("/", *["X: y"] * 101), 431, "headers_too_large"),
        (get("/", "Content-Length: 4194305", method="POST"), 413, "too_large"),
        (get("/", "Expect: something"), 417, "expectation_failed"),
        (get("/", version="2.0"), 505, "http_version"),
        (get("a:80", method="CONNECT"), 501, "not_implemented"),
        (b"\x00\x01\x02", 400, "bad_request"),
        (b"GET / HTTP/1.1\nHost: a", 400, "bad_request"),
    ],
)
async def test_refused_heads(data: bytes, status: int, code: str) -> None:
    """A problem document with an id, at once, and the end of the connection."""
    async with http_site("plain", {"/": hello}) as site:
        peer = await site.connect()
        reply = await peer.ask(data)

        assert (status, code) == (reply.status, reply.code)
        assert ("close", True) == (reply.headers["connection"], "x-request-id" in reply.headers)
        assert await peer.ended()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"3\r\nabcd\r\n", 400), (b"3\nabc", 400), (b"ff\r\n", 413), (b"9\r\nabc", 408)],
)
async def test_refused_bodies(body: bytes, status: int) -> None:
    """The client is told why, the application that it is gone; its answer is not sent."""
    log: list[str] = []
    limits = {"max_body_bytes": 100, "body_timeout": 0.1}
    async with http_site("plain", {"/": patient(log)}, **limits) as site:
        peer = await site.connect()
        reply = await peer.ask(CHUNKED + body)

        assert (status, ["http.disconnect"]) == (reply.status, log)
        assert await peer.ended()


async def test_a_body_refused_after_the_answer_began() -> None:
    """There is no second status, so the connection breaks."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"rest"})

    async with http_site("plain", {"/": app}) as site:
        reply = await site.ask(CHUNKED + b"x\r\n")

        assert (200, b"part", False) == (reply.status, reply.body, reply.whole)


async def test_a_head_that_drips_in() -> None:
    """Each byte comes in time, the head does not: 408."""
    async with http_site("plain", {"/": hello}, header_timeout=0.3) as site:
        peer = await site.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, peer, get("/", "X: " + "a" * 1_000))
            reply = await peer.reply()
            nursery.cancel_scope.cancel()

        assert (408, "request_timeout") == (reply.status, reply.code)


async def drip(peer: Peer, data: bytes) -> None:
    for index in range(len(data)):
        try:
            await peer.send(data[index : index + 1])
        except trio.BrokenResourceError:
            return
        await trio.sleep(0.01)


async def test_a_body_that_drips_in() -> None:
    """No pause is long, but the rate is below the least: 408."""
    limits = {"body_timeout": 0.3, "min_body_rate": 100_000}
    async with http_site("plain", {"/": echo}, **limits) as site:
        peer = await site.connect()
        await peer.send(get("/", "Content-Length: 10000", method="POST"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, peer, b"x" * 1_000)
            reply = await peer.reply()
            nursery.cancel_scope.cancel()

        assert 408 == reply.status


async def test_a_slow_application_costs_the_client_nothing() -> None:
    """The clock of a body runs only while the application waits for it."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        await trio.sleep(0.3)
        await answer(send, first["body"] + await read_all(receive))

    async with http_site("plain", {"/": slow}, body_timeout=0.2) as site:
        peer = await site.connect()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")
        await trio.sleep(0.1)
        await peer.send(b"0\r\n\r\n")

        assert b"abc" == (await peer.reply()).body


async def test_an_idle_connection_ends_without_a_word() -> None:
    """After the keep-alive timeout, also when only an empty line came."""
    async with http_site("plain", {"/": hello}, keep_alive_timeout=0.2) as site:
        peer = await site.connect()
        assert 200 == (await peer.ask(get())).status
        await peer.send(b"\r\n")

        assert await peer.ended()


async def test_too_many_requests_at_once() -> None:
    """503 with Retry-After above the bound; below it again, requests are served."""
    go = trio.Event()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send)

    async with http_site("plain", {"/": hello, "/wait": wait}, max_requests=1) as site:
        busy = await site.connect()
        await busy.send(get("/wait"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        refused = await site.ask(get())
        go.set()
        assert 200 == (await busy.reply()).status

        assert (503, "1") == (refused.status, refused.headers["retry-after"])
        assert 200 == (await site.ask(get())).status


async def test_a_reader_that_takes_nothing_is_dropped() -> None:
    """After the write timeout the application is told, and the connection is reset."""
    told = trio.Event()

    async def much(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        if (await receive())["type"] == "http.disconnect":
            told.set()

    async with http_site("plain", {"/": much}, write_timeout=0.2) as site:
        peer = await site.connect()
        await peer.send(get())
        with trio.fail_after(DEADLINE):
            await told.wait()


async def test_an_application_that_ignores_a_leaving_client_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some seconds after it could know, and its cleanup runs."""
    monkeypatch.setattr("syncbridge_server.listener.fast.exchange.GONE_SECONDS", 0.1)
    cleaned = trio.Event()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        try:
            await receive()
            await trio.sleep_forever()
        finally:
            cleaned.set()

    async with http_site("plain", {"/": stubborn}) as site:
        peer = await site.connect()
        await peer.send(get())
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.hang_up()
        with trio.fail_after(DEADLINE):
            await cleaned.wait()


async def test_a_question_whether_the_client_is_there() -> None:
    """`receive` in a cancelled scope, as Starlette's `is_disconnected` does, keeps what it reads.

    A pipelined request that arrives meanwhile is answered.
    """
    asked: list[str] = []

    async def curious(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        for _ in range(20):
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                asked.append((await receive())["type"])
            await trio.sleep(0.001)
        await answer(send)

    async with http_site("plain", {"/": curious, "/hello": hello}) as site:
        peer = await site.connect()
        await peer.send(get())
        await peer.send(get("/hello"))

        assert [b"ok", b"hello"] == [(await peer.reply()).body for _ in range(2)]
    assert [] == asked


async def test_a_watcher_ends_with_the_answer() -> None:
    """A task that waits for the disconnect learns that there is nothing more to wait for."""

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await answer(send)

    async with http_site("plain", {"/": watching}) as site:
        peer = await site.connect()
        for _ in range(3):
            assert b"ok" == (await peer.ask(get())).body


async def test_a_client_that_half_closes_gets_its_answer() -> None:
    """Nobody asked whether it is there, and it is."""
    async with http_site("plain", {"/": echo}) as site:
        peer = await site.connect()
        await peer.send(post(b"abc"))
        await peer.half_close()

        assert b"abc" == (await peer.reply()).body
        assert await peer.ended()


async def test_a_crash_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The id in the answer is the one in the log; a HEAD gets no document."""

    async def crash(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a bug")

    async with http_site("plain", {"/": crash}) as site:
        given = await site.ask(get("/", "X-Request-ID: mine"))
        made = await site.ask(get())
        head = await site.ask(get(method="HEAD"))

    assert ("mine", "internal_error") == (given.headers["x-request-id"], given.code)
    assert b"" == head.body
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    for reply, line in zip((given, made), lines[:2], strict=True):
        assert reply.headers["x-request-id"] in line


async def test_an_expected_continue_that_is_not_given() -> None:
    """An answer instead of the 100: the body will not come, and the connection ends."""
    async with http_site("plain", {"/": hello}) as site:
        peer = await site.connect()
        reply = await peer.ask(get("/", "Content-Length: 3", "Expect: 100-continue", method="PUT"))

        assert (200, "close") == (reply.status, reply.headers["connection"])
        assert await peer.ended()


async def test_an_unread_body_that_is_long_ends_the_connection() -> None:
    """The answer says so, and can be read although much was still under way."""
    async with http_site("plain", {"/": hello}) as site:
        peer = await site.connect()
        reply = await peer.ask(post(b"x" * 200_000))

        assert (b"hello", "close") == (reply.body, reply.headers["connection"])
        assert await peer.ended()


async def test_a_stop_closes_what_waits() -> None:
    """Idle connections and half heads do not hold a stop."""
    async with http_site("plain", {"/": hello}, drain_timeout=60.0) as site:
        idle, half = await site.connect(), await site.connect()
        assert 200 == (await idle.ask(get())).status
        await half.send(get()[:-4])
        await trio.testing.wait_all_tasks_blocked(0.01)
        site.stop.set()
        with trio.fail_after(DEADLINE):
            await site.stopped.wait()

        assert await idle.ended()
        assert 408 == (await half.reply()).status


WORDS = [b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"POST / HTTP/1.1\r\n", b"abc", b"\n"]
WORDS += [
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
]
WORDS += [b"Connection: close\r\n", b"Expect: 100-continue\r\n", get(), post(b"abc"), b"PRI * HTTP"]
WORDS += [b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"GET /ws HTTP/1.1\r\n", b"\0", b" "]
streams = st.lists(st.lists(st.sampled_from(WORDS) | st.binary(max_size=3), max_size=8), max_size=6)


@given(streams)
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_any_bytes_in_any_split(parts: list[list[bytes]]) -> None:
    """Every byte that comes back belongs to an HTTP response, and the server goes on."""
    trio.run(any_bytes, [b"".join(words) for words in parts])


async def any_bytes(parts: list[bytes]) -> None:
    async with http_site("plain", {"/": echo}) as site:
        peer = await site.connect()
        data = b""
        try:
            for part in parts:
                await peer.send(part)
                await trio.lowlevel.checkpoint()
            await peer.half_close()
        except (trio.BrokenResourceError, OSError):
            pass
        with trio.fail_after(DEADLINE):
            try:
                while more := await peer.stream.receive_some(65_536):
                    data += more
            except trio.BrokenResourceError:
                pass

        assert data == b"" or data.startswith(b"HTTP/1.1 ")
        assert b"500 Internal" not in data
        assert b"abc" == (await ask_again(site)).body


async def ask_again(site: HttpSite) -> Any:
    return await site.ask(post(b"abc"))


async def test_problem_documents_are_json() -> None:
    """With the members of every other error of this server."""
    async with http_site("plain", {"/": hello}) as site:
        reply = await site.ask(get("x"))

    assert ["code", "detail", "status", "title", "type"] == sorted(json.loads(reply.body))
    assert "application/problem+json" == reply.headers["content-type"]
