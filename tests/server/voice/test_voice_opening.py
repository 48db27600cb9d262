"""Opening rooms, provider tasks and due work, on a real Redis with a provider that a
test holds in its hands.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer, until
from syncbridge.errors import StoreError
from syncbridge.voice.channel import Channel
from syncbridge.voice.channel_limits import ChannelLimits
from syncbridge.voice.evidence import Joined, Source
from syncbridge.voice.provider import errors
from syncbridge.voice.provider.capabilities import Capabilities
from syncbridge.voice.provider.records import (
    IssuedToken,
    Permissions,
    ProviderSession,
    Recording,
    SessionRequest,
    TokenHolder,
)
from syncbridge.voice.records import ChannelConfig, Room
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.voice import assembly
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.rooms.opening import MAX_RETIRED, Opening
from syncbridge_server.voice.rooms.provider_tasks import ProviderTasks
from syncbridge_server.voice.rooms.timers import Timers
from syncbridge_server.voice.rooms.tokens import VoiceTokens

START = 1_800_000_000_000
LIMITS = ChannelLimits(retry_ms=10_000, opening_ms=20_000)


class Provider:
    """A provider: `refuse` is raised by the next calls, in order; None lets one pass."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.created: list[str] = []
        self.ended: list[str] = []
        self.recorded: list[str] = []
        self.tokens = 0
        self.refuse: list[errors.ProviderError | None] = []
        self.gate: trio.Event | None = None

    async def create_session(self, request: SessionRequest, key: str) -> ProviderSession:
        self.created.append(key)
        await self._answer()
        return ProviderSession(f"s-{key}", key)

    async def issue_token(
        self, session_id: str, participant: TokenHolder, permissions: Permissions
    ) -> IssuedToken:
        self.tokens += 1
        await self._answer()
        return IssuedToken(f"t-{self.tokens}", 1e12, participant.user_id)

    async def end_session(self, session_id: str) -> None:
        await self._answer()
        self.ended.append(session_id)

    async def start_recording(self, session_id: str) -> Recording:
        self.recorded.append(session_id)
        await self._answer()
        return Recording("r")

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        error = self.refuse.pop(0) if self.refuse else None
        if error is not None:
            raise error


class NoMigration:
    """Migrations that nobody asked for."""

    async def begin(self, channel_id: str, reason: str) -> bool:
        raise AssertionError(channel_id)

    async def carry_on(self, channel_id: str) -> bool:
        raise AssertionError(channel_id)


class NoLook:
    """Looks that nobody takes."""

    async def check(self, channel_id: str) -> object:
        raise AssertionError(channel_id)


@dataclass
class Part:
    """The parts of one node. `now`: Unix ms."""

    provider: Provider
    writer: ChannelWriter
    opening: Opening
    tasks: ProviderTasks
    timers: Timers
    tokens: VoiceTokens
    clock: "Clock" = field(default_factory=lambda: Clock())

    async def record(self) -> Any:
        """The record of the channel."""
        return (await self.writer.read("c")).record


