"""The copy of live calls against a store in memory: news in any order, lost, late or damaged."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from syncbridge.errors import ErrorCode, StoreError, StoreUnavailable
from syncbridge.voice import reporting, view
from syncbridge.voice.announcements import Message
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.evidence import Joined, Left, Source
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.records import ChannelConfig, ChannelRecord, decode_record, encode_record
from syncbridge.voice.stored import ChannelNews, Stored
from syncbridge.voice.view import View
from syncbridge_server.voice.sockets.live_calls import LiveCall, LiveCalls

Change = Callable[[Channel], Any]


class Damaged(StoreError):
    """What cannot be read, however often it is asked for."""

    def __init__(self) -> None:
        super().__init__("damaged")
        self.code = ErrorCode.STATE_DAMAGED


class Memory:
    """Channels in memory; `news` waits until a test delivers it."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[bytes, int]] = {}
        self.news: list[ChannelNews] = []
        self.reads: list[list[str]] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.away = False
        self.damaged: set[str] = set()

    def change(self, channel_id: str, change: Change) -> None:
        """Write a channel as the writer does."""
        data, revision = self.stored.get(channel_id, (b"", 0))
        record = decode_record(data) if data else ChannelRecord(channel_id)
        before = view.of_record(record)
        channel = Channel(record, ChannelLimits())
        change(channel)
        dumped = channel.dump()
        shown = view.difference(before, view.of_record(dumped))
        events = channel.news + ([] if shown is None else [view.to_message(shown)])
        self.stored[channel_id] = (encode_record(dumped), revision + 1)
        self.news.append(ChannelNews(channel_id, revision + 1, "node", events))

    async def read_many(self, channel_ids: Sequence[str]) -> list[Stored | StoreError]:
        await trio.lowlevel.checkpoint()
        self.reads.append(list(channel_ids))
        if self.away:
            raise StoreUnavailable("away")
        found: list[Stored | StoreError] = []
        for channel_id in channel_ids:
            if channel_id in self.damaged:
                found.append(Damaged())
                continue
            data, revision = self.stored.get(channel_id, (b"", 0))
            record = decode_record(data) if data else ChannelRecord(channel_id)
            found.append(Stored(record, revision))
        self.before_answer()
        return found

    async def live(self) -> AsyncIterator[list[str]]:
        if self.away:
            raise StoreUnavailable("away")
        shown = [i for i, (data, _) in self.stored.items() if view.of_record(decode_record(data))]
        if shown:
            yield shown

    def on_news(self, handler: Callable[[ChannelNews], None]) -> None:
        self.handler = handler

    def on_resync(self, handler: Callable[[], None]) -> None:
        self.resync = handler

    def deliver(self, *which: int) -> None:
        """Give the copy news, by default all that wait."""
        waiting, self.news = self.news, []
        for one in [waiting[index] for index in which] if which else waiting:
            self.handler(one)


Told = list[tuple[str, list[Message]]]


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
async def live_calls(memory: Memory, told: Told, nursery: trio.Nursery) -> LiveCalls:
    """A copy that runs, and notes what it tells."""
    live_calls = LiveCalls(memory, memory)  # type: ignore[arg-type]

    def note(
        channel_id: str,
        call: LiveCall | None,
        before: View | None,
        shown: View | None,
        events: Sequence[Message],
    ) -> None:
        told.append((channel_id, list(events)))

    live_calls.on_change(note)
    nursery.start_soon(live_calls.run)
    return live_calls


def begin(channel: Channel) -> None:
    room = channel.opening(1000, ChannelConfig(), "w")
    channel.opened("s1", 1000, room.key)


def joins(user: str) -> Change:
    said = ClientReport(user, f"phone of {user}", "sid", f"{user}-1")
    return lambda channel: reporting.report(channel, said, 2000)


def leaves(user: str) -> Change:
    sign = Left(
        generation=1, at=3000, source=Source.WEBHOOK, user_id=user, connection_id=f"{user}-1"
    )
    return lambda channel: channel.apply([sign], 3000)


