"""How well a call is, as one score of four checks."""

import msgspec

from syncbridge.voice.channel import Channel

RECENT_MS = 300_000


class Health(msgspec.Struct, frozen=True):
    """Score from 0 to 1, the checks by name, and a word: healthy, degraded or unhealthy."""

    score: float
    checks: dict[str, bool]
    status: str


def check_health(channel: Channel, now: int) -> Health:
    """The health of a channel's call at `now` (Unix ms).

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
    return judged(checks)


def judged(checks: dict[str, bool]) -> Health:
    """The score and the word for a set of checks."""
    score = sum(checks.values()) / len(checks)
    status = "healthy" if score > 0.75 else "degraded" if score > 0.5 else "unhealthy"
    return Health(score, checks, status)
