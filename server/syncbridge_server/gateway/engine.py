"""The tick: a batch of hub events in, store requests and frames out.

`handle` is called with everything that one poll of the hub gave. It decodes each message and acts
on it; writes are only collected, and go to the store as one pipeline when the batch is through.
Nothing here waits: answers come back through the courier as function calls, in order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from syncbridge import encode, messages, operations
from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode, StoreError, StoreTimeout, SyncBridgeError
from syncbridge.identity import authorize
from syncbridge.kernels import render_pairs
from syncbridge.messages import Envelope, MessageType
from syncbridge.protocol import TRANSITIONS, VOICE, BehindAuth, State, refusal
from syncbridge.records.sessions import Apply, Mode, Outcome, Resume, Resumed, Status
from syncbridge.session import Change
from syncbridge.updates import UpdateParser, check_version
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
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.departures import Departures
from syncbridge_server.gateway.devices import DeviceLists
from syncbridge_server.gateway.fanout import Fanout, whole_state
from syncbridge_server.gateway.inbound import Inbound, correlation_of
from syncbridge_server.gateway.joining import Joining
from syncbridge_server.gateway.operations import Operations
from syncbridge_server.gateway.post import Post, prefix
from syncbridge_server.gateway.quota import UserQuota
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.voice import VoiceLink

log = structlog.get_logger("gateway")

Event = tuple[int, int, bytes, int]
Handler = Callable[[Connection, Envelope], None]


class Engine:
    """Dispatches hub events. `clock` is Unix seconds, `monotonic` the hub's clock in ms."""

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        post: Post,
        courier: Courier,
        fanout: Fanout,
        joining: Joining,
        departures: Departures,
        devices: DeviceLists,
        parser: UpdateParser,
        inbound: Inbound,
        quota: UserQuota,
        voice: VoiceLink,
        *,
        expiry_grace: int,
        clock: Callable[[], float],
        monotonic: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._post = post
        self._courier = courier
        self._fanout = fanout
        self._joining = joining
        joining.on_entered = self.entered
        self._departures = departures
        self._parser = parser
        self._operations = Operations(courier, post, parser, self._updated)
        self._inbound = inbound
        self._quota = quota
        self._voice = voice
        self._grace_ms = expiry_grace * 1000
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
            EVENT_HUSHED: self._on_hushed,
            EVENT_LIMITED: self._on_limited,
        }

    def handle(self, events: Sequence[Event]) -> int:
        """Act on one batch of events, then send what was asked of the store; returns how much."""
        connections, handlers = self._registry.connections, self._events
        for kind, cid, data, aux in events:
            connection = connections.get(cid)
            if connection is not None:
                try:
                    handlers[kind](connection, data, aux)
                except Exception:
                    self._failed(connection)
        self._voice.tick()
        return self._courier.dispatch()

    def _failed(self, connection: Connection) -> None:
        """A fault of ours ends one connection, never the tick."""
        log.exception("Handler failed", connection=connection.id)
        error = SyncBridgeError(ErrorCode.INTERNAL, "the server failed on this message")
        self._post.error(connection, error, None)
        code = CloseCode.INTERNAL_ERROR
        self._hub.close(connection.cid, code, code.reason)

    def _on_message(self, connection: Connection, data: bytes, opcode: int) -> None:
        if connection.refused:
            return
        if connection.state is State.JOINING or connection.behind is not None:
            self._wait(connection, data, opcode)
        else:
            self._act(connection, data, opcode)

    def _wait(self, connection: Connection, data: bytes, opcode: int) -> None:
        """Keep a message until AUTH, which came before it, is answered."""
        if connection.behind is None:
            connection.behind = BehindAuth()
        try:
            connection.behind.put(data, opcode)
        except SyncBridgeError as error:
            self._post.error(connection, error, correlation_of(connection, data))

    def entered(self, connection: Connection) -> None:
        """AUTH has been accepted: act on what came behind it."""
        behind, connection.behind = connection.behind, None
        if behind is None:
            return
        for data, opcode in behind.messages:
            try:
                self._on_message(connection, data, opcode)
            except Exception:
                self._failed(connection)
        self._voice.tick()

    def _act(self, connection: Connection, data: bytes, opcode: int) -> None:
        try:
            envelope = self._inbound.decode(connection, data, opcode)
        except SyncBridgeError as error:
            self._post.error(connection, error, correlation_of(connection, data))
            return
        try:
            if envelope.type not in TRANSITIONS[connection.state]:
                raise refusal(connection.state, envelope.type)
            self._quota.require(connection.identity)
        except SyncBridgeError as error:
            self._post.error(connection, error, short(envelope.correlation_id))
            return
        try:
            self._check(connection, envelope)
            self._handlers[envelope.type](connection, envelope)
        except SyncBridgeError as error:
            refuse = self._post.error if envelope.type != AUTH else self._joining.refuse
            refuse(connection, error, short(envelope.correlation_id))

    def _check(self, connection: Connection, envelope: Envelope) -> None:
        """What holds for the envelope of every message. Raises SyncBridgeError."""
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
            session.version if session is not None else 0,
            encode.quote(envelope.correlation_id),
        )
        self._post.raw(connection, frame)

    def _on_snapshot_request(self, connection: Connection, envelope: Envelope) -> None:
        payload = messages.decode_payload(messages.snapshot_decoder, envelope)
        session = connection.session
        assert session is not None
        since = payload.since
        if since is not None:
            check_version("since.version", since.version)
        if session.doc is None:
            epoch, version = (since.epoch, since.version) if since is not None else ("", 0)
            request = Resume(session.id, epoch, version)
            self._courier.ask(request, self._snapshot_read, connection, envelope.correlation_id)
            return
        delta = None
        if since is not None and since.epoch == session.epoch:
            delta = session.since(since.version)
        calls = self._voice.calls_part(connection)
        body = (
            encode.snapshot_payload(
                session.version, session.epoch, encode.delta_part(*delta) + calls
            )
            if delta is not None
            else whole_state(session, calls)
        )
        self._post.send(connection, MessageType.SNAPSHOT_RESPONSE, body, envelope.correlation_id)

    def _snapshot_read(
        self, answer: Resumed | StoreError, connection: Connection, correlation_id: str | None
    ) -> None:
        if isinstance(answer, StoreError):
            self._post.error(connection, answer, correlation_id)
            return
        if connection.session is not None:
            connection.session.told(answer.version)
        if answer.full is not None:
            part = encode.state_part(render_pairs(answer.full))
        else:
            part = encode.delta_part(render_pairs(answer.sets), encode.key_list(answer.deletes))
        part += self._voice.calls_part(connection)
        body = encode.snapshot_payload(answer.version, answer.epoch, part)
        self._post.send(connection, MessageType.SNAPSHOT_RESPONSE, body, correlation_id)

    def _on_update(self, connection: Connection, envelope: Envelope) -> None:
        payload = messages.decode_payload(messages.update_decoder, envelope)
        sets, deletes = self._parser.parse(payload)
        session, identity = connection.session, connection.identity
        assert session is not None
        assert identity is not None
        base = -1 if payload.base_version is None else payload.base_version
        request = Apply(
            session.id,
            identity.user_id,
            connection.device_id,
            sets,
            deletes,
            mutation_id=envelope.correlation_id or "",
            base_version=base,
            mode=Mode.OVERWRITE if base < 0 else Mode.REJECT,
            owner_check=not identity.privileged,
            fence=connection.fence,
        )
        if payload.operation in PLAIN:
            self._courier.ask(request, self._updated, connection, request)
        else:
            self._operations.start(connection, request, payload)

    def _updated(
        self, answer: Outcome | StoreError, connection: Connection, request: Apply
    ) -> None:
        correlation_id = request.mutation_id or None
        if isinstance(answer, StoreError):
            if isinstance(answer, StoreTimeout):
                self._fanout.doubts.add(request.sid)
            self._post.error(connection, answer, correlation_id)
            return
        if answer.status is Status.OK and answer.version != answer.prev_version:
            self.committed(request, answer)
            return
        if answer.status in (Status.OK, Status.DUPLICATE):
            self._acknowledge(connection, answer, request)
            return
        if answer.status is Status.FENCED and request.fence == connection.fence:
            connection.released = True
        error = operations.refusal(request, answer) or outcome_error(answer)
        self._post.error(connection, error, correlation_id)

    def committed(self, request: Apply, outcome: Outcome) -> None:
        """Give a commit of this node to the session's devices."""
        session = self._registry.sessions.get(request.sid)
        if session is None:
            return
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
        )
        self._fanout.commit(request.sid, change)

    def _acknowledge(self, connection: Connection, answer: Outcome, request: Apply) -> None:
        """Nothing changed, or it had been done before: only the sender is told.

        The value that an operation left as it was goes with it.
        """
        session = connection.session
        if session is not None and answer.version > session.version:
            self._fanout.mend(session)
        change = Change(
            answer.version,
            answer.version,
            answer.epoch,
            request.device_id,
            request.mutation_id,
            [request.sets[0], answer.result] if answer.result else [],
            [],
        )
        self._post.update_one(connection, change)

    def _on_closed(self, connection: Connection, reason: bytes, code: int) -> None:
        if connection.leave_reason == "disconnected":
            connection.leave_reason = LEAVE_REASONS.get(code, "disconnected")
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
        self._post.error(connection, error, None)

    def _close(self, connection: Connection, code: CloseCode) -> None:
        connection.alarm = Alarm.NONE
        self._hub.close(connection.cid, code, code.reason)

    def _on_resync(self, connection: Connection, data: bytes, seen: int) -> None:
        self._fanout.resync(connection, seen)

    def _on_hushed(self, connection: Connection, data: bytes, aux: int) -> None:
        if connection.identity is not None:
            self._voice.hushed(connection)

    def _on_limited(self, connection: Connection, data: bytes, wait_ms: int) -> None:
        if wait_ms == 0:
            self._close(connection, CloseCode.FLOOD)
            return
        error = SyncBridgeError(
            ErrorCode.RATE_LIMITED, "too many messages", retry_after=wait_ms / 1000
        )
        self._post.error(connection, error, correlation_of(connection, data))


