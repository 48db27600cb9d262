"""Schedules comparisons with the provider: a pass every 30 seconds on one node, requested checks.

One node makes the passes for all (`leader`), so the request rate does not depend on the number of
nodes. A pass that cost more requests than its share earns per interval is followed by a longer
pause, so the average stays within the share.

`request_check` is for callers that received contradictory evidence. Requests are collected for a
moment, result in one check for each call, and have a request budget of their own.
"""

from collections.abc import Callable
from functools import partial

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.compare import Reason
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.verification import ALL, BROKEN_OFF, counted
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.isolation import Isolation
from syncbridge_server.ports.channels import Channels
from syncbridge_server.ports.evidence import CallEvidence
from syncbridge_server.voice.checks.check_round import SyncLimits
from syncbridge_server.voice.checks.state_check import CheckResult, StateCheck
from syncbridge_server.voice.checks.sync_pass import PassReport, SyncPass
from syncbridge_server.voice.figures.metrics import SyncMetrics
from syncbridge_server.voice.leader import LONGEST, run_as_leader
from syncbridge_server.voice.provider.metering import metered

log = structlog.get_logger("voice")

PURPOSE = "sync"
GATHER_S = 0.25


class Synchronizer:
    """Keeps calls consistent with the provider. `passes`: number of passes on this node.

    Args:
        evidence: stores unverified calls; None: they are not stored.
        now: Unix ms.
    """

    def __init__(
        self,
        sync_pass: SyncPass,
        state_check: StateCheck,
        channels: Channels,
        metrics: SyncMetrics,
        limits: SyncLimits,
        isolation: Isolation | None = None,
        evidence: CallEvidence | None = None,
        now: Callable[[], int] = lambda: 0,
    ) -> None:
        self._isolation = isolation or Isolation()
        self._evidence = evidence
        self._now = now
        self._noted = True  # perhaps by another node
        self.passes = 0
        self._sync_pass = sync_pass
        self._state_check = state_check
        self._channels = channels
        self._metrics = metrics
        self._limits = limits
        self._asked: dict[str, None] = {}
        self._arrived = AutoResetEvent()
        self._allowance = RequestBudget(limits.rate, max(1.0, limits.calls / 2))

    def request_check(self, channel_id: str) -> None:
        """Queue a check of a channel, once however often it is requested.

        When the queue is full, the oldest request is dropped; the next pass finds the difference.
        """
        self._asked.pop(channel_id, None)
        self._asked[channel_id] = None
        if len(self._asked) > self._limits.asked:
            del self._asked[next(iter(self._asked))]
        self._arrived.set()

    async def run(self) -> None:
        """Make passes and requested checks for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                run_as_leader, self._channels, PURPOSE, self._limits.interval_s, self._turn
            )
            nursery.start_soon(self._run_looks)

    async def make_pass(self) -> PassReport | None:
        """Make a pass now, without the lock. None when it did not finish."""
        began, report = trio.current_time(), None
        try:
            with trio.move_on_after(LONGEST * self._limits.interval_s):
                report = await self._sync_pass.run_pass()
        except StoreError as error:
            self._metrics.passes.labels("store").inc()
            log.warning("voice_sync_store", reason=error.detail)
            return None
        self._note(report, trio.current_time() - began)
        if report is None or report.live or self._noted:
            await self._keep(report.failed if report is not None else {ALL: BROKEN_OFF})
        return report

    async def _keep(self, failed: dict[str, str]) -> None:
        """Store the unverified calls for the health of calls."""
        if self._evidence is None:
            return
        try:
            before = await self._evidence.all_unverified()
            if failed or before:
                await self._evidence.note_unverified(counted(before, failed, self._now()))
            self._noted = bool(failed)
        except StoreError as error:
            log.warning("voice_sync_store", reason=error.detail)

    async def _turn(self) -> float:
        """Make a pass; returns the seconds until the next one within the share."""
        report = await self.make_pass()
        return report.calls / self._limits.rate if report is not None else 0.0

    def _note(self, report: PassReport | None, seconds: float) -> None:
        metrics = self._metrics
        metrics.passes.labels(report.result if report is not None else "broken_off").inc()
        metrics.seconds.observe(seconds)
        self.passes += 1
        if report is None:
            return
        metrics.calls.labels("list_active").inc(report.pages)
        metrics.calls.labels("fetch_state").inc(report.sent)
        metrics.unverified.set(report.unverified)
        metrics.waiting.set(report.waiting)
        if report.result != "verified":
            log.warning("voice_sync_unverified", result=report.result, live=report.live)

    async def _run_looks(self) -> None:
        """Make the requested checks one by one."""
        while True:
            await self._arrived.wait()
            await trio.sleep(GATHER_S)
            while self._asked:
                channel_id = next(iter(self._asked))
                del self._asked[channel_id]
                await self._look_safely(channel_id)

    async def _look_safely(self, channel_id: str) -> None:
        look = partial(self._look_twice, channel_id)
        try:
            await self._isolation.run("look", channel_id, look, None)
        except StoreError as error:
            log.warning("voice_look_failed", channel_id=channel_id, reason=error.detail)

    async def _look_twice(self, channel_id: str) -> None:
        """Check a channel, and again if the result is doubtful."""
        for _ in range(2):
            await self._allowed()
            self._metrics.looks.labels(str(Reason.ASKED)).inc()
            with metered() as meter:
                result = await self._state_check.check(channel_id)
            for _ in range(meter.sent - 1):
                await self._allowed()
            if result is not CheckResult.DOUBTFUL:
                return
            await trio.sleep(self._limits.second_s)

    async def _allowed(self) -> None:
        """Wait until the budget of requested checks allows another request."""
        while True:
            wait = self._allowance.take(trio.current_time())
            if not wait:
                return
            await trio.sleep(wait)
