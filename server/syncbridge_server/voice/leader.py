"""Leader election: one node does periodic work for all nodes.

The nodes compete for a lock in the store. The holder does the work and renews the lock at each
interval, so the work runs at the same rate with any number of nodes and the leader keeps its state.
When the leader dies, its lock expires and another node takes over.
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
"""Maximum duration of one run, in intervals."""
SPREAD = (0.95, 1.05)
"""Time from one run to the next, in intervals."""
_chance = SystemRandom().random


async def run_as_leader(
    channels: Channels,
    purpose: str,
    interval_s: float,
    work: Callable[[], Awaitable[float]],
    chance: Callable[[], float] = _chance,
) -> None:
    """Compete for leadership and do the work while leading, for ever.

    Args:
        purpose: names the lock. chance: numbers in [0, 1), for jitter.
        work: one run; returns the minimum seconds from its start to the next start. It must end
            within `LONGEST` intervals and raise nothing but StoreError.
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
    """A random number between two."""
    return least + (most - least) * chance
