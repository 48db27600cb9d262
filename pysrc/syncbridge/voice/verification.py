"""Counts the passes in a row that could not verify a call.

A call is verified by a list that confirms its count, or by a state check with a usable answer.
After `DEGRADED` passes without verification, the health of the call is degraded.
"""

from collections.abc import Mapping

import msgspec

ALL = ""
"""Stands for all calls, when the pass itself failed. No channel has this id."""
DEGRADED = 2
MOST = 4_096
"""Maximum number of stored calls; the longest unverified come first."""
WAITING = "waiting"
BROKEN_OFF = "broken_off"
ERROR = "error"


class Unverified(msgspec.Struct, frozen=True, array_like=True):
    """Number of unverified passes in a row, the time of the first (Unix ms), the latest reason.

    `reason` of a call: the failure of the provider's answer; `waiting`: the pass left the call
    over; `error`: the check failed. For all calls: `list_` and the failure, or `broken_off`.
    """

    passes: int
    since: int
    reason: str


def counted(
    before: Mapping[str, Unverified], failed: Mapping[str, str], now: int
) -> dict[str, Unverified]:
    """The unverified calls after a pass. `failed`: channel, or `ALL`, -> reason. O(n log n).

    A failed pass also counts for all calls that were unverified before.
    """
    failed = dict(failed)
    if ALL in failed:
        failed = dict.fromkeys(before, failed[ALL]) | failed
    found = {}
    for channel_id, reason in failed.items():
        known = before.get(channel_id)
        since, passes = (known.since, known.passes) if known else (now, 0)
        found[channel_id] = Unverified(passes + 1, since, reason)
    order = sorted(found, key=lambda one: (one != ALL, -found[one].passes, one))
    return {one: found[one] for one in order[:MOST]}


def worst(*found: Unverified | None) -> Unverified | None:
    """The entry with the most passes; None without entries."""
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one.passes, default=None)
