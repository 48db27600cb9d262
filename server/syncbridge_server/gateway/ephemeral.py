"""Ephemeral values (`me`): what online devices share with the other devices of the session.

Nothing is stored. A change is merged into the device's map at once. Devices here get all changes of
a session in one message, at most once per interval. A slow reader may miss it, and gets everything
when it has caught up. Other nodes of the session are told over the bus: on a change, every
`REPEAT_SECONDS`, when a device joins there, and after a break.

These messages have a separate allowance, so that a moving cursor does not use up the rates of the
device and the user. Messages above the allowance count like any other.
"""

from collections.abc import Callable

import msgspec
import structlog
import trio

from syncbridge import encode, kernels, messages
from syncbridge.ephemeral import Ephemeral, merged, rendered
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import Envelope, MessageType
from syncbridge.protocol import State
from syncbridge.rates.buckets import TokenBuckets
from syncbridge.records.sessions import Notice
from syncbridge.updates import document_error, document_limits
from syncbridge_core.hub import KIND_SPEAKING, Hub
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.ports.store import Bus

log = structlog.get_logger("gateway")

NOTICE = "me"
REPEAT_SECONDS = 10.0


class EphemeralState:
    """Receives and distributes ephemeral values.

    Args:
        monotonic: the hub's clock, ms. clock: wall clock, Unix seconds.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        sender: MessageSender,
        bus: Bus,
        limits: Limits,
        *,
        monotonic: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._sender = sender
        self._bus = bus
        self._limits = limits
        self._document = document_limits(limits)
        self._monotonic = monotonic
        self._clock = clock
        rate = limits.ephemeral_per_second
        self._interval = 1000 // rate
        self._allowance = TokenBuckets(rate, rate)
        self._waiting: dict[str, LocalSession] = {}
        self._saying: dict[str, LocalSession] = {}
        self._wanted = AutoResetEvent()
        bus.on_notice(NOTICE, self._heard)
        bus.on_resync(self.repeat)

    # What devices here say

    def spares(self, connection: Connection, envelope: Envelope) -> bool:
        """Whether a message is within the allowance of ephemeral values. O(its size)."""
        if envelope.type != MessageType.DEVICE_LIST or connection.state is not State.READY:
            return False
        try:
            payload = messages.decode_payload(messages.devices_decoder, envelope)
        except SyncBridgeError:
            return False
        if payload.me is msgspec.UNSET:
            return False
        return not self._allowance.take(connection.id, self._monotonic() / 1000)

    def say(self, connection: Connection, me: msgspec.Raw) -> None:
        """Apply the values that a device sends; null removes them.

        Raises:
            SyncBridgeError: not an object, too much, too many devices (UNSUPPORTED), FENCED.
        """
        session = connection.session
        assert session is not None
        if connection.released:
            raise SyncBridgeError(ErrorCode.FENCED, "this device has handed the session over")
        if self._too_many(session):
            raise SyncBridgeError(
                ErrorCode.UNSUPPORTED,
                f"me: only in sessions of at most {self._limits.presence_list} devices",
            )
        try:
            changes = kernels.split(memoryview(me), self._document).flat()
        except kernels.DocumentError as error:
            raise document_error(error, "me") from None
        limits = self._limits
        after = merged(
            connection.me, changes, keys=limits.ephemeral_keys, size=limits.ephemeral_bytes
        )
        if after != connection.me:
            connection.me = after
            self._own(session, connection)

    def _own(self, session: LocalSession, connection: Connection) -> None:
        known = session.ephemeral = session.ephemeral or Ephemeral()
        known.own(connection.device_id, connection.fence, rendered(connection.me))
        self._saying[session.id] = session
        self._want(session)

    # Who comes and goes

    def joined(self, session: LocalSession, device_id: str, fence: int) -> None:
        """A device joined, with the connection that has this fence."""
        connection = session.devices.get(device_id)
        known = session.ephemeral
        if known is not None:
            known.joined(device_id, fence)
            if connection is None:
                known.share(session.devices)
            if self._too_many(session):
                self._silence(session, known)
            self._want(session)
        if connection is None or connection.fence != fence or not connection.me:
            return
        if not self._too_many(session):
            self._own(session, connection)

    def left(self, session: LocalSession, device_id: str) -> None:
        """A device left."""
        if session.ephemeral is not None:
            session.ephemeral.left(device_id)

    def caught_up(self, connection: Connection) -> None:
        """Send all values to a slow reader that has caught up."""
        session = connection.session
        if session is not None and session.ephemeral:
            self._sender.raw(connection, self._frame(session, session.ephemeral.everything()))

    def of(self, session: LocalSession | None, device_id: str) -> bytes:
        """The values of a device, as JSON; empty when it has none."""
        if session is None or session.ephemeral is None:
            return b""
        return session.ephemeral.text(device_id)

    def _silence(self, session: LocalSession, known: Ephemeral) -> None:
        if known.silence():
            for connection in session.devices.values():
                connection.me = {}

    def _too_many(self, session: LocalSession) -> bool:
        return session.roster.online > self._limits.presence_list

    # Other nodes

    def _heard(self, notice: Notice) -> None:
        session = self._registry.sessions.get(notice.sid)
        if session is None or self._too_many(session):
            return
        known = session.ephemeral = session.ephemeral or Ephemeral()
        try:
            known.heard(notice.data, session.roster, self._limits.presence_list)
        except ValueError:
            log.warning("notice_unreadable", session_id=session.id)
        self._want(session)

    def repeat(self) -> None:
        """Send all values to the other nodes again: a message may have been lost."""
        for session in list(self._saying.values()):
            known = session.ephemeral
            saying = any(connection.me for connection in session.devices.values())
            if (
                known is None
                or not saying
                or session is not self._registry.sessions.get(session.id)
            ):
                del self._saying[session.id]
                continue
            known.share(session.devices)
            self._want(session)

    # Telling

    def _want(self, session: LocalSession) -> None:
        self._waiting[session.id] = session
        self._wanted.set()

    def tick(self) -> int:
        """Send what is due; returns the ms until more is due, or 0 when nothing waits."""
        now = self._monotonic()
        soonest = 0
        for session in list(self._waiting.values()):
            known = session.ephemeral
            if known is None or not (known.changed or known.unshared):
                del self._waiting[session.id]
            elif known.due > now:
                wait = known.due - now
                soonest = min(soonest, wait) if soonest else wait
            else:
                known.due = now + self._interval
                del self._waiting[session.id]
                self._tell(session, known)
        return soonest

    def _tell(self, session: LocalSession, known: Ephemeral) -> None:
        if known.unshared and session.roster.reaches_beyond(session.devices):
            self._bus.tell_session(Notice(NOTICE, session.id, known.take_unshared()))
        known.unshared.clear()
        if known.changed:
            frame = self._frame(session, known.take_changed())
            self._sender.notice(session, frame, kind=KIND_SPEAKING)

    def _frame(self, session: LocalSession, by_device: bytes) -> bytes:
        address = encode.EnvelopeAddress(session.id, session.owner, "")
        payload = b'{"delta":true,"me":%b}' % by_device
        return encode.envelope(MessageType.DEVICE_LIST, address, int(self._clock()), payload)

    async def run(self) -> None:
        """Send delayed changes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat)
            while True:
                await self._wanted.wait()
                while wait := self.tick():
                    self._hub.flush()
                    await trio.sleep(wait / 1000)
                self._hub.flush()

    async def _repeat(self) -> None:
        while True:
            await trio.sleep(REPEAT_SECONDS)
            self.repeat()
