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
from syncbridge.voice.naming import id_of_key, may_be_plain, qualified_key, waddle_of
from syncbridge.voice.view import View
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.gateway.voice import NONE_HELD, HeldCall
from syncbridge_server.voice.sockets.audience import ChannelAudience, may_watch
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
        sender: MessageSender,
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
        self._sender = sender
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
            call = self.live_calls.calls[channel_id]
            state = self._state(connection, call.public_id, call.waddle_id, call.view)
            self._sender.raw(connection, encode.to_json(state))

    def tick(self) -> None:
        """See `VoiceSide`."""
        self.speaking.tick()

    def held_by(self, session_id: str, device_id: str) -> HeldCall:
        """See `VoiceSide`."""
        call = self.live_calls.calls.get(self.live_calls.held_by(session_id, device_id))
        return NONE_HELD if call is None else HeldCall(call.public_id, call.waddle_id)

    def calls_part(self, connection: Connection) -> bytes:
        """See `VoiceSide`. Empty until the calls are loaded: "no call" could be wrong before."""
        if not self.live_calls.loaded.is_set():
            return b""
        user_id = identity_of(connection).user_id
        calls = [
            view.public(call.public_id, call.view, user_id, self.speaking.speakers(call))
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
        call = self._call_of(connection, message)
        person = call.view.participants.get(user_id) if call is not None else None
        if call is None or person is None:
            raise SyncBridgeError(
                ErrorCode.FORBIDDEN, "channelId: only participants of the call can report speaking"
            )
        if person.muted and message.is_speaking:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "a muted participant cannot speak")
        self.speaking.report(call, user_id, message.is_speaking)
        self._sign(call.channel_id, user_id)

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
        call, waddle_id = self._call_of(connection, message), self._waddle_of(connection, message)
        require = partial(permit, identity_of(connection), message.channel_id, waddle_id)
        if call is not None:
            require(call.waddle_id)
        report = msgspec.structs.replace(
            self._report(connection, message), muted=message.muted, video=message.video
        )
        answer = partial(self._answer, connection, message.channel_id, waddle_id, correlation_id)
        said = PendingReport(report, True, require, answer)
        self.reports.submit(key_of(call, message.channel_id, waddle_id), said)

    def _on_leave(
        self, connection: Connection, message: VoiceLeave, correlation_id: str | None
    ) -> None:
        self._check(message)
        call, waddle_id = self._call_of(connection, message), self._waddle_of(connection, message)
        answer = partial(self._answer, connection, message.channel_id, waddle_id, correlation_id)
        require = partial(same_waddle, message.waddle_id)
        said = PendingReport(self._report(connection, message), False, require, answer)
        self.reports.submit(key_of(call, message.channel_id, waddle_id), said)

    def _on_watch(
        self, connection: Connection, message: VoiceWatch, correlation_id: str | None
    ) -> None:
        self._check(message)
        self._require_calls()
        channel_id, waddle_id = message.channel_id, message.waddle_id or ""
        if not may_watch(connection, channel_id, waddle_id):
            raise SyncBridgeError(
                ErrorCode.FORBIDDEN, "the token has no voice grant for this channel"
            )
        call = self._call_of(connection, message)
        self._audience.watch(channel_id, waddle_id, connection)
        shown = call.view if call is not None else None
        self._answer(connection, channel_id, waddle_id, correlation_id, shown, None)

    def _on_unwatch(
        self, connection: Connection, message: VoiceWatch, correlation_id: str | None
    ) -> None:
        self._check(message)
        channel_id, waddle_id = message.channel_id, message.waddle_id or ""
        self._audience.unwatch(channel_id, waddle_id, connection)
        calls = self.live_calls.named(channel_id, waddle_id)
        shown = next((c.view for c in calls if is_in(c, identity_of(connection))), None)
        self._answer(connection, channel_id, waddle_id, correlation_id, shown, None)

    def _call_of(
        self, connection: Connection, message: VoiceJoin | VoiceLeave | VoiceWatch | SpeakingReport
    ) -> LiveCall | None:
        """The call that a message is about, as far as this node knows it. Raises AMBIGUOUS.

        Where no waddle is named: the one that the user is in, else the one that the grants are for.
        """
        identity, named = identity_of(connection), message.waddle_id
        calls = self.live_calls.named(message.channel_id, named or "")
        if not named:
            within = [call for call in calls if is_in(call, identity)]
            calls = within or [call for call in calls if may_see(identity, call)]
        if len(calls) > 1:
            raise SyncBridgeError(
                ErrorCode.AMBIGUOUS,
                "waddleId: several waddles have this channel; name one",
                waddles=sorted(call.waddle_id for call in calls),
            )
        return calls[0] if calls else None

    def _waddle_of(self, connection: Connection, message: VoiceJoin | VoiceLeave) -> str:
        """The waddle that a message names, or the only one of the grants; empty: unknown.

        Raises StoreUnavailable where only the calls could tell, until they are loaded: the call of
        another waddle could be taken for the only one.
        """
        if message.waddle_id:
            return message.waddle_id
        granted = grants.waddles_of(identity_of(connection), message.channel_id) or set()
        if len(granted) == 1:
            return next(iter(granted))
        self._require_calls()
        return ""

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
        waddle_id: str,
        correlation_id: str | None,
        shown: View | None,
        error: SyncBridgeError | None,
    ) -> None:
        """Answer a message with the call or the error. Whoever may not see it is shown no call."""
        if error is not None:
            self._sender.error(connection, error, correlation_id)
            return
        identity = identity_of(connection)
        if shown is not None and not sees(identity, channel_id, shown):
            shown = None
        state = self._state(connection, channel_id, waddle_id, shown)
        self._sender.raw(connection, encode.to_json(state | {"correlation_id": correlation_id}))

    def _state(
        self, connection: Connection, channel_id: str, waddle_id: str, shown: View | None
    ) -> Message:
        """The `voice_state` message for a device."""
        body = NO_CALL | {"channelId": channel_id, "waddleId": waddle_id}
        if shown is not None:
            calls = self.live_calls.named(channel_id, shown.head.waddle_id)
            speakers = {one for call in calls for one in self.speaking.speakers(call)}
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
        public_id, waddle_id = id_of_key(channel_id), waddle_in(channel_id, shown or before, events)
        if before is None and waddle_id:
            self._audience.review(channel_id, waddle_id)
        if before is not shown:
            came = [user_id for user_id in new if user_id not in old]
            for connection in self._audience.joined(channel_id, came):
                state = self._state(connection, public_id, waddle_id, shown)
                self._sender.raw(connection, encode.to_json(state))
        gone = [user_id for user_id in old if user_id not in new]
        muted = [u for u, person in new.items() if person.muted and not was_muted(old, u)]
        if call is not None and shown is not None:
            self.speaking.silence(call, gone)
            self.speaking.hush(call, muted)
        elif call is not None and before is not None:
            self.speaking.forget(call)
        for event in events:
            self._tell(channel_id, announcements.named(event, public_id, waddle_id))
        self._audience.left(channel_id, waddle_id, gone)
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