def is_true(live_calls: LiveCalls, memory: Memory) -> bool:
    """Whether a copy shows exactly what is stored, and its indexes are right."""
    views = {i: view.of_record(decode_record(d)) for i, (d, _) in memory.stored.items()}
    live = {channel_id: shown for channel_id, shown in views.items() if shown is not None}
    users: dict[str, set[str]] = {}
    devices = {}
    for channel_id, shown in live.items():
        for user_id, person in shown.participants.items():
            users.setdefault(user_id, set()).add(channel_id)
            devices[person.sid, person.device_id] = channel_id
    here = {channel_id: call.view for channel_id, call in live_calls.calls.items()}
    found = {user: {call.channel_id for call in live_calls.calls_of(user)} for user in users}
    held = {key: live_calls.held_by(*key) for key in devices}
    numbers = {call.channel_id for call in live_calls.numbers.values()}
    return (here, found, held, numbers) == (live, users, devices, set(live))


def states(told: Told) -> list[tuple[str, str]]:
    return [
        (message["state"], message["userId"])
        for _, events in told
        for message in events
        if message["type"] == "voice_state_update" and "deviceId" not in message
    ]


async def settled() -> None:
    """All that can be done without waiting is done."""
    await trio.testing.wait_all_tasks_blocked()


async def test_news_are_followed_without_reading(
    live_calls: LiveCalls, memory: Memory, told: Told
) -> None:
    """From the first joining to the end of the call, the store is not asked."""
    await settled()
    for change in (begin, joins("ann"), joins("bob"), leaves("ann")):
        memory.change("c", change)
        memory.deliver()
        assert is_true(live_calls, memory)
    memory.change("c", lambda channel: channel.end(4000, "closed"))
    memory.deliver()
    assert is_true(live_calls, memory)
    assert ({}, [], "") == (
        live_calls.calls,
        live_calls.calls_of("bob"),
        live_calls.held_by("sid", "phone of bob"),
    )
    assert [("connected", "ann"), ("connected", "bob"), ("disconnected", "ann")] == states(told)[:3]
    assert [] == memory.reads


async def test_the_start_reads_what_is_live(
    memory: Memory, autojump_clock: trio.testing.MockClock
) -> None:
    """Also while the store was away at first; one that is damaged does not hide the others."""
    memory.change("c", begin)
    memory.change("c", joins("ann"))
    memory.change("d", begin)
    memory.change("broken", begin)
    memory.news.clear()
    memory.away, memory.damaged = True, {"broken"}
    live_calls = LiveCalls(memory, memory)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live_calls.run)
        await settled()
        assert not live_calls.loaded.is_set()
        memory.away = False
        with trio.fail_after(10):
            await live_calls.loaded.wait()
        nursery.cancel_scope.cancel()

    assert {"c", "d"} == set(live_calls.calls)
    assert ["c"] == [call.channel_id for call in live_calls.calls_of("ann")]


async def test_missing_news_are_read_and_told_once(
    live_calls: LiveCalls, memory: Memory, told: Told
) -> None:
    """The sockets hear what they missed out of the difference, and nothing twice."""
    await settled()
    memory.change("c", begin)
    memory.deliver()
    for change in (joins("ann"), joins("bob"), leaves("ann"), joins("eve")):
        memory.change("c", change)
    memory.deliver(3)
    await settled()
    assert is_true(live_calls, memory)
    assert [["c"]] == memory.reads
    assert [("connected", "bob"), ("connected", "eve")] == states(told)


async def test_news_during_a_read_are_not_undone(live_calls: LiveCalls, memory: Memory) -> None:
    """The read answers with an old channel after the news of its end: it stays ended."""
    await settled()
    memory.change("c", begin)
    memory.deliver()
    memory.change("c", joins("ann"))
    memory.change("c", joins("bob"))

    def end() -> None:
        memory.before_answer = lambda: None
        memory.change("c", lambda channel: channel.end(4000, "closed"))
        memory.deliver()

    memory.before_answer = end
    memory.deliver(1)
    await settled()
    assert is_true(live_calls, memory)
    assert {} == live_calls.calls


async def test_old_and_repeated_news_change_nothing(
    live_calls: LiveCalls, memory: Memory, told: Told
) -> None:
    """Whatever comes late is known."""
    await settled()
    memory.change("c", begin)
    memory.change("c", joins("ann"))
    waiting = list(memory.news)
    memory.deliver()
    count = len(told)
    for news in waiting * 2:
        memory.handler(news)
    await settled()
    assert is_true(live_calls, memory)
    assert (count, []) == (len(told), memory.reads)


