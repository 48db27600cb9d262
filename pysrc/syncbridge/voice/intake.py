"""Applies webhooks to a channel: events of the provider become evidence or notes.

Webhooks arrive late, repeatedly and in any order, so nothing here depends on their arrival. They
are applied in the order of the provider's event times. A missing time, or one after the arrival, is
replaced by the arrival: no event is reported before it happens, and a fast clock must not make
events newer than other evidence.

The end of a session means that its connections without a later sign are gone. It does not mean that
the room is closed, because some providers report the end of each *occupancy*: the last participant
left, and the next can join at once with a valid token. So the provider is asked. If it does not
know the room, that is the second statement, and the call ends (`record.lost`). If occupancies have
ids, the latest ended ones are remembered, and joins of them are ignored.
"""

from collections.abc import Sequence

import msgspec

from syncbridge.voice import announcements
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Evidence, EvidenceOrigin, Joined, Left, Source, Teller
from syncbridge.voice.provider import events
from syncbridge.voice.provider.events import Event

TEXTS_MOST = 50
"""Maximum number of texts to fetch for one channel."""
RECORDING = events.RecordedKind.RECORDING
UNKNOWN = 0
"""Generation of a channel that never had a room."""
MAX_VACATED = 8


class WebhookReport(msgspec.Struct, frozen=True):
    """An event, its arrival in Unix ms, and the id of its webhook."""

    event: Event
    received_at: int
    webhook_id: str = ""

    @property
    def origin(self) -> EvidenceOrigin:
        """The origin for evidence."""
        return EvidenceOrigin(Teller.WEBHOOK, self.webhook_id)

    @property
    def at(self) -> int:
        """The event time in Unix ms, or the arrival if that time is not plausible."""
        told = self.event.occurred_at
        at = int(told * 1000) if told is not None else 0
        return at if 0 < at <= self.received_at else self.received_at


class IntakeResult(msgspec.Struct):
    """The result of applying reports.

    Attributes:
        concerned: a report concerned the channel as it is; otherwise nothing is written.
        check_state: reports contradict each other or other evidence, so a state check is needed.
    """

    concerned: bool = False
    check_state: bool = False


def apply_webhooks(channel: Channel, reports: Sequence[WebhookReport], now: int) -> IntakeResult:
    """Apply the reports about a channel's sessions, the earliest first. `now` in Unix ms."""
    result = IntakeResult()
    waiting: list[Evidence] = []
    for report in sorted(reports, key=_turn):
        if isinstance(report.event, events.RecordingReady | events.RecordingFailed):
            _recording(channel, report.event, result)
            continue
        generation = channel.generation_of(report.event.session_id)
        if generation is None:
            continue
        result.concerned = True
        if _too_late(channel, report.event):
            continue
        evidence = _evidence(report, generation)
        if evidence is not None:
            _revive(channel, evidence, now)
            waiting.append(evidence)
            continue
        _apply(channel, waiting, now, result)
        waiting = []
        if isinstance(report.event, events.SessionEnded):
            _ended(channel, report, generation, now, result)
        else:
            channel.record.last_activity = max(channel.record.last_activity, report.at)
    _apply(channel, waiting, now, result)
    return result


def _apply(channel: Channel, evidence: Sequence[Evidence], now: int, result: IntakeResult) -> None:
    """Apply evidence. A `left` that does not remove its user needs a state check."""
    channel.apply(evidence, now)
    call = channel.call
    for one in evidence:
        if isinstance(one, Left) and call is not None and call.since(one.user_id) is not None:
            unsettled = not one.connection_id or one.user_id in call.doubted
            result.check_state = result.check_state or unsettled


def _turn(report: WebhookReport) -> tuple[bool, int]:
    """Sort key: by time; the end of a whole session after all evidence that may contradict it."""
    event = report.event
    whole = isinstance(event, events.SessionEnded) and not event.provider_session_id
    return whole, report.at


def _too_late(channel: Channel, event: Event) -> bool:
    """Whether an event is a join of an occupancy that has ended."""
    joined = isinstance(event, events.ParticipantJoined)
    return joined and event.provider_session_id in channel.record.vacated


def _evidence(report: WebhookReport, generation: int) -> Evidence | None:
    """The evidence in a report about one connection; None for other reports."""
    match report.event:
        case events.ParticipantJoined(user_id=user_id, peer_id=peer_id):
            kind: type[Joined | Left] = Joined
        case events.ParticipantLeft(user_id=user_id, peer_id=peer_id):
            kind = Left
        case _:
            return None
    said = kind(
        generation=generation,
        at=report.at,
        source=Source.WEBHOOK,
        user_id=user_id,
        connection_id=peer_id,
        origin=report.origin,
    )
    if isinstance(said, Left) and _replaced(report.event):
        return msgspec.structs.replace(said, replaced=True)
    return said


def _replaced(event: Event) -> bool:
    """Whether another connection of the same device replaced the one that ended."""
    reason = event.reason if isinstance(event, events.ParticipantLeft) else None
    return reason is events.LeaveReason.REPLACED


def _revive(channel: Channel, evidence: Evidence, now: int) -> None:
    """Begin a call when a user joins a pooled room."""
    room = channel.record.room
    if channel.call is not None or room is None or not channel.record.pooled_until:
        return
    kept_since = channel.record.pooled_until - channel.limits.pool_ms
    if isinstance(evidence, Joined) and evidence.at > kept_since:
        channel.opened(room.session_id, now)


def _ended(
    channel: Channel, report: WebhookReport, generation: int, now: int, result: IntakeResult
) -> None:
    """Apply the end of a session or of one of its occupancies."""
    record, occupancy = channel.record, report.event.provider_session_id
    if channel.call is None:
        if not occupancy:
            channel.end(now, "ended", report.origin)
        return
    if generation != channel.call.generation:
        return
    if occupancy:
        over = [known for known in record.vacated if known != occupancy]
        record.vacated = [*over, occupancy][-MAX_VACATED:]
    gone = [
        Left(
            generation=generation,
            at=report.at,
            source=Source.WEBHOOK,
            user_id=user_id,
            connection_id=connection_id,
            origin=report.origin,
        )
        for user_id, connection_id in channel.call.unseen_since(report.at)
    ]
    channel.apply(gone, now)
    result.check_state = True
    if not occupancy and not record.lost and channel.call is not None and not channel.call.users:
        # A state check that begins after now is the second statement.
        record.lost, record.last_sync_at = 1, now - 1


def _recording(
    channel: Channel, event: events.RecordingReady | events.RecordingFailed, result: IntakeResult
) -> None:
    """Announce a ready or failed recording, often long after its session ended."""
    record = channel.record
    if record.generation == UNKNOWN:
        return
    result.concerned = True
    ready = isinstance(event, events.RecordingReady)
    if isinstance(event, events.RecordingReady) and event.kind is not RECORDING:
        told = announcements.text_ready(record.channel_id, event.recording_id, event.kind)
        channel.news.append(told)
        others = [known for known in record.texts if known != event.recording_id]
        record.texts = [*others, event.recording_id][-TEXTS_MOST:]
        return
    if channel.generation_of(event.session_id) is not None and record.recording != "wanted":
        record.recording = "ready" if ready else "failed"
    if isinstance(event, events.RecordingReady):
        told = announcements.recording_ready(record.channel_id, event.recording_id, event.duration)
    else:
        told = announcements.recording_failed(record.channel_id, event.recording_id)
    channel.news.append(told)
