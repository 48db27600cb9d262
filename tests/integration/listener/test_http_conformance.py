"""ASGI 3 over HTTP/1.1, over plain TCP and TLS: what an application and its client can rely on."""

import json
from typing import Any

import pytest
import trio

from support.listener.http_site import (
    WAYS,
    HttpSite,
    Peer,
    answer,
    get,
    http_site,
    post,
    read_all,
)
from support.listener.ws_raw import (
    DEADLINE,
    StreamLink,
    handshake_headers,
    read_answer,
    request_bytes,
)
from syncbridge_server.listener.contract import ANSWER, ARRIVED, FIELDS, KNOWN

CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read_all(receive))


async def tell(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the scope."""
    scope = {**scope, "headers": [[n.decode(), v.decode()] for n, v in scope["headers"]]}
    for name in ("raw_path", "query_string"):
        scope[name] = scope[name].decode()
    scope.pop("app", None)
    if FIELDS in scope:
        scope[FIELDS] = {name.decode(): value.decode() for name, value in scope[FIELDS].items()}
    await answer(send, json.dumps(scope, default=repr).encode())


async def test_the_scope(way: str) -> None:
    """Everything that ASGI 3 names, with the lifespan's state and the two addresses."""
    async with http_site(way, {"/a b": tell}, {"key": "value"}, root_path="/root") as site:
        peer = await site.connect()
        here = list(peer.stream.socket.getsockname())
        scope = (await peer.ask(get("/a%20b?c=%20", "X-Some: y", "x-some: z"))).json

    assert "belong" in scope.pop(KNOWN)
    assert "arrived" in scope.pop(ARRIVED)
    assert "answer" in scope.pop(ANSWER)
    assert scope.pop(FIELDS) == {"host": "a", "x-some": "y"}
    scope["asgi"].pop("spec_version")
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https" if way == "tls" else "http",
        "path": "/a b",
        "raw_path": "/a%20b",
        "query_string": "c=%20",
        "root_path": "/root",
        "headers": [["host", "a"], ["x-some", "y"], ["x-some", "z"]],
        "client": here,
        "server": ["127.0.0.1", site.port],
        "state": {"key": "value"},
        "extensions": {},
    }


async def test_the_state_of_a_request_is_its_own(way: str) -> None:
    """What one request puts into the state, another connection's request does not see."""

    async def put(scope: Any, receive: Any, send: Any) -> None:
        seen = sorted(scope["state"])
        scope["state"][scope["query_string"].decode()] = 1
        await answer(send, json.dumps(seen).encode())

    async with http_site(way, {"/": put}, {"key": 1}) as site:
        assert [["key"], ["key"]] == [(await site.ask(get(f"/?{name}"))).json for name in "ab"]


@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_a_body_of_announced_length(way: str, size: int) -> None:
    """It arrives whole, and the connection goes on."""
    body = b"x" * size
    async with http_site(way, {"/": echo}) as site:
        peer = await site.connect()
        for _ in range(3):
            assert body == (await peer.ask(post(body))).body


async def test_a_body_in_chunks(way: str) -> None:
    """Extensions and trailers are dropped; the connection goes on."""
    async with http_site(way, {"/": echo}) as site:
        peer = await site.connect()
        for _ in range(3):
            body = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
            assert b"abcde" == (await peer.ask(CHUNKED + body)).body


@pytest.mark.parametrize("cut", [1, 7])
async def test_bytes_in_any_split(way: str, cut: int) -> None:
    """How the bytes arrive decides nothing."""
    data = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + get("/hello")
    async with http_site(way, {"/": echo, "/hello": hello}) as site:
        peer = await site.connect()
        for at in range(0, len(data), cut):
            await peer.send(data[at : at + cut])
            await trio.testing.wait_all_tasks_blocked()

        assert [b"abc", b"hello"] == [(await peer.reply()).body for _ in range(2)]


