"""The sink of an address that serves no WebSockets."""

import socket
from collections.abc import Callable

from syncbridge.errors import ErrorCode
from syncbridge_server.listener.contract import Refusal


class NoSockets:
    """Refuses every handshake."""

    def admit(self, client: str) -> Refusal:
        """404, as for any unknown path."""
        code = ErrorCode.NOT_FOUND
        return Refusal(code.status, code.wire, "no WebSockets are served at this address")

    def adopt(
        self,
        sock: socket.socket,
        *,
        encoding: int,
        client: str,
        initial: bytes,
        bridged: bool,
        deflate: bool,
        on_known: Callable[[], None] | None = None,
    ) -> int:
        """Nothing was admitted. Raises OSError."""
        raise OSError("no WebSockets are served at this address")
