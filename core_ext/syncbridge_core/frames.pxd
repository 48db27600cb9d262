"""The frame parser of frame_parser.h for Cython. See there for the theory of operation."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "frame_parser.h" nogil:
    enum:
        OPCODE_TEXT
        OPCODE_BINARY
        OPCODE_CLOSE
        OPCODE_PING
        OPCODE_PONG
        CLOSE_PROTOCOL_ERROR
        CLOSE_NO_STATUS
        CLOSE_INVALID_DATA
        CLOSE_TOO_BIG
        CLOSE_INTERNAL_ERROR
        FRAME_NEED_MORE
        FRAME_MESSAGE
        FRAME_PING
        FRAME_PONG
        FRAME_CLOSE
        FRAME_FAILED
        FRAME_HEADER_MAX
        FRAME_RSV1
        CONTROL_MAX

    ctypedef struct frame_event:
        uint8_t *payload
        uint32_t length
        uint16_t code
        uint8_t opcode
        uint8_t owned
        uint8_t compressed
        uint8_t *payload_block

    ctypedef struct frame_parser:
        uint32_t message_length
        uint8_t message_opcode
        uint8_t deflate

    void frame_parser_clear(frame_parser *parser)
    int frame_parser_next(
        frame_parser *parser, uint8_t **cursor, uint8_t *end, uint32_t max_message,
        frame_event *event,
    )
    unsigned int frame_header_length(size_t length)
    unsigned int frame_write_header(uint8_t *out, unsigned int opcode, uint64_t length)
    int close_code_valid(unsigned int code)