def waddle_in(channel_id: str, shown: View | None, events: Sequence[Message]) -> str:
    """The waddle of the channel of a key, in a view of it or in messages; empty: unknown."""
    if shown is not None:
        return shown.head.waddle_id
    told = (str(message.get("waddleId", "")) for message in events)
    return next(filter(None, told), waddle_of(channel_id) or "")


def is_in(call: LiveCall, identity: Identity) -> bool:
    """Whether a user is in a call."""
    return identity.user_id in call.view.participants


def sees(identity: Identity, channel_id: str, shown: View) -> bool:
    """Whether an identity may be shown the call of a channel: it has a grant, or is in the call."""
    granted = grants.permissions_of(identity, shown.head.waddle_id, channel_id)
    return granted is not None or identity.user_id in shown.participants


def may_see(identity: Identity, call: LiveCall) -> bool:
    """Whether an identity has a grant for the channel of a call."""
    return grants.permissions_of(identity, call.waddle_id, call.public_id) is not None


def key_of(call: LiveCall | None, channel_id: str, waddle_id: str) -> str:
    """The key under which a report is looked up; see `ClientReports.submit`.

    Raises INVALID_FIELD for an id that is no key without its waddle.
    """
    if call is not None:
        return call.channel_id
    if waddle_id:
        return qualified_key(waddle_id, channel_id)
    if not may_be_plain(channel_id):
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, "waddleId: needed for this channel id", field="waddleId"
        )
    return channel_id


def same_waddle(named: str | None, waddle_id: str) -> None:
    """Raises NOT_FOUND for a call of another waddle than the named one.

    Leaving needs no grant, because the token may have lost it during the call.
    """
    if named and waddle_id and named != waddle_id:
        raise SyncBridgeError(
            ErrorCode.NOT_FOUND, "waddleId: the channel of this waddle has no call"
        )


def permit(identity: Identity, channel_id: str, named: str, waddle_id: str) -> None:
    """Raises FORBIDDEN without a grant for a channel, and NOT_FOUND as `same_waddle`.

    Args:
        named: the waddle in the client's message or its grants, if any. waddle_id: the call's.
    """
    grants.require(identity, named or waddle_id, channel_id)
    same_waddle(named, waddle_id)
