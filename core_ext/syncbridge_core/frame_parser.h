/* The RFC 6455 parser of the server side, in plain C, so that a fuzzer compiles the same code.
 *
 * What is stored. One `frame_parser` a connection, zero-filled at the start, 48 bytes. It owns no
 * buffer while a connection is idle. A message that lies whole inside the bytes given to
 * `frame_parser_next` is unmasked in place and handed out as a pointer into them. Only a message
 * (or control frame) that does not end there is copied to the heap, and that memory goes with the
 * event to the caller.
 *
 * Invariant. The sequence of events depends on the bytes alone, never on how they were split into
 * calls. Every state is left only by a byte, a completed frame or an error.
 *
 * Bounds. The announced length is held against `max_message` before any payload is stored, summed
 * over fragments (section 5.4). Memory grows with the bytes that came, at most twofold, and not
 * with the length that was announced, so an announcement costs its sender what it costs us.
 *
 * Why UTF-8 is checked while it arrives: section 8.1 lets us fail at the first bad byte, and a
 * sender of a long bad text then costs no more memory. ASCII goes eight bytes at a time.
 *
 * Compressed messages (RFC 7692). Where `deflate` is set, RSV1 on the first frame of a message
 * marks it as compressed. It is handed out as it came: the caller unfolds it and then checks its
 * length and its UTF-8. On the wire it may be an eighth above `max_message`, because data that
 * does not compress grows a little.
 */
#ifndef SYNCBRIDGE_FRAME_PARSER_H
#define SYNCBRIDGE_FRAME_PARSER_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OPCODE_CONTINUATION = 0, OPCODE_TEXT = 1, OPCODE_BINARY = 2,
       OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

/* Close codes of section 7.4.1 that the parser itself uses. */
enum { CLOSE_PROTOCOL_ERROR = 1002, CLOSE_NO_STATUS = 1005, CLOSE_INVALID_DATA = 1007,
       CLOSE_TOO_BIG = 1009, CLOSE_INTERNAL_ERROR = 1011 };

/* What `frame_parser_next` found. */
enum frame_event_kind {
    FRAME_NEED_MORE = 0, /* all bytes are used up */
    FRAME_MESSAGE = 1,   /* a whole data message */
    FRAME_PING = 2,
    FRAME_PONG = 3,
    FRAME_CLOSE = 4,     /* code, payload is the reason; later bytes are ignored */
    FRAME_FAILED = 5     /* code says why; later bytes are ignored */
};

enum { FRAME_RSV1 = 0x40 };

enum { CONTROL_MAX = 125, FRAME_HEADER_MAX = 10, CLIENT_HEADER_MAX = 14 };

typedef struct {
    uint8_t *payload; /* into the caller's bytes, or the heap when `owned` */
    uint32_t length;
    uint16_t code;    /* close code of FRAME_CLOSE and FRAME_FAILED */
    uint8_t opcode;   /* OPCODE_TEXT or OPCODE_BINARY of FRAME_MESSAGE */
    uint8_t owned;    /* the caller must free() `payload_block` */
    uint8_t compressed; /* FRAME_MESSAGE: RSV1 was set; length and UTF-8 are not checked yet */
    uint8_t *payload_block;
} frame_event;

enum { PARSER_HEADER = 0, PARSER_PAYLOAD = 1, PARSER_CONTROL = 2, PARSER_DONE = 3 };

/* Incremental UTF-8 (RFC 3629): continuation bytes still due, and the bounds of the next one. */
typedef struct {
    uint8_t due, low, high;
} utf8_state;

typedef struct {
    uint8_t *message;         /* start of a message whose end has not come, or NULL */
    uint8_t *control;         /* the same for a control frame, CONTROL_MAX bytes, or NULL */
    uint32_t message_length;
    uint32_t remaining;       /* payload bytes of the current frame that have not come */
    uint8_t header[CLIENT_HEADER_MAX]; /* stays until the next one begins; its end is the mask */
    uint8_t header_length;    /* bytes of it that have come */
    uint8_t state;
    uint8_t mask_phase;       /* index of the mask byte for the next payload byte */
    uint8_t deflate;          /* set by the owner: compression was negotiated */
    uint8_t compressed;       /* the open message is */
    uint8_t message_opcode;   /* of the open message, 0 when there is none */
    uint8_t control_length;
    utf8_state text;
} frame_parser;

/* Free what the parser holds; it can then be used for a new connection. */
static inline void frame_parser_clear(frame_parser *parser) {
    free(parser->message);
    free(parser->control);
    memset(parser, 0, sizeof *parser);
}

