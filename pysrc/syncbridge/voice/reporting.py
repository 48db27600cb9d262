"""Applies clients' reports to a channel: joins, leaves and lease renewals.

A report is evidence about one connection (`call`), tells which device holds the call (`holding`),
and has the mute and video switches. The provider's evidence goes through `Channel.apply`.
"""

from collections.abc import Iterable

import msgspec

from syncbridge.voice import announcements, holding
from syncbridge.voice.call_records import Event
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import EvidenceOrigin, Joined, Left, Source, Teller
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.records import Participant


def report(channel: Channel, said: ClientReport, now: int) -> list[Event]:
    """Apply a client's report that it is in the media: a sign, its device and its switches."""
    if channel.call is None:
        return []
    known = channel.call.connections(said.user_id)
    shown = channel.call.unreported(said.user_id)  # the provider showed it first
    sign = _sign(Joined, channel, said, now)
    sign = msgspec.structs.replace(sign, session_named=bool(said.session_id))
    participants = channel.record.participants
    held = participants.get(said.user_id)
    moving = (held.moving_to, held.moving_sid, held.moving_until) if held else ("", "", 0)
    if held is not None:
        holding.begin_move(held, "", "", 0)  # the report tells whose connection this is
    events = channel.apply([sign], now)
    if channel.call is None or channel.call.since(said.user_id) is None:
        return events
    participant = participants.setdefault(said.user_id, Participant())
    holding.begin_move(participant, *moving)
    after = channel.call.connections(said.user_id)
    fresh = said.connection_id in shown
    fresh |= bool(said.connection_id) and holding.has_new_connection(known, after)
    channel_id = channel.record.channel_id
    told = holding.claim(channel_id, participant, said, fresh=fresh)
    channel.tell_devices(told, _origin(said), now)
    channel.news += holding.apply_switches(channel_id, participant, said)
    return events


def renew(channel: Channel, user_ids: Iterable[str], now: int) -> list[Event]:
    """Renew the leases of users whose clients showed activity without a report.

    A user without a lease gets none, because a lease obliges the client to continue reporting.
    """
    if channel.call is None:
        return []
    generation, members = _spoken_of(channel, ""), channel.call.dump().members
    present = [
        user_id
        for user_id in user_ids
        if user_id in members
        and any(one.lease is not None for one in members[user_id].connections.values())
    ]
    return channel.apply(
        [
            Joined(generation=generation, at=now, source=Source.CLIENT, user_id=user_id)
            for user_id in present
        ],
        now,
    )


def part(channel: Channel, said: ClientReport, now: int) -> list[Event]:
    """Apply a client's report that its device left the media: one negative for its connection."""
    participant = channel.record.participants.get(said.user_id)
    if channel.call is None or not (holding.holds(participant, said) or said.connection_id):
        return []
    told = holding.release(channel.record.channel_id, participant, said)
    channel.tell_devices(told, _origin(said), now)
    return channel.apply([_sign(Left, channel, said, now)], now)


def hand_over(channel: Channel, user_id: str, device_id: str, sid: str, now: int) -> bool:
    """Begin a handoff of the call to a device; False if the user is not in the call."""
    if channel.call is None or channel.call.since(user_id) is None:
        return False
    participant = channel.record.participants.setdefault(user_id, Participant())
    holding.begin_move(participant, device_id, sid, now + channel.limits.handoff_ms)
    participant.lost_at, participant.arrival = 0, None
    told = [announcements.moving(channel.record.channel_id, user_id, device_id)]
    channel.tell_devices(told, EvidenceOrigin(Teller.TOKEN), now)
    return True


def _sign(
    kind: type[Joined] | type[Left], channel: Channel, said: ClientReport, now: int
) -> Joined | Left:
    """A client's report about one connection as evidence."""
    return kind(
        generation=_spoken_of(channel, said.session_id),
        at=now,
        source=Source.CLIENT,
        user_id=said.user_id,
        connection_id=said.connection_id,
        origin=_origin(said),
    )


def _origin(said: ClientReport) -> EvidenceOrigin:
    """The reporting device as an origin."""
    return EvidenceOrigin(Teller.REPORT, said.device_id)


def _spoken_of(channel: Channel, session_id: str) -> int:
    """The generation that a client's report concerns. During a migration, a report without a
    session concerns the old generation."""
    assert channel.call is not None
    if session_id:
        return channel.generation_of(session_id) or 0
    previous = channel.record.previous
    return previous.generation if previous is not None else channel.call.generation
