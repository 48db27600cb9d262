"""The interface between the gateway and voice, and its defaults without voice.

Voice is built after the gateway, and only if a provider is configured. So the gateway's parts hold
a `VoiceLink`, to which voice is attached later.
"""

from typing import NamedTuple, Protocol

import structlog

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.messages import Envelope
from syncbridge_server.gateway.connection import Connection

log = structlog.get_logger("gateway")


class HeldCall(NamedTuple):
    """The channel of the call that a device holds; both empty: it holds none."""

    channel_id: str = ""
    waddle_id: str = ""


NONE_HELD = HeldCall()


class VoiceSide(Protocol):
    """What the gateway calls."""

    def entered(self, connection: Connection) -> None:
        """A connection has joined: from now on it receives its user's calls."""

    def renewed(self, connection: Connection) -> None:
        """A connection has a new token: its voice grants may have changed."""

    def left(self, connection: Connection) -> None:
        """A connection has closed. Calls are not affected."""

    def speaking_dropped(self, connection: Connection) -> None:
        """A slow connection missed speaking events, and can receive them again."""

    def handle(self, connection: Connection, envelope: Envelope) -> None:
        """A message about voice. Raises SyncBridgeError."""

    def calls_part(self, connection: Connection) -> bytes:
        """`,"voice":[...]`: the calls of the connection's user, as a member of a payload."""

    def held_by(self, session_id: str, device_id: str) -> HeldCall:
        """The channel whose call a device is in; `NONE_HELD`: none."""

    def tick(self) -> None:
        """Called after each batch of messages: send what is due."""


class VoiceLink:
    """A VoiceSide, or the defaults where there is none."""

    def __init__(self) -> None:
        self._side: VoiceSide | None = None

    def attach(self, side: VoiceSide) -> None:
        """Voice is configured. Before the first connection."""
        self._side = side

    def entered(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        if self._side is not None:
            self._side.entered(connection)

    def renewed(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        if self._side is not None:
            self._side.renewed(connection)

    def left(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        if self._side is not None:
            self._side.left(connection)

    def speaking_dropped(self, connection: Connection) -> None:
        """See `VoiceSide`."""
        if self._side is not None:
            self._side.speaking_dropped(connection)

    def handle(self, connection: Connection, envelope: Envelope) -> None:
        """See `VoiceSide`. Raises UNSUPPORTED where there is no voice."""
        if self._side is None:
            raise SyncBridgeError(
                ErrorCode.UNSUPPORTED, "this server has no voice provider configured"
            )
        self._side.handle(connection, envelope)

    def calls_part(self, connection: Connection) -> bytes:
        """See `VoiceSide`; empty where there is no voice."""
        return b"" if self._side is None else self._side.calls_part(connection)

    def held_by(self, session_id: str, device_id: str) -> HeldCall:
        """See `VoiceSide`."""
        return NONE_HELD if self._side is None else self._side.held_by(session_id, device_id)

    def tick(self) -> None:
        """See `VoiceSide`. An error in voice must not end the tick."""
        try:
            if self._side is not None:
                self._side.tick()
        except Exception:
            log.exception("voice_tick_failed")
