"""Measures all live calls periodically, caches the results and sends them to analytics.

One node at a time makes a pass over all live calls (`leader`). Local facts cost nothing. The
quality of a call costs one request to the provider, so a pass measures as many calls as its share
of the budget allows, the longest unmeasured first. A call that was not measured reports that
instead of values. Measurements are cached for a while in a bounded table.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Protocol, cast

import msgspec
import structlog
import trio

from syncbridge.voice.channel import Channel
from syncbridge.voice.health import CallHealth, check_health, judged
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.provider.records import CannotVerify, Metrics, VerifyFailure
from syncbridge.voice.records import Final
from syncbridge.voice.stored import Stored
from syncbridge.voice.verification import ALL, Unverified, worst
from syncbridge_server.ports.evidence import CallEvidence
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.figures.metrics import ChannelMetrics
from syncbridge_server.voice.leader import LONGEST, run_as_leader

log = structlog.get_logger("voice")

PURPOSE = "monitor"
STATUSES = ("healthy", "degraded", "unhealthy")
ENOUGH = frozenset(
    {VerifyFailure.UNSUPPORTED, VerifyFailure.RATE_LIMITED, VerifyFailure.UNREACHABLE}
)
"""Failures after which the pass measures no further call."""
UNMEASURED = "not measured: the request budget is used up"


class MonitorLimits(msgspec.Struct, frozen=True):
    """Bounds of monitoring.

    Attributes:
        interval_s: between passes. calls: maximum measurements of a pass. kept: size of the table.
        fresh_s: lifetime of a cached measurement.
    """

    interval_s: float = 60.0
    calls: int = 21
    fresh_s: float = 30.0
    kept: int = 16_384


class Sink(Protocol):
    """Takes documents without blocking."""

    def send(self, document: dict[str, Any]) -> None: ...


class Totals(msgspec.Struct):
    """Totals of one pass. `asked`: requests to the provider."""

    live: int = 0
    participants: int = 0
    asked: int = 0
    health: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(STATUSES, 0))


class Monitor:
    """Measures calls.

    Args:
        analytics: None: documents are not sent.
        failing: whether the provider currently fails; that counts as an error of every call.
        evidence: source of unverified calls; None: unknown.
    """

    def __init__(
        self,
        provider: VoiceProvider,
        writer: ChannelWriter,
        metrics: ChannelMetrics,
        limits: MonitorLimits,
        analytics: Sink | None = None,
        failing: Callable[[], bool] = lambda: False,
        evidence: CallEvidence | None = None,
    ) -> None:
        self._evidence = evidence
        self._unverified: dict[str, Unverified] = {}
        self._provider = provider
        self._writer = writer
        self._metrics = metrics
        self._limits = limits
        self._analytics = analytics
        self._failing = failing
        self._measured: OrderedDict[str, tuple[float, Metrics | CannotVerify]] = OrderedDict()
        writer.on_written(self._report_finals)

    async def run(self) -> None:
        """Make passes for ever."""
        await run_as_leader(self._writer.channels, PURPOSE, self._limits.interval_s, self._turn)

    async def collect(self, channel: Channel) -> dict[str, Any]:
        """The metrics of one call, with its quality."""
        quality = await self.quality(channel)
        return self._complete(self._facts(channel), await self.health(channel), quality)

    async def quality(self, channel: Channel) -> Metrics | CannotVerify | None:
        """The quality of a call, cached or measured now; None without a call."""
        session_id = _session(channel)
        if not channel.live or not session_id:
            return None
        return self._fresh(session_id) or await self._measure(session_id)

    async def health(self, channel: Channel) -> CallHealth:
        """The health of a call now. Raises StoreError."""
        found = None
        if self._evidence is not None and channel.live:
            found = await self._evidence.unverified(channel.record.channel_id)
        return self._as_served(check_health(channel, self._writer.now(), found))

    async def make_pass(self) -> Totals:
        """Make one pass over all live calls. Raises StoreError."""
        totals, calls = Totals(), dict[str, tuple[dict[str, Any], CallHealth]]()
        self._unverified, asked = {}, False
        live = cast("AsyncGenerator[list[str], None]", self._writer.channels.live())
        async with aclosing(live) as pages:
            async for page in pages:
                if self._evidence is not None and not asked:
                    self._unverified, asked = await self._evidence.all_unverified(), True
                read = zip(page, await self._writer.channels.read_many(page), strict=True)
                calls.update(await self._writer.isolation.each("monitor", read, self._seen))
        calls.pop("", None)
        await self._measure_oldest(calls, totals)
        for session_id, (facts, health) in calls.items():
            quality = self._fresh(session_id)
            self._see(self._complete(facts, self._as_served(health), quality), totals)
        self._show(totals)
        return totals

    async def _turn(self) -> float:
        with trio.move_on_after(LONGEST * self._limits.interval_s):
            await self.make_pass()
        return 0.0

    async def _measure_oldest(self, sessions: Iterable[str], totals: Totals) -> None:
        """Measure the longest unmeasured sessions within the share."""
        due = sorted(sessions, key=lambda one: self._measured.get(one, (0.0, None))[0])
        for session_id in due[: self._limits.calls]:
            totals.asked += 1
            quality = await self._measure(session_id)
            if isinstance(quality, CannotVerify) and quality.doubt in ENOUGH:
                return

    def _seen(self, stored: Stored) -> tuple[str, tuple[dict[str, Any], CallHealth]]:
        """(session id, facts and health) of a call; the id is empty when it is not live."""
        channel = Channel(stored.record, self._writer.limits)
        known = self._unverified
        found = worst(known.get(stored.record.channel_id), known.get(ALL))
        health = check_health(channel, self._writer.now(), found)
        return _session(channel) if channel.live else "", (self._facts(channel), health)

    async def _measure(self, session_id: str) -> Metrics | CannotVerify:
        """Ask the provider and cache the answer."""
        quality = await self._provider.fetch_metrics(session_id)
        self._measured[session_id] = (trio.current_time(), quality)
        self._measured.move_to_end(session_id)
        while len(self._measured) > self._limits.kept:
            self._measured.popitem(last=False)
        return quality

    def _fresh(self, session_id: str) -> Metrics | CannotVerify | None:
        """The cached measurement, if it is fresh."""
        at, quality = self._measured.get(session_id, (float("-inf"), None))
        return quality if trio.current_time() - at < self._limits.fresh_s else None

    def _see(self, document: dict[str, Any], totals: Totals) -> None:
        """Count a call and send its document."""
        totals.live += 1
        totals.participants += document["participants"]
        totals.health[document["health"]["status"]] += 1
        if self._analytics is not None:
            self._analytics.send(document)

    def _facts(self, channel: Channel) -> dict[str, Any]:
        """The metrics of one call that need no request to the provider."""
        now = self._writer.now()
        record, call = channel.record, channel.call
        return {
            "sessionId": _session(channel),
            "channelId": record.public_id,
            "waddleId": record.waddle_id,
            "timestamp": now,
            "participants": len(call.users) if call is not None else 0,
            "duration": now - record.created_at if call is not None else 0,
            "state": "active" if channel.live else "ended",
            "phase": str(call.phase) if call is not None else "ended",
        }

    def _complete(
        self, facts: dict[str, Any], health: CallHealth, quality: Metrics | CannotVerify | None
    ) -> dict[str, Any]:
        return facts | {"health": health_document(health), "rtk": quality_document(quality)}

    def _as_served(self, health: CallHealth) -> CallHealth:
        """Health with the `noErrors` check failed while the provider fails."""
        if not self._failing():
            return health
        return judged(health.checks | {"noErrors": False}, health.reason)

    def _show(self, totals: Totals) -> None:
        self._metrics.live.set(totals.live)
        self._metrics.participants.set(totals.participants)
        for status, number in totals.health.items():
            self._metrics.health.labels(status).set(number)

    def _report_finals(self, channel: Channel) -> None:
        """Send the figures of ended calls."""
        if self._analytics is None:
            return
        for final in channel.finals:
            self._analytics.send(final_document(final))


def health_document(health: CallHealth) -> dict[str, Any]:
    """A call's health as a public document."""
    told = {"score": health.score, "checks": health.checks, "status": health.status}
    return told | {"reason": health.reason} if health.reason else told


def quality_document(quality: Metrics | CannotVerify | None) -> dict[str, Any]:
    """A call's quality as a public document: four values or an error."""
    if quality is None:
        return {"error": UNMEASURED}
    if isinstance(quality, CannotVerify):
        return {"error": quality.detail or str(quality.doubt)}
    return {
        "packetsLost": quality.packets_lost,
        "jitter": quality.jitter,
        "latency": quality.latency,
        "bandwidth": quality.bandwidth,
    }


def final_document(final: Final) -> dict[str, Any]:
    """The figures of an ended call as a document."""
    return {
        "sessionId": final.session_id,
        "channelId": id_of_key(final.channel_id),
        "waddleId": final.waddle_id,
        "timestamp": final.ended_at,
        "participants": 0,
        "duration": final.ended_at - final.created_at,
        "state": "ended",
        "reason": final.reason,
        "peakParticipants": final.peak_participants,
        "totalParticipantTime": final.total_participant_ms,
        "migrations": final.migrations,
    }


def _session(channel: Channel) -> str:
    room = channel.record.room
    return room.session_id if room is not None else ""