/* XOR with the mask from `phase` on; eight bytes at a step, which compilers widen further. */
static inline void frame_unmask(uint8_t *bytes, size_t length, const uint8_t mask[4],
                                unsigned phase) {
    uint8_t pattern[8];
    uint64_t wide, word;
    size_t at = 0;
    for (unsigned i = 0; i < 8; i++) pattern[i] = mask[(phase + i) & 3];
    memcpy(&wide, pattern, 8);
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, bytes + at, 8);
        word ^= wide;
        memcpy(bytes + at, &word, 8);
    }
    for (; at < length; at++) bytes[at] ^= pattern[at & 7];
}

/* The byte that opens a sequence of two to four bytes; 0 when no sequence opens with it. */
static inline int utf8_lead(utf8_state *state, uint8_t byte) {
    if (byte < 0xC2 || byte > 0xF4) return 0; /* continuation, overlong, above U+10FFFF */
    state->low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    state->high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF; /* surrogates, U+10FFFF */
    state->due = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    return 1;
}

/* Check the next bytes of a text; 0 at the first byte that cannot be right. */
static inline int utf8_feed(utf8_state *state, const uint8_t *bytes, size_t length) {
    const uint8_t *end = bytes + length;
    while (bytes < end) {
        if (state->due) {
            if (*bytes < state->low || *bytes > state->high) return 0;
            state->low = 0x80;
            state->high = 0xBF;
            state->due--;
            bytes++;
            continue;
        }
        uint64_t word;
        for (; end - bytes >= 8; bytes += 8) {
            memcpy(&word, bytes, 8);
            if (word & UINT64_C(0x8080808080808080)) break;
        }
        if (bytes == end) break;
        if (*bytes >= 0x80 && !utf8_lead(state, *bytes)) return 0;
        bytes++;
    }
    return 1;
}

