"""Applies webhooks from the inbox to their channels.

Theory of operation. Each node has one worker, and any worker can take any delivery. A worker takes
a batch, sorts it by channel and changes each channel once. A delivery is done when all its events
have taken effect. Intake is idempotent (`intake`), so a node may die at any point: after `IDLE_MS`
another node takes over its deliveries.

`IDLE_MS` is also the pause between attempts. A delivery with an unknown session stays in the inbox
and is retried, because the answer to the request that opened the session may still be in transit.
After `ATTEMPTS` it becomes a dead letter, as does one that fails for another reason. A delivery
that can never take effect becomes one at once. If one delivery makes the change of a channel fail,
the others are applied without it. A store error buries no delivery; the worker pauses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.channel import Channel
from syncbridge.voice.intake import RECORDING, IntakeResult, WebhookReport, apply_webhooks
from syncbridge.voice.provider import events
from syncbridge.voice.recordings import Recorded
from syncbridge_server.isolation import of_record
from syncbridge_server.ports.channels import Channels, WebhookInbox
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.ports.recordings import Recordings
from syncbridge_server.telemetry.tracing import TRACING
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.webhooks.inbox_sorting import Outcome, Reports, SortedDelivery, Sorter

log = structlog.get_logger("voice")

BATCH = 100
IDLE_MS = 5_000
ATTEMPTS = 6
LOOK_SECONDS = 2.0
"""Poll interval of the inbox without notices of arrivals."""
IDLE_LOOK_SECONDS = 10.0
"""The same while the inbox is empty. Notices are lost only with a connection, which is reported."""
LEAST_SECONDS = 0.01
"""Minimum time between partial batches: the first webhook takes effect at once, and those that
follow soon share a batch, which is much cheaper."""
COUNT_SECONDS = 1.0
"""Minimum interval for counting pending deliveries."""
PAUSES = (0.25, 5.0)
"""Pause after a store error in seconds: initial and maximum."""
CHANNELS_AT_ONCE = 16
STALE_SPEECH_MS = 5_000
"""Age above which a report of speaking is ignored."""
KNOWN_SPEAKERS = 16_384
"""Maximum number of users whose latest speaking report is remembered."""

OnSpeaking = Callable[[str, str, bool], None]
"""(channel, user, speaks): called for webhooks about speaking. It must not block."""
CheckRequest = Callable[[str], None]
"""Request a state check of the channel. It must not block."""


class Effects(Protocol):
    """Counters of the worker."""

    def took_effect(self, seconds: float) -> None:
        """A delivery took effect, `seconds` after it was received."""

    def buried(self, reason: str) -> None:
        """A delivery became a dead letter."""

    def waiting(self, count: int) -> None:
        """The number of pending deliveries."""


class NotConcerned(Exception):
    """No report concerns the channel as it is; nothing is written."""


class InboxWorker:
    """Applies webhooks from the inbox to the channels.

    Args:
        id_bytes: maximum length of a user id. batch: deliveries taken at once.
        idle_ms: see the module docstring.
    """

    def __init__(
        self,
        provider: VoiceProvider,
        inbox: WebhookInbox,
        channels: Channels,
        writer: ChannelWriter,
        recordings: Recordings,
        effects: Effects,
        *,
        id_bytes: int = 64,
        batch: int = BATCH,
        idle_ms: int = IDLE_MS,
        count_recording: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._count_recording = count_recording
        self._inbox = inbox
        self._sorter = Sorter(provider, channels, id_bytes)
        self._writer = writer
        self._recordings = recordings
        self._effects = effects
        self._batch = batch
        self._idle_ms = idle_ms
        self._arrived = trio.Event()
        self._count_at = -math.inf
        self._waiting = 0
        self._speaking: list[OnSpeaking] = []
        self._spoke_at: dict[tuple[str, str], int] = {}
        self._contradiction_handlers: list[CheckRequest] = []
        inbox.on_arrival(self.wake)

    def on_speaking(self, handler: OnSpeaking) -> None:
        """Call `handler` for webhooks about speaking."""
        self._speaking.append(handler)

    def on_contradiction(self, handler: CheckRequest) -> None:
        """Call `handler` for channels whose webhooks contradict other evidence."""
        self._contradiction_handlers.append(handler)

    def wake(self) -> None:
        """Look at the inbox now."""
        self._arrived.set()

    async def run(self) -> None:
        """Process the inbox for ever."""
        pause, longest = PAUSES
        while True:
            self._arrived = trio.Event()
            began = trio.current_time()
            try:
                taken = await self.step()
                self._waiting = self._waiting or taken
                await self._count()
            except StoreError as error:
                log.warning("webhooks_wait", reason=error.detail, seconds=pause)
                await trio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            pause = PAUSES[0]
            if taken < self._batch:
                with trio.move_on_after(LOOK_SECONDS if self._waiting else IDLE_LOOK_SECONDS):
                    await self._arrived.wait()
                await trio.sleep_until(began + LEAST_SECONDS)

    async def _count(self) -> None:
        """Count pending deliveries, at most every `COUNT_SECONDS`."""
        now = trio.current_time()
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            self._waiting = await self._inbox.waiting()
            self._effects.waiting(self._waiting)

    async def step(self) -> int:
        """Take and process one batch; returns its size.

        Raises StoreError when a store error delayed some deliveries.
        """
        deliveries = await self._inbox.take(self._batch, self._idle_ms)
        items = [SortedDelivery(delivery) for delivery in deliveries]
        trouble = await self._sorter.sort(items)
        trouble = await self._apply(items) or trouble
        await self._finish(items)
        if trouble is not None:
            raise trouble
        return len(items)

    # Effects

    async def _apply(self, items: Sequence[SortedDelivery]) -> StoreError | None:
        """Change each channel once; several channels concurrently."""
        by_channel: dict[str, list[SortedDelivery]] = {}
        for item in items:
            for channel_id in item.reports:
                by_channel.setdefault(channel_id, []).append(item)
        trouble: list[StoreError] = []
        limiter = trio.CapacityLimiter(CHANNELS_AT_ONCE)

        async def work(channel_id: str, concerned: list[SortedDelivery]) -> None:
            trace = next((item.delivery.trace for item in concerned if item.delivery.trace), "")
            async with limiter:
                with TRACING.child("webhook effect", trace):
                    trouble.extend(await self._channel(channel_id, concerned))

        async with trio.open_nursery() as nursery:
            for channel_id, concerned in by_channel.items():
                nursery.start_soon(work, channel_id, concerned)
        return trouble[0] if trouble else None

    async def _channel(self, channel_id: str, items: list[SortedDelivery]) -> list[StoreError]:
        """Apply the reports about one channel; one by one if they fail together."""
        try:
            await self._change(channel_id, items)
        except StoreError as error:
            if not of_record(error):
                for item in items:
                    item.fail(Outcome.WAIT)
                return [error]
            if self._writer.isolation.ready("webhooks", channel_id):
                await self._writer.isolation.failed("webhooks", channel_id, error)
            again(items, error)
        except Exception as error:  # one bad delivery must not stop the others
            if len(items) > 1:
                return [t for item in items for t in await self._channel(channel_id, [item])]
            if any(item.delivery.attempts == 1 for item in items):
                log.error("webhook_failed", channel_id=channel_id, exc_info=error)
            again(items, error)
        return []

    async def _change(self, channel_id: str, items: Sequence[SortedDelivery]) -> None:
        reports: Reports = []
        for item in items:
            for report in item.reports[channel_id]:
                if isinstance(report.event, events.SessionStarted):
                    _log_start(channel_id, report)
                if isinstance(report.event, events.ParticipantSpeaking):
                    self._spoke(channel_id, report)
                elif await self._keep(channel_id, item, report):
                    reports.append(report)
        if not reports:
            return

        def rule(channel: Channel, now: int) -> IntakeResult:
            result = apply_webhooks(channel, reports, now)
            if not result.concerned:
                raise NotConcerned
            return result

        try:
            result = await self._writer.change(channel_id, rule)
        except NotConcerned:
            return
        if result.check_state:
            log.info("webhooks_contradict", channel_id=channel_id)
            for handler in self._contradiction_handlers:
                handler(channel_id)

    async def _keep(self, channel_id: str, item: SortedDelivery, report: WebhookReport) -> bool:
        """Store a recording; False when it was already announced. True for other events."""
        event = report.event
        if isinstance(event, events.RecordingFailed):
            self._count_recording("failed")
            log.warning(
                "voice_recording_failed",
                channel_id=channel_id,
                session_id=event.session_id,
                recording_id=event.recording_id,
            )
        if not isinstance(event, events.RecordingReady):
            return True
        recorded = Recorded(
            event.recording_id,
            event.session_id,
            report.at,
            event.url,
            event.duration,
            event.kind.value,
            round((event.expires_at or 0.0) * 1000),
        )
        if await self._recordings.add(channel_id, recorded):
            item.kept.add(recorded.recording_id)
            self._count_recording("ready" if event.kind is RECORDING else event.kind.value)
        return recorded.recording_id in item.kept or item.delivery.attempts > 1

    def _spoke(self, channel_id: str, report: WebhookReport) -> None:
        event = report.event
        assert isinstance(event, events.ParticipantSpeaking)
        if event.is_speaking and self._writer.now() - report.at > STALE_SPEECH_MS:
            return
        if self._overtaken(channel_id, event.user_id, report.at):
            return
        for handler in self._speaking:
            handler(channel_id, event.user_id, event.is_speaking)

    def _overtaken(self, channel_id: str, user_id: str, at: int) -> bool:
        """Whether a newer report about a user was handled; otherwise remember this one."""
        known, key = self._spoke_at, (channel_id, user_id)
        if at < known.get(key, at):
            return True
        known.pop(key, None)
        known[key] = at
        if len(known) > KNOWN_SPEAKERS:
            del known[next(iter(known))]
        return False

    # The end of a delivery

    async def _finish(self, items: Sequence[SortedDelivery]) -> None:
        """Acknowledge done deliveries and bury failed ones; the rest is retried after `IDLE_MS`."""
        done = [item.delivery for item in items if item.fate is Outcome.DONE]
        await self._inbox.done(done)
        for delivery in done:
            self._effects.took_effect(max(self._writer.now() - delivery.received_at, 0) / 1000)
        for item in items:
            spent = item.fate is Outcome.AGAIN and item.delivery.attempts >= ATTEMPTS
            if item.fate is Outcome.BURY or spent:
                await self._bury(item)

    async def _bury(self, item: SortedDelivery) -> None:
        await self._inbox.bury(item.delivery, item.reason)
        kind = item.reason.partition(":")[0]
        self._effects.buried(kind)
        log.warning("webhook_buried", delivery_id=item.delivery.delivery_id, reason=item.reason)


def again(items: Sequence[SortedDelivery], error: Exception) -> None:
    """Mark failed deliveries for a retry."""
    for item in items:
        item.fail(Outcome.AGAIN, f"failed: {type(error).__name__}")


def _log_start(channel_id: str, report: WebhookReport) -> None:
    log.info(
        "voice_session_started",
        channel_id=channel_id,
        session_id=report.event.session_id,
        occupancy=report.event.provider_session_id,
        at=report.at,
    )