def short(correlation_id: str | None) -> str | None:
    """A correlation id that can be given back; None for one that is too long."""
    return None if correlation_id is not None and len(correlation_id) > 64 else correlation_id


AUTH = MessageType.AUTH
PLAIN = frozenset({"SET", "DELETE"})
"""Operations that are change sets."""

LEAVE_REASONS = {
    1000: "closed",
    1001: "closed",
    1005: "closed",
    CloseCode.IDLE_TIMEOUT: "timeout",
    CloseCode.REPLACED: "replaced",
}
"""What other devices are told, by the code with which a socket closed."""


def outcome_error(answer: Outcome) -> SyncBridgeError:
    """Why a write was refused, for the client that sent it."""
    place: dict[str, Any] = {"current_version": answer.version, "epoch": answer.epoch}
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
    code, detail = REFUSALS[answer.status]
    return SyncBridgeError(code, detail)


REFUSALS = {
    Status.NOT_FOUND: (ErrorCode.SESSION_NOT_FOUND, "there is no such session"),
    Status.FORBIDDEN: (ErrorCode.FORBIDDEN, "this session belongs to another user"),
    Status.TOO_LARGE: (ErrorCode.TOO_LARGE, "the state would be larger than allowed"),
    Status.TOO_MANY_KEYS: (ErrorCode.TOO_MANY_KEYS, "the state would have too many keys"),
    Status.TOO_MANY_DEVICES: (ErrorCode.TOO_MANY_DEVICES, "the session has no room for a device"),
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