/* Whether a close code may appear in a close frame (section 7.4 and the IANA registry). */
static inline int close_code_valid(unsigned code) {
    if (code >= 3000 && code <= 4999) return 1;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

/* The two fields of a header's first byte, which stays until the next header begins. */
static inline unsigned frame_opcode(const frame_parser *parser) {
    return parser->header[0] & 0x0F;
}

static inline int frame_is_final(const frame_parser *parser) {
    return parser->header[0] >> 7;
}

/* RSV2 and RSV3 are always zero; RSV1 opens a compressed message (RFC 7692 section 6). */
static inline int frame_reserved_bits_valid(const frame_parser *parser) {
    unsigned reserved = parser->header[0] & 0x70, opcode = frame_opcode(parser);
    if (!reserved) return 1;
    return reserved == FRAME_RSV1 && parser->deflate &&
           (opcode == OPCODE_TEXT || opcode == OPCODE_BINARY);
}

static inline int frame_fail(frame_parser *parser, frame_event *event, uint16_t code) {
    frame_parser_clear(parser);
    parser->state = PARSER_DONE;
    event->code = code;
    event->payload = NULL;
    event->length = 0;
    return FRAME_FAILED;
}

/* Check the first two header bytes; 0 or a close code. Section 5.2, 5.4, 5.5. */
static inline uint16_t frame_check_start(frame_parser *parser) {
    uint8_t second = parser->header[1];
    if (!frame_reserved_bits_valid(parser)) return CLOSE_PROTOCOL_ERROR;
    if (!(second & 0x80)) return CLOSE_PROTOCOL_ERROR; /* a client masks every frame */
    switch (frame_opcode(parser)) {
    case OPCODE_CONTINUATION:
        return parser->message_opcode ? 0 : CLOSE_PROTOCOL_ERROR;
    case OPCODE_TEXT:
    case OPCODE_BINARY:
        return parser->message_opcode ? CLOSE_PROTOCOL_ERROR : 0;
    case OPCODE_CLOSE:
    case OPCODE_PING:
    case OPCODE_PONG:
        return frame_is_final(parser) && (second & 0x7F) <= CONTROL_MAX ? 0 : CLOSE_PROTOCOL_ERROR;
    default:
        return CLOSE_PROTOCOL_ERROR;
    }
}

static inline unsigned frame_header_size(const frame_parser *parser) {
    unsigned length = parser->header[1] & 0x7F;
    return length == 127 ? 14 : length == 126 ? 8 : 6;
}

static inline const uint8_t *frame_mask(const frame_parser *parser) {
    return parser->header + frame_header_size(parser) - 4;
}

/* The length of a complete header, refused when it is not in its shortest form. */
static inline uint16_t frame_read_length(const frame_parser *parser, uint64_t *length) {
    const uint8_t *header = parser->header;
    unsigned bytes = (header[1] & 0x7F) == 127 ? 8 : 2;
    *length = header[1] & 0x7F;
    if (*length < 126) return 0;
    *length = 0;
    for (unsigned i = 0; i < bytes; i++) *length = *length << 8 | header[2 + i];
    if (*length >> 63) return CLOSE_PROTOCOL_ERROR;
    return *length < (bytes == 8 ? 65536u : 126u) ? CLOSE_PROTOCOL_ERROR : 0;
}

/* The bound of the open message on the wire. */
static inline uint64_t frame_bound(const frame_parser *parser, uint32_t max_message) {
    return parser->compressed ? max_message + (uint64_t)(max_message >> 3) + 64 : max_message;
}

/* The header of a data frame. Returns 0 or a close code. */
static inline uint16_t frame_begin_data(frame_parser *parser, uint64_t length,
                                        uint32_t max_message) {
    if (frame_opcode(parser) != OPCODE_CONTINUATION) {
        parser->message_opcode = (uint8_t)frame_opcode(parser);
        parser->compressed = (parser->header[0] & FRAME_RSV1) != 0;
    }
    uint64_t bound = frame_bound(parser, max_message);
    if (length > bound || parser->message_length > bound - length) return CLOSE_TOO_BIG;
    parser->state = PARSER_PAYLOAD;
    return 0;
}

/* A complete header: set up the payload state. Returns 0 or a close code. */
static inline uint16_t frame_begin(frame_parser *parser, uint32_t max_message) {
    uint64_t length;
    uint16_t code = frame_read_length(parser, &length);
    if (code) return code;
    parser->mask_phase = 0;
    parser->header_length = 0;
    if (frame_opcode(parser) < OPCODE_CLOSE) {
        code = frame_begin_data(parser, length, max_message);
    } else {
        parser->state = PARSER_CONTROL;
        parser->control_length = 0;
    }
    parser->remaining = (uint32_t)length;
    return code;
}

/* Take header bytes. Returns 1 when the header is complete, 0 at the end of the bytes. */
static inline int frame_take_header(frame_parser *parser, uint8_t **cursor, uint8_t *end,
                                    uint16_t *code) {
    unsigned needed = parser->header_length >= 2 ? frame_header_size(parser) : 2;
    *code = 0;
    while (parser->header_length < needed) {
        if (*cursor == end) return 0;
        parser->header[parser->header_length++] = *(*cursor)++;
        if (parser->header_length != 2) continue;
        *code = frame_check_start(parser);
        if (*code) return 1;
        needed = frame_header_size(parser);
    }
    return 1;
}

/* The size of the block that holds `length` kept bytes: the next power of two, so that it need
 * not be stored. */
static inline size_t frame_capacity(uint32_t length) {
    size_t capacity = 512;
    while (capacity < length) capacity *= 2;
    return capacity;
}

/* Keep payload for later. Returns 0 when there is no memory. */
static inline int frame_keep(frame_parser *parser, const uint8_t *bytes, uint32_t length) {
    uint32_t needed = parser->message_length + length;
    if (!parser->message || needed > frame_capacity(parser->message_length)) {
        uint8_t *grown = (uint8_t *)realloc(parser->message, frame_capacity(needed));
        if (!grown) return 0;
        parser->message = grown;
    }
    memcpy(parser->message + parser->message_length, bytes, length);
    parser->message_length = needed;
    return 1;
}

/* Hand out the finished message: from the heap when a part was kept, else in place. */
static inline int frame_finish_message(frame_parser *parser, frame_event *event,
                                       uint8_t *bytes, uint32_t length) {
    if (parser->message_opcode == OPCODE_TEXT && parser->text.due)
        return frame_fail(parser, event, CLOSE_INVALID_DATA);
    event->opcode = parser->message_opcode;
    event->compressed = parser->compressed;
    event->owned = parser->message != NULL;
    event->payload = event->payload_block = parser->message;
    event->length = parser->message_length;
    if (!event->owned) {
        event->payload = bytes;
        event->length = length;
    }
    parser->message = NULL;
    parser->message_length = 0;
    parser->message_opcode = 0;
    return FRAME_MESSAGE;
}

/* Payload of a data frame. FRAME_NEED_MORE also when the frame ended but not its message. */
static inline int frame_take_payload(frame_parser *parser, uint8_t **cursor, uint8_t *end,
                                     frame_event *event) {
    uint8_t *bytes = *cursor;
    uint32_t length = parser->remaining;
    if ((size_t)(end - bytes) < length) length = (uint32_t)(end - bytes);
    frame_unmask(bytes, length, frame_mask(parser), parser->mask_phase);
    *cursor += length;
    if (parser->message_opcode == OPCODE_TEXT && !parser->compressed &&
        !utf8_feed(&parser->text, bytes, length))
        return frame_fail(parser, event, CLOSE_INVALID_DATA);
    int whole = length == parser->remaining;
    if (length && (!whole || !frame_is_final(parser) || parser->message))
        if (!frame_keep(parser, bytes, length))
            return frame_fail(parser, event, CLOSE_INTERNAL_ERROR);
    parser->remaining -= length;
    parser->mask_phase = (parser->mask_phase + length) & 3;
    if (!whole) return FRAME_NEED_MORE;
    parser->state = PARSER_HEADER;
    if (!frame_is_final(parser)) return FRAME_NEED_MORE;
    return frame_finish_message(parser, event, bytes, length);
}

/* A close frame's body: nothing, or a code and a reason (section 5.5.1). */
static inline int frame_read_close(frame_parser *parser, frame_event *event) {
    utf8_state text = {0, 0, 0};
    uint16_t failure = 0;
    event->code = CLOSE_NO_STATUS;
    if (event->length) {
        unsigned code = event->length < 2 ? 0 : event->payload[0] << 8 | event->payload[1];
        if (!close_code_valid(code)) failure = CLOSE_PROTOCOL_ERROR;
        else if (!utf8_feed(&text, event->payload + 2, event->length - 2) || text.due)
            failure = CLOSE_INVALID_DATA;
        event->code = (uint16_t)code;
    }
    if (failure) {
        if (event->owned) free(event->payload_block);
        event->owned = 0;
        return frame_fail(parser, event, failure);
    }
    if (event->length) {
        event->payload += 2;
        event->length -= 2;
    }
    frame_parser_clear(parser);
    parser->state = PARSER_DONE;
    return FRAME_CLOSE;
}

/* Payload of a control frame: in place when all of it is here, else gathered. */
static inline int frame_take_control(frame_parser *parser, uint8_t **cursor, uint8_t *end,
                                     frame_event *event) {
    uint32_t length = parser->remaining;
    if ((size_t)(end - *cursor) < length) length = (uint32_t)(end - *cursor);
    int whole = length == parser->remaining;
    event->payload = *cursor;
    event->length = length;
    event->owned = 0;
    *cursor += length;
    if (!whole || parser->control) {
        if (!parser->control) parser->control = (uint8_t *)malloc(CONTROL_MAX);
        if (!parser->control) return frame_fail(parser, event, CLOSE_INTERNAL_ERROR);
        memcpy(parser->control + parser->control_length, event->payload, length);
        parser->control_length += (uint8_t)length;
        parser->remaining -= length;
        if (!whole) return FRAME_NEED_MORE;
        event->payload = event->payload_block = parser->control;
        event->length = parser->control_length;
        event->owned = 1;
        parser->control = NULL;
    }
    frame_unmask(event->payload, event->length, frame_mask(parser), 0);
    parser->state = PARSER_HEADER;
    if (frame_opcode(parser) == OPCODE_CLOSE) return frame_read_close(parser, event);
    return frame_opcode(parser) == OPCODE_PING ? FRAME_PING : FRAME_PONG;
}

/* Read on from *cursor until an event or the end of the bytes, which are changed in place.
 *
 * max_message: bytes of one message over all its fragments, below 2^31.
 * Returns a frame_event_kind; `event` is set unless that is FRAME_NEED_MORE. O(bytes).
 */
static inline int frame_parser_next(frame_parser *parser, uint8_t **cursor, uint8_t *end,
                                    uint32_t max_message, frame_event *event) {
    memset(event, 0, sizeof *event);
    for (;;) {
        int found = FRAME_NEED_MORE;
        if (parser->state == PARSER_DONE) *cursor = end;
        if (parser->state == PARSER_HEADER) {
            uint16_t code;
            if (!frame_take_header(parser, cursor, end, &code)) return FRAME_NEED_MORE;
            if (!code) code = frame_begin(parser, max_message);
            if (code) return frame_fail(parser, event, code);
        }
        if (parser->state == PARSER_PAYLOAD)
            found = frame_take_payload(parser, cursor, end, event);
        else if (parser->state == PARSER_CONTROL)
            found = frame_take_control(parser, cursor, end, event);
        if (found != FRAME_NEED_MORE || *cursor == end) return found;
    }
}

/* Bytes of the header of an unmasked frame (server to client). */
static inline unsigned frame_header_length(size_t length) {
    return length < 126 ? 2 : length < 65536 ? 4 : 10;
}

/* Write the header of a final, unmasked frame; returns its size, at most FRAME_HEADER_MAX. */
static inline unsigned frame_write_header(uint8_t *out, unsigned opcode, uint64_t length) {
    unsigned size = frame_header_length(length);
    out[0] = (uint8_t)(0x80 | opcode);
    out[1] = size == 2 ? (uint8_t)length : size == 4 ? 126 : 127;
    for (unsigned i = 2; i < size; i++) out[i] = (uint8_t)(length >> (8 * (size - 1 - i)));
    return size;
}

#endif
