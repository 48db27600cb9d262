"""Which device holds a call, and how it moves to another one: rules of a channel."""

from typing import Any

import pytest

from syncbridge.voice import reporting
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.evidence import Joined, Left, Polled, Source
from syncbridge.voice.holding import RECONNECT_MS, ClientReport, assume
from syncbridge.voice.provider.records import Permissions
from syncbridge.voice.records import (
    ChannelConfig,
    ChannelRecord,
    decode_record,
    encode_record,
)

SID = "6f1f3a52-5d0e-5c0b-9b1e-7d6f0a6f5a11"
LIMITS = ChannelLimits()


def live(now: int = 1000) -> Channel:
    """A channel with a call in which nobody is yet."""
    channel = Channel(ChannelRecord("c"), LIMITS)
    channel.opening(now, ChannelConfig(), "w")
    channel.opened("s1", now)
    channel.news.clear()
    return channel


def report(device: str, **more: Any) -> ClientReport:
    return ClientReport("ann", device, SID, **more)


def webhook(connection: str, at: int, kind: type[Joined] | type[Left] = Joined) -> Joined | Left:
    return kind(generation=1, at=at, source=Source.WEBHOOK, user_id="ann", connection_id=connection)


def told(channel: Channel) -> list[tuple[str, str]]:
    """(state, device) of what was told since the last time."""
    news = [(n["state"], n.get("deviceId", "")) for n in channel.news]
    channel.news.clear()
    return news


def holder(channel: Channel) -> str:
    return channel.record.participants["ann"].device_id


def in_call() -> Channel:
    """Ann is in the call with her phone, connection c1."""
    channel = live()
    reporting.report(channel, report("phone", connection_id="c1"), 2000)
    told(channel)
    return channel


def test_the_first_report_holds_the_call() -> None:
    """A report is a sign of the user, and its device holds the call; repeating it tells nothing."""
    channel = live()

    reporting.report(channel, report("phone", connection_id="c1"), 2000)
    assert [("connected", ""), ("held", "phone")] == told(channel)
    assert ("ann",) == (channel.call.users if channel.call else ())
    reporting.report(channel, report("phone", connection_id="c1"), 3000)
    assert [] == told(channel)


def test_another_device_needs_a_new_connection_to_take_the_call() -> None:
    """A report of a second device without one does not move the call; with one it does."""
    channel = in_call()

    reporting.report(channel, report("tablet"), 3000)
    assert ("phone", []) == (holder(channel), told(channel))
    reporting.report(channel, report("tablet", connection_id="c2"), 4000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)


def test_a_webhook_before_the_report_does_not_keep_the_call_from_moving() -> None:
    """The provider shows the second device's connection first; its own word then moves the call."""
    channel = in_call()

    channel.apply([webhook("c2", 2500)], 3000)
    assert ("phone", []) == (holder(channel), told(channel))
    reporting.report(channel, report("tablet", connection_id="c2"), 4000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)

    for device, connection in [("phone", "c1"), ("tablet", "c2")]:
        reporting.report(channel, report(device, connection_id=connection), 5000)
    assert ("tablet", []) == (holder(channel), told(channel))


def test_who_got_the_token_holds_the_call_until_another_device_says_so() -> None:
    """A guess is shown and told by nobody's word; the first report counts, whoever's it is."""
    channel = live()
    channel.admit("ann", Permissions(), 1500)
    assume(channel.record.participants["ann"], "phone", SID)

    channel.apply([webhook("c1", 2000)], 2000)
    assert ("phone", [("connected", "")]) == (holder(channel), told(channel))
    reporting.report(channel, report("tablet"), 3000)
    assert ("tablet", [("held", "tablet")]) == (holder(channel), told(channel))
    assume(channel.record.participants["ann"], "phone", SID)
    assert "tablet" == holder(channel)


def test_a_guessed_device_that_reports_is_told_of() -> None:
    """What was a guess becomes known with the first report; it can leave without one, too."""
    channel = live()
    channel.admit("ann", Permissions(), 1500)
    assume(channel.record.participants["ann"], "phone", SID)

    reporting.report(channel, report("phone", connection_id="c1"), 2000)
    assert [("connected", ""), ("held", "phone")] == told(channel)
    reporting.part(channel, report("phone", connection_id="c1"), 3000)
    assert ("", [("released", "phone")]) == (holder(channel), told(channel))


def test_a_handoff_waits_for_the_new_device() -> None:
    """The call moves when the new device reports, and not before; the phone stays in meanwhile."""
    channel = in_call()

    assert reporting.hand_over(channel, "ann", "tablet", SID, 3000)
    reporting.report(channel, report("phone", connection_id="c1"), 3500)
    assert [("moving", "tablet")] == told(channel)
    assert "phone" == holder(channel)
    reporting.report(channel, report("tablet"), 4000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)


