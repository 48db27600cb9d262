"""When the garbage collector runs in a serving process, and over what.

Theory of operation. Nearly all of a server's objects live as long as their connections, and are
freed by their reference counts. The collector looks for cycles only, yet its oldest generation is
walked whole: with 10,000 connections that stops everything for about 100 ms, again and again. So
here the oldest generation is collected by hand, in small portions: as soon as a few rounds of the
middle generation have moved their survivors up, those survivors are collected and then *frozen*,
which takes them out of every later collection. Cycles among frozen objects are found by a full
collection every `WHOLE_SECONDS`, so its pause is rare.
"""

import gc
import time
from collections.abc import Callable

import structlog
import trio

log = structlog.get_logger("server")

LOOK_SECONDS = 0.25
WHOLE_SECONDS = 3600.0
PORTION = 3
"""Rounds of the middle generation after which their survivors are collected and frozen."""
NEVER = 1_000_000


class Collector:
    """Collects garbage in portions; see the module's text. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._whole_at = clock() + WHOLE_SECONDS

    async def run(self) -> None:
        """Take the oldest generation over from the interpreter, until cancelled."""
        before = gc.get_threshold()
        gc.set_threshold(before[0], before[1], NEVER)
        gc.freeze()  # what a start has made stays, and looking at it would make the start longer
        try:
            while True:
                await trio.sleep(LOOK_SECONDS)
                self.look()
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()

    def look(self) -> None:
        """Collect if it is time to."""
        if self._clock() >= self._whole_at:
            began = self._clock()
            gc.unfreeze()
            self.collect()
            self._whole_at = self._clock() + WHOLE_SECONDS
            log.info("garbage_collected", seconds=round(self._clock() - began, 3))
        elif gc.get_count()[2] >= PORTION:
            self.collect()

    def collect(self) -> None:
        """Collect what is not frozen, and freeze what is left."""
        gc.collect()
        gc.freeze()
