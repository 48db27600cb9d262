"""The frame parser and serialiser of the hub, as Python sees them. See frames.pyx."""

from typing import Final, final

__all__ = ["FRAME_KINDS", "FrameParser", "encode_frame"]

FRAME_KINDS: Final[dict[int, str]]

@final
class FrameParser:
    """The server side of one RFC 6455 stream after its handshake.

    max_message: bytes of one message over all its fragments, 1 to 2**31 - 1.
    deflate: compressed messages are allowed (RFC 7692).
    """

    def __new__(cls, max_message: int = 65536, deflate: bool = False) -> FrameParser: ...
    def feed(self, data: bytes) -> list[tuple[str, int, bytes]]:
        """Parse the next bytes; return a list of (kind, value, payload), oldest first.

        kind is "message", "ping", "pong", "close" or "failed". value is the opcode of a message,
        with 64 (RSV1) added when the payload is compressed, the code of a close (1005 without
        one), the code to close with for "failed", else 0.
        """

    @property
    def held(self) -> int:
        """Bytes kept of an incomplete message."""

def encode_frame(opcode: int, payload: bytes) -> bytes:
    """A final, unmasked frame (server to client) with the shortest header (section 5.2).

    opcode: four bits, with 64 (RSV1) added when the payload is compressed.
    """