@pytest.mark.parametrize("seen", ["webhook", "poll"])
def test_a_handoff_is_done_when_the_provider_shows_a_new_connection(seen: str) -> None:
    """A connection that was not there before is the new device in the media."""
    channel = in_call()
    reporting.hand_over(channel, "ann", "tablet", SID, 3000)
    told(channel)

    again = [("ann", "c1")]
    channel.apply([Polled(generation=1, at=3500, present=tuple(again))], 3500)
    assert "phone" == holder(channel)
    if seen == "webhook":
        channel.apply([webhook("c2", 4000)], 4000)
    else:
        channel.apply([Polled(generation=1, at=4000, present=(*again, ("ann", "c2")))], 4000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)
    assert ("c1", "c2") == (channel.call.connections("ann") if channel.call else ())


def test_the_old_devices_new_connection_is_not_the_new_device() -> None:
    """The phone reconnects while the call moves, and says so: the call stays with it."""
    channel = in_call()
    reporting.hand_over(channel, "ann", "tablet", SID, 3000)

    reporting.report(channel, report("phone", connection_id="c9"), 3500)
    channel.apply([webhook("c9", 3600)], 3600)
    assert ("phone", "tablet") == (holder(channel), channel.record.participants["ann"].moving_to)


def test_a_name_for_the_unnamed_connection_is_not_a_new_device() -> None:
    """A device that reported without a connection is named by the provider during a handoff."""
    channel = live()
    reporting.report(channel, report("phone"), 2000)
    reporting.hand_over(channel, "ann", "tablet", SID, 3000)

    channel.apply([webhook("c1", 3500)], 3500)
    assert "phone" == holder(channel)
    channel.apply([webhook("c2", 3600)], 3600)
    assert "tablet" == holder(channel)


def test_a_handoff_that_does_not_come_about_is_forgotten() -> None:
    """It is due at its end; the old device holds the call, and is told so."""
    channel = in_call()
    reporting.hand_over(channel, "ann", "tablet", SID, 3000)
    told(channel)
    end = 3000 + LIMITS.handoff_ms

    assert end == channel.next_due(3000)
    channel.apply([Joined(generation=1, at=end, source=Source.CLIENT, user_id="ann")], end)
    channel.expire(end)
    assert [("held", "phone")] == told(channel)
    channel.apply([webhook("c2", end + 1)], end + 1)
    assert "phone" == holder(channel)


def test_nobody_hands_over_a_call_without_being_in_it() -> None:
    """False, and nothing is noted."""
    channel = live()

    assert not reporting.hand_over(channel, "ann", "tablet", SID, 3000)
    assert ({}, []) == (channel.record.participants, channel.news)


def test_a_released_device_cannot_speak_against_the_call() -> None:
    """What a device without the call says of no connection is not evidence."""
    channel = in_call()
    reporting.report(channel, report("tablet", connection_id="c2"), 3000)
    channel.apply([webhook("c1", 3500, Left)], 3500)
    told(channel)

    reporting.part(channel, report("phone"), 4000)
    channel.apply([Polled(generation=1, at=5000, present=(("bob", "b1"),))], 5000)
    assert ("c2",) == (channel.call.connections("ann") if channel.call else ())


def test_leaving_is_one_negative_and_lets_the_call_go() -> None:
    """The device does not hold the call any more; a poll without the user confirms it."""
    channel = in_call()

    reporting.part(channel, report("phone"), 3000)
    assert [("released", "phone")] == told(channel)
    assert ("ann",) == (channel.call.users if channel.call else ())
    channel.apply([Polled(generation=1, at=4000, present=(("bob", "b1"),))], 4000)
    assert [("connected", ""), ("disconnected", "")] == sorted(told(channel))


def test_switches_are_told_when_they_change() -> None:
    """Muted and unmuted, once each; who comes again is not muted."""
    channel = in_call()

    for muted in (True, True, None, False, True):
        reporting.report(channel, report("phone", connection_id="c1", muted=muted), 3000)
    assert ["muted", "unmuted", "muted"] == [state for state, _ in told(channel)]
    channel.apply([webhook("c1", 4000, Left)], 4000)
    participant = channel.record.participants["ann"]
    assert (False, "", "") == (participant.muted, participant.device_id, participant.sid)


def test_during_a_migration_only_who_says_so_has_come_over() -> None:
    """A report without the new session's id keeps nobody's place in it; with it, it does."""
    channel = in_call()
    channel.migrate(5000, "too_old")
    channel.moved("s2", 5000)

    reporting.report(channel, report("phone", connection_id="c1"), 6000)
    assert channel.record.previous is not None
    reporting.report(channel, report("phone", connection_id="c3", session_id="s2"), 7000)
    assert channel.record.previous is None
    assert ("ann",) == (channel.call.users if channel.call else ())


def test_a_sign_renews_only_who_is_there() -> None:
    """Speaking shows that somebody is still in the call, but brings nobody into it."""
    channel = in_call()
    lease = channel.next_due(2000)

    reporting.renew(channel, ["ann", "bob"], 60_000)
    assert ("ann",) == (channel.call.users if channel.call else ())
    assert lease is not None
    assert 60_000 + LIMITS.call.lease_ms == channel.next_due(60_000)