async def test_the_body_waits_for_the_application(way: str) -> None:
    """A client cannot send much more than the application has asked for."""
    go = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send, b"%d" % len(await read_all(receive)))

    pieces, piece = 500, b"x" * 65_536
    size = pieces * len(piece)
    sent: list[int] = []

    async def upload(peer: Peer) -> None:
        for number in range(pieces):
            await peer.send(piece)
            sent.append(number)

    async with http_site(way, {"/": slow}, max_body_bytes=size) as site:
        peer = await site.connect()
        await peer.send(get("/", f"Content-Length: {size}", method="POST"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload, peer)
            await trio.sleep(0.5)
            held_back = len(sent) < pieces
            go.set()

        assert held_back
        assert b"%d" % size == (await peer.reply()).body


async def test_a_streamed_answer(way: str) -> None:
    """Without a length it comes in chunks, each as soon as it was sent."""
    step = trio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await step.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"last", "more_body": False})

    async with http_site(way, {"/": stream}) as site:
        peer = await site.connect()
        await peer.send(get())
        data = b""
        with trio.fail_after(DEADLINE):
            while b"first" not in data:
                data += await peer.stream.receive_some(1000)
        step.set()
        peer.left = data
        reply = await peer.reply()

        assert (b"firstlast", "chunked") == (reply.body, reply.headers["transfer-encoding"])
        assert (await peer.ask(get())).whole


