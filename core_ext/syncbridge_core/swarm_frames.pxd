"""The client side of RFC 6455 on plain memory: frame headers, masking, and a look at the type.

Header-only, used by swarm.pyx. Nothing here allocates, keeps state or touches a socket.

A server frame is read as `FIN RSV opcode | MASK length | extended length | payload`. `parse_header`
says how long the header is, or 0 when more bytes are needed, or a negative number when a client
must fail the connection (RFC 6455 5.1: a masked server frame; 5.2: a reserved bit or opcode, a
length not in its shortest form; 5.5: a control frame that is fragmented or longer than 125 bytes).

`envelope_type` does not parse JSON. It takes the number after the first `"type":` of the message,
which is the envelope's as long as the server writes it before the payload. That costs a few
nanoseconds where a parser would cost a microsecond, and the load generator shares its core.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t length, const void *needle, size_t size)

cdef enum:
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    TYPE_NONE = -1
    #: the longest header that `write_frame` puts before a payload
    CLIENT_HEADER = 14
    #: how many bytes of a message `envelope_type` looks at
    TYPE_WINDOW = 512

cdef struct Frame:
    uint8_t opcode
    uint8_t fin
    uint64_t length


cdef inline bint _is_opcode(uint8_t opcode) noexcept nogil:
    return opcode <= OP_BINARY or OP_CLOSE <= opcode <= OP_PONG


cdef inline int parse_header(const uint8_t *data, size_t size, Frame *frame) noexcept nogil:
    """Length of the header at `data`; 0: incomplete; -1: not a frame a server may send."""
    cdef int header = 2, position
    if size < 2:
        return 0
    frame.fin = data[0] >> 7
    frame.opcode = data[0] & 15
    frame.length = data[1] & 127
    if data[0] & 0x70 or data[1] & 0x80 or not _is_opcode(frame.opcode):
        return -1
    if frame.opcode >= OP_CLOSE and (not frame.fin or frame.length > 125):
        return -1
    if frame.length < 126:
        return header
    header = 4 if frame.length == 126 else 10
    if size < <size_t>header:
        return 0
    frame.length = 0
    for position in range(2, header):
        frame.length = (frame.length << 8) | data[position]
    if frame.length < (126 if header == 4 else 65536) or frame.length >> 62:
        return -1
    return header


cdef inline size_t write_frame(
    uint8_t *out, uint8_t opcode, const char *payload, size_t size, uint32_t key
) noexcept nogil:
    """Write one whole masked frame; `out` has room for CLIENT_HEADER + size. Returns its length."""
    cdef size_t header = 2, position
    cdef uint8_t mask[4]
    memcpy(mask, &key, 4)
    out[0] = 0x80 | opcode
    if size < 126:
        out[1] = 0x80 | <uint8_t>size
    else:
        header = 4 if size < 65536 else 10
        out[1] = 0x80 | (126 if header == 4 else 127)
        for position in range(2, header):
            out[position] = <uint8_t>(size >> (8 * (header - 1 - position)))
    memcpy(out + header, mask, 4)
    header += 4
    for position in range(size):
        out[header + position] = <uint8_t>payload[position] ^ mask[position & 3]
    return header + size


cdef inline int envelope_type(const char *data, size_t size) noexcept nogil:
    """The integer after the first `"type":`, or TYPE_NONE when there is none near the start."""
    cdef const char *end = data + (size if size < TYPE_WINDOW else TYPE_WINDOW)
    cdef const char *at = <const char *>memmem(data, end - data, b'"type":', 7)
    cdef int value = 0, digits = 0
    if at == NULL:
        return TYPE_NONE
    at += 7
    while at < end and at[0] == c' ':
        at += 1
    while at < end and c'0' <= at[0] <= c'9' and digits < 6:
        value = value * 10 + (at[0] - c'0')
        at += 1
        digits += 1
    return value if digits else TYPE_NONE


cdef inline int64_t read_sequence(const char *at, const char *end, int width) noexcept nogil:
    """Exactly `width` decimal digits as a number, or -1."""
    cdef int64_t value = 0
    cdef int position
    if end - at < width:
        return -1
    for position in range(width):
        if not c'0' <= at[position] <= c'9':
            return -1
        value = value * 10 + (at[position] - c'0')
    return value


cdef inline void write_sequence(char *at, int64_t value, int width) noexcept nogil:
    """`value` as `width` decimal digits with leading zeros."""
    cdef int position
    for position in range(width - 1, -1, -1):
        at[position] = <char>(c'0' + value % 10)
        value //= 10
