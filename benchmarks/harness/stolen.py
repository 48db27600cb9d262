"""Time that the hypervisor gave to other machines; repeats measurements with much of it.

Theory. On a rented machine the hypervisor stops a core now and then, here for 10 ms and longer. The
kernel counts that (`steal`, see proc(5)). Rates a second of CPU hardly suffer; a latency's 99th
percentile is nothing else as soon as a hundredth of the time is taken. So tail latencies are
measured together with that counter: an attempt in which too much was taken is made again, a few
times, and the attempt from which least was taken counts, whatever its result was. How much that
was, and how often it was tried, is in the results.
"""

from collections.abc import Callable

from harness.process import CORES, core_ticks

LIMIT = 0.002
"""Share of the time of either core: a fifth of what would make up the 99th percentile."""
ATTEMPTS = 4
STEAL = 7


def undisturbed(name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The numbers of the attempt that was disturbed least, with `{name}_stolen`, a share, and
    `{name}_attempts`. Stops at the first one with at most LIMIT."""
    best: dict[str, float] = {}
    for attempt in range(1, ATTEMPTS + 1):
        before = ticks()
        numbers = measure()
        stolen = stolen_since(before)
        if not best or stolen < best[f"{name}_stolen"]:
            best = {**numbers, f"{name}_stolen": stolen}
        best[f"{name}_attempts"] = attempt
        if stolen <= LIMIT:
            break
    return best


def ticks() -> list[list[int]]:
    """Of the two cores, as `stolen_since` takes them."""
    return [core_ticks(core) for core in CORES]


def stolen_since(before: list[list[int]]) -> float:
    """The greater of the two cores' shares of time that other machines took."""
    return max(map(_share, before, ticks()))


def _share(before: list[int], now: list[int]) -> float:
    """Of one core's time between two looks that was taken."""
    return (now[STEAL] - before[STEAL]) / max(sum(now) - sum(before), 1)
