"""The tick: a batch of hub events in, store requests and frames out.

`handle` gets all events of one poll of the hub. It decodes each message and acts
on it; writes are collected, and go to the store as one pipeline at the end of the batch.
Nothing here waits: answers come back through the store queue as function calls, in order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from syncbridge import encode, messages, operations
from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode, StoreError, StoreTimeout, SyncBridgeError
from syncbridge.identity import Identity, authorize
from syncbridge.kernels import render_pairs
from syncbridge.messages import Envelope, MessageType
from syncbridge.policy import Current, Policy
from syncbridge.protocol import TRANSITIONS, VOICE, BehindAuth, State, refusal
from syncbridge.records.sessions import Apply, Mode, Outcome, Place, Resume, Resumed, Status
from syncbridge.records.streams import Stream
from syncbridge.resolve import Strategy
from syncbridge.session import Change
from syncbridge.updates import UpdateParser, check_lineage, check_stream, place_of
from syncbridge_core.hub import (
    EVENT_CLOSED,
    EVENT_DEADLINE,
    EVENT_HUSHED,
    EVENT_LIMITED,
    EVENT_MESSAGE,
    EVENT_RESYNC,
    Hub,
)
from syncbridge_server.gateway.connection import Alarm, Connection
from syncbridge_server.gateway.departures import Departures
from syncbridge_server.gateway.devices import DeviceLists
from syncbridge_server.gateway.ephemeral import EphemeralState
from syncbridge_server.gateway.fanout import Fanout, place_read, whole_state
from syncbridge_server.gateway.inbound import TEXT, Inbound, correlation_of
from syncbridge_server.gateway.joining import Joining
from syncbridge_server.gateway.message_sender import MessageSender, prefix
from syncbridge_server.gateway.operations import Operations
from syncbridge_server.gateway.quota import UserQuota
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.users import UserIndex
from syncbridge_server.gateway.voice import VoiceLink
from syncbridge_server.telemetry.tracing import TRACING

log = structlog.get_logger("gateway")

Event = tuple[int, int, bytes, int]
Handler = Callable[[Connection, Envelope], None]


class Engine:
    """Dispatches hub events. `clock` is Unix seconds, `monotonic` the hub's clock in ms.

    Attributes:
        leaving: the server is about to close all sockets: new messages are refused.
        messages: handled messages, by type. closes: closed sockets, by close code.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        sender: MessageSender,
        store_queue: StoreQueue,
        fanout: Fanout,
        joining: Joining,
        departures: Departures,
        devices: DeviceLists,
        parser: UpdateParser,
        inbound: Inbound,
        quota: UserQuota,
        voice: VoiceLink,
        ephemeral: EphemeralState,
        users: UserIndex,
        policy: Current,
        *,
        expiry_grace: int,
        clock: Callable[[], float],
        monotonic: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._sender = sender
        self._store_queue = store_queue
        self._fanout = fanout
        self._joining = joining
        joining.on_entered = self.entered
        self._departures = departures
        self._parser = parser
        self._policy = policy
        self._operations = Operations(store_queue, sender, parser, self._updated, policy)
        self._inbound = inbound
        self._quota = quota
        self._voice = voice
        self._ephemeral = ephemeral
        self._users = users
        self._grace_ms = expiry_grace * 1000
        self.leaving = False
        self.messages: dict[int | str, int] = {}
        self.closes: dict[int, int] = {}
        self._clock = clock
        self._monotonic = monotonic
        self._handlers: dict[int | str, Handler] = {
            MessageType.AUTH: self._on_auth,
            MessageType.HEARTBEAT: self._on_heartbeat,
            MessageType.SNAPSHOT_REQUEST: self._on_snapshot_request,
            MessageType.STATE_UPDATE: self._on_update,
            MessageType.DEVICE_LIST: devices.request,
            **dict.fromkeys(VOICE, voice.handle),
        }
        self._events: dict[int, Callable[[Connection, bytes, int], None]] = {
            EVENT_MESSAGE: self._on_message,
            EVENT_CLOSED: self._on_closed,
            EVENT_DEADLINE: self._on_deadline,
            EVENT_RESYNC: self._on_resync,
            EVENT_HUSHED: self._on_speaking_dropped,
            EVENT_LIMITED: self._on_limited,
        }

    def handle(self, events: Sequence[Event]) -> None:
        """Handle one batch of events, then send the collected requests to the store."""
        connections, handlers = self._registry.connections, self._events
        for kind, cid, data, aux in events:
            connection = connections.get(cid)
            if connection is not None:
                try:
                    handlers[kind](connection, data, aux)
                except Exception:
                    self._failed(connection)
        self._voice.tick()
        self._ephemeral.tick()
        self._store_queue.dispatch()

    def _failed(self, connection: Connection) -> None:
        """An internal error ends one connection, never the tick."""
        log.exception("message_handler_failed", connection=connection.id)
        error = SyncBridgeError(ErrorCode.INTERNAL, "the server failed on this message")
        self._sender.error(connection, error, None)
        code = CloseCode.INTERNAL_ERROR
        self._hub.close(connection.cid, code, code.reason)

    def _on_message(self, connection: Connection, data: bytes, opcode: int) -> None:
        if self.leaving and not connection.refused:
            error = SyncBridgeError(
                ErrorCode.DRAINING, "the server is restarting; nothing was done"
            )
            self._sender.error(connection, error, correlation_of(connection, data))
        else:
            self._take(connection, data, opcode)

    def _take(self, connection: Connection, data: bytes, opcode: int) -> None:
        if connection.refused:
            return
        if connection.state is State.JOINING or connection.behind is not None:
            self._wait(connection, data, opcode)
        else:
            self._act(connection, data, opcode)

    def _wait(self, connection: Connection, data: bytes, opcode: int) -> None:
        """Keep a message until the AUTH before it is answered."""
        if connection.behind is None:
            connection.behind = BehindAuth()
        try:
            connection.behind.put(data, opcode)
        except SyncBridgeError as error:
            self._sender.error(connection, error, correlation_of(connection, data))

    def entered(self, connection: Connection) -> None:
        """AUTH was accepted: handle the messages behind it, then the close, if the socket has
        closed."""
        behind, connection.behind = connection.behind, None
        if behind is not None:
            for data, opcode in behind.messages:
                try:
                    self._take(connection, data, opcode)
                except Exception:
                    self._failed(connection)
            self._voice.tick()
        if connection.gone and connection.behind is None:
            self._departures.closed(connection)

    def _act(self, connection: Connection, data: bytes, opcode: int) -> None:
        try:
            envelope = self._inbound.decode(connection, data, opcode)
        except SyncBridgeError as error:
            self._sender.error(connection, error, correlation_of(connection, data))
            return
        try:
            if envelope.type not in TRANSITIONS[connection.state]:
                raise refusal(connection.state, envelope.type)
            if self._ephemeral.spares(connection, envelope):
                self._hub.refund(connection.cid)
            else:
                self._quota.require(connection.identity)
        except SyncBridgeError as error:
            self._sender.error(connection, error, short(envelope.correlation_id))
            return
        self._carry_out(connection, envelope)

    def _carry_out(self, connection: Connection, envelope: Envelope) -> None:
        kind = envelope.type
        self.messages[kind] = self.messages.get(kind, 0) + 1
        try:
            self._check(connection, envelope)
            self._handlers[envelope.type](connection, envelope)
        except SyncBridgeError as error:
            refuse = self._sender.error if envelope.type != AUTH else self._joining.refuse
            refuse(connection, error, short(envelope.correlation_id))

    def _check(self, connection: Connection, envelope: Envelope) -> None:
        """Check the envelope of any message. Raises SyncBridgeError."""
        if short(envelope.correlation_id) is not envelope.correlation_id:
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, "correlation_id: at most 64 characters")
        identity = connection.identity
        if connection.state is State.READY and identity is not None:
            connection.require_here(envelope.session_id, envelope.device_id)
            if envelope.user_id:
                authorize(identity, user_id=envelope.user_id, session_id=identity.session_id)

    def _on_auth(self, connection: Connection, envelope: Envelope) -> None:
        payload = messages.decode_payload(messages.auth_decoder, envelope)
        if connection.state is State.NEW:
            self._joining.authenticate(connection, payload, envelope)
        else:
            self._joining.refresh(connection, payload, envelope)

    def _on_heartbeat(self, connection: Connection, envelope: Envelope) -> None:
        payload = messages.decode_payload(messages.heartbeat_decoder, envelope)
        session = connection.session
        frame = encode.heartbeat_ack(
            connection.address,
            int(self._clock() * 1000),
            payload.client_time,
            session.place if session is not None else Place(),
            encode.quote(envelope.correlation_id),
        )
        self._sender.raw(connection, frame)

    def _on_snapshot_request(self, connection: Connection, envelope: Envelope) -> None:
        payload = messages.decode_payload(messages.snapshot_decoder, envelope)
        session = connection.session
        assert session is not None
        since = payload.since
        place = place_of("since", since) if since is not None else Place()
        delta = session.since(place) if since is not None else None
        if session.doc is None or (since is not None and delta is None):
            self._ask_snapshot(connection, place, envelope.correlation_id)
            return
        calls = self._voice.calls_part(connection)
        body = (
            encode.snapshot_payload(session.place, encode.delta_part(*delta) + calls)
            if delta is not None
            else whole_state(session, calls)
        )
        self._sender.send(connection, MessageType.SNAPSHOT_RESPONSE, body, envelope.correlation_id)

    def _ask_snapshot(
        self, connection: Connection, since: Place, correlation_id: str | None
    ) -> None:
        """Ask the store, which has the whole state and older versions."""
        assert connection.session is not None
        request = Resume(connection.session.id, since)
        self._store_queue.ask(request, self._snapshot_read, connection, since, correlation_id)

    def _snapshot_read(
        self,
        answer: Resumed | StoreError,
        connection: Connection,
        since: Place,
        correlation_id: str | None,
    ) -> None:
        session = connection.session
        if isinstance(answer, StoreError):
            self._sender.error(connection, answer, correlation_id)
            return
        if session is None:
            return
        place = place_read(answer)
        if place != session.place:  # what the device was sent meanwhile must not be undone
            if not session.knows(place):
                self._fanout.mend(session)
            self._ask_snapshot(connection, since, correlation_id)
            return
        if answer.full is not None:
            asked = since.version > 0 or since.epoch != ""
            part = encode.state_part(render_pairs(answer.full))
            part += encode.reset_part(answer.reason if asked else "")
        else:
            part = encode.delta_part(render_pairs(answer.sets), encode.key_list(answer.deletes))
        part += self._voice.calls_part(connection)
        body = encode.snapshot_payload(place, part)
        self._sender.send(connection, MessageType.SNAPSHOT_RESPONSE, body, correlation_id)

    def _on_update(self, connection: Connection, envelope: Envelope) -> None:
        payload = messages.decode_payload(messages.update_decoder, envelope)
        sets, deletes = self._parser.parse(payload)
        session, identity = connection.session, connection.identity
        assert session is not None
        assert identity is not None
        base = -1 if payload.base_version is None else payload.base_version
        check_lineage("base_lineage", payload.base_lineage)
        check_stream(payload.stream, payload.seq)
        request = Apply(
            session.id,
            identity.user_id,
            connection.device_id,
            sets,
            deletes,
            mutation_id=envelope.correlation_id or "",
            base_version=base,
            base_lineage=payload.base_lineage if base >= 0 else "",
            mode=Mode.OVERWRITE if base < 0 else Mode.REJECT,
            owner_check=not identity.privileged,
            fence=connection.fence,
            stream=payload.stream,
            seq=payload.seq,
        )
        if self._policy.policy is not None:
            self._hold(self._policy.policy, identity, request, payload.operation)
        self._quota.keep(request)
        if TRACING.on:
            request.trace = TRACING.begin(request.sid, request.mutation_id)
        if payload.operation in PLAIN:
            self._store_queue.ask(request, self._updated, connection, request)
        else:
            self._operations.start(connection, request, payload)

    def _hold(self, policy: Policy, identity: Identity, request: Apply, operation: str) -> None:
        """Check a write against the policy."""
        policy.hold(identity, request, operation)
        if request.mode is Mode.REJECT:
            strategy = policy.strategy((*request.sets[::2], *request.deletes))
            if strategy not in (None, Strategy.SERVER_WINS):
                request.mode = Mode.OVERWRITE

    def _updated(
        self, answer: Outcome | StoreError, connection: Connection, request: Apply
    ) -> None:
        if not request.trace:
            self._settle(answer, connection, request)
            return
        result = answer.status.name if isinstance(answer, Outcome) else answer.code.wire
        with TRACING.answered(request.trace, result), TRACING.child("frames", request.trace):
            self._settle(answer, connection, request)

    def _settle(self, answer: Outcome | StoreError, connection: Connection, request: Apply) -> None:
        correlation_id = request.mutation_id or None
        if isinstance(answer, StoreError):
            if isinstance(answer, StoreTimeout):
                self._fanout.doubts.add(request.sid)
            self._sender.error(connection, answer, correlation_id)
            return
        if request.seq:
            self._count(connection, answer, request)
        if answer.status is Status.OK and answer.version != answer.prev_version:
            self.committed(request, answer)
            return
        if answer.status in (Status.OK, Status.DUPLICATE):
            self._acknowledge(connection, answer, request)
            return
        if answer.status is Status.FENCED and request.fence == connection.fence:
            connection.released = True
        error = operations.refusal(request, answer) or self.refusal(answer)
        self._sender.error(connection, error, correlation_id)

    def refusal(self, answer: Outcome) -> SyncBridgeError:
        """The error of a refused write, with the policy rule, if one refused it."""
        if answer.status is Status.ABSENT and self._policy.policy is not None:
            return self._policy.policy.absent(answer.conflicts[0])
        return outcome_error(answer)

    def _count(self, connection: Connection, answer: Outcome, request: Apply) -> None:
        """The stream fields of the answer to a numbered update."""
        stream = connection.stream
        if stream is None or stream.text != request.stream:
            stream = connection.stream = Stream(request.stream)
        if answer.status in (Status.OK, Status.DUPLICATE):
            stream.acknowledge(max(answer.last, request.seq), request.mutation_id)
        elif answer.last < stream.acked and answer.status in (Status.GAP, Status.UNKNOWN_STREAM):
            # Newer streams have replaced it, or acknowledged updates are lost.
            assert connection.session is not None
            self._fanout.mend(connection.session)

    def committed(self, request: Apply, outcome: Outcome) -> None:
        """Send a commit of this node to the session's devices."""
        session = self._registry.sessions.get(request.sid)
        if session is None:
            return
        self._users.seen(session.owner or request.user_id, request.sid)
        if outcome.created and session.owner != request.user_id:
            session.owner = request.user_id
            session.prefix = prefix(session)
        change = Change(
            outcome.version,
            outcome.prev_version,
            outcome.epoch,
            request.device_id,
            request.mutation_id,
            outcome.sets,
            outcome.deletes,
            outcome.lineage,
            outcome.prev_lineage,
            request.seq,
        )
        self._fanout.commit(request.sid, change)

    def _acknowledge(self, connection: Connection, answer: Outcome, request: Apply) -> None:
        """Answer only the sender: nothing changed, or the update was a repetition.

        An operation returns its unchanged value.
        """
        session = connection.session
        place = Place(answer.epoch, answer.version, answer.lineage)
        first = answer.status is Status.DUPLICATE and answer.version <= (
            session.version if session is not None else 0
        )
        if session is not None and not first and not session.knows(place):
            self._fanout.mend(session)
        change = Change(
            answer.version,
            answer.version,
            answer.epoch,
            request.device_id,
            request.mutation_id,
            [request.sets[0], answer.result] if answer.result else [],
            [],
            answer.lineage,
            answer.lineage,
            answer.last,
            answer.status is Status.DUPLICATE,
        )
        self._sender.update_one(connection, change)

    def _on_closed(self, connection: Connection, reason: bytes, code: int) -> None:
        self.closes[code] = self.closes.get(code, 0) + 1
        if connection.leave_reason == "disconnected":
            connection.leave_reason = LEAVE_REASONS.get(code, "disconnected")
        if connection.behind is not None and not connection.refused:
            connection.gone = True
            return
        self._departures.closed(connection)

    def _on_deadline(self, connection: Connection, data: bytes, deadline: int) -> None:
        if connection.alarm is Alarm.AUTH:
            self._close(connection, CloseCode.AUTH_TIMEOUT)
        elif connection.alarm is Alarm.WARN:
            self._warn(connection)
        elif connection.alarm is Alarm.EXPIRE:
            self._close(connection, CloseCode.TOKEN_EXPIRED)

    def _warn(self, connection: Connection) -> None:
        identity = connection.identity
        assert identity is not None
        left_ms = int((identity.expires_at - self._clock()) * 1000)
        connection.alarm = Alarm.EXPIRE
        self._hub.set_deadline(connection.cid, self._monotonic() + max(1, left_ms + self._grace_ms))
        error = SyncBridgeError(
            ErrorCode.TOKEN_EXPIRING,
            "send AUTH with a new token",
            expires_at=int(identity.expires_at),
        )
        self._sender.error(connection, error, None)

    def _close(self, connection: Connection, code: CloseCode) -> None:
        connection.alarm = Alarm.NONE
        self._hub.close(connection.cid, code, code.reason)

    def _on_resync(self, connection: Connection, data: bytes, seen: int) -> None:
        self._fanout.resync(connection, seen)

    def _on_speaking_dropped(self, connection: Connection, data: bytes, aux: int) -> None:
        if connection.identity is not None:
            self._voice.speaking_dropped(connection)
            self._ephemeral.caught_up(connection)

    def _on_limited(self, connection: Connection, data: bytes, wait_ms: int) -> None:
        if wait_ms == 0:
            self._close(connection, CloseCode.FLOOD)
            return
        envelope = self._spared(connection, data)
        if envelope is not None:
            self._carry_out(connection, envelope)
            return
        error = SyncBridgeError(
            ErrorCode.RATE_LIMITED, "too many messages", retry_after=wait_ms / 1000
        )
        self._sender.error(connection, error, correlation_of(connection, data))

    def _spared(self, connection: Connection, data: bytes) -> Envelope | None:
        """Whether a message above the rate has a separate allowance."""
        if connection.refused or connection.behind is not None:
            return None
        if not connection.encoding and b'"me"' not in data:
            return None
        try:
            envelope = self._inbound.decode(connection, data, TEXT + connection.encoding)
        except SyncBridgeError:
            return None
        return envelope if self._ephemeral.spares(connection, envelope) else None


