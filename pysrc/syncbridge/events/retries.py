"""When a delivery that failed is tried again, and when that is enough."""

STEPS = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200)
"""Seconds after the first, second ... failure; the last one again and again."""

GIVE_UP_SECONDS = 3 * 86_400.0
"""After the first failure."""

JITTER = 0.1
LONGEST_ASKED = 3_600.0
"""Of what a receiver asks for with Retry-After."""


def pause(failures: int, draw: float, asked: float = 0.0) -> float:
    """Seconds until the next attempt.

    Args:
        failures: so far, at least 1. draw: in [0, 1), spreads the attempts of many.
        asked: what the receiver has asked for, seconds.
    """
    step = STEPS[min(failures, len(STEPS)) - 1]
    return max(step * (1 + JITTER * (2 * draw - 1)), min(asked, LONGEST_ASKED))


def is_enough(first: float, now: float) -> bool:
    """Whether something that failed at first then is not tried any more. Unix seconds."""
    return now - first >= GIVE_UP_SECONDS
