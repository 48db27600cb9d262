"""The timeline of a call: each statement has a source, a time, and what it changed."""

from typing import Any

import pytest

from support.voice.channel_kit import (
    LIMITS,
    MAY,
    NOW,
    again,
    joined,
    left,
    migrating,
    opened,
    peopled,
)
from syncbridge.voice import intake, reporting
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Evidence, EvidenceOrigin, Joined, Left, Polled, Source, Teller
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.provider.events import ParticipantJoined, ParticipantLeft
from syncbridge.voice.timeline import (
    CAUSES,
    ENDED,
    FOLDED,
    IGNORED_MOST,
    IGNORED_MS,
    MOST_AT_ONCE,
    REF_MOST,
    Timeline,
    TimelineEntry,
    decode_entry,
    encode_entry,
    repair_of,
)

LEASE = LIMITS.call.lease_ms


def polled(at: int, *users: str) -> Polled:
    present = tuple((user, f"{user.upper()}1") for user in users)
    return Polled(generation=1, at=at, present=present)


def told(channel: Channel) -> list[tuple[str, str, str, str]]:
    """Source, what, user and reason of each entry."""
    return [(e.source.value, e.what, e.user_id, e.reason) for e in channel.timeline.entries]


def hear(channel: Channel, now: int, *evidence: Evidence) -> Channel:
    """The channel after it was read again and heard something."""
    channel = again(channel)
    channel.apply(evidence, now)
    return channel


def test_a_webhook_is_named_by_its_id() -> None:
    """With the time that it tells, and when it was taken in."""
    channel = opened()
    event = ParticipantJoined(
        session_id="s1", user_id="ann", peer_id="p1", occurred_at=(NOW + 5) / 1000
    )
    intake.apply_webhooks(channel, [intake.WebhookReport(event, NOW + 20, "msg_1")], NOW + 30)

    [entry] = channel.timeline.entries
    assert entry == TimelineEntry(
        NOW + 30,
        Teller.WEBHOOK,
        "joined",
        "ann",
        "p1",
        ref="msg_1",
        said_at=NOW + 5,
        generation=1,
        wrong_ms=25,
    )


def test_a_user_goes_by_the_word_of_a_webhook() -> None:
    """One connection of two is `disconnected`, the last one `left`; a repetition is ignored."""
    channel = peopled("ann")
    second = Joined(
        generation=1, at=NOW + 2, source=Source.WEBHOOK, user_id="ann", connection_id="A2"
    )
    channel = hear(channel, NOW + 2, second)
    assert [("webhook", "connected", "ann", "")] == told(channel)
    channel = hear(channel, NOW + 3, left("ann", NOW + 3))
    assert [("webhook", "disconnected", "ann", "left")] == told(channel)
    gone = ParticipantLeft(session_id="s1", user_id="ann", peer_id="A2")
    channel = again(channel)
    intake.apply_webhooks(channel, [intake.WebhookReport(gone, NOW + 4, "m")], NOW + 4)
    assert ("webhook", "left", "ann", "left") in told(channel)
    channel = again(channel)
    intake.apply_webhooks(channel, [intake.WebhookReport(gone, NOW + 4, "m2")], NOW + 5)
    assert [("webhook", "ignored", "ann", "gone")] == told(channel)


def test_a_list_doubts_and_then_removes() -> None:
    """The second look says how long the user was shown for nothing, at most."""
    channel = hear(peopled("ann", "bob"), NOW + 10, polled(NOW + 9, "ann"))
    assert [("list", "doubted", "bob", "")] == told(channel)
    channel = hear(channel, NOW + 1_000, polled(NOW + 999, "ann"))

    [entry] = channel.timeline.entries
    assert ("list", "left", "bob", "verified") == told(channel)[0]
    assert (999, "missed_leave") == (entry.wrong_ms, repair_of(entry))


def test_what_shows_a_doubted_one_clears_the_doubt() -> None:
    """As an entry of its own; a list that says nothing new is none."""
    channel = hear(peopled("ann", "bob"), NOW + 10, polled(NOW + 9, "ann"))
    channel = hear(channel, NOW + 20, polled(NOW + 19, "ann", "bob"))
    assert [("list", "cleared", "bob", "")] == told(channel)
    channel = hear(channel, NOW + 30, polled(NOW + 29, "ann", "bob"))
    assert [] == told(channel)


def test_whoever_a_list_finds_was_missed_since_the_look_before() -> None:
    """At most so long; and that is a repair."""
    channel = peopled("ann")
    channel.record.last_sync_at = NOW + 100
    channel = hear(channel, NOW + 30_100, polled(NOW + 30_090, "ann", "bob"))

    [entry] = channel.timeline.entries
    assert ("list", "joined", "bob", "") == told(channel)[0]
    assert (30_000, "missed_join") == (entry.wrong_ms, repair_of(entry))


def test_a_client_that_falls_silent_is_gone_by_a_deadline() -> None:
    """Its first report begins a promise, which is an entry; others only move the last sign."""
    channel = again(peopled("ann"))
    said = ClientReport("ann", "phone", "sid", "ANN1", "s1")
    reporting.report(channel, said, NOW + 10)
    assert [("report", "confirmed", "ann", ""), ("report", "holds", "ann", "")] == told(channel)
    assert ["phone", "phone"] == [entry.ref for entry in channel.timeline.entries]
    channel = again(channel)
    reporting.report(channel, said, NOW + 20)
    assert [] == told(channel)
    member = channel.call.member("ann") if channel.call else None
    assert member is not None
    assert (NOW + 20, "report") == (
        member.connections["ANN1"].seen_at,
        member.connections["ANN1"].seen_by,
    )
    channel = again(channel)
    channel.expire(NOW + 20 + LEASE)

    assert ("timeout", "left", "ann", "expired") == told(channel)[0]
    entry = channel.timeline.entries[0]
    assert (LEASE, "silent_client") == (entry.wrong_ms, repair_of(entry))