def short(correlation_id: str | None) -> str | None:
    """The correlation id; None if it is too long."""
    return None if correlation_id is not None and len(correlation_id) > 64 else correlation_id


AUTH = MessageType.AUTH
PLAIN = frozenset({"SET", "DELETE"})
"""Operations that carry a change set."""

LEAVE_REASONS = {
    1000: "closed",
    1001: "closed",
    1005: "closed",
    CloseCode.IDLE_TIMEOUT: "timeout",
    CloseCode.REPLACED: "replaced",
}
"""`reason` of DEVICE_LEFT, by close code."""


def outcome_error(answer: Outcome) -> SyncBridgeError:
    """The error of a refused write, for its sender."""
    place: dict[str, Any] = {
        "current_version": answer.version,
        "epoch": answer.epoch,
        "lineage": answer.lineage,
    }
    if answer.status is Status.CONFLICT:
        return SyncBridgeError(
            ErrorCode.VERSION_CONFLICT,
            "keys changed after base_version",
            **place,
            conflicts=conflict_list(answer.conflicts),
        )
    if answer.status is Status.AHEAD:
        return SyncBridgeError(
            ErrorCode.BASE_VERSION_AHEAD, "base_version is ahead of the session", **place
        )
    if answer.status is Status.BASE_LOST:
        return SyncBridgeError(
            ErrorCode.BASE_LOST,
            "base_version and base_lineage: not of this session's history",
            **place,
        )
    if answer.status is Status.GAP:
        return SyncBridgeError(
            ErrorCode.SEQUENCE_GAP, "seq: not the next number of the stream", last=answer.last
        )
    code, detail = REFUSALS[answer.status]
    return SyncBridgeError(code, detail)


