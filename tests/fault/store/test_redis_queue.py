"""The queue before Redis: bounds, waiting too long, cancelled waiters, receivers with bugs."""

import time
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer, until
from syncbridge.errors import StoreOverloaded, StoreTimeout, StoreUnavailable
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, Job
from syncbridge_server.redis.link.router import Router
from syncbridge_server.redis.link.wire import pack

PING = Command(pack("PING"))


async def drained(io: RedisIO) -> None:
    """Wait until every command has its answer."""
    await until(lambda: not io.queued)


async def test_too_many_commands(redis_server: RedisServer) -> None:
    """StoreOverloaded at the bound, nothing of that submit is sent, and room comes back."""
    answers: list[Any] = []
    async with RedisIO(redis_server.url, max_commands=10).running() as io:
        redis_server.pause()
        io.submit([PING] * 10, answers.extend)
        with pytest.raises(StoreOverloaded):
            io.submit([PING], answers.extend)
        assert io.queued == 10
        redis_server.resume()
        await drained(io)
        assert answers == [b"PONG"] * 10
        assert await io.execute("PING") == b"PONG"


async def test_too_many_bytes(redis_server: RedisServer) -> None:
    """The same for the size of what waits."""
    answers: list[Any] = []
    large = Command(pack("ECHO", b"x" * 1_000))
    async with RedisIO(redis_server.url, max_bytes=2_100).running() as io:
        redis_server.pause()
        io.submit([large, large], answers.extend)
        with pytest.raises(StoreOverloaded):
            io.submit([large], answers.extend)
        redis_server.resume()
        await drained(io)
        assert answers == [b"x" * 1_000] * 2
        io.submit([large], answers.extend)
        await drained(io)


async def test_what_waited_too_long_is_not_sent(redis_server: RedisServer) -> None:
    """A job whose time in the queue is over answers StoreUnavailable; the next one is served."""
    answers: list[Any] = []
    async with RedisIO(redis_server.url).running() as io:
        assert io._driver is not None
        command = Command(pack("SET", "late", "1"))
        late = Job([command], 0, time.monotonic() - 1, answers.extend)
        io._commands += 1
        io._driver.submit(late)
        assert await io.execute("GET", "late") is None
        assert isinstance(answers[0], StoreUnavailable)
        assert io.queued == 0


async def test_a_cancelled_waiter_does_not_stop_the_command(redis_server: RedisServer) -> None:
    """The task goes on; the command is done; later ones work."""
    async with RedisIO(redis_server.url).running() as io:
        redis_server.pause()
        with trio.move_on_after(0.01) as scope:
            await io.execute("SET", "cancelled", "1")
        assert scope.cancelled_caught
        redis_server.resume()
        assert await io.execute("GET", "cancelled") == b"1"


async def test_a_receiver_with_a_bug_hurts_nobody_else(redis_server: RedisServer) -> None:
    """Its error is logged; the receivers after it get their answers."""
    answers: list[Any] = []

    def broken(replies: list[Any]) -> None:
        raise RuntimeError("a bug")

    async with RedisIO(redis_server.url).running() as io:
        io.submit([PING], broken)
        io.submit([PING], answers.extend)
        await drained(io)
        assert answers == [b"PONG"]
        assert await io.execute("PING") == b"PONG"


async def test_a_bug_in_the_driver_is_answered(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch answers StoreTimeout (it may have been sent), and the driver goes on."""
    async with RedisIO(redis_server.url).running() as io:
        with monkeypatch.context() as broken:
            broken.setattr(Router, "submit", None)
            with pytest.raises(StoreTimeout, match="internal"):
                await io.execute("PING")
        assert await io.execute("PING") == b"PONG"


async def test_large_batches_and_large_replies(redis_server: RedisServer) -> None:
    """More than one batch, more than one write, more than one read: all answers, in order."""
    async with RedisIO(redis_server.url).running() as io:
        texts = [str(number).encode() * 500 for number in range(3_000)]
        replies = await io.request([Command(pack("ECHO", text)) for text in texts])
        assert replies == texts


async def test_every_kind_of_reply(redis_server: RedisServer) -> None:
    """As hiredis reads RESP2: bytes, int, None, lists."""
    async with RedisIO(redis_server.url).running() as io:
        assert await io.execute("SET", "k", 1.5) == b"OK"
        assert await io.execute("GET", "k") == b"1.5"
        assert await io.execute("GET", "absent") is None
        assert await io.execute("DEL", "k", b"absent") == 1
        assert await io.execute("MGET", "a", "b") == [None, None]
        assert await io.script("tell", ["s:{x}:y:m"], ["n1", b""]) == 0
