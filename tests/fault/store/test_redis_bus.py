"""Pub/sub breaks: the bus subscribes again and says that messages may be missing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.contract.requests import session_id
from support.redis_servers import RedisServer, until
from syncbridge.records.sessions import Commit, Notice
from syncbridge_server.redis.bus import listener as bus_module
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.messages import (
    decode,
    decode_commit,
    encode_notice,
    notice_channel,
)
from syncbridge_server.redis.link.client import RedisIO


class Subscriber:
    """What a bus has told, in order."""

    def __init__(self, bus: RedisBus) -> None:
        self.heard: list[str] = []
        bus.on_resync(lambda: self.heard.append("resync"))
        bus.on_notice("test", lambda notice: self.heard.append(notice.data.decode()))

    async def until(self, what: str) -> None:
        """Wait until that was heard."""
        await until(lambda: what in self.heard)


@asynccontextmanager
async def listening(server: RedisServer) -> AsyncIterator[tuple[RedisIO, RedisBus, Subscriber]]:
    """A running client and bus."""
    io = RedisIO(server.url)
    async with io.running():
        bus = RedisBus(io, "n1")
        ear = Subscriber(bus)
        async with bus.running():
            yield io, bus, ear


async def again(io: RedisIO, bus: RedisBus) -> None:
    """Wait until both connections are there."""
    await until(lambda: io.connected and bus.connected)


def say(bus: RedisBus, text: str) -> None:
    """A notice to all."""
    bus.tell("*", Notice("test", "", text.encode()))


async def test_restart_calls_resync_and_messages_flow_again(redis_server: RedisServer) -> None:
    """No resync at the start; one after the break, before anything new."""
    async with listening(redis_server) as (io, bus, ear):
        say(bus, "before")
        await ear.until("before")
        redis_server.kill()
        redis_server.start()
        await ear.until("resync")
        await again(io, bus)
        say(bus, "after")
        await ear.until("after")
        assert ear.heard == ["before", "resync", "after"]


async def test_a_closed_connection_calls_resync(redis_server: RedisServer) -> None:
    """Also when Redis itself never went away."""
    async with listening(redis_server) as (io, bus, ear):
        assert await io.execute("CLIENT", "KILL", "TYPE", "pubsub") == 1
        await ear.until("resync")
        say(bus, "after")
        await ear.until("after")
        assert ear.heard == ["resync", "after"]


async def test_redis_away_at_the_start_means_resync_later(redis_server: RedisServer) -> None:
    """A node that started blind compares its replicas once it hears."""
    redis_server.stop()
    async with listening(redis_server) as (io, bus, ear):
        assert not bus.connected
        say(bus, "lost")
        redis_server.start()
        await ear.until("resync")
        await again(io, bus)
        say(bus, "after")
        await ear.until("after")
        assert ear.heard == ["resync", "after"]


async def test_a_silent_connection_is_given_up(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No data and no PONG: the bus is down, and resyncs when Redis answers again."""
    monkeypatch.setattr(bus_module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(bus_module, "PONG_SECONDS", 0.05)
    async with listening(redis_server) as (_, bus, ear):
        redis_server.pause()
        await until(lambda: not bus.connected)
        assert ear.heard == []
        redis_server.resume()
        await ear.until("resync")


async def test_idle_connections_are_kept(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PING and PONG go back and forth, and nobody is told anything."""
    monkeypatch.setattr(bus_module, "PING_SECONDS", 0.01)
    async with listening(redis_server) as (_, bus, ear):
        with redis_server.client() as raw:
            await until(lambda: raw.info("commandstats")["cmdstat_ping"]["calls"] >= 4)
        assert bus.connected
        assert ear.heard == []


async def test_unreadable_messages_and_broken_handlers_are_survived(
    redis_server: RedisServer,
) -> None:
    """Whatever is published on our channel, the next message is delivered."""
    async with listening(redis_server) as (io, bus, ear):

        def broken(notice: Notice) -> None:
            raise RuntimeError("a bug")

        bus.on_notice("broken", broken)
        sid, doubted = session_id(), []
        bus.on_unreadable(doubted.append)
        short = b"C2 %b 1 e l - 9 9 0 0\nshort" % sid.encode()
        junk = (b"", b"X", b"N2 \xc1", b"C2", b"C2 \n", b"C2 a b c\n", b"P2 - x", short)
        for each in junk:
            await io.execute("SPUBLISH", notice_channel("n1"), each)
        bus.tell("n1", Notice("broken", "", b""))
        say(bus, "after")
        await ear.until("after")
        assert ear.heard == ["after"]
        assert doubted == [*[""] * 7, sid]


def test_messages_round_trip() -> None:
    """What is encoded is decoded, binary texts included."""
    for sid in ("", session_id()):
        notice = Notice("kind", sid, b'{"a":"\xc3\xa4"}')
        assert decode(encode_notice(notice)) == notice
    payload = b"C2 sid 12 ep l2 l1 1 2 1 1 1 3 1\ndmmta\x00\n x"
    with pytest.raises(ValueError, match="lengths"):
        decode_commit(payload + b"!")
    assert decode_commit(payload) == Commit(
        *("sid", 12, 11, "ep", "d", "mm", [b"a", b"\x00\n "], [b"x"], "l2", "l1", "t")
    )
    assert decode_commit(b"C2 sid 1 ep l1 - 1 0 0 0\nd") == Commit(
        *("sid", 1, 0, "ep", "d", "", [], [], "l1")
    )
