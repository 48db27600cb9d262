"""Compares the calls of channels with those of the provider.

`compare_states` compares one call. `suspects` and `strangers` compare all calls with the provider's
list, which has a participant count for each call. The list only decides which calls are checked and
in which order, because it says nothing about individual users or about calls that it omits.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

import msgspec

from syncbridge.voice.channel import Channel


class Mismatch(StrEnum):
    """How the two views of one call differ."""

    COUNT = "participant_count"
    MISSING_REMOTE = "missing_remote_participant"
    MISSING_LOCAL = "missing_local_participant"


class Discrepancy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference: two counts, or a participant that only one side has."""

    type: Mismatch
    participant_id: str = ""
    local: int = 0
    remote: int = 0


class Reason(StrEnum):
    """Why a call is checked, the most urgent first."""

    ASKED = "asked"
    DOUBTFUL = "doubtful"
    UNLISTED = "unlisted"
    COUNT = "count"
    STALE = "stale"


class ChannelSummary(msgspec.Struct, frozen=True):
    """A summary of a live channel. `connections`: of this generation. `synced_at`: Unix ms or 0.

    `doubtful`: a connection has a negative, or the provider did not know the room.
    """

    channel_id: str
    session_id: str
    users: int
    connections: int
    doubtful: bool = False
    synced_at: int = 0
    other_sessions: tuple[str, ...] = ()


class Listing(msgspec.Struct, frozen=True):
    """A complete list of the provider's calls: session id -> participants. `began`: Unix ms."""

    began: int
    sessions: dict[str, int]

    def leaves_out(self, session_id: str) -> bool:
        """Whether it has calls with participants but not this call."""
        return session_id not in self.sessions and any(self.sessions.values())


def held_of(channel: Channel) -> ChannelSummary | None:
    """The summary of a channel; None without a call. O(connections)."""
    record, call = channel.record, channel.call
    if call is None or record.room is None:
        return None
    others = (record.previous, *record.retired)
    return ChannelSummary(
        record.channel_id,
        record.room.session_id,
        len(call.arrived),
        call.current_connections,
        call.doubtful or record.lost > 0,
        record.last_sync_at,
        tuple(room.session_id for room in others if room is not None and room.session_id),
    )


def compare_states(local: Collection[str], remote: Collection[str]) -> list[Discrepancy]:
    """The differences between our users and the provider's. O(users)."""
    ours, theirs = set(local), set(remote)
    found: list[Discrepancy] = []
    if len(ours) != len(theirs):
        found.append(Discrepancy(Mismatch.COUNT, local=len(ours), remote=len(theirs)))
    found += [Discrepancy(Mismatch.MISSING_REMOTE, user) for user in sorted(ours - theirs)]
    found += [Discrepancy(Mismatch.MISSING_LOCAL, user) for user in sorted(theirs - ours)]
    return found


def unknown_yet(found: Iterable[Discrepancy], doubted: Collection[str]) -> list[Discrepancy]:
    """Differences that no earlier check found, those about users without a negative. O(n)."""
    new = [one for one in found if one.participant_id not in doubted]
    return new if any(one.participant_id for one in new) else []


def suspects(
    held: Iterable[ChannelSummary], listed: Mapping[str, int] | None, now: int, stale_ms: int
) -> dict[str, Reason]:
    """Channels to check, the most urgent first. O(n log n).

    Args:
        listed: session id -> participants, from a complete list; None without one: then every call
            with participants is a suspect.
        stale_ms: after this time, a call with the right count is checked as well, because one user
            may have replaced another.
    """
    found: list[tuple[int, int, str, Reason]] = []
    for call in held:
        reason = _reason(call, listed, now, stale_ms)
        if reason is not None:
            found.append((_URGENCY[reason], call.synced_at, call.channel_id, reason))
    return {channel_id: reason for _, _, channel_id, reason in sorted(found)}


def strangers(held: Iterable[ChannelSummary], listed: Mapping[str, int]) -> list[str]:
    """Listed sessions that no live channel holds, in the order of the list. O(n)."""
    known: set[str] = set()
    for call in held:
        known.add(call.session_id)
        known.update(call.other_sessions)
    return [name for name, people in listed.items() if people and name not in known]


def _reason(
    call: ChannelSummary, listed: Mapping[str, int] | None, now: int, stale_ms: int
) -> Reason | None:
    """Why the call is a suspect; None if it is not."""
    if call.doubtful:
        return Reason.DOUBTFUL
    people = (listed or {}).get(call.session_id)
    if people is None and call.users:
        return Reason.UNLISTED
    # A list may count users or connections; the call is right when it agrees with either.
    if people is not None and people not in (call.users, call.connections):
        return Reason.COUNT
    if call.users and now - call.synced_at >= stale_ms:
        return Reason.STALE
    return None


_URGENCY = {reason: place for place, reason in enumerate(Reason)}
