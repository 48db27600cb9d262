"""Writes the reports of clients to the store in the background.

A socket's tick never blocks. Reports are queued by channel until a worker is free. The worker
combines all reports of a channel into one change, so a hundred simultaneous reports cost a few
writes. One worker at a time changes a channel, in the order of arrival. A lease renewal (`renew`)
is queued once for each user. When the queue is full, a report is rejected with a retry time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice import reporting
from syncbridge.voice.channel import Channel
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.naming import id_of_key, may_be_plain, waddle_of
from syncbridge.voice.view import View, of_record
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.sockets.live_calls import LiveCalls

log = structlog.get_logger("voice")

MAX_WAITING = 8_192
WORKERS = 8
CATCH_UP_SECONDS = 1.0
"""How long an answer waits for the change to reach `LiveCalls`, so that answers follow the news."""

RETRY_AFTER = 1.0
NO_CALL = "the channel has no call; ask for a voice token first"

Answer = Callable[[View | None, SyncBridgeError | None], None]
"""(the call after the report, the error). Without call and error, the call has ended."""


class NothingAllowed(Exception):
    """No report of the batch is allowed; each report has its error."""


@dataclass(slots=True)
class PendingReport:
    """A queued report.

    Attributes:
        joins: True for a join, False for a leave.
        require: raises FORBIDDEN for the channel's waddle if the report is not allowed.
    """

    report: ClientReport
    joins: bool
    require: Callable[[str], None]
    answer: Answer
    error: SyncBridgeError | None = None


@dataclass(slots=True)
class ReportBatch:
    """The queued reports and lease renewals of one channel."""

    said: list[PendingReport] = field(default_factory=list)
    present: dict[str, None] = field(default_factory=dict)


class ClientReports:
    """Queues and applies reports. `flush`: sends the queued answers."""

    def __init__(
        self,
        writer: ChannelWriter,
        live_calls: LiveCalls,
        flush: Callable[[], object],
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._writer = writer
        self._live_calls = live_calls
        self._flush = flush
        self._max = max_waiting
        self._batches: dict[str, ReportBatch] = {}
        self._busy: set[str] = set()
        self._send, self._receive = trio.open_memory_channel[str](max_waiting + WORKERS)
        self.waiting = 0

    def submit(self, channel_id: str, said: PendingReport) -> None:
        """Queue a report; it gets one answer. Raises OVERLOADED.

        A channel with a qualified key that has no call is looked up under its id, too.
        """
        self._make_room(channel_id).said.append(said)

    def renew(self, channel_id: str, user_id: str) -> None:
        """Queue a lease renewal for a user. Raises OVERLOADED."""
        waiting = self._batches.get(channel_id)
        if waiting is None or user_id not in waiting.present:
            self._make_room(channel_id).present[user_id] = None

    def _make_room(self, channel_id: str) -> ReportBatch:
        """The batch of a channel, with room for one more report. Raises OVERLOADED."""
        if self.waiting >= self._max:
            raise SyncBridgeError(
                ErrorCode.OVERLOADED, "the voice report queue is full", retry_after=RETRY_AFTER
            )
        self.waiting += 1
        batch = self._batches.get(channel_id)
        if batch is None:
            batch = self._batches[channel_id] = ReportBatch()
            if channel_id not in self._busy:
                self._send.send_nowait(channel_id)
        return batch

    async def run(self) -> None:
        """Apply queued reports for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._worker)

    async def _worker(self) -> None:
        async for channel_id in self._receive:
            batch = self._batches.pop(channel_id)
            self.waiting -= len(batch.said) + len(batch.present)
            self._busy.add(channel_id)
            try:
                await self._carry_out(channel_id, batch)
            finally:
                self._busy.discard(channel_id)
                if channel_id in self._batches:
                    self._send.send_nowait(channel_id)

    async def _carry_out(self, channel_id: str, batch: ReportBatch) -> None:
        error: SyncBridgeError | None = None
        shown: View | None = None
        try:
            shown = await self._change(channel_id, batch)
        except NothingAllowed:
            pass
        except SyncBridgeError as away:
            error = away
            if away.code is ErrorCode.NOT_FOUND and waddle_of(channel_id) is not None:
                error = self._once_more(id_of_key(channel_id), batch)
                if error is None:
                    return
        except Exception:
            log.exception("voice_report_failed")
            error = SyncBridgeError(ErrorCode.INTERNAL, "the server failed on this report")
        for said in batch.said:
            said.answer(shown, error or said.error)
        self._flush()

    def _once_more(self, channel_id: str, batch: ReportBatch) -> SyncBridgeError | None:
        """Queue a batch under another key; the error if there is no room for it."""
        if not may_be_plain(channel_id):
            return SyncBridgeError(ErrorCode.NOT_FOUND, NO_CALL)
        try:
            while batch.said:
                self._make_room(channel_id).said.append(batch.said[0])
                del batch.said[0]
        except SyncBridgeError as error:
            return error
        return None

    async def _change(self, channel_id: str, batch: ReportBatch) -> View | None:
        """Apply a batch in one change. Raises NOT_FOUND when the channel has no call."""
        channel = await self._writer.change(channel_id, lambda c, now: apply(c, now, batch))
        await self._live_calls.caught_up(channel_id, channel.revision, CATCH_UP_SECONDS)
        call = self._live_calls.calls.get(channel_id)
        return call.view if call is not None else of_record(channel.record)


def apply(channel: Channel, now: int, batch: ReportBatch) -> Channel:
    """Apply a batch. Raises NOT_FOUND, without a write, when the channel has no call."""
    if not channel.live:
        raise SyncBridgeError(ErrorCode.NOT_FOUND, NO_CALL)
    allowed = [said for said in batch.said if is_allowed(said, channel.record.waddle_id)]
    if not allowed and not batch.present:
        raise NothingAllowed
    reporting.renew(channel, batch.present, now)
    for said in allowed:
        take = reporting.report if said.joins else reporting.part
        take(channel, said.report, now)
    return channel


def is_allowed(said: PendingReport, waddle_id: str) -> bool:
    """Whether a report is allowed; otherwise sets its error."""
    said.error = None
    try:
        said.require(waddle_id)
    except SyncBridgeError as error:
        said.error = error
    return said.error is None
