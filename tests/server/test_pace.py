"""How long ticks gather: not at all when updates come slowly, longer the faster they come."""

import pytest

from syncbridge_server.gateway.pace import BUSY_PER_MS, FULL_PER_MS, WINDOW_MS, Pace

INTERVAL = 2.0


def ticks(pace: Pace, per_ms: float, until: float, now: float = 0.0) -> list[float]:
    """Requests come evenly and wake the tick; the pauses between the beginnings of ticks."""
    apart, came, pauses, began = 1 / per_ms, now, [], now
    while now < until:
        came += apart
        at = max(came, now)
        at += pace.delay(at)
        waiting = 1 + int((at - came) / apart + 1e-9)
        came += (waiting - 1) * apart
        pace.ticked(at, waiting)
        pauses.append(at - began)
        began = now = at
    return pauses


@pytest.mark.parametrize("per_ms", [0.01, 0.5, 0.9 * BUSY_PER_MS])
def test_slow_updates_go_at_once(per_ms: float) -> None:
    """Each has a tick of its own."""
    pauses = ticks(Pace(INTERVAL), per_ms, 200.0)
    assert pauses == pytest.approx([1 / per_ms] * len(pauses))


@pytest.mark.parametrize(
    ("per_ms", "expected"),
    [(2.0, INTERVAL / 2), (3.0, INTERVAL * 3 / 4), (FULL_PER_MS, INTERVAL), (50.0, INTERVAL)],
)
def test_faster_updates_gather_for_longer_up_to_the_interval(
    per_ms: float, expected: float
) -> None:
    """In proportion to their rate."""
    pauses = ticks(Pace(INTERVAL), per_ms, 400.0)
    settled = pauses[len(pauses) // 2 :]
    assert sum(settled) / len(settled) == pytest.approx(expected, abs=1 / per_ms)
    assert max(settled) <= INTERVAL + 1 / per_ms


def test_what_asks_nothing_of_the_store_is_never_held_back() -> None:
    """Heartbeats, however many."""
    pace = Pace(INTERVAL)
    for now in range(1000):
        assert pace.delay(now / 10) == 0.0
        pace.ticked(now / 10, 0)


def test_a_burst_is_forgotten() -> None:
    """It holds back the next tick, and nothing after some windows."""
    pace = Pace(INTERVAL)
    pace.ticked(1000.0, 100)
    assert pace.delay(1000.5) == pytest.approx(INTERVAL - 0.5)
    assert pace.delay(1000.0 + INTERVAL) == 0.0
    pace.ticked(1000.0 + 4 * WINDOW_MS, 1)
    assert pace.delay(1000.0 + 4 * WINDOW_MS) == 0.0


def test_an_interval_of_nothing_turns_it_off() -> None:
    """Every update has a tick of its own, at any rate."""
    pauses = ticks(Pace(0.0), 10.0, 50.0)
    assert pauses == pytest.approx([0.1] * len(pauses))