def test_a_deadline_that_passed_is_not_laid_to_whoever_speaks_next() -> None:
    """What was due is done first, and by nobody's word."""
    channel = again(peopled("ann", "bob"))
    reporting.report(channel, ClientReport("bob", "phone", "sid", "BOB1", "s1"), NOW + 10)
    channel = hear(channel, NOW + 10 + LEASE, joined("cleo", NOW + 10 + LEASE))

    assert [
        ("timeout", "left", "bob", "expired"),
        ("webhook", "joined", "cleo", ""),
    ] == told(channel)


def test_why_somebody_is_not_shown_is_noted_once_in_a_while() -> None:
    """A client says every half minute what two lists have refuted; a webhook is noted each time."""
    channel = peopled("ann", "bob")
    for at in (NOW + 10, NOW + 1_000):
        channel = hear(channel, at, polled(at - 1, "ann"))
    said = ClientReport("bob", "phone", "sid", "BOB1", "s1")
    noted = []
    for at in (2_000, 30_000, IGNORED_MS - 1, IGNORED_MS + 2_000):
        channel = again(channel)
        reporting.report(channel, said, NOW + at)
        noted.append(told(channel))
    again_ = ("report", "ignored", "bob", "gone")
    assert [[again_], [], [], [again_]] == noted

    late = joined("bob", NOW + IGNORED_MS + 3_000)
    for _ in range(2):
        channel = hear(channel, NOW + IGNORED_MS + 3_000, late)
        assert [("webhook", "ignored", "bob", "gone")] == told(channel)


def test_what_is_remembered_of_ignored_words_is_bounded() -> None:
    """The oldest users are forgotten."""
    channel = peopled("ann")
    for number in range(IGNORED_MOST + 5):
        said = Left(generation=1, at=NOW + 9, source=Source.CLIENT, user_id=f"u{number}")
        channel = hear(channel, NOW + 10, said)
        assert 1 == len(told(channel))

    assert [f"u{n}" for n in range(5, IGNORED_MOST + 5)] == list(channel.record.ignored)


def test_a_change_of_everybody_is_folded() -> None:
    """So many entries at once, and how many more there were; what is about the call is kept."""
    channel = opened(most=10_000)
    many = [joined(f"u{number}", NOW + 1) for number in range(MOST_AT_ONCE + 9)]
    channel.apply(many, NOW + 1)
    channel.end(NOW + 2, "ended")

    *entries, ended, folded = channel.timeline.entries
    assert MOST_AT_ONCE == len(entries)
    assert (ENDED, FOLDED) == (ended.what, folded.what)
    assert 2 * len(many) - MOST_AT_ONCE == folded.count


def test_a_call_begins_moves_and_ends() -> None:
    """With its sessions, and by whom it was ended."""
    channel = migrating("ann")
    assert [] == told(channel)
    channel = peopled("ann")
    room = channel.migrate(NOW + 5, "requested")
    assert room is not None
    channel.moved("s2", NOW + 6, room.key)
    assert [("provider", "migrating", "", "requested")] == told(channel)
    channel = hear(channel, NOW + 7, joined("ann", NOW + 7, 2))
    assert ("provider", "migrated", "", "moved") in told(channel)
    channel = again(channel)
    channel.end(NOW + 8, "ended", EvidenceOrigin(Teller.OPERATOR, "root"))
    assert [("operator", "left", "ann", "ended"), ("operator", "ended", "", "ended")] == told(
        channel
    )
    assert "root" == channel.timeline.entries[-1].ref


def test_a_token_is_noted() -> None:
    """Who was let in and never came is told by it."""
    channel = opened()
    channel.admit("ann", MAY, NOW + 1)
    assert [("token", "token", "ann", "")] == told(channel)


def test_an_entry_is_read_as_it_was_written() -> None:
    """And is short: what is empty is left out. A long reference is cut."""
    channel = opened()
    line = Timeline(channel.record)
    line.note(EvidenceOrigin(Teller.WEBHOOK, "x" * 1_000), "joined", NOW, user_id="ann")
    [entry] = line.entries

    assert REF_MOST == len(entry.ref)
    assert entry == decode_entry(encode_entry(entry))
    plain = TimelineEntry(NOW, Teller.LIST, "left")
    assert b'{"at":%d,"source":"list","what":"left"}' % NOW == encode_entry(plain)


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        (TimelineEntry(1, Teller.LIST, "joined"), "missed_join"),
        (TimelineEntry(1, Teller.LIST, "left", reason="verified"), "missed_leave"),
        (TimelineEntry(1, Teller.TIMEOUT, "left", reason="expired"), "silent_client"),
        (TimelineEntry(1, Teller.WEBHOOK, "joined"), ""),
        (TimelineEntry(1, Teller.WEBHOOK, "left", reason="left"), ""),
        (TimelineEntry(1, Teller.TIMEOUT, "left", reason="migration"), ""),
        (TimelineEntry(1, Teller.LIST, "left", reason="ended"), ""),
        (TimelineEntry(1, Teller.LIST, "doubted"), ""),
    ],
)
def test_what_is_a_repair(entry: Any, cause: str) -> None:
    """Who came or went and nobody had said so in time; the causes are a fixed few."""
    assert cause == repair_of(entry)
    assert cause in ("", *CAUSES)
