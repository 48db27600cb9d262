"""Calls that the comparison with the provider could not verify, and for how many passes in a row.

A call is verified by a list that confirms its number, and by a look that finds a statement. What a
pass learnt nothing about is counted; after `DEGRADED` passes nobody can say that the call is right.
"""

from collections.abc import Mapping

import msgspec

ALL = ""
"""Stands for every call: the pass itself came to nothing. No channel has this id."""
DEGRADED = 2
MOST = 4_096
"""Calls of one pass that are noted, those first that have been unverified for longest."""
WAITING = "waiting"
BROKEN_OFF = "broken_off"
ERROR = "error"


class Unverified(msgspec.Struct, frozen=True, array_like=True):
    """So many passes in a row say nothing, the first at `since` (Unix ms); why the latest did.

    `reason`: of a call a doubt of the provider's answer; `waiting`: the pass did not get round to
    it; `error`: the look failed. Of all calls `list_` and the doubt, or `broken_off`.
    """

    passes: int
    since: int
    reason: str


def counted(
    before: Mapping[str, Unverified], failed: Mapping[str, str], now: int
) -> dict[str, Unverified]:
    """What is unverified after a pass. `failed`: channel, or `ALL`, -> reason. O(n log n).

    A pass that says nothing about any call goes on counting what was noted of single ones.
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
    """The one of a call and that of all calls that has lasted longer; None: there is neither."""
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one.passes, default=None)
