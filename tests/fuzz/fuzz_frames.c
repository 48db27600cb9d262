/* libFuzzer harness for the RFC 6455 parser, with the code that the hub runs.
 *
 * The first bytes of an input choose the message limit and a seed, the rest is the stream. It is
 * parsed twice: in one piece, and in pieces whose sizes come from the seed, with compression agreed
 * on or not. Both must give the same events, every event must keep the parser's promises, and a
 * message may not be larger than the limit. Every piece lies in a heap block of its exact size,
 * so that the address sanitizer sees a read or write of one byte too many.
 *
 * Build and run, from the root of the project:
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -I core_ext/syncbridge_core \
 *       tests/fuzz/fuzz_frames.c -o build/fuzz_frames
 *   build/fuzz_frames -max_total_time=60 -max_len=4096 build/ tests/fuzz/corpus/frames
 */
#include <stdio.h>

#include "frame_parser.h"

enum { MAX_EVENTS = 4096 };

typedef struct {
    int kind;
    uint16_t code;
    uint8_t opcode;
    uint8_t compressed;
    uint32_t length;
    uint64_t hash;
} seen_event;

typedef struct {
    seen_event events[MAX_EVENTS];
    size_t count;
    frame_parser parser;
} run;

static void check(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "broken invariant: %s\n", what);
    abort();
}

static uint64_t hash_of(const uint8_t *bytes, size_t length) {
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

/* Whole-buffer UTF-8 by decoding code points: another way than the parser's. */
static int is_utf8(const uint8_t *at, size_t length) {
    const uint8_t *end = at + length;
    while (at < end) {
        unsigned extra = *at < 0x80 ? 0 : *at >> 5 == 6 ? 1 : *at >> 4 == 14 ? 2
                                                    : *at >> 3 == 30     ? 3
                                                                         : 4;
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (extra == 4 || (size_t)(end - at) <= extra) return 0;
        uint32_t point = extra ? *at & (0x3F >> extra) : *at;
        for (unsigned i = 1; i <= extra; i++) {
            if (at[i] >> 6 != 2) return 0;
            point = point << 6 | (at[i] & 0x3F);
        }
        if (point < least[extra] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
            return 0;
        at += extra + 1;
    }
    return 1;
}

/* What a message may have on the wire: an eighth more when it can be compressed. */
static uint32_t bound_of(int compressed, uint32_t max_message) {
    return compressed ? max_message + max_message / 8 + 64 : max_message;
}

static void check_event(int kind, const frame_event *event, uint32_t max_message, int deflate) {
    check(deflate || !event->compressed, "no compression that was not agreed on");
    check(kind == FRAME_MESSAGE || !event->compressed, "only messages are compressed");
    if (kind == FRAME_MESSAGE) {
        check(event->length <= bound_of(event->compressed, max_message), "a bounded message");
        check(event->opcode == OPCODE_TEXT || event->opcode == OPCODE_BINARY, "a data opcode");
        if (event->opcode == OPCODE_TEXT && !event->compressed)
            check(is_utf8(event->payload, event->length), "text is UTF-8");
    } else if (kind == FRAME_CLOSE) {
        check(event->code == CLOSE_NO_STATUS || close_code_valid(event->code), "a close code");
        check(is_utf8(event->payload, event->length), "a close reason is UTF-8");
    } else if (kind == FRAME_FAILED) {
        check(event->code == 1002 || event->code == 1007 || event->code == 1009, "a failure code");
    } else {
        check(kind == FRAME_PING || kind == FRAME_PONG, "a known event");
        check(event->length <= CONTROL_MAX, "a control frame is short");
    }
}

static void feed(run *this, const uint8_t *bytes, size_t length, uint32_t max_message,
                 int deflate) {
    uint8_t *block = malloc(length ? length : 1);
    if (length) memcpy(block, bytes, length);
    uint8_t *cursor = block;
    frame_event event;
    int kind;
    while ((kind = frame_parser_next(&this->parser, &cursor, block + length, max_message,
                                     &event)) != FRAME_NEED_MORE) {
        check_event(kind, &event, max_message, deflate);
        if (this->count < MAX_EVENTS) {
            seen_event seen = {kind, event.code, event.opcode, event.compressed, event.length,
                               hash_of(event.payload, event.length)};
            this->events[this->count++] = seen;
        }
        if (event.owned) free(event.payload_block);
    }
    check(cursor == block + length, "all bytes are used up");
    check(this->parser.message_length <= bound_of(deflate, max_message), "what is kept is bounded");
    free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint32_t limits[] = {65536, 125, 1, 1000};
    static run whole, pieces;
    if (size < 5) return 0;
    uint32_t max_message = limits[data[0] & 3];
    uint32_t seed = data[1] | data[2] << 8 | data[3] << 16 | (uint32_t)data[4] << 24;
    uint32_t most = data[0] & 4 ? 3 : 300;
    int deflate = (data[0] & 8) != 0;
    data += 5;
    size -= 5;
    whole.count = pieces.count = 0;
    whole.parser.deflate = pieces.parser.deflate = (uint8_t)deflate;
    feed(&whole, data, size, max_message, deflate);
    for (size_t at = 0; at < size;) {
        seed = seed * 1664525u + 1013904223u;
        size_t length = (seed >> 16) % most;
        if (length > size - at) length = size - at;
        feed(&pieces, data + at, length, max_message, deflate);
        at += length;
    }
    check(whole.count == pieces.count, "the same number of events for any split");
    for (size_t i = 0; i < whole.count; i++) {
        const seen_event *a = &whole.events[i], *b = &pieces.events[i];
        check(a->kind == b->kind && a->code == b->code && a->opcode == b->opcode &&
                  a->compressed == b->compressed && a->length == b->length && a->hash == b->hash,
              "the same events for any split");
    }
    frame_parser_clear(&whole.parser);
    frame_parser_clear(&pieces.parser);
    return 0;
}