REFUSALS = {
    Status.ABSENT: (ErrorCode.FORBIDDEN, "a device may change this key, and not create it"),
    Status.UNKNOWN_STREAM: (
        ErrorCode.UNKNOWN_STREAM,
        "stream: not known, or newer ones of the device took its place; begin another at 1",
    ),
    Status.NOT_FOUND: (ErrorCode.SESSION_NOT_FOUND, "there is no such session"),
    Status.FORBIDDEN: (ErrorCode.FORBIDDEN, "this session belongs to another user"),
    Status.TOO_LARGE: (ErrorCode.TOO_LARGE, "the state would be larger than allowed"),
    Status.TOO_MANY_KEYS: (ErrorCode.TOO_MANY_KEYS, "the state would have too many keys"),
    Status.TOO_MANY_DEVICES: (ErrorCode.TOO_MANY_DEVICES, "the session has too many devices"),
    Status.FENCED: (
        ErrorCode.FENCED,
        "this device has handed the session over; send AUTH to take part again",
    ),
}


def conflict_list(flat: Sequence[bytes]) -> list[dict[str, object]]:
    """`[{key, server_value}]`; a key that the server has deleted says so instead of a value."""
    return [
        {"key": key.decode(), "server_value": msgspec.Raw(value)}
        if value
        else {"key": key.decode(), "deleted": True}
        for key, value in zip(flat[::2], flat[1::2], strict=True)
    ]
