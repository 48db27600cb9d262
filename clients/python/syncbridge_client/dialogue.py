"""The client's side of the protocol without a socket: bytes in, bytes out, time as an argument.

Theory of operation. `receive` takes one message and brings the replica, the device list and the
queue up to date; `outgoing` says what to send next. Nothing waits here, so any interleaving of
updates, commits, lost answers and reconnects can be tried in a test. What happened is told to a
`Sink`.

The rules for commits are those of the protocol: known, fitting, or a gap that is closed by asking
for the difference. Three things make the client ask again for answers that it has not seen: a new
connection, a difference over several commits (the server leaves out what waited for a slow reader,
acknowledgements too), and an answer that is overdue. An update keeps its id and number, so asking
is harmless.
"""

import math
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from syncbridge_client import wire
from syncbridge_client.backoff import Pacer
from syncbridge_client.catalogue import ErrorCode, Limits
from syncbridge_client.catalogue import MessageType as M
from syncbridge_client.errors import RequestFailed
from syncbridge_client.events import (
    Connected,
    DeviceJoined,
    DeviceLeft,
    Draining,
    Notice,
    Reset,
    ServerError,
    TokenExpiring,
    TokenRenewed,
)
from syncbridge_client.operations import Edit
from syncbridge_client.options import Hello, Options
from syncbridge_client.outbox import RETRY_BASE, Told, Updates
from syncbridge_client.presence import Presence
from syncbridge_client.queue import OfflineQueue, Pending
from syncbridge_client.replica import Replica, Verdict
from syncbridge_client.voice import KINDS as VOICE_KINDS
from syncbridge_client.voice import VoiceCalls

MAX_REQUESTS = 64
"""Requests of ours, other than updates, that may wait for an answer."""


class Sink(Told, Protocol):
    """Who is told what happened."""

    def replied(self, request_id: str, error: RequestFailed | None) -> None:
        """A request other than an update was answered."""

    def token_wanted(self) -> None:
        """The server will close the connection unless it gets a new token."""


