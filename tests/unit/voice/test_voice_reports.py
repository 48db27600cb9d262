"""Reports of clients on their way to the store, and who speaks: bounds, batches, pauses."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from syncbridge.errors import ErrorCode, StoreUnavailable, SyncBridgeError
from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.records import ChannelConfig, ChannelRecord
from syncbridge.voice.view import Head, ParticipantView, View
from syncbridge_server.voice.sockets.live_calls import LiveCall
from syncbridge_server.voice.sockets.reports import ClientReports, PendingReport
from syncbridge_server.voice.sockets.speaking import Speaking

NOW = 5000


def anybody(waddle_id: str) -> None:
    """No report is refused."""


class ChannelWriter:
    """Channels in memory; a change takes a while. `changes`: how many there were of which."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.changes: list[str] = []
        self.away = False
        self.at_once: set[str] = set()

    def open(self, channel_id: str) -> None:
        channel = Channel(ChannelRecord(channel_id), ChannelLimits())
        room = channel.opening(1000, ChannelConfig(), "w")
        channel.opened(f"of-{channel_id}", 1000, room.key)
        self.channels[channel_id] = channel

    async def change(self, channel_id: str, rule: Callable[[Channel, int], Any]) -> Any:
        assert channel_id not in self.at_once, "one channel is changed by one worker at a time"
        self.at_once.add(channel_id)
        try:
            await trio.sleep(0.1)
            if self.away:
                raise StoreUnavailable("away")
            empty = Channel(ChannelRecord(channel_id), ChannelLimits())
            answer = rule(self.channels.get(channel_id, empty), NOW)
            self.changes.append(channel_id)
            return answer
        finally:
            self.at_once.remove(channel_id)


class LiveCalls:
    """A live_calls that shows one call with these people, or nothing."""

    def __init__(self, *people: str, muted: str = "") -> None:
        shown = View(
            Head("s", 1, Phase.ACTIVE),
            {user: ParticipantView(1, muted=user == muted) for user in people},
        )
        call = LiveCall("c", 1, 1, shown)
        self.calls = {"c": call} if people else {}
        self.numbers = {1: call} if people else {}

    async def caught_up(self, channel_id: str, revision: int, seconds: float) -> None:
        await trio.lowlevel.checkpoint()


Answers = list[tuple[str, str]]


def said(
    answers: Answers, user: str, *, joins: bool = True, forbidden: bool = False
) -> PendingReport:
    """A report that notes (user, error code) when it is answered."""

    def answer(shown: View | None, error: SyncBridgeError | None) -> None:
        answers.append((user, error.code.wire if error is not None else ""))

    def refuse(waddle_id: str) -> None:
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "no grant")

    report = ClientReport(user, "phone", "sid", f"{user}-1")
    return PendingReport(report, joins, refuse if forbidden else anybody, answer)


