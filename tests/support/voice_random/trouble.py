"""Faults during a run: at the provider, of webhooks, nodes and Redis.

Faults follow one another with pauses; some come in pairs. Each ends with the next one or a pause,
and the last one before the run is judged.
"""

import random
from collections.abc import Sequence
from typing import Any

import trio

from support.voice_random.people import Events
from support.voice_random.place import Deployed

LATE_MS = 60
PROVIDER: dict[str, dict[str, Any]] = {
    "slow": {"latency_ms": 300},
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"rate_limit": 1},
    "no answer": {"hang": True},
    "lost answer to create": {"create_lost": True},
    "empty lists": {"lists": "empty"},
    "partial lists": {"lists": "partial"},
}
WEBHOOKS: dict[str, dict[str, Any]] = {
    "lost": {"webhooks": ["lost"]},
    "repeated": {"webhooks": ["repeated"]},
    "reordered": {"webhooks": ["reordered"]},
    "late": {"webhooks": ["late"], "webhook_delay_ms": LATE_MS},
    "forged": {"webhooks": ["forged"]},
    "all but lost": {
        "webhooks": ["repeated", "reordered", "late"],
        "webhook_delay_ms": LATE_MS,
    },
}
LONGEST_S = 3.0
TRIES = 10
DEEDS = ("kill a node", "kill Redis", "migrate", "pause a node", "restart Redis", "pause Redis")


class Trouble:
    """Injects faults. `deed_every`: events between two deeds with processes.

    Attributes:
        longest: seconds that a deed took, until the process was back.
    """

    def __init__(
        self, place: Deployed, channels: Sequence[str], events: Events, seed: int, deed_every: int
    ) -> None:
        self._place = place
        self._channels = channels
        self._events = events
        self._dice = random.Random(seed)
        self._deed_every = deed_every
        self.longest = 0.0

    async def run(self) -> None:
        """Run until enough has happened; then all faults are over, and every node is ready."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._faults)
            nursery.start_soon(self._deeds)
        await self._place.rig.faults()
        await self._place.ready()

    async def _faults(self) -> None:
        # Each kind occurs once before any is repeated.
        kinds: list[tuple[str, ...]] = []
        while not self._events.over.is_set():
            if not kinds:
                kinds = [(name,) for name in (*PROVIDER, *WEBHOOKS)]
                kinds += [(p, self._dice.choice([*WEBHOOKS])) for p in PROVIDER]
                self._dice.shuffle(kinds)
            names = kinds.pop()
            faults: dict[str, Any] = {}
            for name in names:
                faults |= PROVIDER.get(name) or WEBHOOKS[name]
                self._events.note(name)
            await self._place.rig.faults(**faults)
            await self._wait(self._dice.uniform(0.5, LONGEST_S))
            if self._dice.random() < 0.5:
                await self._place.rig.faults()
                await self._wait(self._dice.uniform(0.2, 1.5))

    async def _deeds(self) -> None:
        deployment, number = self._place.deployment, 0
        while not self._events.over.is_set():
            due = (number + 1) * self._deed_every
            while self._events.total < due and not self._events.over.is_set():
                await self._wait(0.1)
            if self._events.over.is_set():
                return
            deed = DEEDS[number % len(DEEDS)]
            self._events.note(deed)
            began = trio.current_time()
            match deed:
                case "kill a node":
                    await deployment.kill_node(number // len(DEEDS) % 2)
                case "pause a node":
                    await deployment.pause_node(self._dice.randrange(2), 1.5)
                case "migrate":
                    for channel in self._dice.sample(self._channels, 3):
                        await self._migrate(channel)
                case "pause Redis":
                    await deployment.pause_redis(1.0)
                case "kill Redis":
                    await deployment.kill_redis()
                case _:
                    await deployment.move_redis()
            number += 1
            self.longest = max(self.longest, trio.current_time() - began)

    async def _migrate(self, channel: str) -> None:
        """Migrate a call, if any; a node that has just lost Redis refuses for a moment."""
        for _ in range(TRIES):
            if self._events.over.is_set() or await self._place.migrate(channel):
                return
            await self._wait(0.2)

    async def _wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._events.over.wait()