class Dialogue:
    """One session over any number of connections.

    Attributes:
        replica: state, version, epoch, pending updates. updates: their way.
        presence: the devices of the session.
        ready: AUTH was accepted on the present connection.
        welcome: the newest AUTH_SUCCESS. token_left: seconds that its token was still good for.
        retry_after: what the server asked for before it closes, seconds.
        refusal: why AUTH was refused on the present connection.
        voice: calls, and what this device says of itself in them.
        belongs: whether the queue is that of this user and session, of which it is told the ids.
    """

    def __init__(
        self,
        hello: Hello,
        options: Options,
        sink: Sink,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.welcome: wire.Welcome | None = None
        queue = OfflineQueue(new_id, options.queue_updates, options.queue_bytes, options.window)
        self.replica = Replica(queue)
        self.updates = Updates(self.replica, options, sink, new_id)
        self.voice = VoiceCalls(hello.device_id, new_id)
        self.presence = Presence(self.limits.ephemeral_per_second)
        self.ready = False
        self.belongs: Callable[[str], bool] = anybody
        self.token_left = 0.0
        self.retry_after = 0.0
        self.refusal: wire.Failure | None = None
        self._hello = hello
        self._options = options
        self._sink = sink
        self._new_id = new_id
        self._pacer: Pacer | None = None
        self._requests: deque[bytes] = deque()
        self._asked: dict[str, M | str] = {}
        self._auth_id = ""
        self._missing = False
        self._difference_id = ""
        self._difference_at = 0.0
        self._handlers: dict[int | str, Callable[[wire.Message, float], None]] = {
            M.AUTH_SUCCESS: self._on_auth_success,
            M.AUTH_FAILURE: self._on_error,
            M.ERROR: self._on_error,
            M.STATE_UPDATE: self._on_update,
            M.SNAPSHOT_RESPONSE: self._on_snapshot,
            M.HEARTBEAT_ACK: self._on_heartbeat_ack,
            M.DEVICE_JOINED: self._on_joined,
            M.DEVICE_LEFT: self._on_left,
            M.DEVICE_LIST: self._on_devices,
        }

    @property
    def limits(self) -> Limits:
        """The server's bounds; the defaults until it has told them."""
        return self.welcome.limits if self.welcome is not None else Limits()

    # The program's side

    def submit(self, edits: dict[str, Edit]) -> Pending:
        """Take an update; raises QueueFull and InvalidUpdate."""
        return self.updates.submit(edits, self.limits)

    def say(self, changes: Mapping[str, Any]) -> None:
        """Say something of this device; None takes a key back. Raises InvalidUpdate."""
        self.presence.say(changes)

    def ask_snapshot(self) -> str:
        """Ask for the whole state; returns the request's id."""
        return self._ask(M.SNAPSHOT_REQUEST, {})

    def ask_renewal(self, token: str) -> str:
        """Send a new token on the open connection; returns the request's id."""
        return self._ask(M.AUTH, {"token": token, "device_id": self._hello.device_id})

    def ask_voice(self, kind: str, body: dict[str, Any]) -> str:
        """Send a message about a call; returns the request's id."""
        return self._ask(kind, body)

    def beat(self) -> None:
        """Send a HEARTBEAT, unless there is much to send anyway."""
        if self.ready and len(self._requests) < MAX_REQUESTS:
            self._requests.append(wire.write(M.HEARTBEAT, {}))

    def forget(self, request_id: str) -> None:
        """Nobody waits for the answer to a request any more."""
        self._asked.pop(request_id, None)

    def _ask(self, kind: M | str, body: dict[str, Any]) -> str:
        if not self.ready:
            raise RequestFailed("disconnected")
        if len(self._asked) >= MAX_REQUESTS:
            raise RequestFailed("busy", f"{MAX_REQUESTS} requests wait for an answer")
        request_id = self._new_id()
        self._asked[request_id] = kind
        self._requests.append(wire.write(kind, body, request_id))
        return request_id

    # The connection's side

    def opening(self, token: str) -> bytes:
        """The AUTH message of a new connection."""
        self.retry_after = 0.0
        self.refusal = None
        self._auth_id = self._new_id()
        queue = self.replica.queue
        body: dict[str, Any] = {"token": token, "stream": queue.stream, "acked": queue.acked}
        for name in self._hello.__slots__:
            if getattr(self._hello, name):
                body[name] = getattr(self._hello, name)
        if self.replica.known:
            body["resume"] = self._position()
        return wire.write(M.AUTH, body, self._auth_id)

    def lost(self) -> None:
        """The connection is gone."""
        self.ready = False
        self._missing = False
        self._difference_id = ""
        self._requests.clear()
        self.replica.queue.disconnected()
        asked, self._asked = self._asked, {}
        for request_id in asked:
            self._sink.replied(request_id, RequestFailed("disconnected"))

    def astray(self, now: float) -> bool:
        """Whether the connection must be given up, as only a new one tells what the server has."""
        self.replica.queue.resend_older(now - self._options.ack_timeout)
        return self.replica.queue.astray

    def outgoing(self, now: float) -> bytes | None:
        """The next message to send, None when there is nothing to send now."""
        if not self.ready or self._pacer is None:
            return None
        self._requests.extend(self.voice.due(now))
        if self.presence.ready(now):  # these have an allowance of their own
            return wire.write(M.DEVICE_LIST, {"me": self.presence.take(now)})
        if not (self._has_request(now) or self.updates.next(now)) or not self._pacer.take(now):
            return None
        if self._requests:
            return self._requests.popleft()
        if self._has_request(now):
            return self._ask_difference(now)
        return self.updates.take(now)

    def wait(self, now: float) -> float:
        """Seconds after which `outgoing` must be asked again although nothing has happened."""
        if self._pacer is None or not self.ready:
            return math.inf
        if self._has_request(now) or self.updates.next(now):
            return min(self._pacer.wait(now), max(0.0, self.presence.due(now) - now))
        times = self.replica.queue.times(now, self._options.ack_timeout)
        times += [self.voice.next_due(), self.presence.due(now)]
        if self._missing:
            times.append(self._difference_at)
        return max(0.0, min(times, default=math.inf) - now)

    def receive(self, data: bytes, now: float) -> None:
        """Take one message; raises wire.ProtocolViolation."""
        message = wire.read(data)
        handler = self._handlers.get(message.type)
        if handler is not None:
            handler(message, now)
        elif message.type in VOICE_KINDS:
            self._on_voice(message)
        else:
            body = wire.payload(wire.anything, message)
            self._sink.event(Notice(message.type, body))

    # Sending

    def _position(self) -> dict[str, Any]:
        replica = self.replica
        place = {"epoch": replica.epoch, "version": replica.version}
        return place | ({"lineage": replica.lineage} if replica.lineage else {})

    def _has_request(self, now: float) -> bool:
        return bool(self._requests) or (self._missing and now >= self._difference_at)

    def _ask_difference(self, now: float) -> bytes:
        self._difference_id = self._new_id()
        self._difference_at = now + self._options.request_timeout
        return wire.write(M.SNAPSHOT_REQUEST, {"since": self._position()}, self._difference_id)

    # Messages

    def _on_auth_success(self, message: wire.Message, now: float) -> None:
        welcome: wire.Welcome = wire.payload(wire.welcome, message)
        self.token_left = welcome.token_expires_at - (message.timestamp or 0)
        if self.ready:
            self._renewed(welcome, message.correlation_id)
            return
        if not self.belongs(f"{welcome.user_id} {welcome.session_id}"):
            self.refusal = wire.Failure(ErrorCode.FORBIDDEN.wire, "the queue is another session's")
            return
        self.welcome = welcome
        self.ready = True
        limits = welcome.limits
        self._pacer = Pacer(limits.messages_per_second, limits.message_burst, now)
        self._difference_at = 0.0
        self.presence.connected(welcome, now)
        self.updates.refuse_oversized(limits.message_bytes)
        self._take(welcome)
        if welcome.applied is None:
            self.replica.queue.forgotten()
        self.voice.connected(welcome.voice, now, welcome.user_id)
        self._sink.event(Connected(welcome.version, welcome.resumed))

    def _renewed(self, welcome: wire.Welcome, request_id: str | None) -> None:
        """A new token was accepted; such an answer carries no state, only the version."""
        self.welcome = welcome
        self._missing |= welcome.version > self.replica.version
        self._sink.event(TokenRenewed(int(welcome.token_expires_at)))
        self._answered(request_id, None)

    def _take(self, snapshot: wire.Snapshot) -> None:
        """A whole state or a difference."""
        behind = snapshot.version < self.replica.version
        if snapshot.resumed:
            step = self.replica.difference(
                snapshot.changes,
                snapshot.deleted_keys,
                snapshot.version,
                snapshot.epoch,
                snapshot.lineage,
            )
            self._missing |= step.verdict is Verdict.OTHER_EPOCH
        else:
            known = snapshot.epoch == self.replica.epoch
            step = self.replica.whole(
                snapshot.state_data,
                snapshot.version,
                snapshot.epoch,
                snapshot.lineage,
                reset=snapshot.reset,
            )
            # Taken, and asked about once more, unless the server says why.
            self._missing |= known and behind and not snapshot.reset
        self.updates.report(step)
        if snapshot.applied is not None:
            self.updates.reconcile(snapshot.applied, snapshot.lost)
        if snapshot.reset:
            self._sink.event(Reset(snapshot.reason, snapshot.version))

    def _on_update(self, message: wire.Message, now: float) -> None:
        update: wire.Update = wire.payload(wire.update, message)
        step = self.replica.commit(
            update.changes,
            update.deleted_keys,
            update.version,
            update.prev_version,
            update.epoch or self.replica.epoch,
            message.correlation_id,
            update.lineage,
            update.prev_lineage,
        )
        self._missing |= step.verdict in (Verdict.GAP, Verdict.OTHER_EPOCH)
        if not update.device_id:
            self.replica.queue.recall()
        self.updates.report(step)

    def _on_snapshot(self, message: wire.Message, now: float) -> None:
        snapshot: wire.Snapshot = wire.payload(wire.snapshot, message)
        if message.correlation_id not in self._asked:
            self._missing = False
            self._difference_id, self._difference_at = "", 0.0
            if not snapshot.reset:
                self.replica.queue.recall()
        self._take(snapshot)
        self._answered(message.correlation_id, None)

    def _on_heartbeat_ack(self, message: wire.Message, now: float) -> None:
        ack: wire.HeartbeatAck = wire.payload(wire.heartbeat_ack, message)
        replica = self.replica
        branched = ack.version == replica.version and "" not in (ack.lineage, replica.lineage)
        self._missing |= ack.version > replica.version
        self._missing |= branched and ack.lineage != replica.lineage

    def _on_joined(self, message: wire.Message, now: float) -> None:
        self._sink.event(DeviceJoined(self.presence.joined(wire.payload(wire.joined, message))))

    def _on_left(self, message: wire.Message, now: float) -> None:
        left: wire.Left = wire.payload(wire.left, message)
        self.presence.left(left.device_id, left.reason)
        self._sink.event(DeviceLeft(left.device_id, left.reason))

    def _on_devices(self, message: wire.Message, now: float) -> None:
        listing: wire.DeviceList = wire.payload(wire.device_list, message)
        for event in self.presence.listed(listing):
            self._sink.event(event)

    def _on_voice(self, message: wire.Message) -> None:
        body = wire.payload(wire.anything, message)
        try:
            events = self.voice.hear(str(message.type), body)
        except (KeyError, TypeError) as error:
            raise wire.ProtocolViolation(f"{message.type}: {error!r}") from None
        for event in events:
            self._sink.event(event)
        self._answered(message.correlation_id, None)

    def _on_error(self, message: wire.Message, now: float) -> None:
        failure: wire.Failure = wire.payload(wire.failure, message)
        request_id = message.correlation_id
        pending = self.replica.queue.get(request_id)
        if pending is not None:
            if failure.code == ErrorCode.RATE_LIMITED.wire and self._pacer is not None:
                self._pacer.pause(failure.retry_after, now)
            self._missing |= self.updates.refused(pending, failure, now)
        elif request_id in self._asked:
            self._answered(request_id, RequestFailed(failure.code, failure.message))
        elif self.voice.owns(request_id):
            event = self.voice.failed(
                request_id, failure.code, failure.retry_after, failure.retryable, now
            )
            if event is not None:
                self._sink.event(event)
        elif request_id is not None and request_id == self._difference_id:
            self._difference_at = now + max(failure.retry_after, RETRY_BASE)
        elif not self.ready:
            self.refusal = failure
            self.retry_after = failure.retry_after
        else:
            self._on_notice(failure)

    def _on_notice(self, failure: wire.Failure) -> None:
        """An ERROR that answers nothing: the server speaks on its own."""
        if failure.code == ErrorCode.DRAINING.wire:
            self.retry_after = failure.retry_after
            self._sink.event(Draining(failure.retry_after))
        elif failure.code == ErrorCode.TOKEN_EXPIRING.wire:
            self._sink.event(TokenExpiring(int(failure.details.get("expires_at") or 0)))
            self._sink.token_wanted()
        else:
            self._sink.event(
                ServerError(
                    failure.code,
                    failure.message,
                    failure.retryable,
                    failure.retry_after or None,
                    failure.details,
                )
            )

    def _answered(self, request_id: str | None, error: RequestFailed | None) -> None:
        if request_id is not None and self._asked.pop(request_id, None) is not None:
            self._sink.replied(request_id, error)


def anybody(owner: str) -> bool:
    """A queue that was not kept has no owner yet."""
    return True