async def test_what_waits_for_a_channel_is_one_change(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A hundred reports cost two writes: the first, and all that came during it."""
    writer, answers = ChannelWriter(), Answers()
    writer.open("c")
    reports = ClientReports(writer, LiveCalls(), lambda: None)  # type: ignore[arg-type]
    nursery.start_soon(reports.run)
    reports.submit("c", said(answers, "first"))
    await trio.sleep(0.05)
    for number in range(100):
        reports.submit("c", said(answers, f"u{number}"))
        reports.renew("c", "first")
    await trio.sleep(1)

    assert ["c", "c"] == writer.changes
    assert [("first", ""), *((f"u{n}", "") for n in range(100))] == answers
    assert 0 == reports.waiting


async def test_channels_do_not_wait_for_each_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Eight at a time, and none twice at once."""
    writer, answers = ChannelWriter(), Answers()
    reports = ClientReports(writer, LiveCalls(), lambda: None)  # type: ignore[arg-type]
    nursery.start_soon(reports.run)
    for number in range(16):
        writer.open(f"c{number}")
        reports.submit(f"c{number}", said(answers, f"u{number}"))
    began = trio.current_time()
    while len(answers) < 16:  # noqa: ASYNC110 - a clock that jumps
        await trio.sleep(0.01)

    assert trio.current_time() - began < 0.3


async def test_each_report_is_told_its_own_refusal(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Forbidden is one's own; no call, and a store that is away, are everybody's."""
    writer, answers = ChannelWriter(), Answers()
    writer.open("c")
    reports = ClientReports(writer, LiveCalls(), lambda: None)  # type: ignore[arg-type]
    nursery.start_soon(reports.run)
    reports.submit("c", said(answers, "ann"))
    reports.submit("c", said(answers, "eve", forbidden=True))
    reports.submit("none", said(answers, "bob"))
    await trio.sleep(1)
    assert {("ann", ""), ("eve", "forbidden"), ("bob", "not_found")} == set(answers)
    call = writer.channels["c"].call
    assert call is not None
    assert ("ann",) == call.users

    writer.away = True
    reports.submit("c", said(answers, "ann", joins=False))
    await trio.sleep(1)
    assert ("ann", "store_unavailable") == answers[-1]


async def test_only_refusals_write_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who may not speak of a channel does not cost it a write."""
    writer, answers = ChannelWriter(), Answers()
    writer.open("c")
    reports = ClientReports(writer, LiveCalls(), lambda: None)  # type: ignore[arg-type]
    nursery.start_soon(reports.run)
    reports.submit("c", said(answers, "eve", forbidden=True))
    await trio.sleep(1)

    assert ([("eve", "forbidden")], []) == (answers, writer.changes)


def test_what_waits_is_bounded() -> None:
    """The next report is refused with a time; a sign that is there already takes no room."""
    answers = Answers()
    writer, calls = ChannelWriter(), LiveCalls()
    reports = ClientReports(writer, calls, lambda: None, max_waiting=3)  # type: ignore[arg-type]
    reports.submit("c", said(answers, "ann"))
    for _ in range(10):
        reports.renew("c", "ann")
    reports.renew("d", "bob")

    with pytest.raises(SyncBridgeError) as refused:
        reports.submit("e", said(answers, "eve"))
    assert (ErrorCode.OVERLOADED, True) == (
        refused.value.code,
        refused.value.retry_after is not None,
    )
    assert (3, []) == (reports.waiting, answers)


class Rig:
    """Speaking with a clock of the test's, and what it sent to `listeners`."""

    def __init__(self, live_calls: LiveCalls, listeners: int = 2) -> None:
        self.now = 1000
        self.told: list[list[tuple[str, bool]]] = []
        self.shared: list[bytes] = []
        self.listeners = listeners
        self.speaking = Speaking(
            live_calls,  # type: ignore[arg-type]
            self.tell,
            self.shared.append,
            lambda: None,
            node="here",
            monotonic=lambda: self.now,
        )
        self.call = live_calls.calls["c"]

    def tell(self, channel_id: str, message: dict[str, Any], kind: int) -> int:
        changes = message.get("updates", [message])
        self.told.append([(one["userId"], one["isSpeaking"]) for one in changes])
        return self.listeners

    def says(self, user: str, speaking: bool) -> None:
        """A report, in a tick of its own."""
        self.speaking.report(self.call, user, speaking)
        self.speaking.tick()


def test_a_large_channel_is_told_after_a_pause() -> None:
    """10,000 listeners: four who begin to speak are told of at once, one after another; the fifth
    waits until 100 ms for each are over but those of three, and takes others along."""
    rig = Rig(LiveCalls("ann", "bob", "cat", "sue", "eve", "dan"), listeners=10_000)
    for user in ("ann", "bob", "cat", "sue"):
        rig.says(user, True)
        rig.now += 10
    assert [[(user, True)] for user in ("ann", "bob", "cat", "sue")] == rig.told
    rig.now += 20
    rig.says("eve", True)
    rig.now += 39
    rig.says("dan", True)
    assert 4 == len(rig.told)
    rig.now += 1
    rig.speaking.tick()
    assert [("eve", True), ("dan", True)] == rig.told[4]


def test_a_large_channel_is_not_told_more_than_ten_times_a_second() -> None:
    """Whatever came before: what is owed does not grow while nothing is said."""
    people = [f"user-{number}" for number in range(1000)]
    rig = Rig(LiveCalls(*people), listeners=10_000)
    rig.now += 60_000
    for number, user in enumerate(people):
        rig.says(user, True)
        rig.now += 1
        if number == 199:
            assert 5 == len(rig.told)
    assert 13 == len(rig.told)


def test_a_small_channel_is_told_at_once() -> None:
    """No pause can be noticed."""
    rig = Rig(LiveCalls("ann", "bob"), listeners=20)
    rig.says("ann", True)
    rig.says("bob", True)
    assert [[("ann", True)], [("bob", True)]] == rig.told


def test_what_another_node_tells_is_not_passed_on() -> None:
    """Each change is shared once, by the node that heard of it last."""
    rig, other = Rig(LiveCalls("ann")), Rig(LiveCalls("ann"))
    other.speaking._node = "there"
    rig.says("ann", True)
    [notice] = rig.shared
    rig.speaking.receive(notice)
    other.speaking.receive(notice)
    assert ([[("ann", True)]], []) == (other.told, other.shared)
    other.now += 300
    other.says("ann", False)
    rig.now += 300
    rig.speaking.receive(other.shared[0])
    assert [[("ann", True)], [("ann", False)]] == rig.told
    assert 1 == len(rig.shared)


@pytest.mark.parametrize("data", [b"", b"[]", b'["x",[["c",[["ann",2]]]]]', b'{"node":1}'])
def test_a_notice_that_cannot_be_read_is_nothing(data: bytes) -> None:
    """Nobody speaks for it, and nothing breaks."""
    rig = Rig(LiveCalls("ann"))
    rig.speaking.receive(data)
    assert [] == rig.told


def test_strangers_and_muted_people_do_not_speak() -> None:
    """Not by the word of another node, and not by the provider's."""
    rig = Rig(LiveCalls("ann", "bob", muted="bob"))
    rig.speaking.receive(
        b'["there",[["c",[["bob",true],["nobody",true]]],["other",[["ann",true]]]]]'
    )
    rig.speaking.report_now("c", "bob", True)
    rig.speaking.report_now("c", "nobody", True)
    rig.speaking.report_now("other", "ann", True)
    assert [] == rig.told


def test_an_ended_call_leaves_nothing_behind() -> None:
    """Neither in the throttle nor among those that are repeated."""
    rig = Rig(LiveCalls("ann"))
    rig.says("ann", True)
    rig.speaking.forget(rig.call)
    assert (0, {}) == (rig.speaking._throttle.held, rig.speaking._ours)