async def test_after_a_break_everything_is_compared(
    live_calls: LiveCalls, memory: Memory, told: Told
) -> None:
    """Calls that began, changed or ended meanwhile: all of them are as the store says."""
    await settled()
    for name in ("a", "b"):
        memory.change(name, begin)
        memory.change(name, joins("ann"))
    memory.deliver()
    memory.change("a", lambda channel: channel.end(4000, "closed"))
    memory.change("b", joins("bob"))
    memory.change("new", begin)
    memory.news.clear()
    told.clear()
    memory.resync()
    await settled()
    assert is_true(live_calls, memory)
    assert {("disconnected", "ann"), ("connected", "bob")} == set(states(told))
    ended = [m for _, events in told for m in events if m["type"] == "session_ended"]
    assert ["a"] == [message["channelId"] for message in ended]


async def test_a_call_that_ended_and_began_again_unheard(
    live_calls: LiveCalls, memory: Memory, told: Told
) -> None:
    """A whole view tells the end of the call before, too."""
    await settled()
    memory.change("c", begin)
    memory.change("c", joins("ann"))
    memory.deliver()
    told.clear()
    memory.change("c", lambda channel: channel.end(4000, "closed"))
    memory.change("c", begin)
    memory.deliver(1)
    assert is_true(live_calls, memory)
    assert [("disconnected", "ann")] == states(told)
    assert [] == memory.reads


async def test_an_unreadable_view_is_read(live_calls: LiveCalls, memory: Memory) -> None:
    """News of a newer node, perhaps: the channel itself is asked."""
    await settled()
    memory.change("c", begin)
    memory.deliver()
    memory.change("c", joins("ann"))
    memory.news.clear()
    memory.handler(ChannelNews("c", 2, "node", [{"type": view.VIEW, "present": 1}]))
    await settled()
    assert is_true(live_calls, memory)


async def test_the_board_is_bounded(memory: Memory) -> None:
    """More live channels than it takes are counted, and not kept."""
    live_calls = LiveCalls(memory, memory, max_channels=2)  # type: ignore[arg-type]
    for name in ("a", "b", "c"):
        memory.change(name, begin)
    memory.deliver()
    assert (2, 1) == (len(live_calls.calls), live_calls.refused)


async def test_a_waiter_is_woken_by_the_write_that_it_waits_for(
    live_calls: LiveCalls, memory: Memory, autojump_clock: trio.testing.MockClock
) -> None:
    """`caught_up` returns with the revision, and after its time without it."""
    await settled()
    memory.change("c", begin)
    memory.change("c", joins("ann"))
    shown = []

    async def wait() -> None:
        await live_calls.caught_up("c", 2, 60.0)
        shown.append(live_calls.member("c", "ann") is not None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await settled()
        assert [] == shown
        memory.deliver()
    assert [True] == shown
    began = trio.current_time()
    await live_calls.caught_up("c", 3, 5.0)
    assert 5.0 == pytest.approx(trio.current_time() - began)


def test_a_handler_that_fails_does_not_keep_the_board_back() -> None:
    """The others are told, and the live_calls goes on."""
    memory = Memory()
    live_calls = LiveCalls(memory, memory)  # type: ignore[arg-type]
    heard: list[str] = []

    def fails(*_: Any) -> None:
        raise RuntimeError("broken")

    live_calls.on_change(fails)
    live_calls.on_change(lambda channel_id, *_: heard.append(channel_id))
    memory.change("c", begin)
    memory.deliver()
    assert ["c"] == heard


async def test_a_device_can_hold_two_calls(live_calls: LiveCalls, memory: Memory) -> None:
    """The one that it took up last is shown; then the other one."""
    for name in ("c", "d"):
        memory.change(name, begin)
        memory.change(name, joins("ann"))
    memory.deliver()
    assert "d" == live_calls.held_by("sid", "phone of ann")
    memory.change("d", leaves("ann"))
    memory.deliver()
    assert "c" == live_calls.held_by("sid", "phone of ann")


def test_evidence_without_a_view_only_counts_up() -> None:
    """A renewal that shows nothing new is the next revision all the same."""
    memory = Memory()
    live_calls = LiveCalls(memory, memory)  # type: ignore[arg-type]
    memory.change("c", begin)
    memory.change("c", joins("ann"))
    sign = Joined(generation=1, at=2500, source=Source.CLIENT, user_id="ann")
    memory.change("c", lambda channel: channel.apply([sign], 2500))
    memory.change("c", joins("bob"))
    memory.deliver()
    assert 4 == live_calls.calls["c"].revision
    assert is_true(live_calls, memory)
