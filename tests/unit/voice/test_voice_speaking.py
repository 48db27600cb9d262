"""When who speaks is said: at once, together, or after a pause that a large channel asks for."""

from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from syncbridge.voice.announcements import Message
from syncbridge.voice.call_records import Phase
from syncbridge.voice.view import Head, View
from syncbridge_server.voice.sockets.live_calls import LiveCall, LiveCalls
from syncbridge_server.voice.sockets.speaking import MAX_FOLLOW_MS, Speaking

LARGE, SMALL = 10_000, 5


def milliseconds() -> int:
    return round(trio.current_time() * 1000)


class Channel:
    """One channel with so many listeners; `heard`: (ms, user, speaks) of each change told."""

    def __init__(self, listeners: int) -> None:
        self.call = LiveCall("c", 1, 1, View(Head("s", 1, Phase.ACTIVE, "w"), {}))
        live_calls = SimpleNamespace(calls={"c": self.call}, numbers={1: self.call})
        self.heard: list[tuple[int, str, bool]] = []
        self.messages = 0
        self._listeners = listeners
        self.speaking = Speaking(
            cast(LiveCalls, live_calls),
            self._tell,
            lambda data: None,
            lambda: None,
            node="n",
            monotonic=milliseconds,
        )

    def _tell(self, channel_id: str, message: Message, kind: int) -> int:
        self.messages += 1
        for change in message.get("updates", [message]):
            self.heard.append((milliseconds(), change["userId"], change["isSpeaking"]))
        return self._listeners

    def say(self, user: str, speaks: bool) -> None:
        """A report and the end of its tick."""
        self.speaking.report(self.call, user, speaks)
        self.speaking.tick()

    def of(self, user: str) -> list[tuple[int, bool]]:
        """What was told of one."""
        return [(at, speaks) for at, who, speaks in self.heard if who == user]


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> Channel:
    """A channel whose size the test chooses."""
    return Channel(request.param)


async def restless(channel: Channel, user: str, milliseconds: int) -> None:
    """Change every 50 ms for so long."""
    for number in range(milliseconds // 50):
        channel.say(user, number % 2 == 0)
        await trio.sleep(0.05)


@pytest.mark.parametrize("channel", [LARGE], indirect=True)
async def test_who_was_quiet_is_not_kept_waiting(
    channel: Channel, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Beside somebody who changes all the time, a beginning and an end are told at once."""
    nursery.start_soon(channel.speaking.run)
    nursery.start_soon(restless, channel, "bob", 5000)
    await trio.sleep(2.01)
    channel.say("ann", True)
    await trio.sleep(1.8)
    channel.say("ann", False)
    await trio.sleep(2)

    assert [(2010, True), (3810, False)] == channel.of("ann")


@pytest.mark.parametrize("channel", [LARGE], indirect=True)
async def test_who_changes_all_the_time_waits_for_the_others(
    channel: Channel, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Twenty of them take no more messages than one; the last word of each is told."""
    nursery.start_soon(channel.speaking.run)
    users = [f"u{number}" for number in range(20)]
    async with trio.open_nursery() as talking:
        for user in users:
            talking.start_soon(restless, channel, user, 5000)
            await trio.sleep(0.007)
    await trio.sleep(1)

    times = sorted({at for at, _, _ in channel.heard if at > 500})
    assert all(b - a >= MAX_FOLLOW_MS for a, b in pairwise(times))
    assert not any(channel.of(user)[-1][1] for user in users)


@pytest.mark.parametrize("channel", [LARGE], indirect=True)
async def test_very_many_beginnings_share_messages(
    channel: Channel, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A hundred people who start within a second: told within 0.1 s, by about ten messages."""
    nursery.start_soon(channel.speaking.run)
    said: dict[str, int] = {}
    for number in range(100):
        said[f"u{number}"] = milliseconds()
        channel.say(f"u{number}", True)
        await trio.sleep(0.01)
    await trio.sleep(0.2)

    assert all(channel.of(user)[0][0] - at <= 100 for user, at in said.items())
    assert channel.messages <= 14


@pytest.mark.parametrize("channel", [SMALL], indirect=True)
async def test_a_small_channel_knows_no_pause(
    channel: Channel, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Only the window of each participant holds a change back there."""
    nursery.start_soon(channel.speaking.run)
    for number in range(20):
        channel.say(f"u{number}", True)
        await trio.sleep(0.001)
    await trio.sleep(0.28)
    channel.say("u0", False)

    assert [(number, f"u{number}", True) for number in range(20)] == channel.heard[:-1]
    assert (300, "u0", False) == channel.heard[-1]


@pytest.mark.parametrize("channel", [LARGE], indirect=True)
async def test_a_window_that_ends_without_news_ends_no_pause(
    channel: Channel, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Only what was told counts for the pause; a look that finds nothing does not."""
    nursery.start_soon(channel.speaking.run)
    channel.say("ann", True)
    await trio.sleep(0.2)
    channel.say("bob", True)  # at 200; the window of ann ends without a word at 250
    await trio.sleep(0.06)
    channel.say("ann", False)

    await trio.sleep(1)
    assert [(450, False)] == channel.of("ann")[1:]


@pytest.mark.parametrize("channel", [SMALL], indirect=True)
async def test_muting_opens_no_window(
    channel: Channel, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Who speaks, mutes and unmutes as fast as can be is told of once in 250 ms, like others."""
    nursery.start_soon(channel.speaking.run)
    for _ in range(100):
        channel.say("ann", True)
        channel.speaking.hush(channel.call, ["ann"])
        await trio.sleep(0.01)
    await trio.sleep(1)

    times = [at for at, _ in channel.of("ann")]
    assert all(b - a >= 250 for a, b in pairwise(times))
    assert not channel.of("ann")[-1][1]
    assert set() == channel.speaking.speakers(channel.call)


@pytest.mark.parametrize("channel", [SMALL], indirect=True)
async def test_who_mutes_after_a_while_is_silent_at_once(
    channel: Channel, autojump_clock: MockClock
) -> None:
    """No window is open, so nothing is waited for."""
    channel.say("ann", True)
    await trio.sleep(0.3)
    channel.speaking.hush(channel.call, ["ann", "bob"])

    assert [(0, True), (300, False)] == channel.of("ann")
    assert [] == channel.of("bob")
