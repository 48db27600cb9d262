"""The frame parser and serialiser of the hub, as Python sees them.

The hub uses frame_parser.h directly. This module exists so that tests, tools and people can run
the very same code over bytes: `FrameParser` takes a stream in any pieces and returns its events.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

__all__ = ["FRAME_KINDS", "FrameParser", "encode_frame"]

FRAME_KINDS = {
    FRAME_MESSAGE: "message",
    FRAME_PING: "ping",
    FRAME_PONG: "pong",
    FRAME_CLOSE: "close",
    FRAME_FAILED: "failed",
}


cdef class FrameParser:
    """The server side of one RFC 6455 stream after its handshake.

    max_message: bytes of one message over all its fragments, 1 to 2**31 - 1.
    deflate: compressed messages are allowed (RFC 7692).
    """

    cdef frame_parser parser
    cdef uint32_t max_message

    def __cinit__(self, max_message=65536, bint deflate=False):
        memset(&self.parser, 0, sizeof(frame_parser))
        if not 0 < max_message < 1 << 31:
            raise ValueError("max_message must be between 1 and 2**31 - 1")
        self.max_message = max_message
        self.parser.deflate = deflate

    def __dealloc__(self):
        frame_parser_clear(&self.parser)

    def feed(self, bytes data not None):
        """Parse the next bytes; return a list of (kind, value, payload), oldest first.

        kind is "message", "ping", "pong", "close" or "failed". value is the opcode of a message,
        with 64 (RSV1) added when the payload is compressed, the code of a close (1005 without
        one), the code to close with for "failed", else 0. After "close" or "failed" all later
        bytes are ignored. O(len(data)).
        """
        cdef Py_ssize_t length = len(data)
        cdef uint8_t *scratch = <uint8_t *>malloc(length + 1)
        if scratch == NULL:
            raise MemoryError
        try:
            memcpy(scratch, <const char *>data, length)
            return self._events(scratch, scratch + length)
        finally:
            free(scratch)

    cdef list _events(self, uint8_t *cursor, uint8_t *end):
        cdef frame_event event
        cdef int kind
        found = []
        while True:
            kind = frame_parser_next(&self.parser, &cursor, end, self.max_message, &event)
            if kind == FRAME_NEED_MORE:
                return found
            value = 0
            if kind == FRAME_MESSAGE:
                value = event.opcode + (FRAME_RSV1 if event.compressed else 0)
            elif kind == FRAME_CLOSE or kind == FRAME_FAILED:
                value = event.code
            try:
                payload = (<const char *>event.payload)[:event.length] if event.length else b""
                found.append((FRAME_KINDS[kind], value, payload))
            finally:
                if event.owned:
                    free(event.payload_block)

    @property
    def held(self):
        """Bytes kept of an incomplete message."""
        return self.parser.message_length


def encode_frame(unsigned int opcode, bytes payload not None):
    """A final, unmasked frame (server to client) with the shortest header (section 5.2).

    opcode: four bits, with 64 (RSV1) added when the payload is compressed.
    """
    cdef uint8_t header[10]
    if opcode & ~<unsigned int>FRAME_RSV1 > 15:
        raise ValueError("an opcode has four bits")
    size = frame_write_header(header, opcode, len(payload))
    return (<const char *>header)[:size] + payload
