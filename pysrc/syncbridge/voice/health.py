"""The health of a call: a score of four checks, and whether the call could be verified."""

import msgspec

from syncbridge.voice.channel import Channel
from syncbridge.voice.verification import DEGRADED, Unverified

RECENT_MS = 300_000
UNVERIFIED_MOST = 0.75
"""The maximum score of an unverified call: `degraded`."""


class CallHealth(msgspec.Struct, frozen=True):
    """Score from 0 to 1, the checks by name, and the status: healthy, degraded or unhealthy.

    `reason`: why the latest passes could not verify the call; empty if they could.
    """

    score: float
    checks: dict[str, bool]
    status: str
    reason: str = ""


def check_health(channel: Channel, now: int, unverified: Unverified | None = None) -> CallHealth:
    """The health of a channel's call at `now` (Unix ms). `unverified`: from the latest passes.

    Tokens, joins, reports, and polls that name participants count as activity.
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
    """The score and the status for a set of checks.

    An unverified call has at most the score of a call that fails one check of four.
    """
    score = sum(checks.values()) / len(checks)
    score = min(score, UNVERIFIED_MOST) if reason else score
    status = "healthy" if score > 0.75 else "degraded" if score > 0.5 else "unhealthy"
    return CallHealth(score, checks, status, reason)
