"""Redis answers, but not with what was asked: lost scripts, lost replies, refusals."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.contract.old_redis import old_server
from support.contract.requests import join, leave, pairs, read, resume, session_id, write
from support.cutting_proxy import CuttingProxy
from support.redis_servers import RedisServer, until
from syncbridge.errors import StoreTimeout, StoreUnavailable
from syncbridge.limits import Limits
from syncbridge.records.sessions import Apply, Status
from syncbridge.slots import bucket_of
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.link.wire import NO_LOGIN, pack
from syncbridge_server.redis.stores.codec import CODECS, StoreSettings
from syncbridge_server.redis.stores.store import RedisStore

SETTINGS = StoreSettings.of("n1", Limits(), lambda: os.urandom(8))
FLUSH = Command(pack("SCRIPT", "FLUSH"))


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[CuttingProxy]:
    """A proxy before the private Redis."""
    running = CuttingProxy(Path(redis_server.directory) / "p", redis_server.socket)
    yield running
    running.close()


def command(io: RedisIO, request: Apply) -> Command:
    """A write as the store would send it."""
    call = CODECS[type(request)][0](request, SETTINGS)
    return io.script_command(call.script, call.keys, call.args, repeatable=call.repeatable)


async def test_lost_reply_of_an_identified_write_is_fetched_again(
    redis_server: RedisServer, proxy: CuttingProxy
) -> None:
    """It is sent a second time and answers DUPLICATE; it took effect once."""
    async with RedisIO(proxy.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"a": "1"}))
        proxy.cut_next_reply()
        outcome = await store.call(write(sid, {"a": "2"}, mutation_id="m"))
        assert (outcome.status, outcome.version) == (Status.DUPLICATE, 2)
        assert proxy.cuts == 1
        assert (await store.call(read(sid))).version == 2


async def test_lost_reply_of_another_write_is_unknown(proxy: CuttingProxy) -> None:
    """Without a mutation id it is not repeated: StoreTimeout, and it did happen."""
    async with RedisIO(proxy.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"a": "1"}))
        proxy.cut_next_reply()
        with pytest.raises(StoreTimeout):
            await store.call(write(sid, {"a": "2"}))
        assert (await store.call(read(sid))).version == 2


async def test_in_one_batch_only_what_is_safe_is_repeated(proxy: CuttingProxy) -> None:
    """Reads and identified writes have answers in order, the others are unknown."""
    async with RedisIO(proxy.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"a": "1"}))
        proxy.cut_next_reply()
        answers: list[object] = []
        requests = [write(sid, {"a": "2"}, mutation_id="m"), write(sid, {"b": "1"}), read(sid)]
        store.submit([*requests, join(sid)], answers.extend)
        snapshot = await store.call(read(sid))
        assert [type(answer).__name__ for answer in answers] == [
            "Outcome",
            "StoreTimeout",
            "Snapshot",
            "StoreTimeout",
        ]
        assert snapshot.version == 3


async def test_script_flush_is_not_noticed(redis_server: RedisServer) -> None:
    """Between calls and in the middle of a batch; answers and effects keep their order."""
    async with RedisIO(redis_server.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"n": "0"}))
        await io.execute("SCRIPT", "FLUSH")
        assert (await store.call(write(sid, {"n": "1"}))).version == 2
        batch = [command(io, write(sid, {"n": str(number)})) for number in range(2, 12)]
        batch[5:5] = [FLUSH]
        replies = await io.request(batch)
        assert replies.pop(5) == b"OK"
        assert [reply[1] for reply in replies] == list(range(3, 13))
        assert pairs((await store.call(read(sid))).flat) == {b"n": b"11"}


async def test_a_write_is_not_run_after_one_that_was_submitted_later(
    redis_server: RedisServer,
) -> None:
    """Another node loads the script in the middle: the overtaken write is refused, not late."""
    async with RedisIO(redis_server.url).running() as io:
        sid, other = session_id(), session_id()
        while bucket_of(other) == bucket_of(sid):  # what shares a hash tag keeps its order too
            other = session_id()
        load = Command(pack("SCRIPT", "LOAD", io.scripts.sources["apply"]))
        replies = await io.request(
            [
                FLUSH,
                command(io, write(sid, {"n": "first"})),
                command(io, write(other, {"n": "elsewhere"})),
                load,
                command(io, write(sid, {"n": "second"})),
            ]
        )
        assert isinstance(replies[1], StoreUnavailable)
        assert replies[2][:2] == [Status.OK, 1]
        assert replies[4][:2] == [Status.OK, 1]
        store = RedisStore(io, "n1")
        assert pairs((await store.call(read(sid))).flat) == {b"n": b"second"}


async def test_out_of_memory_applies_nothing(redis_server: RedisServer) -> None:
    """Refused with Redis's code, the session is as it was; reading and leaving still work."""
    async with RedisIO(redis_server.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(join(sid))
        await store.call(write(sid, {"a": "1"}))
        await io.execute("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="OOM"):
            await store.call(write(sid, {"a": "2"}))
        assert pairs((await store.call(read(sid))).flat) == {b"a": b"1"}
        assert (await store.call(resume(sid, "", 0))).full == [b"a", b"1"]
        assert (await store.call(leave(sid))).changed
        await io.execute("CONFIG", "SET", "maxmemory", 0)
        assert (await store.call(write(sid, {"a": "2"}))).version == 2


async def test_a_master_that_became_a_replica(redis_server: RedisServer) -> None:
    """READONLY is refused, the connection is made anew, and writes work again afterwards."""
    async with RedisIO(redis_server.url).running() as io:
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(write(sid, {"a": "1"}))
        before = await io.execute("CLIENT", "ID")
        await io.execute("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.call(write(sid, {"a": "2"}))
        await until(lambda: "READONLY" in io.refusing)
        with redis_server.client() as raw:
            raw.replicaof("NO", "ONE")
        await until(lambda: io.connected)
        assert (await store.call(write(sid, {"a": "2"}))).version == 2
        assert await io.execute("CLIENT", "ID") != before


async def test_unknown_command_is_a_typed_error(redis_server: RedisServer) -> None:
    """The error has the code word only, nothing of what was sent."""
    async with RedisIO(redis_server.url).running() as io:
        with pytest.raises(StoreUnavailable) as caught:
            await io.execute("NOSUCH", "a-secret")
        assert caught.value.detail == "Redis refused: ERR"
        with pytest.raises(KeyError):
            await io.script("nosuch", [], [])


async def test_a_server_that_is_too_old_is_refused(redis_server: RedisServer) -> None:
    """Nothing is sent to it, and the error says what would be accepted."""
    with old_server(redis_server.directory / "old") as url:
        async with RedisIO(url).running() as io:
            assert not io.connected
            with pytest.raises(StoreUnavailable, match=r"Redis 7\.0 or newer is needed"):
                await io.execute("PING")


async def test_password_and_database(redis_server: RedisServer) -> None:
    """Both come from the URL; a wrong password shows as unavailable and is not repeated to us."""
    with redis_server.client() as raw:
        raw.config_set("requirepass", "right-secret")
    good = f"{redis_server.url}?db=3&password=right-secret"
    async with RedisIO(good).running() as io:
        await io.execute("SET", "here", "1")
        assert b"db=3" in await io.execute("CLIENT", "INFO")
    bad = f"{redis_server.url}?db=3&password=wrong-secret"
    async with RedisIO(bad).running() as io:
        assert not io.connected
        with pytest.raises(StoreUnavailable) as caught:
            await io.execute("PING")
        assert caught.value.detail == f"Redis: cannot connect: {NO_LOGIN}"
