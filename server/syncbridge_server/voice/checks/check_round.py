"""The state checks of one pass: concurrent, within a budget, repeated for doubtful calls."""

from collections import deque
from collections.abc import Mapping
from functools import partial

import msgspec
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.compare import Listing, Reason
from syncbridge_server.isolation import Isolation
from syncbridge_server.voice.checks.state_check import CheckResult, StateCheck
from syncbridge_server.voice.figures.metrics import SyncMetrics
from syncbridge_server.voice.provider.metering import Meter, metered


class SyncLimits(msgspec.Struct, frozen=True):
    """Bounds of the comparison.

    Attributes:
        interval_s: between passes. calls: requests of a pass. rate: requests per second.
        stale_s: a call that agrees with the list is still checked after this time.
        second_s: between the first and the second check of a doubtful call.
        patience_s: longest wait for the request budget. pages: maximum pages of the list.
        together: concurrent checks. asked: maximum of queued check requests.
        orphans: maximum of orphaned rooms to end in one pass.
    """

    interval_s: float = 30.0
    calls: int = 42
    rate: float = 1.4
    stale_s: float = 300.0
    second_s: float = 0.5
    patience_s: float = 2.0
    pages: int = 1_000
    together: int = 8
    asked: int = 1_024
    orphans: int = 20


class CheckRound:
    """One round of state checks.

    Args:
        wanted: channels and the reasons for their checks, in order.
        share: request budget. A check begins only if the average cost of a check is left.

    Attributes:
        queue: channels left over, in order.
        made: number of checks. unverified: channels about which nothing was learnt.
    """

    def __init__(
        self,
        state_check: StateCheck,
        metrics: SyncMetrics,
        limits: SyncLimits,
        wanted: Mapping[str, Reason],
        listing: Listing | None,
        share: int,
        isolation: Isolation | None = None,
    ) -> None:
        self._isolation = isolation or Isolation()
        self.queue = deque(wanted)
        self.made = 0
        self.unverified: set[str] = set()
        self._state_check = state_check
        self._metrics = metrics
        self._limits = limits
        self._wanted = wanted
        self._listing = listing
        self._share = share
        self._running = 0
        self._again: deque[str] = deque()
        self._stopped = False
        self._error: StoreError | None = None
        self._meter = Meter(None)

    @property
    def sent(self) -> int:
        """Number of requests sent for the checks."""
        return self._meter.sent

    async def run(self) -> None:
        """Check all channels, then the doubtful ones again. Raises StoreError."""
        with metered() as self._meter:
            await self._run()

    async def _run(self) -> None:
        await self._work(self.queue)
        second, self._again = self._again, deque()
        try:
            if second and not self._stopped:
                await trio.sleep(self._limits.second_s)
                await self._work(second)
        finally:
            self.queue.extendleft(reversed(second))
        if self._error is not None:
            raise self._error

    async def _work(self, queue: deque[str]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(min(self._limits.together, len(queue))):
                nursery.start_soon(self._take_from, queue)

    async def _take_from(self, queue: deque[str]) -> None:
        """Check channels one by one; each check reserves budget for its second one."""
        while queue and not self._stopped:
            if self._taken() >= self._share:
                return
            channel_id = queue.popleft()
            self._running += 1
            result = CheckResult.RATE_LIMITED
            try:
                look = partial(self._look, channel_id)
                result = await self._isolation.run("look", channel_id, look, CheckResult.UNVERIFIED)
            except StoreError as error:
                self._stopped, self._error = True, error
            finally:
                self._running -= 1
                self._settle(channel_id, result, queue)

    def _taken(self) -> float:
        """The used part of the share, plus the reserve for second checks at the average cost.

        A check that sent nothing because the breaker is open counts as one request.
        """
        used = max(self.sent, self.made)
        return used + (self._running + len(self._again)) * used / max(self.made, 1)

    async def _look(self, channel_id: str) -> CheckResult:
        """Check a channel. Waits once for the request budget, for at most `patience_s`."""
        self._metrics.looks.labels(str(self._wanted[channel_id])).inc()
        for patient in (True, False):
            self.made += 1
            result = await self._state_check.check(channel_id, self._listing)
            if result is not CheckResult.RATE_LIMITED:
                return result
            self.made -= 1
            wait = self._state_check.limited_until - trio.current_time()
            if not patient or wait > self._limits.patience_s:
                break
            await trio.sleep(max(wait, 0.0))
        self._stopped = True
        return CheckResult.RATE_LIMITED

    def _settle(self, channel_id: str, result: CheckResult, queue: deque[str]) -> None:
        """Handle the result of a check."""
        if result is CheckResult.RATE_LIMITED:
            queue.appendleft(channel_id)
        elif result is CheckResult.DOUBTFUL:
            self._again.append(channel_id)
        elif result in (CheckResult.UNVERIFIED, CheckResult.LOST):
            self.unverified.add(channel_id)
