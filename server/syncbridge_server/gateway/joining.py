"""AUTH: turns a token into membership of a session, with one round trip to the store.

The token is verified here; one script checks the owner, registers the device and reads the state.
AUTH_SUCCESS shows the session as the other devices here have it: the next STATE_UPDATE fits all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import structlog

from syncbridge import encode, ids
from syncbridge.close_codes import AUTH_ENDS, CloseCode
from syncbridge.errors import ErrorCode, StoreError, StoreTimeout, SyncBridgeError
from syncbridge.identity import Identity, authorize
from syncbridge.kernels import render_pairs
from syncbridge.limits import Limits
from syncbridge.messages import AuthPayload, Envelope, MessageType
from syncbridge.protocol import BehindAuth, State
from syncbridge.records.sessions import (
    Hello,
    Place,
    PresenceChange,
    Welcome,
)
from syncbridge.records.streams import Stream
from syncbridge.records.welcome import REGISTERED, info_of, place_welcomed, refusal_of, reset_of
from syncbridge.session import Change
from syncbridge.updates import check_acked, place_of
from syncbridge_core.hub import Hub
from syncbridge_server.auth.connect import ConnectGate
from syncbridge_server.gateway.connection import Alarm, Connection, LocalSession
from syncbridge_server.gateway.departures import JOINED, Departures
from syncbridge_server.gateway.devices import Summaries
from syncbridge_server.gateway.fanout import EPOCH, ROLLED_BACK, Fanout, stream_part
from syncbridge_server.gateway.message_sender import MessageSender, prefix
from syncbridge_server.gateway.quota import UserQuota
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.users import UserIndex
from syncbridge_server.gateway.voice import VoiceLink

log = structlog.get_logger("gateway")

Verify = Callable[[str, str], Identity]
"""(token, device id) -> who holds it; raises SyncBridgeError and never waits."""


class Joining:
    """Handles AUTH, first and repeated.

    Attributes:
        on_entered: called with each connection whose AUTH, first or repeated, has been accepted.

    Args:
        verify: see `Verify`. gate: what the application says of joins, if it is asked.
        settle: called after work that neither a tick nor an answer of the store started.
        clock: wall clock in Unix seconds. monotonic: the hub's clock in ms.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        sender: MessageSender,
        store_queue: StoreQueue,
        fanout: Fanout,
        departures: Departures,
        summaries: Summaries,
        users: UserIndex,
        voice: VoiceLink,
        quota: UserQuota,
        *,
        verify: Verify,
        gate: ConnectGate | None,
        settle: Callable[[], None],
        limits: Limits,
        node: str,
        clock: Callable[[], float],
        monotonic: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._sender = sender
        self._store_queue = store_queue
        self._fanout = fanout
        self._departures = departures
        self._summaries = summaries
        self._users = users
        self._voice = voice
        self._quota = quota
        self._verify = verify
        self._gate = gate
        self._settle = settle
        self._limits = limits
        self._limits_json = encode.to_json(limits)
        self._node = node
        self._clock = clock
        self._monotonic = monotonic
        self.on_entered: Callable[[Connection], None] = ignore

    def authenticate(
        self, connection: Connection, payload: AuthPayload, envelope: Envelope
    ) -> None:
        """AUTH on a new connection; answers by AUTH_SUCCESS later, or raises SyncBridgeError."""
        device_id = payload.device_id or envelope.device_id or ""
        identity = self._verify(payload.token, device_id)
        hello = self._hello(connection, identity, payload, envelope)
        check_acked(payload.stream, payload.acked)
        sockets = self._registry.sockets.get(identity.user_id, 0)
        self._quota.join(identity, hello.sid, hello.device_id, sockets)
        connection.stream = Stream(payload.stream, payload.acked) if payload.stream else None
        anew = partial(self._join_anew, connection, payload, envelope)
        asked = self._ask_gate(connection, identity, hello.sid, hello.device_id, anew, envelope)
        connection.state = State.JOINING
        connection.identity = identity
        self._registry.known(connection)
        connection.tell_known()
        connection.device_id = hello.device_id
        if not asked:
            self._join(connection, hello, envelope)

    def _join(self, connection: Connection, hello: Hello, envelope: Envelope) -> None:
        session = self._registry.session(hello.sid)
        hello.roster = session.roster.ask()
        session.joining += 1
        connection.session = session
        self._ask(connection, session, hello, envelope.correlation_id)

    def _join_anew(self, connection: Connection, payload: AuthPayload, envelope: Envelope) -> None:
        """The application has allowed the join; the session may have changed meanwhile."""
        assert connection.identity is not None
        hello = self._hello(connection, connection.identity, payload, envelope)
        self._join(connection, hello, envelope)

    def _ask_gate(
        self,
        connection: Connection,
        identity: Identity,
        session_id: str,
        device_id: str,
        then: Callable[[], None],
        envelope: Envelope,
    ) -> bool:
        """Ask the application whether a user may join, and call `then` if so. False: no need."""
        if self._gate is None or self._gate.is_open(identity, session_id):
            return False
        done = partial(self._judged, connection, then, envelope.correlation_id)
        self._gate.ask(identity, session_id, device_id, done)
        return True

    def _judged(
        self,
        connection: Connection,
        then: Callable[[], None],
        correlation_id: str | None,
        error: SyncBridgeError | None,
    ) -> None:
        if connection.state is State.CLOSED or connection.refused:
            return
        if error is not None:
            self.refuse(connection, error, correlation_id)
        else:
            then()
        self._settle()

    def refresh(self, connection: Connection, payload: AuthPayload, envelope: Envelope) -> None:
        """AUTH on an authenticated connection: a new token for the same user.

        The store checks a token with narrower access than the one before.
        """
        session, current = connection.session, connection.identity
        assert session is not None
        assert current is not None
        identity = self._verify(payload.token, connection.device_id)
        if identity.user_id != current.user_id:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "token: it belongs to another user")
        authorize(identity, session_id=session.id, device_id=connection.device_id)
        connection.require_here(payload.session_id, payload.device_id)
        check_acked(payload.stream, payload.acked)
        known = connection.stream.text if connection.stream is not None else ""
        if payload.stream not in ("", known):
            connection.stream = Stream(payload.stream, payload.acked)
        connection.identity = identity
        self._registry.follow_role(connection)
        self._voice.renewed(connection)
        self._set_alarm(connection)
        renew = partial(self._renew, connection, current, envelope.correlation_id)
        if self._ask_gate(connection, identity, session.id, connection.device_id, renew, envelope):
            connection.behind = BehindAuth()  # later messages wait for the decision
        else:
            renew()

    def _renew(self, connection: Connection, before: Identity, correlation_id: str | None) -> None:
        session, identity = connection.session, connection.identity
        assert session is not None
        assert identity is not None
        if connection.released or (before.privileged and not identity.privileged):
            connection.behind = connection.behind or BehindAuth()  # waits for the store's answer
            self._rejoin(connection, session, self._refreshed, correlation_id)
            return
        self._refreshed(None, connection, session, correlation_id)

    def rejoin(self, connection: Connection, done: Callable[[], None]) -> bool:
        """Register a connection again that the store has lost, and call `done` with the answer.

        Returns False, without a request, when it is no longer in a session.
        """
        if connection.state is not State.READY or connection.session is None:
            return False
        then = partial(self._reregistered, done)
        self._rejoin(connection, connection.session, then, None)
        return True

    def _rejoin(
        self,
        connection: Connection,
        session: LocalSession,
        then: Callable[..., None],
        correlation_id: str | None,
    ) -> None:
        identity = connection.identity
        assert identity is not None
        hello = Hello(
            session.id,
            identity.user_id,
            connection.device_id,
            connection.id,
            connection.info,
            self._node,
            owner_check=not identity.privileged,
            known=session.place,
            max_devices=self._limits.devices,
            roster=False,
        )
        self._store_queue.ask(
            hello, self._rejoined, connection, session, hello, then, correlation_id
        )

    def _rejoined(
        self,
        answer: Welcome | StoreError,
        connection: Connection,
        session: LocalSession,
        hello: Hello,
        then: Callable[..., None],
        correlation_id: str | None,
    ) -> None:
        error = refusal_of(answer)
        if connection.state is State.CLOSED:
            if error is None:
                self._departures.leave(connection, session)
            then(error, connection, session, correlation_id)
            return
        if error is None:
            assert isinstance(answer, Welcome)
            connection.fence, connection.released = answer.fence, False
            self._synchronise(session, answer, hello)
            self._tell(connection, session, answer, hello.info)
            if not session.roster.agrees(answer.online, answer.newest):
                self._departures.doubt(session)
        then(error, connection, session, correlation_id)

    def _reregistered(
        self,
        done: Callable[[], None],
        error: SyncBridgeError | None,
        connection: Connection,
        session: LocalSession,
        correlation_id: str | None,
    ) -> None:
        """Retry after an outage; close after a refusal."""
        done()
        if connection.state is State.CLOSED:
            return
        if isinstance(error, StoreError):
            self._departures.doubt(session)
        code = AUTH_ENDS.get(error.code) if error is not None else None
        if error is not None and code is not None and not isinstance(error, StoreError):
            self._sender.error(connection, error, None)
            self._hub.close(connection.cid, code, code.reason)

    def _refreshed(
        self,
        error: SyncBridgeError | None,
        connection: Connection,
        session: LocalSession,
        correlation_id: str | None,
    ) -> None:
        if connection.state is State.CLOSED:
            return
        if error is not None:
            self.refuse(connection, error, correlation_id)
            return
        part = encode.delta_part(b"{}", b"[]") + stream_part(connection)
        body = self._success(connection, session, session.place, b'"devices":[]', part)
        self._sender.send(connection, MessageType.AUTH_SUCCESS, body, correlation_id)
        self._store_queue.counters.count_auth()
        self.on_entered(connection)

    def _hello(
        self,
        connection: Connection,
        identity: Identity,
        payload: AuthPayload,
        envelope: Envelope,
    ) -> Hello:
        sid = payload.session_id or envelope.session_id or identity.session_id
        sid = ids.session_id(sid) if sid else ids.default_session(identity.user_id)
        device_id = payload.device_id or envelope.device_id or identity.device_id
        user_id = envelope.user_id or ""
        authorize(identity, user_id=user_id, session_id=sid, device_id=device_id)
        ids.short_id("device_id", device_id, self._limits.id_bytes)
        session = self._registry.sessions.get(sid)
        replica = session if session is not None and session.doc is not None else None
        return Hello(
            sid,
            identity.user_id,
            device_id,
            connection.id,
            info_of(payload, int(self._clock() * 1000)),
            self._node,
            owner_check=not identity.privileged,
            since=place_of("resume", payload.resume) if payload.resume is not None else None,
            known=replica.place if replica is not None else None,
            max_devices=self._limits.devices,
            stream=payload.stream,
        )

    def _ask(
        self,
        connection: Connection,
        session: LocalSession,
        hello: Hello,
        correlation_id: str | None,
    ) -> None:
        asked = session.place
        self._store_queue.ask(
            hello, self._welcomed, connection, session, hello, asked, correlation_id
        )

    def _welcomed(
        self,
        answer: Welcome | StoreError,
        connection: Connection,
        session: LocalSession,
        hello: Hello,
        asked: Place,
        correlation_id: str | None,
    ) -> None:
        error = refusal_of(answer)
        if hello.roster:
            session.roster.asked = False
            if isinstance(answer, Welcome) and error is None:
                self._take_device_list(session, answer, hello)
        if connection.state is State.CLOSED:
            self._arrived(session)
            self._abandoned(answer, connection, session)
            return
        if error is None:
            assert isinstance(answer, Welcome)
            try:
                if not self._admit(connection, session, answer, hello, asked, correlation_id):
                    return
            except Exception:
                log.exception("join_failed", session_id=session.id)
                error = SyncBridgeError(ErrorCode.INTERNAL, "the server failed on this AUTH")
        self._arrived(session)
        if error is not None:
            self._turn_away(connection, session, error, correlation_id)
        else:
            self._store_queue.counters.count_auth()
            self.on_entered(connection)

    def _admit(
        self,
        connection: Connection,
        session: LocalSession,
        answer: Welcome,
        hello: Hello,
        asked: Place,
        correlation_id: str | None,
    ) -> bool:
        """Make a connection a member. False: the store is asked for the whole state."""
        # Only a store that has lost data is older than what this node had when it asked.
        older = answer.version < asked.version
        self._synchronise(session, answer, hello)
        if older:
            self._fanout.mend(session)
        part = None if older else self._state_part(session, answer, hello)
        if part is None or not self._is_listed(session, answer, hello):
            known = session.place if session.doc is not None else None
            again = msgspec.structs.replace(hello, known=known, roster=session.roster.ask())
            self._ask(connection, session, again, correlation_id)
            return False
        self._enter(connection, session, answer, hello, part, correlation_id)
        if hello.since is not None and hello.since.version:
            self._store_queue.counters.count_resume(part.startswith(encode.RESUMED), answer.reason)
        return True

    def _turn_away(
        self,
        connection: Connection,
        session: LocalSession,
        error: SyncBridgeError,
        correlation_id: str | None,
    ) -> None:
        """Fail an AUTH. A member leaves by the close; otherwise the store may have its device."""
        if connection.state is not State.READY:
            connection.session = None
            if error.code in REGISTERED or isinstance(error, StoreTimeout):
                self._departures.leave(connection, session)
            self._registry.release(session)
        self.refuse(connection, error, correlation_id)

    def _arrived(self, session: LocalSession) -> None:
        """A join is no longer in progress."""
        session.joining -= 1
        if not session.joining:
            self._departures.all_arrived(session)

    def _abandoned(
        self, answer: Welcome | StoreError, connection: Connection, session: LocalSession
    ) -> None:
        """The socket closed before the answer came."""
        registered = refusal_of(answer) is None or isinstance(answer, StoreError)
        previous = session.devices.get(connection.device_id)
        if registered and previous is not None and isinstance(answer, Welcome):
            self._registry.expel(session, previous)
            self._departures.close_replaced(previous)
        if registered:
            self._departures.leave(connection, session)
        self._registry.release(session)

    def _synchronise(self, session: LocalSession, answer: Welcome, hello: Hello) -> None:
        """Update the session here to the version that the script read."""
        out: list[Change] = []
        place = place_welcomed(answer)
        if not session.joined:
            session.owner = answer.owner or hello.user_id
            session.prefix = prefix(session)
            session.begin(place, answer.full, out)
        elif not session.knows(place):
            self._fanout.mend(session)
        elif answer.full is not None:
            session.fill(place, answer.full)
        if answer.owner and answer.owner != session.owner:
            session.owner = answer.owner
            session.prefix = prefix(session)
        self._fanout.publish(session, out)

    def _state_part(self, session: LocalSession, answer: Welcome, hello: Hello) -> bytes | None:
        """The newcomer's path to the current version; None when the store must be asked again.

        A newcomer may enter only at the current or a recent version of the devices here. Otherwise
        it could receive a state that is lost, or miss a change.
        """
        place = place_welcomed(answer)
        if not session.knows(place):
            return None
        if answer.resumed and place == session.place:
            return encode.delta_part(render_pairs(answer.sets), encode.key_list(answer.deletes))
        if session.doc is None:
            return None
        delta = None
        if hello.since is not None and not answer.reason and hello.since.epoch == session.epoch:
            delta = session.since_version(hello.since.version)
        if delta is not None:
            return encode.delta_part(*delta)
        return encode.state_part(session.doc.render()) + encode.reset_part(reset_of(answer, hello))

    def _enter(
        self,
        connection: Connection,
        session: LocalSession,
        answer: Welcome,
        hello: Hello,
        part: bytes,
        correlation_id: str | None,
    ) -> None:
        identity = connection.identity
        assert identity is not None
        connection.info = hello.info
        connection.fence = answer.fence
        connection.resets = session.resets
        gone: set[str] = set()
        if hello.roster:
            gone = session.roster.newcomer(connection.cid, answer.devices, answer.newest)
        connection.state = State.READY
        previous = self._registry.enter(session, connection)
        self._voice.entered(connection)
        self._tell(connection, session, answer, hello.info)
        devices = self._summaries.welcome(session, connection, gone)
        part += self._stream_part(connection, answer)
        body = self._success(connection, session, session.place, devices, part)
        self._sender.send(connection, MessageType.AUTH_SUCCESS, body, correlation_id)
        self._set_alarm(connection)
        if previous is not None:
            self._departures.close_replaced(previous)
        self._departures.entered(session, connection)

    def _stream_part(self, connection: Connection, answer: Welcome) -> bytes:
        """The newcomer's last number in the store; what was acknowledged above is lost."""
        if connection.stream is None:
            return b""
        gone = answer.reason in (EPOCH, ROLLED_BACK) or not answer.version
        lost = connection.stream.found(answer.applied, gone=gone)
        self._fanout.rollbacks.updates += lost
        return stream_part(connection)

    def _take_device_list(self, session: LocalSession, answer: Welcome, hello: Hello) -> None:
        """Apply the list of devices, and announce those that are new to the devices here."""
        others = [each for each in answer.devices if each.device_id != hello.device_id]
        if session.devices:
            self._departures.observe_all(session, others)
            session.roster.listed_at(answer.newest)
        else:
            session.roster.begin(others, answer.newest)

    def _is_listed(self, session: LocalSession, answer: Welcome, hello: Hello) -> bool:
        """Whether the roster is current enough for the newcomer; else the store is asked.

        Another node's message may arrive after the answer. A large session shows a window anyway.
        """
        roster = session.roster
        if not roster.begun:
            return False
        if hello.roster or session.summary is not None:
            return True
        if roster.agrees(answer.online, answer.newest, hello.device_id):
            return True
        roster.begun = False
        return False

    def _tell(
        self, connection: Connection, session: LocalSession, answer: Welcome, info: bytes
    ) -> None:
        """Announce a device to the others, and note the session in its user's index."""
        change = PresenceChange(
            session.id, JOINED, answer.fence, answer.version, connection.device_id, info
        )
        self._departures.observe(session, change, exclude=connection.cid)
        self._users.seen(answer.owner or session.owner, session.id)

    def _success(
        self,
        connection: Connection,
        session: LocalSession,
        place: Place,
        devices: bytes,
        part: bytes,
    ) -> bytes:
        identity = connection.identity
        assert identity is not None
        return (
            b'{"session_id":"%b","user_id":%b,"device_id":%b,"role":"%b",%b,'
            b'"heartbeat_interval_ms":%d,"token_expires_at":%d,"limits":%b,'
            b"%b,%b%b}"
            % (
                session.id.encode(),
                encode.quote(identity.user_id),
                encode.quote(connection.device_id),
                identity.role.encode(),
                encode.position(place),
                self._limits.heartbeat_interval_ms,
                int(identity.expires_at),
                self._limits_json,
                devices,
                part,
                self._voice.calls_part(connection),
            )
        )

    def _set_alarm(self, connection: Connection) -> None:
        identity = connection.identity
        assert identity is not None
        left = identity.expires_at - self._clock() - self._limits.expiry_warning
        connection.alarm = Alarm.WARN
        self._hub.set_deadline(connection.cid, self._monotonic() + max(1, int(left * 1000)))

    def refuse(
        self, connection: Connection, error: SyncBridgeError, correlation_id: str | None
    ) -> None:
        """Answer a failed AUTH, first or repeated, with AUTH_FAILURE, and close the connection."""
        self._store_queue.counters.count_auth(error.code.wire)
        connection.refused = True
        connection.behind = None
        body = encode.error_payload(error)
        self._sender.on_error(connection, error, "auth")
        self._sender.send(connection, MessageType.AUTH_FAILURE, body, correlation_id)
        code = AUTH_ENDS.get(error.code, CloseCode.AUTH_FAILED)
        self._hub.close(connection.cid, code, code.reason)
        if connection.gone:
            self._departures.closed(connection)


def ignore(answer: Any) -> None:
    """The reply to requests that are repeated anyway."""
