"""The index of a user's calls follows the channels: late, bounded, and never in anybody's way."""

from typing import Any

import trio
import trio.testing

from support.voice.voice_store import MemoryChannels, desk_of, open_call
from syncbridge.errors import StoreUnavailable
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Left, Polled, Source
from syncbridge_server.voice import user_calls
from syncbridge_server.voice.user_calls import UserCalls


class Noted:
    """Takes notes. `fails`: so many times the store is away first."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.notes: list[tuple[str, str]] = []

    async def note_calls(self, calls: list[tuple[str, str, int]]) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        self.notes += [(user, channel) for user, channel, _ in calls]


def made(noted: Noted) -> tuple[UserCalls, Any]:
    writer = desk_of(MemoryChannels())
    evidence: Any = noted
    return UserCalls(writer, evidence), writer


async def test_who_comes_and_who_goes_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    """And a comparison notes everybody who is in the call, for what was lost."""
    noted = Noted()
    calls, writer = made(noted)
    await open_call(writer, "c", "ann", "bob")
    await calls.write()
    assert {("ann", "c"), ("bob", "c")} == set(noted.notes)

    def leaves(channel: Channel, now: int) -> None:
        said = [
            Left(generation=1, at=now, source=source, user_id="ann")
            for source in (Source.WEBHOOK, Source.CLIENT)
        ]
        channel.apply(said, now)

    del noted.notes[:]
    await trio.sleep(1)
    await writer.change("c", leaves)
    await calls.write()
    assert [("ann", "c")] == noted.notes

    del noted.notes[:]
    seen = (("bob", ""),)
    await writer.change(
        "c", lambda c, now: c.apply([Polled(generation=1, at=now, present=seen)], now)
    )
    await calls.write()
    assert [("bob", "c")] == noted.notes


async def test_what_the_store_does_not_take_waits(autojump_clock: trio.testing.MockClock) -> None:
    """It is written when the store is back, once."""
    noted = Noted(fails=3)
    calls, writer = made(noted)
    await open_call(writer, "c", "ann")
    with trio.move_on_after(60):
        await calls.run()

    assert [("ann", "c")] == noted.notes


async def test_what_waits_is_bounded(monkeypatch: Any) -> None:
    """The oldest make room; a change never waits for the index."""
    monkeypatch.setattr(user_calls, "WAITING_MOST", 3)
    noted = Noted()
    calls, writer = made(noted)
    await open_call(writer, "c", *(f"u{number}" for number in range(5)))
    await calls.write()

    assert 3 == len(noted.notes)
