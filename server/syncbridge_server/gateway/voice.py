"""Where voice meets the gateway: what the gateway asks of it, and what holds without it.

Voice is built after the gateway, and not at all where no provider is configured. So the gateway's
parts hold a `VoiceLink`; the sockets' side of voice is attached to it later.
"""

from typing import Protocol

import structlog

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.messages import Envelope
from syncbridge_server.gateway.connection import Connection

log = structlog.get_logger("gateway")


class VoiceSide(Protocol):
    """What the gateway asks and tells."""

    def entered(self, connection: Connection) -> None:
        """A connection is ready: from here on it hears of its user's calls."""

    def renewed(self, connection: Connection) -> None:
        """A connection has a new token: what it hears may change."""

    def left(self, connection: Connection) -> None:
        """A connection is gone. That says nothing about a call."""

    def speaking_dropped(self, connection: Connection) -> None:
        """A slow connection has missed who speaks, and can take it again."""

    def handle(self, connection: Connection, envelope: Envelope) -> None:
        """A message about voice. Raises SyncBridgeError."""

    def calls_part(self, connection: Connection) -> bytes:
        """`,"voice":[...]`: the calls of the connection's user, as a member of a payload."""

    def held_by(self, session_id: str, device_id: str) -> str:
        """The channel whose call a device holds; empty: none."""

    def tick(self) -> None:
        """A batch of messages was handled: send what is due at once."""


class VoiceLink:
    """A VoiceSide, or what holds where there is none."""

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

    def held_by(self, session_id: str, device_id: str) -> str:
        """See `VoiceSide`."""
        return "" if self._side is None else self._side.held_by(session_id, device_id)

    def tick(self) -> None:
        """See `VoiceSide`. A fault in it must not end the tick."""
        try:
            if self._side is not None:
                self._side.tick()
        except Exception:
            log.exception("voice_tick_failed")