async def test_an_answer_waits_for_its_reader(way: str) -> None:
    """`send` does not return while the client takes nothing."""
    sent: list[int] = []

    async def much(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(500):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body", "body": b""})

    async with http_site(way, {"/": much}) as site:
        peer = await site.connect()
        await peer.send(get())
        await trio.sleep(0.3)
        waited = len(sent) < 500
        reply = await peer.reply()

        assert waited
        assert 500 * 65_536 == len(reply.body)


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(way: str, status: int) -> None:
    """Nothing follows their head, so the next answer is read."""

    async def empty(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"", status, length=False)

    async with http_site(way, {"/": empty, "/hello": hello}) as site:
        peer = await site.connect()
        replies = [await peer.ask(get(path)) for path in ("/", "/hello")]

    assert [(status, b""), (200, b"hello")] == [(one.status, one.body) for one in replies]
    assert "transfer-encoding" not in replies[0].headers


async def test_head(way: str) -> None:
    """The head of a GET, without the body that the application sent."""
    async with http_site(way, {"/": hello}) as site:
        peer = await site.connect()
        replies = [await peer.ask(get(method=method)) for method in ("HEAD", "GET")]

    assert [b"", b"hello"] == [reply.body for reply in replies]
    assert "5" == replies[0].headers["content-length"]


async def test_pipelined_requests(way: str) -> None:
    """They are answered in their order."""
    async with http_site(way, {"/": echo, "/hello": hello}) as site:
        peer = await site.connect()
        await peer.send(b"".join(post(b"%d" % number) + get("/hello") for number in range(40)))
        bodies = [(await peer.reply()).body for _ in range(80)]

    assert bodies == [body for number in range(40) for body in (b"%d" % number, b"hello")]


async def test_connection_close(way: str) -> None:
    """The client's wish is confirmed and fulfilled; what it sent after is not answered."""
    async with http_site(way, {"/": hello}) as site:
        peer = await site.connect()
        reply = await peer.ask(get("/", "Connection: close") + get())

        assert (b"hello", "close") == (reply.body, reply.headers["connection"].lower())
        assert await peer.ended()


async def test_an_old_client(way: str) -> None:
    """HTTP/1.0: one request a connection, and a stream that ends with it."""

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with http_site(way, {"/": stream, "/hello": hello}) as site:
        for path, body in (("/hello", b"hello"), ("/", b"ab")):
            peer = await site.connect()
            assert body == (await peer.ask(get(path, version="1.0"))).body
            assert await peer.ended()


async def test_expect_continue(way: str) -> None:
    """The 100 comes when the application asks for the body, and not again."""
    async with http_site(way, {"/": echo}) as site:
        peer = await site.connect()
        for _ in range(2):
            data = post(b"abc", "Expect: 100-continue")
            assert 100 == (await peer.ask(data[:-3])).status
            await peer.send(data[-3:])
            assert (200, b"abc") == ((reply := await peer.reply()).status, reply.body)


async def test_a_body_that_nobody_reads(way: str) -> None:
    """A short one is dropped; the next request on the connection is answered."""
    async with http_site(way, {"/": hello}) as site:
        peer = await site.connect()
        for _ in range(3):
            assert b"hello" == (await peer.ask(post(b"x" * 1000))).body


async def test_a_client_that_leaves(way: str) -> None:
    """An application that waits for it sees `http.disconnect`."""
    seen: list[str] = []
    started, over = trio.Event(), trio.Event()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        started.set()
        seen.append((await receive())["type"])
        await answer(send)
        over.set()

    async with http_site(way, {"/": wait}) as site:
        peer = await site.connect()
        await peer.send(post(b"abc"))
        with trio.fail_after(DEADLINE):
            await started.wait()
            await peer.hang_up()
            await over.wait()

    assert ["http.disconnect"] == seen


async def test_a_client_that_leaves_within_its_body(way: str) -> None:
    """Half a body is followed by `http.disconnect`, never by an end."""
    seen: list[Any] = []
    over = trio.Event()

    async def collect(scope: Any, receive: Any, send: Any) -> None:
        while not seen or seen[-1]["type"] != "http.disconnect":
            seen.append(await receive())
        over.set()

    async with http_site(way, {"/": collect}) as site:
        peer = await site.connect()
        await peer.send(post(b"abcdef")[:-3])
        await peer.half_close()
        with trio.fail_after(DEADLINE):
            await over.wait()

    assert b"abc" == b"".join(message.get("body", b"") for message in seen)
    assert all(message.get("more_body", True) for message in seen)


async def test_a_crash_before_the_answer(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """500, one line in the log, and nobody else notices."""

    async def crash(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a bug")

    async with http_site(way, {"/": crash, "/hello": hello}) as site:
        assert 500 == (await site.ask(get())).status
        assert 200 == (await site.ask(get("/hello"))).status
    lines = [record.levelname for record in caplog.records]
    assert ["ERROR"] == [level for level in lines if level != "INFO"]


async def test_a_crash_within_the_answer(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client cannot take what it got for the whole."""

    async def crash(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise ValueError("a bug")

    async with http_site(way, {"/": crash, "/hello": hello}) as site:
        assert not (await site.ask(get())).whole
        assert 200 == (await site.ask(get("/hello"))).status


async def test_an_application_that_says_nothing(way: str) -> None:
    """Returning without an answer is a 500 too."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        return

    async with http_site(way, {"/": nothing}) as site:
        assert 500 == (await site.ask(get())).status


async def test_an_upgrade_to_something_else(way: str) -> None:
    """An offer that is not taken is served as the request that it is."""
    async with http_site(way, {"/": hello}) as site:
        headers = ("Connection: Upgrade", "Upgrade: something")

        assert b"hello" == (await site.ask(get("/", *headers))).body


async def test_an_unknown_method(way: str) -> None:
    """501 and the end of the connection; the application is not asked."""
    async with http_site(way, {"/": hello}) as site:
        peer = await site.connect()
        reply = await peer.ask(get(method="BREW") + get())

        assert (501, "not_implemented") == (reply.status, reply.code)
        assert await peer.ended()


@pytest.mark.parametrize("method", ["DELETE", "PROPFIND"])
async def test_a_known_method(way: str, method: str) -> None:
    """Whether a path has it is for the application to say, as it says 405; the connection stays."""
    async with http_site(way, {"/": tell, "/hello": hello}) as site:
        peer = await site.connect()
        scope = (await peer.ask(get(method=method))).json

        assert method == scope["method"]
        assert b"hello" == (await peer.ask(get("/hello"))).body


async def test_a_websocket_after_requests(way: str) -> None:
    """The same connection becomes one, also when the handshake came with a request before."""
    async with http_site(way, {"/": hello}) as site:
        peer = await site.connect()
        await peer.ask(get())
        link = StreamLink(peer.stream)
        await link.send(request_bytes("/ws", handshake_headers()))
        client = (await read_answer(link)).open
        await client.text("x")

        assert b"x" == await client.message()
        assert ["127.0.0.1"] == site.sink.clients


async def test_a_stop_finishes_what_runs(way: str) -> None:
    """The running request is answered, with the news that the connection ends."""
    started, release = trio.Event(), trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await release.wait()
        await answer(send)

    async with http_site(way, {"/": slow}) as site:
        peer = await site.connect()
        await peer.send(get())
        await started.wait()
        site.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not site.stopped.is_set()
        release.set()

        assert (200, b"ok") == ((reply := await peer.reply()).status, reply.body)
        assert await peer.ended()
        await ended(site)


async def ended(site: HttpSite) -> None:
    with trio.fail_after(DEADLINE):
        await site.stopped.wait()
