"""AUTH: from a token to a member of a session, in one round trip to the store.

The token is verified here; the owner is checked, the device registered and the state read by one
script. The newcomer's AUTH_SUCCESS shows the session exactly as the other devices here have it,
so that the next STATE_UPDATE fits for all of them.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from syncbridge import encode, ids
from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.identity import Identity, authorize
from syncbridge.kernels import render_pairs
from syncbridge.limits import Limits
from syncbridge.messages import AuthPayload, Envelope, MessageType, Position
from syncbridge.protocol import BehindAuth, State
from syncbridge.records.devices import Index, bucket_of
from syncbridge.records.sessions import Device, DeviceInfo, Hello, PresenceChange, Status, Welcome
from syncbridge.session import Change, Verdict
from syncbridge.updates import check_version
from syncbridge_core.hub import Hub
from syncbridge_server.gateway.connection import Alarm, Connection, LocalSession
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.departures import JOINED, Departures, decode_info, device_payload
from syncbridge_server.gateway.fanout import Fanout
from syncbridge_server.gateway.post import Post, prefix
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.users import UserIndex
from syncbridge_server.gateway.voice import VoiceLink

Verify = Callable[[str, str], Identity]
"""(token, device id) -> who holds it; raises SyncBridgeError and never waits."""


class Joining:
    """Handles AUTH, first and repeated.

    Attributes:
        on_entered: called with each connection whose AUTH, first or repeated, has been accepted.

    Args:
        verify: see `Verify`.
        clock: wall clock in Unix seconds. monotonic: the hub's clock in ms.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        post: Post,
        courier: Courier,
        fanout: Fanout,
        departures: Departures,
        users: UserIndex,
        voice: VoiceLink,
        *,
        verify: Verify,
        limits: Limits,
        node: str,
        clock: Callable[[], float],
        monotonic: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._post = post
        self._courier = courier
        self._fanout = fanout
        self._departures = departures
        self._users = users
        self._voice = voice
        self._verify = verify
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
        session = self._registry.session(hello.sid)
        session.joining += 1
        self._registry.silent.pop(connection.cid, None)
        connection.state = State.JOINING
        connection.identity = identity
        connection.session = session
        connection.device_id = hello.device_id
        self._ask(connection, session, hello, envelope.correlation_id)

    def refresh(self, connection: Connection, payload: AuthPayload, envelope: Envelope) -> None:
        """AUTH on a connection that is ready: a new token for the same user, in band.

        A token that reaches less than the one before is held to the session by the store.
        """
        session, current = connection.session, connection.identity
        assert session is not None
        assert current is not None
        identity = self._verify(payload.token, connection.device_id)
        if identity.user_id != current.user_id:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "token: another user's")
        authorize(identity, session_id=session.id, device_id=connection.device_id)
        connection.require_here(payload.session_id, payload.device_id)
        connection.identity = identity
        self._registry.follow_role(connection)
        self._voice.renewed(connection)
        self._set_alarm(connection)
        if connection.released or (current.privileged and not identity.privileged):
            connection.behind = BehindAuth()  # what comes next waits for the store's answer
            self._rejoin(connection, session, self._refreshed, envelope.correlation_id)
            return
        self._refreshed(None, connection, session, envelope.correlation_id)

    def rejoin(self, connection: Connection) -> None:
        """Register a connection that the store has lost: its lease was over, or data was lost."""
        if connection.state is State.READY and connection.session is not None:
            self._rejoin(connection, connection.session, self._reregistered, None)

    def _rejoin(
        self,
        connection: Connection,
        session: LocalSession,
        then: Callable[..., None],
        correlation_id: str | None,
    ) -> None:
        identity = connection.identity
        assert identity is not None
        info = decode_info(connection.device)
        info.connected_at *= 1000
        hello = Hello(
            session.id,
            identity.user_id,
            connection.device_id,
            connection.id,
            encode.to_json(info),
            self._node,
            owner_check=not identity.privileged,
            known=session.version,
            known_epoch=session.epoch,
            max_devices=self._limits.devices,
            presence_ms=self._limits.presence_timeout * 1000,
        )
        self._courier.ask(hello, self._rejoined, connection, session, hello, then, correlation_id)

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
            return
        if error is None:
            assert isinstance(answer, Welcome)
            connection.fence, connection.released = answer.fence, False
            self._synchronise(session, answer, hello)
            self._tell(connection, session, answer, hello.info)
        then(error, connection, session, correlation_id)

    def _reregistered(
        self,
        error: SyncBridgeError | None,
        connection: Connection,
        session: LocalSession,
        correlation_id: str | None,
    ) -> None:
        """An outage is tried again with the next renewal; a refusal is the end."""
        code = CLOSE_CODES.get(error.code) if error is not None else None
        if error is not None and code is not None and not isinstance(error, StoreError):
            self._post.error(connection, error, None)
            self._hub.close(connection.cid, code, code.reason)

    def _refreshed(
        self,
        error: SyncBridgeError | None,
        connection: Connection,
        session: LocalSession,
        correlation_id: str | None,
    ) -> None:
        if error is not None:
            self.refuse(connection, error, correlation_id)
            return
        part = encode.delta_part(b"{}", b"[]")
        body = self._success(connection, session, session.version, session.epoch, b"[]", part)
        self._post.send(connection, MessageType.AUTH_SUCCESS, body, correlation_id)
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
            self._info(connection, payload),
            self._node,
            owner_check=not identity.privileged,
            since=since_of(payload.resume),
            known=replica.version if replica is not None else -1,
            known_epoch=replica.epoch if replica is not None else "",
            max_devices=self._limits.devices,
            presence_ms=self._limits.presence_timeout * 1000,
        )

    def _info(self, connection: Connection, payload: AuthPayload) -> bytes:
        for name in ("device_type", "device_name", "os_version", "app_version"):
            text = getattr(payload, name)
            if text:
                ids.short_id(name, text, 128)
        info = DeviceInfo(
            payload.device_type,
            payload.device_name,
            payload.os_version,
            payload.app_version,
            connected_at=int(self._clock() * 1000),
        )
        return encode.to_json(info)

    def _ask(
        self,
        connection: Connection,
        session: LocalSession,
        hello: Hello,
        correlation_id: str | None,
    ) -> None:
        self._courier.ask(hello, self._welcomed, connection, session, hello, correlation_id)

    def _welcomed(
        self,
        answer: Welcome | StoreError,
        connection: Connection,
        session: LocalSession,
        hello: Hello,
        correlation_id: str | None,
    ) -> None:
        if connection.state is State.CLOSED:
            self._arrived(session)
            self._abandoned(answer, connection, session)
            return
        error = refusal_of(answer)
        if error is not None:
            self._arrived(session)
            connection.session = None
            self._registry.release(session)
            self.refuse(connection, error, correlation_id)
            return
        assert isinstance(answer, Welcome)
        self._synchronise(session, answer, hello)
        part = self._state_part(session, answer, hello)
        if part is None:
            again = msgspec.structs.replace(hello, since=None, known=-1)
            self._ask(connection, session, again, correlation_id)
            return
        try:
            self._enter(connection, session, answer, hello, part, correlation_id)
        finally:
            self._arrived(session)
        self.on_entered(connection)

    def _arrived(self, session: LocalSession) -> None:
        """One less is on its way."""
        session.joining -= 1
        if not session.joining:
            session.recent.clear()

    def _abandoned(
        self, answer: Welcome | StoreError, connection: Connection, session: LocalSession
    ) -> None:
        """The socket was gone before the answer came."""
        registered = refusal_of(answer) is None or isinstance(answer, StoreError)
        previous = session.devices.get(connection.device_id)
        if registered and previous is not None and isinstance(answer, Welcome):
            self._registry.expel(session, previous)
            self._departures.close_replaced(previous)
        if registered:
            self._departures.leave(connection, session)
        self._registry.release(session)

    def _synchronise(self, session: LocalSession, answer: Welcome, hello: Hello) -> None:
        """Bring the session here to where the script saw it, and tell the devices here."""
        out: list[Change] = []
        if not session.joined:
            session.owner = answer.owner or hello.user_id
            session.prefix = prefix(session)
            session.begin(answer.version, answer.epoch, answer.full, out)
        elif answer.full is not None:
            verdict = session.absorb(answer.full, answer.version, answer.epoch, out)
            if verdict in (Verdict.HELD, Verdict.NEW_LINEAGE):
                self._fanout.mend(session)
        elif answer.version > session.version or answer.epoch != session.epoch:
            self._fanout.mend(session)
        if answer.owner and answer.owner != session.owner:
            session.owner = answer.owner
            session.prefix = prefix(session)
        self._fanout.publish(session, out)

    def _state_part(
        self, session: LocalSession, answer: Welcome, hello: Hello
    ) -> tuple[int, str, bytes] | None:
        """(version, epoch, members) of what the newcomer is given, None to ask again, whole."""
        here = (session.version, session.epoch)
        if answer.resumed and (answer.version, answer.epoch) == here:
            part = encode.delta_part(render_pairs(answer.sets), encode.key_list(answer.deletes))
            return answer.version, answer.epoch, part
        if session.doc is not None:
            delta = None
            if hello.since is not None and hello.since[0] == session.epoch:
                delta = session.since(hello.since[1])
            part = encode.delta_part(*delta) if delta else encode.state_part(session.doc.render())
            return session.version, session.epoch, part
        if answer.full is not None:
            part = encode.state_part(render_pairs(answer.full))
            return answer.version, answer.epoch, part
        return None

    def _enter(
        self,
        connection: Connection,
        session: LocalSession,
        answer: Welcome,
        hello: Hello,
        part: tuple[int, str, bytes],
        correlation_id: str | None,
    ) -> None:
        identity = connection.identity
        assert identity is not None
        connection.state = State.READY
        owner = answer.owner or identity.user_id
        connection.address = encode.Address(session.id, owner, hello.device_id)
        devices = encode.join_objects(
            public_device(d, self._voice.held_by(session.id, d.device_id)) for d in answer.devices
        )
        connection.device = next(
            (public_device(d) for d in answer.devices if d.device_id == hello.device_id), b"{}"
        )
        connection.fence = answer.fence
        self._meet(session, hello.device_id, answer.devices)
        session.roster.newcomer(connection.cid, answer.devices, answer.fence)
        previous = self._registry.enter(session, connection)
        self._voice.entered(connection)
        body = self._success(connection, session, part[0], part[1], devices, part[2])
        self._post.send(connection, MessageType.AUTH_SUCCESS, body, correlation_id)
        self._set_alarm(connection)
        self._departures.welcome(session, connection, answer.devices)
        if previous is not None:
            self._departures.close_replaced(previous)
        self._tell(connection, session, answer, hello.info)

    def _meet(self, session: LocalSession, device_id: str, devices: list[Device]) -> None:
        """Tell the devices here whom the newcomer's list shows and they have not heard of."""
        if not session.devices:
            session.roster.begin(d for d in devices if d.device_id != device_id)
            return
        for device in devices:
            if device.online and device.fence and device.device_id != device_id:
                change = PresenceChange(
                    session.id, JOINED, device.fence, 0, device.device_id, device.info
                )
                self._departures.observe(session, change)

    def _tell(
        self, connection: Connection, session: LocalSession, answer: Welcome, info: bytes
    ) -> None:
        """Tell the others of a device, and the indexes of its session."""
        change = PresenceChange(
            session.id, JOINED, answer.fence, answer.version, connection.device_id, info
        )
        self._departures.observe(session, change, exclude=connection.cid)
        timeout_ms = self._limits.presence_timeout * 1000
        self._courier.ask(Index(bucket_of(session.id), [session.id], timeout_ms), ignore)
        self._users.seen(answer.owner or session.owner, session.id)

    def _success(
        self,
        connection: Connection,
        session: LocalSession,
        version: int,
        epoch: str,
        devices: bytes,
        part: bytes,
    ) -> bytes:
        identity = connection.identity
        assert identity is not None
        return (
            b'{"session_id":"%b","user_id":%b,"device_id":%b,"role":"%b","version":%d,'
            b'"epoch":"%b","heartbeat_interval_ms":%d,"token_expires_at":%d,"limits":%b,'
            b'"devices":%b,%b%b}'
            % (
                session.id.encode(),
                encode.quote(identity.user_id),
                encode.quote(connection.device_id),
                identity.role.encode(),
                version,
                epoch.encode(),
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
        """AUTH, first or repeated, has failed: AUTH_FAILURE, and the end of the connection."""
        connection.refused = True
        connection.behind = None
        body = encode.error_payload(error)
        self._post.send(connection, MessageType.AUTH_FAILURE, body, correlation_id)
        code = CLOSE_CODES.get(error.code, CloseCode.AUTH_FAILED)
        self._hub.close(connection.cid, code, code.reason)


CLOSE_CODES = {
    ErrorCode.TOKEN_INVALID: CloseCode.AUTH_FAILED,
    ErrorCode.TOKEN_EXPIRED: CloseCode.TOKEN_EXPIRED,
    ErrorCode.TOKEN_REVOKED: CloseCode.TOKEN_REVOKED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorCode.INSUFFICIENT_ROLE: CloseCode.FORBIDDEN,
    ErrorCode.WRONG_SESSION: CloseCode.FORBIDDEN,
    ErrorCode.WRONG_DEVICE: CloseCode.FORBIDDEN,
    ErrorCode.TOO_MANY_DEVICES: CloseCode.SESSION_FULL,
    ErrorCode.STORE_UNAVAILABLE: CloseCode.STORE_UNAVAILABLE,
    ErrorCode.OVERLOADED: CloseCode.STORE_UNAVAILABLE,
    ErrorCode.STATE_DAMAGED: CloseCode.INTERNAL_ERROR,
    ErrorCode.INTERNAL: CloseCode.INTERNAL_ERROR,
}
"""How a refused AUTH ends; with anything else (a bad field) as AUTH_FAILED."""


def since_of(position: Position | None) -> tuple[str, int] | None:
    """A client's resume position, checked."""
    if position is None:
        return None
    check_version("resume.version", position.version)
    if len(position.epoch) > 64:
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, "resume.epoch: at most 64 characters")
    return position.epoch, position.version


def refusal_of(answer: Welcome | StoreError) -> SyncBridgeError | None:
    """The error in an answer, if it is one."""
    if isinstance(answer, StoreError):
        return answer
    if answer.status is Status.OK:
        return None
    if answer.status is Status.FORBIDDEN:
        return SyncBridgeError(ErrorCode.FORBIDDEN, "this session belongs to another user")
    if answer.status is Status.TOO_MANY_DEVICES:
        return SyncBridgeError(ErrorCode.TOO_MANY_DEVICES, "the session has no room for a device")
    return SyncBridgeError(ErrorCode.INTERNAL, f"unexpected answer {answer.status.name}")


def public_device(device: Device, in_call: str = "") -> bytes:
    """A registered device as clients see it; node and connection ids stay inside.

    `in_call`: the channel whose call it holds.
    """
    info = decode_info(device.info)
    return device_payload(device.device_id, info, device.online, in_call=in_call)


def ignore(answer: Any) -> None:
    """For requests that come again anyway."""
