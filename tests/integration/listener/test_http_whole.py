"""What the listener offers beside `receive` and `send`: a body at once, and a whole answer."""

from typing import Any

import pytest
import trio

from support.listener.http_site import WAYS, answer, get, http_site, post, read_all
from syncbridge_server.listener.contract import ANSWER, ARRIVED

CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")
LARGE = b"x" * 300_000


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The body, by the short way when it is there, and which way that was."""
    arrived = scope[ARRIVED]()
    body = await read_all(receive) if arrived is None else arrived
    how = b"received" if arrived is None else b"arrived"
    rest = scope[ANSWER](200, [(b"x-how", how)], body)
    if rest is not None:
        await rest


async def test_a_body_that_is_there(way: str) -> None:
    """It is had at once, again and again, and what a client has pipelined behind it is served."""
    async with http_site(way, {"/": echo}) as site:
        peer = await site.connect()
        await peer.send(post(b"one") + post(b"two") + get("/"))
        replies = [await peer.reply() for _ in range(3)]

    assert [b"one", b"two", b""] == [reply.body for reply in replies]
    assert ["arrived", "arrived", "received"] == [reply.headers["x-how"] for reply in replies]


@pytest.mark.parametrize("body", [CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", post(b"abc")])
async def test_a_body_that_comes_later(way: str, body: bytes) -> None:
    """In chunks, or after its head: it is received, as any other."""
    head, _, rest = body.partition(b"\r\n\r\n")
    async with http_site(way, {"/": echo}) as site:
        peer = await site.connect()
        await peer.send(head + b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(rest)
        reply = await peer.reply()
        again = await peer.ask(post(b"de"))

    assert (b"abc", "received") == (reply.body, reply.headers["x-how"])
    assert (b"de", "arrived") == (again.body, again.headers["x-how"])


async def test_a_body_of_which_some_was_received(way: str) -> None:
    """Then there is nothing to be had at once, and no byte of it twice."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert scope[ARRIVED]() is None
        body = message["body"] + (await read_all(receive) if message["more_body"] else b"")
        await answer(send, body)

    async with http_site(way, {"/": both}) as site:
        peer = await site.connect()
        data = post(b"abcdef")
        await peer.send(data[:-3])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(data[-3:])

        assert b"abcdef" == (await peer.reply()).body


async def test_a_whole_answer(way: str) -> None:
    """Large or small, and without its body to HEAD; with what protects it, once."""

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        rest = scope[ANSWER](201, [(b"etag", b'"1"')], LARGE)
        if rest is not None:
            await rest

    async with http_site(way, {"/": tell}) as site:
        peer = await site.connect()
        replies = [await peer.ask(get("/")), await peer.ask(get("/", method="HEAD"))]

    assert [LARGE, b""] == [reply.body for reply in replies]
    for reply in replies:
        assert (201, '"1"') == (reply.status, reply.headers["etag"])
        assert str(len(LARGE)) == reply.headers["content-length"]
        assert "nosniff" == reply.headers["x-content-type-options"]


async def test_a_whole_answer_before_a_long_body(way: str) -> None:
    """It is sent although the body was not read, and the connection ends."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        rest = scope[ANSWER](413, [], b"too long")
        assert rest is not None
        await rest

    async with http_site(way, {"/": refuse}) as site:
        peer = await site.connect()
        await peer.send(post(LARGE)[:1000])
        reply = await peer.reply()

    assert (413, b"too long", "close") == (reply.status, reply.body, reply.headers["connection"])


async def test_a_second_answer_is_a_mistake(way: str) -> None:
    """The application hears of it, and the client has the first one."""

    async def twice(scope: Any, receive: Any, send: Any) -> None:
        rest = scope[ANSWER](200, [], b"one")
        if rest is not None:
            await rest
        with pytest.raises(RuntimeError):
            scope[ANSWER](200, [], b"two")

    async with http_site(way, {"/": twice}) as site:
        peer = await site.connect()

        assert [b"one", b"one"] == [(await peer.ask(get("/"))).body for _ in range(2)]
