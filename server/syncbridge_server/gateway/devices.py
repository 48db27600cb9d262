"""Lists of devices: in AUTH_SUCCESS, as the answer to DEVICE_LIST, and once a second in a large
session in place of single notices.

`syncbridge.roster` tracks who is online and what is still to be announced; this file turns that
into messages.
"""

from collections.abc import Callable, Collection

import msgspec
import structlog

from syncbridge import encode, messages
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.integrity import UNREADABLE
from syncbridge.limits import Limits
from syncbridge.messages import Envelope, MessageType
from syncbridge.records.devices import DeviceList, ListDevices
from syncbridge.records.sessions import Device, DeviceInfo, Status
from syncbridge.roster import News, Summary, is_large
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.ephemeral import EphemeralState
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.voice import NONE_HELD, HeldCall, VoiceLink

log = structlog.get_logger("gateway")

_info_decoder = msgspec.json.Decoder(DeviceInfo)


class Summaries:
    """Announces joins and departures to sessions of more than `limits.presence_list` devices.

    Args:
        clock: wall clock, Unix seconds. monotonic: the hub's clock in ms.

    Attributes:
        wanted: set when there is something to announce.
    """

    def __init__(
        self,
        registry: Registry,
        sender: MessageSender,
        voice: VoiceLink,
        ephemeral: EphemeralState,
        *,
        limits: Limits,
        clock: Callable[[], float],
        monotonic: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._sender = sender
        self._voice = voice
        self._ephemeral = ephemeral
        self._bound = limits.presence_list
        self._clock = clock
        self._monotonic = monotonic
        self._waiting: set[str] = set()
        self.wanted = AutoResetEvent()

    def took(self, session: LocalSession, device_id: str, news: News, reason: str) -> bool:
        """Whether a summary announces this change, so that it needs no message of its own."""
        large = is_large(session.roster.online, self._bound, before=session.summary is not None)
        if not large:
            if session.summary is None:
                return False
            session.summary = None
            self._publish(session, self.whole(session))
            return True
        if session.summary is None:
            session.summary = Summary(self._bound, self._now())
        if news is News.LEFT:
            session.summary.left(device_id, reason)
        else:
            session.summary.joined(device_id, replaced=news is News.REPLACED)
        self._waiting.add(session.id)
        self.wanted.set()
        return True

    def tell(self) -> None:
        """Send the summaries that are due."""
        waiting, self._waiting = self._waiting, set()
        for session_id in waiting:
            session = self._registry.sessions.get(session_id)
            if session is None or session.summary is None:
                continue
            if self._now() < session.summary.due:
                self._waiting.add(session_id)
                continue
            try:
                self._tell(session, session.summary)
            except Exception:
                log.exception("summary_failed", session_id=session_id)
        if self._waiting:
            self.wanted.set()

    def welcome(self, session: LocalSession, connection: Connection, gone: set[str]) -> bytes:
        """The members of AUTH_SUCCESS that list devices; `gone` are those known to have left."""
        if session.summary is None:
            return b'"devices":%b' % self._everybody(session, gone)
        texts, named = self._window(session, session.summary)
        if connection.device_id not in named:
            own = self._device(session, connection.device_id, connection.info, online=True)
            texts = texts + b"," + own if texts else own
        return b'"devices":[%b],"devices_total":%d,"devices_partial":true' % (
            texts,
            session.roster.online,
        )

    def whole(self, session: LocalSession) -> bytes:
        """DEVICE_LIST payload: everybody, or the window of a large session."""
        if session.summary is None:
            listed = list(session.roster.listed())
            return b'{"devices":%b,"total":%d}' % (self._everybody(session), len(listed))
        texts, _ = self._window(session, session.summary)
        total = session.roster.online
        return b'{"devices":[%b],"total":%d,"partial":true}' % (texts, total)

    def _tell(self, session: LocalSession, summary: Summary) -> None:
        changes = summary.take(session.roster)
        named = self._bound if changes is None else len(changes[0]) + len(changes[1])
        summary.told(named, len(session.devices), self._now())
        if changes is None:
            self._publish(session, self.whole(session))
        elif named:
            self._publish(session, self._delta(session, *changes))

    def _delta(
        self, session: LocalSession, joined: list[str], left: list[tuple[str, str]]
    ) -> bytes:
        roster = session.roster
        return b'{"delta":true,"joined":%b,"left":%b,"total":%d}' % (
            encode.join_objects(
                self._device(session, each, roster.info(each), online=True) for each in joined
            ),
            encode.to_json([{"device_id": each, "reason": reason} for each, reason in left]),
            roster.online,
        )

    def _publish(self, session: LocalSession, payload: bytes) -> None:
        address = encode.EnvelopeAddress(session.id, session.owner, "")
        frame = encode.envelope(MessageType.DEVICE_LIST, address, int(self._clock()), payload)
        self._sender.notice(session, frame)

    def _everybody(self, session: LocalSession, gone: Collection[str] = ()) -> bytes:
        return encode.join_objects(
            self._device(session, name, info, online=online and name not in gone)
            for name, info, online in session.roster.listed()
        )

    def _window(self, session: LocalSession, summary: Summary) -> tuple[bytes, frozenset[str]]:
        """Devices that have been online for longest, and their names; a place is left over.

        Up to the bound, ephemeral values may change the order.
        """
        if summary.window is None or session.roster.online <= self._bound:
            shown = dict(session.roster.window(self._bound - 1))
            texts = b",".join(
                self._device(session, name, info, online=True) for name, info in shown.items()
            )
            summary.window = texts, frozenset(shown)
        return summary.window

    def _device(self, session: LocalSession, device_id: str, info: bytes, *, online: bool) -> bytes:
        held = self._voice.held_by(session.id, device_id)
        me = self._ephemeral.of(session, device_id) if online else b""
        return device_payload(device_id, decode_info(info), online, held=held, me=me)

    def _now(self) -> float:
        return self._monotonic() / 1000


class DeviceLists:
    """Answers DEVICE_LIST; with `me`, takes the ephemeral values of a device instead."""

    def __init__(
        self,
        sender: MessageSender,
        store_queue: StoreQueue,
        voice: VoiceLink,
        ephemeral: EphemeralState,
        summaries: Summaries,
    ) -> None:
        self._voice = voice
        self._ephemeral = ephemeral
        self._sender = sender
        self._store_queue = store_queue
        self._summaries = summaries

    def request(self, connection: Connection, envelope: Envelope) -> None:
        """Handle DEVICE_LIST. The answer is the store's list, or the window of a large session.

        A message with `me` gets none.
        """
        payload = messages.decode_payload(messages.devices_decoder, envelope)
        if payload.me is not msgspec.UNSET:
            self._ephemeral.say(connection, payload.me)
            return
        session = connection.session
        assert session is not None
        if session.summary is not None:
            window = self._summaries.whole(session)
            self._sender.send(connection, MessageType.DEVICE_LIST, window, envelope.correlation_id)
            return
        request = ListDevices(session.id)
        self._store_queue.ask(request, self._listed, connection, envelope.correlation_id)

    def _listed(
        self, answer: DeviceList | StoreError, connection: Connection, correlation_id: str | None
    ) -> None:
        if isinstance(answer, StoreError):
            self._sender.error(connection, answer, correlation_id)
            return
        if answer.status is not Status.OK:
            error = SyncBridgeError(ErrorCode.SESSION_NOT_FOUND, "there is no such session")
            self._sender.error(connection, error, correlation_id)
            return
        session = connection.session
        sid = session.id if session is not None else ""
        devices = encode.join_objects(
            device_payload(
                device.device_id,
                decode_info(device.info),
                is_online(device),
                device.seen // 1000,
                self._voice.held_by(sid, device.device_id),
                self._ephemeral.of(session, device.device_id) if is_online(device) else b"",
            )
            for device in answer.devices
        )
        payload = b'{"devices":%b,"total":%d}' % (devices, len(answer.devices))
        self._sender.send(connection, MessageType.DEVICE_LIST, payload, correlation_id)


def is_online(device: Device) -> bool:
    """Whether a device has a running lease and a connection."""
    return device.online and device.fence > 0


def decode_info(info: bytes) -> DeviceInfo:
    """Stored metadata of a device; empty when it cannot be decoded."""
    try:
        read = _info_decoder.decode(info)
    except UNREADABLE:
        return DeviceInfo()
    return read if 0 <= read.connected_at < 2**53 else DeviceInfo()


def device_payload(
    device_id: str,
    info: DeviceInfo,
    online: bool,
    last_seen: int = -1,
    held: HeldCall = NONE_HELD,
    me: bytes = b"",
) -> bytes:
    """A device as clients see it, as JSON.

    `last_seen`: Unix seconds, omitted when negative. `held`: the channel whose call it is in.
        `me`: its ephemeral values, as JSON. Both are omitted when empty.
    """
    members: dict[str, object] = {
        "device_id": device_id,
        "device_type": info.device_type,
        "device_name": info.device_name,
        "os_version": info.os_version,
        "status": "online" if online else "offline",
        "connected_at": info.connected_at // 1000,
    }
    if last_seen >= 0:
        members["last_seen"] = last_seen
    if held.channel_id:
        members["in_call"] = held.channel_id
        members["waddle_id"] = held.waddle_id
    if me:
        members["me"] = msgspec.Raw(me)
    return encode.to_json(members)
