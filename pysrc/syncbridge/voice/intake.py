"""What webhooks do to a channel: what the provider reports becomes evidence, or a note.

Webhooks arrive late, twice and in any order, so nothing here depends on when they came. They are
taken in by the time at which the provider says it happened; a time that is missing, or lies after
the arrival, counts as the time of the arrival: nothing is reported before it happened, and a clock
that runs ahead must not make its words newer than everybody else's.

The end of a session says that its connections are gone: all that nothing has shown since. It does
not say that the room is closed, for some providers report the end of every *occupancy*: the last
one has left, and the next may come at once, with a token that is still good. So the provider is
asked; if it does not know the room, that is the second statement, and the call ends
(`record.lost`). Where occupancies have names, the latest that are over are remembered: who is said
to have joined one of them is not there.
"""

from collections.abc import Sequence

import msgspec

from syncbridge.voice import announcements
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Evidence, EvidenceOrigin, Joined, Left, Source, Teller
from syncbridge.voice.provider import events
from syncbridge.voice.provider.events import Event

TEXTS_MOST = 50
"""Texts of one channel that wait to be fetched."""
RECORDING = events.RecordedKind.RECORDING
UNKNOWN = 0
"""Generation of a channel that never had a room."""
MAX_VACATED = 8


class WebhookReport(msgspec.Struct, frozen=True):
    """An event, when it arrived, in Unix ms, and the id of the webhook that brought it."""

    event: Event
    received_at: int
    webhook_id: str = ""

    @property
    def origin(self) -> EvidenceOrigin:
        """Who says it."""
        return EvidenceOrigin(Teller.WEBHOOK, self.webhook_id)

    @property
    def at(self) -> int:
        """When it happened, in Unix ms, as far as that can be believed."""
        told = self.event.occurred_at
        at = int(told * 1000) if told is not None else 0
        return at if 0 < at <= self.received_at else self.received_at


class IntakeResult(msgspec.Struct):
    """What became of reports.

    Attributes:
        concerned: something of it was about this channel as it is; else there is nothing to write.
        check_state: they contradict each other, or what others say: ask the provider who is there.
    """

    concerned: bool = False
    check_state: bool = False


def apply_webhooks(channel: Channel, reports: Sequence[WebhookReport], now: int) -> IntakeResult:
    """Take reports of a channel's sessions in, the earliest first. `now` in Unix ms."""
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
    """Take evidence in. A `left` that names none of our connections is not enough: ask at once."""
    channel.apply(evidence, now)
    call = channel.call
    for one in evidence:
        if isinstance(one, Left) and call is not None and call.since(one.user_id) is not None:
            unsettled = not one.connection_id or one.user_id in call.doubted
            result.check_state = result.check_state or unsettled


def _turn(report: WebhookReport) -> tuple[bool, int]:
    """By time; the end of a whole session after everything that may contradict it."""
    event = report.event
    whole = isinstance(event, events.SessionEnded) and not event.provider_session_id
    return whole, report.at


def _too_late(channel: Channel, event: Event) -> bool:
    """Whether somebody joined an occupancy that is known to be over."""
    joined = isinstance(event, events.ParticipantJoined)
    return joined and event.provider_session_id in channel.record.vacated


def _evidence(report: WebhookReport, generation: int) -> Evidence | None:
    """What a report says of one connection; None when it is about something else."""
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
    """Whether another connection of the same device has taken the place of one that ended."""
    reason = event.reason if isinstance(event, events.ParticipantLeft) else None
    return reason is events.LeaveReason.REPLACED


def _revive(channel: Channel, evidence: Evidence, now: int) -> None:
    """Begin a call when somebody enters a room that was kept after the last one had ended."""
    room = channel.record.room
    if channel.call is not None or room is None or not channel.record.pooled_until:
        return
    kept_since = channel.record.pooled_until - channel.limits.pool_ms
    if isinstance(evidence, Joined) and evidence.at > kept_since:
        channel.opened(room.session_id, now)


def _ended(
    channel: Channel, report: WebhookReport, generation: int, now: int, result: IntakeResult
) -> None:
    """The provider says that a session, or an occupancy of it, is over."""
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
        # A look that begins from now on is the second statement.
        record.lost, record.last_sync_at = 1, now - 1


def _recording(
    channel: Channel, event: events.RecordingReady | events.RecordingFailed, result: IntakeResult
) -> None:
    """Tell that a recording is ready; it often is so only when its session has long ended."""
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
