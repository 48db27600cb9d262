"""Redis hangs, dies, comes back, or is not there at all: typed errors in time, then recovery."""

from collections.abc import Callable

import pytest
import trio

from support.contract.requests import pairs, read, session_id, write
from support.redis_servers import RedisServer, until
from syncbridge.errors import StoreError, StoreTimeout, StoreUnavailable
from syncbridge.records.sessions import Outcome, Status
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

DEADLINE = 1.5
GUARD = 20


async def test_hung_redis_times_out_then_fails_fast_then_recovers(
    redis_server: RedisServer,
) -> None:
    """StoreTimeout for what was sent; StoreUnavailable for what follows; then all is well."""
    async with RedisIO(redis_server.url, deadline=DEADLINE).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"a": "1"}))
        redis_server.pause()
        with trio.fail_after(GUARD), pytest.raises(StoreTimeout):
            await store.call(write(sid, {"a": "2"}, mutation_id="m"))
        await until(lambda: not io.connected)
        with trio.fail_after(GUARD), pytest.raises(StoreUnavailable):
            await store.call(read(sid))
        redis_server.resume()
        await until(lambda: io.connected)
        again = await store.call(write(sid, {"a": "2"}, mutation_id="m"))
        assert again.version == 2
        assert again.status in (Status.OK, Status.DUPLICATE)
        assert pairs((await store.call(read(sid))).flat) == {b"a": b"2"}


async def test_a_crash_keeps_what_was_acknowledged(redis_server: RedisServer) -> None:
    """Killed between writes and started again: the acknowledged ones are all there, in order."""
    sid = session_id()
    acknowledged: list[int] = []
    failures: list[StoreError] = []

    async def writer(store: RedisStore, name: str) -> None:
        for count in range(100_000):
            try:
                outcome = await store.call(write(sid, {f"{name}{count % 50}": str(count)}))
            except StoreError as error:
                failures.append(error)
                return
            acknowledged.append(outcome.version)

    async with RedisIO(redis_server.url, deadline=10.0).running() as io:
        store = RedisStore(io, "n1")
        async with trio.open_nursery() as nursery:
            for name in "abcde":
                nursery.start_soon(writer, store, name)
            await until(lambda: len(acknowledged) > 200)
            redis_server.kill()
        assert len(failures) == 5
        await until(lambda: not io.connected)
        redis_server.start()
        await until(lambda: io.connected)
        version = (await store.call(read(sid))).version
        assert sorted(acknowledged) == list(range(1, len(acknowledged) + 1))
        assert len(acknowledged) <= version <= len(acknowledged) + 5


async def test_nothing_there_at_the_start(redis_server: RedisServer) -> None:
    """Starting does not fail; commands do, at once; and work when Redis has come."""
    redis_server.stop()
    async with RedisIO(redis_server.url).running() as io:
        assert not io.connected
        with (
            trio.fail_after(GUARD),
            pytest.raises(StoreUnavailable, match="cannot connect: No such"),
        ):
            await io.execute("PING")
        redis_server.start()
        await until(lambda: io.connected)
        assert await io.execute("PING") == b"PONG"


async def test_a_restart_while_idle_is_not_noticed_by_callers(redis_server: RedisServer) -> None:
    """The dead connection is seen before anything is sent on it, and made anew."""
    async with RedisIO(redis_server.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"a": "1"}))
        redis_server.stop()
        redis_server.start()
        assert (await store.call(write(sid, {"a": "2"}))).version == 2


async def test_answers_keep_their_order_through_an_outage(redis_server: RedisServer) -> None:
    """Every submit is answered exactly once, in the order of submission, whatever happens."""
    answered: list[int] = []
    kinds: set[type] = set()

    def receiver(number: int) -> Callable[[object], None]:
        def deliver(answers: object) -> None:
            assert isinstance(answers, list)
            answered.append(number)
            kinds.update(map(type, answers))

        return deliver

    async with RedisIO(redis_server.url, deadline=DEADLINE).running() as io:
        store, sid, sent = RedisStore(io, "n1"), session_id(), 0
        for phase in ("up", "down", "up again"):
            if phase == "down":
                redis_server.kill()
            if phase == "up again":
                redis_server.start()
                await until(lambda: io.connected)
            for _ in range(50):
                store.submit([write(sid, {"a": str(sent)})], receiver(sent))
                sent += 1
                await trio.sleep(0.001)
        await until(lambda: len(answered) == sent)
    assert answered == list(range(150))
    assert Outcome in kinds
    assert StoreUnavailable in kinds


async def test_closing_answers_what_is_queued(redis_server: RedisServer) -> None:
    """What was submitted before the close is still sent; what comes after is refused."""
    answers: list[object] = []
    async with RedisIO(redis_server.url).running() as io:
        store = RedisStore(io, "n1")
        sid = session_id()
        store.submit([write(sid, {"a": "1"}) for _ in range(3)], answers.extend)
    await until(lambda: len(answers) == 3)
    assert [type(answer) for answer in answers] == [Outcome, Outcome, Outcome]
    with pytest.raises(StoreUnavailable, match="closed"):
        await io.execute("PING")


async def test_closing_while_redis_is_away(redis_server: RedisServer) -> None:
    """The thread ends although it is waiting to reconnect."""
    io = RedisIO(redis_server.url, deadline=DEADLINE)
    with trio.fail_after(GUARD):
        async with io.running():
            redis_server.kill()
            await until(lambda: not io.connected)
    with pytest.raises(StoreUnavailable):
        await io.execute("PING")


async def test_an_idle_connection_is_renewed_at_once(redis_server: RedisServer) -> None:
    """Not when its next sign of life is due, 2 s later: a rollback is waiting to be told."""
    async with RedisIO(redis_server.url).running() as io:
        await io.execute("GET", "k")
        assert io._driver is not None
        router = io._driver._routers[0]
        router.renew(None)
        assert router.due() == 0.0
