"""Handles the voice messages of sockets and sends voice messages to them.

A device reports that it is in a call (`voice_join`, repeated as a heartbeat), that it left, or that
its user speaks; it can also watch channels. Reports become evidence in the background (`reports`).
Speaking states go to `speaking`. A change in `LiveCalls` becomes messages to the channel's audience
(`audience`).

The state of a socket is no evidence about a call: participants are known from the media. A device
that reconnects gets the current calls (`calls_part`). A live socket keeps nobody in a call.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from syncbridge import encode, ids, messages
from syncbridge.errors import ErrorCode, StoreUnavailable, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.messages import Envelope, SpeakingReport, VoiceJoin, VoiceLeave, VoiceWatch
from syncbridge.voice import announcements, grants, view
from syncbridge.voice.announcements import Message
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.view import View
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.voice.sockets.audience import ChannelAudience
from syncbridge_server.voice.sockets.live_calls import LiveCall, LiveCalls
from syncbridge_server.voice.sockets.reports import ClientReports, PendingReport
from syncbridge_server.voice.sockets.speaking import Speaking

MAX_ID = 128
RENEWALS = 65_536
"""Maximum number of participants whose latest renewal by speaking is remembered."""


class VoiceSockets:
    """Implements `gateway.voice.VoiceSide`.

    Args:
        flush: sends messages that were queued outside of a tick.
        lease_ms: lifetime of the lease of a client's report. monotonic: ms.
    """

    def __init__(
        self,
        post: MessageSender,
        live_calls: LiveCalls,
        audience: ChannelAudience,
        speaking: Speaking,
        reports: ClientReports,
        *,
        flush: Callable[[], object],
        lease_ms: int,
        monotonic: Callable[[], int],
    ) -> None:
        self.live_calls = live_calls
        self.speaking = speaking
        self.reports = reports
        self._post = post
        self._audience = audience
        self._flush = flush
        self._interval_ms = max(lease_ms // 4, 1)
        self._monotonic = monotonic
        self._signs: dict[tuple[str, str], int] = {}
        self._handlers: dict[str, tuple[Any, Callable[..., None]]] = {
            messages.VOICE_JOIN: (messages.voice_join_decoder, self._on_join),
            messages.VOICE_LEAVE: (messages.voice_leave_decoder, self._on_leave),
            messages.VOICE_WATCH: (messages.voice_watch_decoder, self._on_watch),
            messages.VOICE_UNWATCH: (messages.voice_watch_decoder, self._on_unwatch),
            messages.SPEAKING: (messages.speaking_decoder, self._on_speaking),
        }
        live_calls.on_change(self._changed)

    # The gateway's side

    def entered(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        self._audience.add(connection, identity_of(connection).user_id)

    def renewed(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        self._audience.review_connection(connection)

    def left(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        if connection.identity is not None:
            self._audience.remove(connection, connection.identity.user_id)

    def speaking_dropped(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        for channel_id in self._audience.channels_of(connection, identity_of(connection).user_id):
            state = self._state(connection, channel_id, self.live_calls.calls[channel_id].view)
            self._post.raw(connection, encode.to_json(state))

    def tick(self) -> None:
        """See `VoiceSide`."""
        self.speaking.tick()

    def held_by(self, session_id: str, device_id: str) -> str:
        """See `VoiceSide`."""
        return self.live_calls.held_by(session_id, device_id)

    def calls_part(self, connection: Connection) -> bytes:
        """See `VoiceSide`. Empty until the calls are loaded: "no call" could be wrong before."""
        if not self.live_calls.loaded.is_set():
            return b""
        user_id = identity_of(connection).user_id
        calls = [
            view.public(call.channel_id, call.view, user_id, self.speaking.speakers(call))
            for call in self.live_calls.calls_of(user_id)
        ]
        return b',"voice":%b' % encode.to_json(calls)

    def handle(self, connection: Connection, envelope: Envelope) -> None:
        """See `VoiceSide`."""
        decoder, handler = self._handlers[str(envelope.type)]
        handler(connection, messages.decode_payload(decoder, envelope), envelope.correlation_id)

    # Messages from devices

    def _on_speaking(
        self, connection: Connection, message: SpeakingReport, correlation_id: str | None
    ) -> None:
        self._require_calls()
        user_id = identity_of(connection).user_id
        call = self.live_calls.calls.get(message.channel_id)
        person = call.view.participants.get(user_id) if call is not None else None
        if call is None or person is None:
            raise SyncBridgeError(
                ErrorCode.FORBIDDEN, "channelId: only participants of the call can report speaking"
            )
        if person.muted and message.is_speaking:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "a muted participant cannot speak")
        self.speaking.report(call, user_id, message.is_speaking)
        self._sign(message.channel_id, user_id)

    def _sign(self, channel_id: str, user_id: str) -> None:
        """Renew the lease of a speaking user, at most as often as a report does."""
        key, now = (channel_id, user_id), self._monotonic()
        before = self._signs.get(key)
        if before is not None and now - before < self._interval_ms:
            return
        self._signs.pop(key, None)
        self._signs[key] = now
        if len(self._signs) > RENEWALS:
            del self._signs[next(iter(self._signs))]
        try:
            self.reports.renew(channel_id, user_id)
        except SyncBridgeError:
            del self._signs[key]

    def _on_join(
        self, connection: Connection, message: VoiceJoin, correlation_id: str | None
    ) -> None:
        self._check(message)
        identity = identity_of(connection)
        call = self.live_calls.calls.get(message.channel_id)
        if call is not None:
            permit(identity, message.channel_id, message.waddle_id, call.view.head.waddle_id)
        report = msgspec.structs.replace(
            self._report(connection, message), muted=message.muted, video=message.video
        )
        require = partial(permit, identity, message.channel_id, message.waddle_id)
        answer = partial(self._answer, connection, message.channel_id, correlation_id)
        self.reports.submit(message.channel_id, PendingReport(report, True, require, answer))

    def _on_leave(
        self, connection: Connection, message: VoiceLeave, correlation_id: str | None
    ) -> None:
        self._check(message)
        answer = partial(self._answer, connection, message.channel_id, correlation_id)
        said = PendingReport(self._report(connection, message), False, anybody, answer)
        self.reports.submit(message.channel_id, said)

    def _on_watch(
        self, connection: Connection, message: VoiceWatch, correlation_id: str | None
    ) -> None:
        self._check(message)
        self._require_calls()
        channel_id = message.channel_id
        call = self.live_calls.calls.get(channel_id)
        waddle_id = call.view.head.waddle_id if call is not None else message.waddle_id or ""
        permit(identity_of(connection), channel_id, message.waddle_id, waddle_id)
        self._audience.watch(channel_id, connection)
        self._answer(connection, channel_id, correlation_id, call.view if call else None, None)

    def _on_unwatch(
        self, connection: Connection, message: VoiceWatch, correlation_id: str | None
    ) -> None:
        self._check(message)
        self._audience.unwatch(message.channel_id, connection)
        call = self.live_calls.calls.get(message.channel_id)
        user_id = identity_of(connection).user_id
        shown = call.view if call is not None and user_id in call.view.participants else None
        self._answer(connection, message.channel_id, correlation_id, shown, None)

    def _require_calls(self) -> None:
        """Raises StoreUnavailable until this node has loaded the calls."""
        if not self.live_calls.loaded.is_set():
            raise StoreUnavailable("the node has not loaded the calls yet")

    def _check(self, message: Any) -> None:
        """Raises INVALID_FIELD for an invalid id."""
        for name, member in IDS:
            text = getattr(message, name, None)
            if text is None:
                continue
            if name in OPEN_IDS:
                ids.channel_id(member, text)
            else:
                ids.short_id(member, text, MAX_ID)

    def _report(self, connection: Connection, message: VoiceJoin | VoiceLeave) -> ClientReport:
        session = connection.session
        assert session is not None
        return ClientReport(
            identity_of(connection).user_id,
            connection.device_id,
            session.id,
            message.connection_id or "",
            message.session_id or "",
        )

    def _answer(
        self,
        connection: Connection,
        channel_id: str,
        correlation_id: str | None,
        shown: View | None,
        error: SyncBridgeError | None,
    ) -> None:
        """Answer a message with the call or the error."""
        if error is not None:
            self._post.error(connection, error, correlation_id)
        else:
            state = self._state(connection, channel_id, shown) | {"correlation_id": correlation_id}
            self._post.raw(connection, encode.to_json(state))

    def _state(self, connection: Connection, channel_id: str, shown: View | None) -> Message:
        """The `voice_state` message for a device."""
        call = self.live_calls.calls.get(channel_id)
        speakers = self.speaking.speakers(call) if call is not None else set()
        body = NO_CALL | {"channelId": channel_id}
        if shown is not None:
            body = view.public(channel_id, shown, identity_of(connection).user_id, speakers)
        return {
            "type": "voice_state",
            **body,
            "reportIntervalMs": self._interval_ms,
            "correlation_id": None,
        }

    # Messages to devices

    def _changed(
        self,
        channel_id: str,
        call: LiveCall | None,
        before: View | None,
        shown: View | None,
        events: Sequence[Message],
    ) -> None:
        """Handle a change in `LiveCalls`: update the audience and send messages."""
        old = before.participants if before is not None else {}
        new = shown.participants if shown is not None else {}
        if before is None and shown is not None:
            self._audience.review(channel_id, shown.head.waddle_id)
        if before is not shown:
            came = [user_id for user_id in new if user_id not in old]
            for connection in self._audience.joined(channel_id, came):
                state = self._state(connection, channel_id, shown)
                self._post.raw(connection, encode.to_json(state))
        gone = [user_id for user_id in old if user_id not in new]
        muted = [u for u, person in new.items() if person.muted and not was_muted(old, u)]
        if call is not None and shown is not None:
            self.speaking.silence(call, gone)
            self.speaking.hush(call, muted)
        elif call is not None and before is not None:
            self.speaking.forget(call)
        for event in events:
            self._tell(channel_id, event)
        self._audience.left(channel_id, gone)
        for user_id in gone:
            self._signs.pop((channel_id, user_id), None)
        self._flush()

    def _tell(self, channel_id: str, message: Message) -> None:
        if announcements.is_private(message):
            self._audience.tell_user(message["userId"], message)
        else:
            self._audience.tell(channel_id, message)


IDS = (
    ("channel_id", "channelId"),
    ("waddle_id", "waddleId"),
    ("connection_id", "connectionId"),
    ("session_id", "sessionId"),
)
"""Id fields of messages and their names on the wire."""

OPEN_IDS = frozenset({"channel_id", "waddle_id"})
"""Ids that may be any text."""

NO_CALL: Message = {"sessionId": "", "phase": "ended", "participants": []}


def identity_of(connection: Connection) -> Identity:
    """The identity of a ready connection."""
    assert connection.identity is not None
    return connection.identity


def was_muted(people: Any, user_id: str) -> bool:
    """Whether a participant was muted before."""
    return user_id in people and people[user_id].muted


def anybody(waddle_id: str) -> None:
    """Leaving needs no grant, because the token may have lost it during the call."""


def permit(identity: Identity, channel_id: str, named: str | None, waddle_id: str) -> None:
    """Raises FORBIDDEN unless the identity has a grant for a channel of this waddle.

    Args:
        named: the waddle in the client's message, if any.
    """
    if named and named != waddle_id and waddle_id:
        raise SyncBridgeError(
            ErrorCode.FORBIDDEN, "waddleId: the channel belongs to another waddle"
        )
    grants.require(identity, waddle_id, channel_id)
