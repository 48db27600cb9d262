"""How well a call is, as one score of four checks, and whether anybody could verify it."""

import msgspec

from syncbridge.voice.channel import Channel
from syncbridge.voice.verification import DEGRADED, Unverified

RECENT_MS = 300_000
UNVERIFIED_MOST = 0.75
"""The score of a call that nobody could verify, at most: `degraded`."""


class CallHealth(msgspec.Struct, frozen=True):
    """Score from 0 to 1, the checks by name, and a word: healthy, degraded or unhealthy.

    `reason`: why nobody could verify the call in the latest passes; empty when that is not so.
    """

    score: float
    checks: dict[str, bool]
    status: str
    reason: str = ""


def check_health(channel: Channel, now: int, unverified: Unverified | None = None) -> CallHealth:
    """The health of a channel's call at `now` (Unix ms). `unverified`: what is noted of it.

    Activity is whatever shows that the call is used: tokens, joins, reports, and polls that name
    somebody.
    """
    call, record = channel.call, channel.record
    seen = max(record.last_activity, call.last_seen if call is not None else 0)
    checks = {
        "hasParticipants": call is not None and bool(call.users),
        "isActive": channel.live,
        "recentActivity": now - seen < RECENT_MS,
        "noErrors": not record.last_error,
    }
    doubted = unverified is not None and unverified.passes >= DEGRADED and channel.live
    return judged(checks, unverified.reason if unverified is not None and doubted else "")


def judged(checks: dict[str, bool], reason: str = "") -> CallHealth:
    """The score and the word for a set of checks.

    A call that could not be verified has no better score than one that fails one of four.
    """
    score = sum(checks.values()) / len(checks)
    score = min(score, UNVERIFIED_MOST) if reason else score
    status = "healthy" if score > 0.75 else "degraded" if score > 0.5 else "unhealthy"
    return CallHealth(score, checks, status, reason)
