"""Decodes messages from sockets, by the encoding that the connection has negotiated."""

import importlib
from functools import cached_property
from typing import TYPE_CHECKING

import trio

from syncbridge import messages
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import Envelope
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.registry import takes_protobuf

if TYPE_CHECKING:
    from syncbridge import protobuf

TEXT = 1
"""Opcode of a text message; a binary one has the next number, as the encodings have."""

PROTOBUF_AFTER = 1.0

EXPECTED = (
    "binary message: JSON in a text message is expected",
    "text message: protobuf in a binary message is expected",
)
"""The error for a message of the wrong kind, by the encoding of the connection."""


class Inbound:
    """Decodes messages of either encoding, under one set of limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def load(self) -> None:
        """Import protobuf on a thread after the start, before a connection needs it."""
        await trio.sleep(PROTOBUF_AFTER)
        await trio.to_thread.run_sync(importlib.import_module, "syncbridge.protobuf")

    @cached_property
    def _protobuf(self) -> "protobuf.Decoder":
        """Made with the first message: the import is slow, and the start does not wait for it."""
        from syncbridge import protobuf

        return protobuf.Decoder(self._limits)

    def decode(self, connection: Connection, data: bytes, opcode: int) -> Envelope:
        """The envelope of one message, its payload as JSON text in either encoding.

        Raises:
            SyncBridgeError: UNSUPPORTED for text on a binary connection and the reverse, else as
                `messages.decode_envelope` and `protobuf.Decoder.decode`.
        """
        if opcode != TEXT + connection.encoding:
            raise SyncBridgeError(ErrorCode.UNSUPPORTED, EXPECTED[connection.encoding])
        if opcode == TEXT:
            return messages.decode_envelope(data)
        return self._protobuf.decode(data)


def correlation_of(connection: Connection, data: bytes) -> str | None:
    """The `correlation_id` of a message that will be refused, if it is readable."""
    if takes_protobuf(connection):
        from syncbridge import protobuf

        return protobuf.correlation_of(data)
    return messages.correlation_of(data)
