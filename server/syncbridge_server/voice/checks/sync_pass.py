"""A pass over all live calls: compares them with the provider's list and checks the differences.

Theory of operation. The list costs one request for a hundred calls; a state check costs one or two
requests for one call. So a pass first reads the whole list. Calls whose participant count it
confirms need no check. The others are suspects and are checked within the pass's request budget.
Suspects left over come first in the next pass. A doubtful call is checked a second time in the same
pass, after the first answer was applied, so one pass corrects a call.

Incomplete data is no evidence. Without Redis, or without a list (no answer, rate limit, no
permission), there is no pass. An empty or truncated list says nothing about any call, but the
provider answers: then every call is a suspect, and its state check stands on its own.

A listed session that SyncBridge opened (the store knows each session before a token is issued) and
that no channel holds in two passes in a row is marked as a room to end. Other sessions are ignored.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import cast

import msgspec
import structlog
import trio

from syncbridge.voice.channel import Channel
from syncbridge.voice.compare import ChannelSummary, Listing, Reason, held_of, strangers, suspects
from syncbridge.voice.provider.records import ActivePage, CannotVerify, VerifyFailure
from syncbridge.voice.stored import Stored
from syncbridge.voice.verification import ALL, ERROR, WAITING
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.checks.check_round import CheckRound, SyncLimits
from syncbridge_server.voice.checks.state_check import StateCheck
from syncbridge_server.voice.figures.metrics import SyncMetrics

log = structlog.get_logger("voice")

NO_PASS = frozenset(
    {
        VerifyFailure.UNREACHABLE,
        VerifyFailure.RATE_LIMITED,
        VerifyFailure.REFUSED,
        VerifyFailure.NOT_FOUND,
    }
)
"""Failures of the list that end the pass."""


class PassReport(msgspec.Struct):
    """The result of a pass.

    Attributes:
        result: verified, or why the list could not be used.
        looks: number of state checks. sent: requests sent for them.
        failed: unverified calls and reasons; `ALL` stands for all calls.
    """

    result: str = "verified"
    live: int = 0
    pages: int = 0
    looks: int = 0
    sent: int = 0
    unverified: int = 0
    waiting: int = 0
    orphans: int = 0
    failed: dict[str, str] = {}

    @property
    def calls(self) -> int:
        """Number of requests to the provider."""
        return self.pages + self.sent


def _agrees(answer: Listing | CannotVerify, held: list[ChannelSummary]) -> bool:
    """Whether the provider lists nobody and no channel has participants."""
    empty = isinstance(answer, CannotVerify) and answer.doubt is VerifyFailure.EMPTY
    return empty and not any(one.users for one in held)


class SyncPass:
    """Passes over all live calls."""

    def __init__(
        self,
        provider: VoiceProvider,
        writer: ChannelWriter,
        state_check: StateCheck,
        metrics: SyncMetrics,
        limits: SyncLimits,
    ) -> None:
        self._provider = provider
        self._writer = writer
        self._state_check = state_check
        self._metrics = metrics
        self._limits = limits
        self._waiting: dict[str, Reason] = {}
        self._strange: set[str] = set()

    async def run_pass(self) -> PassReport:
        """Make one pass. Raises StoreError when a read failed; then nothing was changed."""
        report = PassReport(live=await self._writer.channels.live_count())
        answer = await self._list(report)
        if isinstance(answer, CannotVerify):
            report.result = f"list_{answer.doubt}"
            if answer.doubt in NO_PASS:
                report.unverified, report.waiting = report.live, len(self._waiting)
                report.failed = {ALL: report.result} if report.live else {}
                return report
        listing = None if isinstance(answer, CannotVerify) else answer
        held = await self._held() if report.live else []
        wanted = suspects(
            held,
            listing.sessions if listing else None,
            self._writer.now(),
            round(self._limits.stale_s * 1000),
        )
        await self._look_at(self._in_turn(wanted), listing, report)
        if listing is not None:
            await self._end_orphans(strangers(held, listing.sessions), report)
        elif _agrees(answer, held):
            report.result = "verified"
        return report

    async def _list(self, report: PassReport) -> Listing | CannotVerify:
        """The whole list, or why there is none."""
        began, sessions, cursor = self._writer.now(), dict[str, int](), ""
        while report.pages < self._limits.pages:
            page = await self._page(cursor, report)
            if isinstance(page, CannotVerify):
                # An empty last page means that participants left while the list was read
                ended = page.doubt is VerifyFailure.EMPTY and sessions
                return Listing(began, sessions) if ended else page
            sessions.update((one.session_id, one.participants) for one in page.sessions)
            cursor = page.cursor
            if not cursor:
                return Listing(began, sessions)
        return CannotVerify(VerifyFailure.PARTIAL, "the list has too many pages")

    async def _page(self, cursor: str, report: PassReport) -> ActivePage | CannotVerify:
        """Read a page; waits for the request budget for at most `patience_s`."""
        while True:
            report.pages += 1
            page = await self._provider.list_active(cursor)
            if not isinstance(page, CannotVerify) or page.doubt is not VerifyFailure.RATE_LIMITED:
                return page
            wait = page.retry_after if page.retry_after is not None else math.inf
            if wait > self._limits.patience_s:
                return page
            report.pages -= 1  # it was not sent
            await trio.sleep(wait)

    async def _held(self) -> list[ChannelSummary]:
        """Summaries of all live channels. Raises StoreError when any read failed."""
        held: list[ChannelSummary] = []
        live = cast("AsyncGenerator[list[str], None]", self._writer.channels.live())
        async with aclosing(live) as pages:
            async for page in pages:
                read = zip(page, await self._writer.channels.read_many(page), strict=True)
                for one in await self._writer.isolation.each("sync", read, self._brief):
                    held += [one] if one is not None else []
        return held

    def _brief(self, stored: Stored) -> ChannelSummary | None:
        return held_of(Channel(stored.record, self._writer.limits))

    def _in_turn(self, wanted: dict[str, Reason]) -> dict[str, Reason]:
        """Suspects with those left over from the previous pass first."""
        first = {one: wanted[one] for one in self._waiting if one in wanted}
        return first | wanted

    async def _look_at(
        self, wanted: dict[str, Reason], listing: Listing | None, report: PassReport
    ) -> None:
        """Check suspects within the budget; the rest waits for the next pass."""
        left = max(self._limits.calls - report.pages, self._limits.calls // 4, 1)
        looks = CheckRound(
            self._state_check,
            self._metrics,
            self._limits,
            wanted,
            listing,
            left,
            self._writer.isolation,
        )
        try:
            await looks.run()
        finally:
            self._waiting = {one: wanted[one] for one in looks.queue}
            report.waiting, report.looks, report.sent = len(self._waiting), looks.made, looks.sent
            report.unverified = len(looks.unverified)
            why = self._state_check.doubts
            report.failed = {one: str(why.get(one, ERROR)) for one in sorted(looks.unverified)}
            report.failed |= dict.fromkeys(looks.queue, WAITING)

    async def _end_orphans(self, found: list[str], report: PassReport) -> None:
        """Retire our rooms that no channel held in two passes in a row."""
        again = [session_id for session_id in found if session_id in self._strange]
        self._strange = set(found)
        for session_id in again[: self._limits.orphans]:
            channel_id = await self._writer.channels.channel_of(session_id)
            if channel_id is None:
                continue
            noting = partial(self._orphaned, channel_id, session_id)
            if await self._writer.isolation.run("orphans", channel_id, noting, False):
                report.orphans += 1
                self._metrics.orphans.inc()
                log.warning("voice_orphan", channel_id=channel_id)

    async def _orphaned(self, channel_id: str, session_id: str) -> bool:
        """Whether a session was marked to end. A pooled room with participants is in use."""

        def judge(channel: Channel, now: int) -> bool:
            room = channel.record.room
            if channel.call is None and room is not None and room.session_id == session_id:
                channel.opened(session_id, now)
                return False
            return channel.orphaned(session_id, now)

        return await self._writer.change(channel_id, judge)
