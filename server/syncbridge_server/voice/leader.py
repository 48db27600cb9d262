"""Work that all nodes together do once in an interval.

The nodes compete for a lock of the store. Who gets it works, and keeps it from turn to turn; so any
number of nodes works as often as one does, and the same node goes on with what it remembers. When
that node dies its lock runs out, and another one takes over.
"""

from collections.abc import Awaitable, Callable
from random import SystemRandom

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge_server.ports.channels import Channels

log = structlog.get_logger("voice")

LOCK = "*"
"""Stands for all channels in the names of locks."""
LONGEST = 2
"""A turn takes at most so many intervals."""
SPREAD = (0.95, 1.05)
"""From one turn to the next, in intervals."""
_chance = SystemRandom().random


async def run_as_leader(
    channels: Channels,
    purpose: str,
    interval_s: float,
    work: Callable[[], Awaitable[float]],
    chance: Callable[[], float] = _chance,
) -> None:
    """Compete for turns, for ever.

    Args:
        purpose: names the lock. chance: numbers in [0, 1), for jitter.
        work: one turn; answers the seconds from its beginning to the next one, at least. It must
            end within `LONGEST` intervals, and raises nothing but StoreError.
    """
    pause, wait = interval_s, interval_s * chance()

    def life_ms() -> int:
        return round((LONGEST * interval_s + 2 * pause) * 1000)

    while True:
        await trio.sleep(wait)
        wait = interval_s * (0.5 + chance() / 2)
        try:
            async with channels.lock(LOCK, purpose, life_ms(), 0) as ours:
                while ours is not None:
                    began = trio.current_time()
                    pause = max(interval_s, await work())
                    await trio.sleep_until(began + pause * uniform(*SPREAD, chance()))
                    if not await ours.keep(life_ms()):
                        break
        except StoreError as error:
            log.warning("voice_turn_failed", purpose=purpose, reason=error.detail)


def uniform(least: float, most: float, chance: float) -> float:
    """A number between two, by chance."""
    return least + (most - least) * chance
