"""What comparisons could not verify is counted, and a call's health knows it."""

from support.voice.channel_kit import NOW, empty, peopled
from syncbridge.voice.health import check_health
from syncbridge.voice.verification import ALL, MOST, Unverified, counted, worst


def test_passes_are_counted_in_a_row() -> None:
    """What a pass verifies begins anew; since when is kept."""
    first = counted({}, {"a": "empty", "b": "waiting"}, 10)
    second = counted(first, {"a": "partial"}, 20)
    third = counted(second, {"b": "empty"}, 30)

    assert {"a": Unverified(1, 10, "empty"), "b": Unverified(1, 10, "waiting")} == first
    assert {"a": Unverified(2, 10, "partial")} == second
    assert {"b": Unverified(1, 30, "empty")} == third


def test_a_pass_that_says_nothing_counts_for_every_call() -> None:
    """Single ones go on being counted; of a call that was well it is the first."""
    first = counted({}, {"a": "empty"}, 10)
    second = counted(first, {ALL: "list_unreachable"}, 20)

    assert Unverified(2, 10, "list_unreachable") == worst(second.get("a"), second.get(ALL))
    assert Unverified(1, 20, "list_unreachable") == worst(second.get("b"), second.get(ALL))
    assert worst(None, None) is None


def test_what_is_noted_is_bounded() -> None:
    """Those stay that have been unverified for longest, and what is true of all."""
    old = {f"old{n}": Unverified(3, 1, "empty") for n in range(3)}
    failed = {f"new{n}": "empty" for n in range(MOST + 10)} | dict.fromkeys(old, "empty")
    found = counted(old, failed | {ALL: "broken_off"}, 20)

    assert MOST == len(found)
    assert {ALL, *old} <= set(found)


def test_a_call_that_nobody_could_verify_twice_is_degraded() -> None:
    """With the reason, although all four checks hold; after one pass it is not."""
    channel = peopled("ann")
    once = check_health(channel, NOW + 10, Unverified(1, NOW, "empty"))
    twice = check_health(channel, NOW + 10, Unverified(2, NOW, "empty"))

    assert (1.0, "healthy", "") == (once.score, once.status, once.reason)
    assert (0.75, "degraded", "empty") == (twice.score, twice.status, twice.reason)
    assert all(twice.checks.values())


def test_a_worse_score_is_no_better_for_it() -> None:
    """Two failed checks are unhealthy, verified or not; without a call there is nothing to say."""
    silent = peopled("ann")
    silent.failed("SERVICE_UNAVAILABLE")
    worse = check_health(silent, NOW + 3_600_000, Unverified(9, NOW, "empty"))

    assert ("unhealthy", "empty") == (worse.status, worse.reason)
    assert "" == check_health(empty(), NOW, Unverified(9, NOW, "empty")).reason