class Clock:
    """A clock that moves when it is told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now / 1000


@asynccontextmanager
async def part(redis_url: str, patience: float = 5.0) -> AsyncIterator[Part]:
    """The parts of a node, not at work."""
    async with RedisIO(redis_url).running() as io:
        bus = RedisBus(io, "node")
        async with bus.running():
            clock, provider = Clock(), Provider()
            writer = ChannelWriter(RedisChannels(io, bus, "node", 1000.0), LIMITS, clock)
            port: Any = provider
            opening = Opening(port, writer, ChannelConfig(), patience)
            tasks = ProviderTasks(port, writer, opening, patience)
            timers = Timers(writer, opening, tasks, NoMigration(), NoLook())
            tokens = VoiceTokens(port, writer, opening, 3600.0, patience)
            yield Part(provider, writer, opening, tasks, timers, tokens, clock)


@pytest.fixture
async def one(redis_server: RedisServer) -> AsyncIterator[Part]:
    async with part(redis_server.url) as parts:
        yield parts


async def change(parts: Part, deed: Callable[[Channel, int], Any]) -> None:
    await parts.writer.change("c", deed)


async def join(parts: Part, user: str) -> None:
    """A user is in the call, says a webhook."""

    def rule(channel: Channel, now: int) -> None:
        generation = channel.call.generation if channel.call is not None else 0
        sign = Joined(
            generation=generation,
            at=now,
            source=Source.WEBHOOK,
            user_id=user,
            connection_id=f"{user}-1",
        )
        channel.apply([sign], now)

    await change(parts, rule)


# Opening


async def test_callers_of_a_node_share_an_attempt(one: Part) -> None:
    """One request for many; when who asked first is cancelled, another one goes on."""
    one.provider.gate = trio.Event()
    rooms: list[Room] = []

    async def ask() -> None:
        rooms.append(await one.opening.room("c", "w"))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as leader:
                leader.start_soon(ask)
                await until(lambda: bool(one.provider.created))
                for _ in range(5):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.05)
                first.cancel()
        one.provider.gate.set()

    assert (5, 1) == (len(rooms), len({room.key for room in rooms}))
    assert [rooms[0].key] * 2 == one.provider.created


async def test_a_failure_is_everybodys(one: Part) -> None:
    """Those who waited for an attempt hear of its failure; it is noted, with a time."""
    one.provider.gate = trio.Event()
    failed: list[type[Exception]] = []

    async def ask() -> None:
        try:
            await one.opening.room("c", "w")
        except errors.ProviderError as error:
            failed.append(type(error))

    one.provider.refuse = [errors.RateLimited(retry_after=60.0)]
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        one.provider.gate.set()
    record = await one.record()

    assert ([errors.RateLimited] * 3, 1) == (failed, len(one.provider.created))
    assert ("RATE_LIMITED", START + 60_000) == (record.last_error, record.retry_at)


async def test_what_was_ended_while_it_was_opened_is_not_live(one: Part) -> None:
    """The caller is told to come again; the room is asked for under its key, and ended."""
    one.provider.gate = trio.Event()

    async def ask() -> None:
        with pytest.raises(errors.ProviderUnavailable):
            await one.opening.room("c", "w")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: bool(one.provider.created))
        await change(one, lambda channel, now: channel.end(now, "ended"))
        one.provider.gate.set()
    await one.tasks.do("c")
    channel = await one.writer.read("c")

    [key] = set(one.provider.created)
    assert ([f"s-{key}"], False, []) == (one.provider.ended, channel.live, channel.record.retired)


async def test_no_room_beside_too_many_that_wait_to_be_ended(one: Part) -> None:
    """Rooms of a channel do not pile up while the provider is in trouble."""

    def pile(channel: Channel, now: int) -> None:
        channel.record.retired = [Room(n, f"k{n}", now, f"s{n}") for n in range(MAX_RETIRED)]

    await change(one, pile)

    with pytest.raises(errors.ProviderUnavailable):
        await one.opening.room("c", "w")
    assert [] == one.provider.created


async def test_another_node_that_opens_is_waited_for(redis_server: RedisServer) -> None:
    """Two nodes, one request; the second finds the room when it gets the lock."""
    async with part(redis_server.url) as one, part(redis_server.url) as two:
        one.provider.gate = trio.Event()
        rooms: dict[str, Room] = {}

        async def ask(name: str, parts: Part) -> None:
            rooms[name] = await parts.opening.room("c", "w")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "one", one)
            await until(lambda: bool(one.provider.created))
            nursery.start_soon(ask, "two", two)
            one.provider.gate.set()

        assert rooms["one"] == rooms["two"]
        assert [] == two.provider.created


# Tokens


async def test_a_token_that_is_over_is_asked_for_once_more(one: Part) -> None:
    """TOKEN_EXPIRED: one repetition, then the error; then the seat is free."""
    await one.opening.room("c", "w")
    expired = errors.ProviderTokenExpired()
    one.provider.refuse = [expired]
    token = await one.tokens.issue("ann", "", "w", "c", Permissions())
    one.provider.refuse = [expired, expired]
    with pytest.raises(errors.ProviderTokenExpired):
        await one.tokens.issue("bob", "", "w", "c", Permissions())

    assert ("t-2", 4) == (token.token, one.provider.tokens)
    assert ["ann"] == list((await one.record()).participants)
    assert START / 1000 + 3600 == token.expires_at


async def test_a_token_shows_nothing_when_it_is_printed(one: Part) -> None:
    """A log line cannot let anybody in."""
    token = await one.tokens.issue("ann", "", "w", "c", Permissions())

    assert token.token not in repr(token)


async def test_a_slow_provider_is_given_up(redis_server: RedisServer) -> None:
    """The caller hears within the patience, and has no seat."""
    async with part(redis_server.url, patience=0.3) as one:
        await one.opening.room("c", "w")
        one.provider.gate = trio.Event()
        with pytest.raises(errors.NetworkFailed):
            await one.tokens.issue("ann", "", "w", "c", Permissions())

        assert {} == (await one.record()).participants


# ProviderTasks


async def test_a_room_that_cannot_be_ended_waits_longer_each_time(one: Part) -> None:
    """Not asked before its time; after a day it is given up."""
    room = await one.opening.room("c", "w")
    await change(one, lambda channel, now: channel.end(now, "ended"))
    one.provider.refuse = [errors.NetworkFailed() for _ in range(3)]
    waits = []
    for _ in range(2):
        await one.tasks.do("c")
        waits.append((await one.record()).retry_at - one.clock.now)
        await one.tasks.do("c")
        one.clock.now = (await one.record()).retry_at
    one.clock.now += 86_400_000
    await one.tasks.do("c")

    assert [10_000, 20_000] == waits
    assert ([], []) == (one.provider.refuse, (await one.record()).retired)
    assert room.session_id not in one.provider.ended


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "started"),
        (errors.InvalidRequest(), "failed"),
        (errors.PermissionDenied(), "failed"),
        (errors.NetworkFailed(outcome_unknown=True), "wanted"),
    ],
)
async def test_recordings(one: Part, error: errors.ProviderError | None, state: str) -> None:
    """Started once somebody is there; what is refused is not asked again, what failed is."""
    await one.opening.room("c", "w", ChannelConfig(recording=True))
    await one.tasks.do("c")
    before = list(one.provider.recorded)
    await join(one, "ann")
    one.provider.refuse = [error]
    await one.tasks.do("c")
    after = (await one.record()).recording
    one.clock.now += 10_000
    await one.tasks.do("c")

    assert ([], state) == (before, after)
    assert (2 if state == "wanted" else 1) == len(one.provider.recorded)


async def test_a_refusal_after_a_lost_answer_means_that_it_is_recorded(one: Part) -> None:
    """The provider began, its answer was lost, and it will not begin a second time."""
    await one.opening.room("c", "w", ChannelConfig(recording=True))
    await join(one, "ann")
    one.provider.refuse = [errors.NetworkFailed(outcome_unknown=True), errors.InvalidRequest()]
    await one.tasks.do("c")
    one.clock.now += 10_000
    await one.tasks.do("c")

    assert "started" == (await one.record()).recording


# Timers


async def test_who_died_while_opening_is_followed(one: Part) -> None:
    """Noted and not opened: not before its time, then under the same key."""
    await change(one, lambda channel, now: channel.opening(now, ChannelConfig(), "w"))
    noted = (await one.record()).room
    await one.timers.look_after("c")
    early = list(one.provider.created)
    one.clock.now += LIMITS.opening_ms
    await one.timers.look_after("c")
    channel = await one.writer.read("c")

    assert noted is not None
    assert ([], [noted.key], True) == (early, one.provider.created, channel.live)


async def test_a_room_that_nobody_can_open_is_given_up(one: Part) -> None:
    """After the time of a call that nobody joined; it may exist, so it is ended under its key."""
    await change(one, lambda channel, now: channel.opening(now, ChannelConfig(), "w"))
    one.provider.refuse = [errors.ProviderUnavailable()]
    one.clock.now += LIMITS.opening_ms
    await one.timers.look_after("c")
    one.clock.now += LIMITS.call.unjoined_ms
    await one.timers.look_after("c")
    record = await one.record()

    assert (None, []) == (record.room, record.retired)
    assert [f"s-{one.provider.created[0]}"] == one.provider.ended


async def test_nothing_begins_when_redis_cannot_be_read(redis_server: RedisServer) -> None:
    """The timers wait; when Redis is back, what is due is done."""
    async with part(redis_server.url) as one:
        await change(one, lambda channel, now: channel.opening(now, ChannelConfig(), "w"))
        one.clock.now += LIMITS.opening_ms
        redis_server.kill()
        with pytest.raises(StoreError):
            await one.timers.look_after("c")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.timers.run)
            await until(lambda: one.timers.waiting)
            asked = list(one.provider.created)
            redis_server.start()
            await until(lambda: bool(one.provider.created))
            nursery.cancel_scope.cancel()

    assert [] == asked


async def test_one_channel_that_fails_does_not_stop_the_others(
    one: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks while one is carried on is logged; another one is carried on all the same."""
    seen = []

    async def look_after(channel_id: str) -> None:
        seen.append(channel_id)
        raise RuntimeError(channel_id)

    monkeypatch.setattr(one.timers, "look_after", look_after)
    for name in ("a", "b"):
        await one.writer.change(
            name, lambda channel, now: channel.opening(now, ChannelConfig(), "")
        )
    one.clock.now += LIMITS.opening_ms
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.timers.run)
        await until(lambda: len(seen) >= 2)
        nursery.cancel_scope.cancel()

    assert {"a", "b"} == set(seen)


# Parts


async def test_a_part_that_crashes_is_started_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After a pause, longer each time; the others never hear of it."""
    began: list[float] = []

    async def crash() -> None:
        began.append(trio.current_time())
        raise RuntimeError("a part")

    with trio.move_on_after(10):
        await assembly.kept_up("part", crash)

    assert [0.0, 1.0, 3.0, 7.0] == [at - began[0] for at in began]