def test_a_sign_does_not_oblige_who_never_reported() -> None:
    """A participant whom only the provider has shown gets no lease by speaking."""
    channel = live()
    channel.apply([webhook("c1", 2000)], 2000)
    due = channel.next_due(2000)

    reporting.renew(channel, ["ann"], 60_000)
    assert due == channel.next_due(2000)
    channel.expire(60_000 + 2 * LIMITS.call.lease_ms)
    assert ("ann",) == (channel.call.users if channel.call else ())


def connections(channel: Channel) -> tuple[str, ...]:
    return channel.call.connections("ann") if channel.call else ()


def handing_over(*others: str) -> Channel:
    """Ann's call is about to move from her phone, connection c1, to the tablet."""
    channel = in_call()
    channel.apply([webhook(name, 2500) for name in ("c1", *others)], 2500)
    reporting.hand_over(channel, "ann", "tablet", SID, 3000)
    told(channel)
    return channel


@pytest.mark.parametrize("order", ["lost first", "both at once", "poll", "a moment later"])
def test_a_connection_in_the_place_of_another_is_not_the_new_device(order: str) -> None:
    """The phone reconnects, the tablet does nothing: the call stays with the phone."""
    channel = handing_over("watch")
    lost, back = webhook("c1", 4000, Left), webhook("c2", 4001)
    match order:
        case "lost first":
            channel.apply([lost, back], 4100)
        case "both at once":
            channel.apply([back, lost], 4100)
        case "poll":
            shown = (("ann", "watch"), ("ann", "c2"))
            channel.apply([Polled(generation=1, at=4000, present=shown)], 4100)
        case _:
            channel.apply([lost], 4000)
            channel = Channel(decode_record(encode_record(channel.dump())), LIMITS)
            channel.apply([webhook("c2", 4000 + RECONNECT_MS - 1)], 4000 + RECONNECT_MS - 1)

    assert "c2" in connections(channel)
    assert ("phone", []) == (holder(channel), told(channel))
    channel.apply([webhook("c3", 20_000)], 20_000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)


def test_a_connection_long_after_a_loss_is_the_new_device() -> None:
    """Nobody takes so long to reconnect; and one loss accounts for one connection only."""
    channel = handing_over("watch")
    channel.apply([webhook("c1", 4000, Left)], 4000)
    channel.apply([webhook("c2", 4000 + RECONNECT_MS)], 4000 + RECONNECT_MS)
    assert "tablet" == holder(channel)

    other = handing_over("watch")
    both = [webhook("c1", 4000, Left), webhook("c2", 4001), webhook("c3", 4002)]
    other.apply(both, 4100)
    assert "tablet" == holder(other)


def test_who_comes_over_to_another_session_is_not_the_new_device() -> None:
    """While the call migrates the phone's connection in the new session is as new as any."""
    channel = handing_over("watch")
    channel.migrate(3500, "too_old")
    channel.moved("s2", 3500)
    came = Joined(generation=2, at=4000, source=Source.WEBHOOK, user_id="ann", connection_id="c2")

    channel.apply([came], 4000)
    assert "phone" == holder(channel)
    reporting.report(channel, report("tablet", session_id="s2"), 5000)
    assert "tablet" == holder(channel)


def test_a_report_of_the_target_moves_the_call_also_after_a_reconnection() -> None:
    """Whatever was made of the connections, the target's own word decides."""
    channel = handing_over()
    channel.apply([webhook("c2", 4000), webhook("c1", 4000, Left)], 4100)
    assert "phone" == holder(channel)

    reporting.report(channel, report("tablet"), 4200)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)


def test_who_held_the_call_takes_it_back_with_the_connection_that_moved_it() -> None:
    """It was the phone's own, shown beside its old one; the tablet is waited for as before."""
    channel = handing_over()
    channel.apply([webhook("c2", 4000)], 4000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)
    channel = Channel(decode_record(encode_record(channel.dump())), LIMITS)

    reporting.report(channel, report("phone", connection_id="c1"), 4100)
    assert "tablet" == holder(channel)
    reporting.report(channel, report("phone", connection_id="c2"), 4200)
    assert [("held", "phone"), ("moving", "tablet")] == told(channel)
    assert 3000 + LIMITS.handoff_ms == channel.record.participants["ann"].moving_until
    reporting.report(channel, report("tablet"), 5000)
    assert [("held", "tablet"), ("released", "phone")] == told(channel)


def test_a_device_that_has_reported_is_not_turned_out() -> None:
    """After the tablet's own report the phone takes nothing back with that connection."""
    channel = handing_over()
    channel.apply([webhook("c2", 4000)], 4000)
    reporting.report(channel, report("tablet"), 4100)
    told(channel)

    reporting.report(channel, report("phone", connection_id="c2"), 4200)
    assert ("tablet", []) == (holder(channel), told(channel))


def test_after_the_source_has_left_any_new_connection_is_the_new_device() -> None:
    """The phone has said that it is out: its connection's end accounts for nothing."""
    channel = handing_over("watch")
    reporting.part(channel, report("phone", connection_id="c1"), 4000)
    channel.apply([webhook("c1", 4001, Left), webhook("c2", 4002)], 4100)

    assert "tablet" == holder(channel)
