/* One pass over untrusted bytes: validate JSON, drop insignificant whitespace, split the members
 * of the outermost object. Plain C11 without Python, so that the fuzzer compiles the same code.
 *
 * The grammar is RFC 8259, held to I-JSON (RFC 7493) and to limits. Nothing is recursive: the open
 * containers are a stack of bits, so depth costs no C stack and has one limit that does not move
 * with the caller. The first violation in reading order ends the scan.
 *
 * Output. Bytes that are kept pile up as a *run* in the input and are copied only when whitespace
 * or a rewritten key interrupts it. Input that was compact already is never copied: the run is
 * then the whole input, and js_result.same says so. The output never exceeds the input, so the
 * caller's buffer of `len` bytes always suffices. Names of the outermost object are rewritten to
 * the inner spelling (_json_text.h); values keep their bytes, also the escapes in them.
 *
 * Safety. Every read is behind a comparison with `end`. There is no global state but the hash
 * seed. Sizes are bounded by js_limits.max_bytes < 2^31, which makes 32-bit offsets safe.
 *
 * Cost: O(len). A state of 200 members in 17 KiB took 15 us on a 2-core machine (gcc 12, -O3).
 */
#ifndef SYNCBRIDGE_JSON_SCAN_H
#define SYNCBRIDGE_JSON_SCAN_H

#include "_json_scope.h"
#include "_json_text.h"
#include "document_table.h"

#define JS_MAX_DEPTH 512

typedef enum {
    JS_OK,
    JS_INVALID_JSON,
    JS_TOO_DEEP,
    JS_NUMBER_RANGE,
    JS_DUPLICATE_KEY,
    JS_INVALID_KEY,
    JS_RESERVED_KEY,
    JS_TOO_LARGE,
    JS_TOO_MANY_KEYS,
    JS_NOT_AN_OBJECT,
    JS_NO_MEMORY
} js_code;

typedef struct {
    size_t max_bytes; /* of the input */
    size_t max_keys;
    size_t max_key_bytes;   /* of a raw top-level key */
    size_t max_value_bytes; /* of a compact value */
    size_t max_depth;       /* of nested containers, the outermost included */
    size_t max_number_bytes;
} js_limits;

/* What a scan found. After JS_OK: out_len and same. Otherwise: where and why. */
typedef struct {
    size_t out_len;
    int same; /* the output is input[0:out_len] and was not copied to `out` */
    js_code code;
    const char *why;
    size_t at;              /* byte offset in the input */
    size_t key_at, key_len; /* the top-level member being read, as sent; key_len 0: none */
} js_result;

typedef struct {
    const uint8_t *start, *end;
    const uint8_t *run; /* kept and not yet copied: [run, current position) */
    uint8_t *out;
    size_t out_len;
    const js_limits *limits;
    dt_table *members; /* NULL: no split, the outermost object is like any other */
    js_result *result;
    uint8_t *spelled, *spelled_end; /* inner spellings of nested names that had escapes */
    js_names names;
    size_t depth;
    uint64_t objects[JS_MAX_DEPTH / 64]; /* bit d-1: the container at depth d is an object */
    js_scope scopes[JS_MAX_DEPTH];
} js_scanner;

/* ### Errors and output ### */

static const uint8_t *js_fail(js_scanner *s, js_code code, const uint8_t *at, const char *why)
{
    s->result->code = code;
    s->result->at = (size_t)(at - s->start);
    s->result->why = why;
    return NULL;
}

static const uint8_t *js_unexpected(js_scanner *s, const uint8_t *at, const char *why)
{
    return js_fail(s, JS_INVALID_JSON, at, at < s->end ? why : "unexpected end of text");
}

/* Copies the run up to p and begins the next one at `next`. */
static inline void js_flush(js_scanner *s, const uint8_t *p, const uint8_t *next)
{
    memcpy(s->out + s->out_len, s->run, (size_t)(p - s->run));
    s->out_len += (size_t)(p - s->run);
    s->run = next;
}

/* Offset in the output of the kept byte at p. */
static inline size_t js_offset(const js_scanner *s, const uint8_t *p)
{
    return s->out_len + (size_t)(p - s->run);
}

static inline int js_is_space(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const uint8_t *js_drop_space(js_scanner *s, const uint8_t *p)
{
    const uint8_t *next = p;
    while (next < s->end && js_is_space(*next))
        next++;
    if (next > p)
        js_flush(s, p, next);
    return next;
}

static inline const uint8_t *js_space(js_scanner *s, const uint8_t *p)
{
    return p < s->end && *p <= ' ' ? js_drop_space(s, p) : p;
}

/* ### Scalars ### */

/* The closing quote of the string whose body begins at p. */
static inline const uint8_t *js_string(js_scanner *s, const uint8_t *p, int *escaped)
{
    const uint8_t *next;
    uint32_t code;
    for (;;) {
        p = js_skip_plain(p, s->end);
        if (p == s->end)
            return js_unexpected(s, p, NULL);
        if (*p == '"')
            return p;
        if (*p < 0x20)
            return js_unexpected(s, p, "control character in a string");
        if (*p == '\\') {
            *escaped = 1;
            if (!(next = js_read_escape(p, s->end, &code)))
                return js_unexpected(s, p, "bad escape or half of a surrogate pair");
            p = next;
            continue;
        }
        do {
            size_t n = js_utf8_length(p, s->end);
            if (!n)
                return js_unexpected(s, p, "not UTF-8");
            p += n;
        } while (p < s->end && *p >= 0x80);
    }
}

static inline const uint8_t *js_number(js_scanner *s, const uint8_t *p)
{
    int exponent = 0;
    const uint8_t *after = js_number_end(p, s->end, &exponent);
    size_t len;
    if (!after)
        return js_unexpected(s, p, "broken number");
    len = (size_t)(after - p);
    if (len > s->limits->max_number_bytes)
        return js_fail(s, JS_NUMBER_RANGE, p, "number has too many digits");
    if ((exponent || len > 308) && js_overflows(p, after))
        return js_fail(s, JS_NUMBER_RANGE, p, "number is beyond a double");
    return after;
}

static inline const uint8_t *js_word(js_scanner *s, const uint8_t *p, const char *word, size_t len)
{
    if ((size_t)(s->end - p) < len || memcmp(p, word, len) != 0)
        return js_unexpected(s, p, "unexpected character");
    return p + len;
}

static inline const uint8_t *js_scalar(js_scanner *s, const uint8_t *p)
{
    int escaped = 0;
    switch (*p) {
    case '"':
        p = js_string(s, p + 1, &escaped);
        return p ? p + 1 : NULL;
    case 't': return js_word(s, p, "true", 4);
    case 'f': return js_word(s, p, "false", 5);
    case 'n': return js_word(s, p, "null", 4);
    case '-':
    case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        return js_number(s, p);
    default: return js_unexpected(s, p, "unexpected character");
    }
}

/* ### Keys ### */

static const uint8_t *js_no_memory(js_scanner *s)
{
    return js_fail(s, JS_NO_MEMORY, s->start, "out of memory");
}

/* Names of nested objects only have to be unique. [p, q) is the body; q is returned. */
static inline const uint8_t *js_nested_key(
    js_scanner *s, const uint8_t *p, const uint8_t *q, int escaped)
{
    const uint8_t *name = p, *end = s->end;
    size_t len = (size_t)(q - p), raw_len;
    int nul = 0, added;
    if (escaped) {
        /* All spellings together are no longer than the input, so this never grows. */
        if (!s->spelled && !(s->spelled = s->spelled_end = malloc((size_t)(s->end - s->start))))
            return js_no_memory(s);
        name = s->spelled_end;
        s->spelled_end = js_canonical(s->spelled_end, p, q, &raw_len, &nul);
        end = s->spelled_end;
        len = (size_t)(end - name);
    }
    added = js_add_name(&s->names, &s->scopes[s->depth - 1], name, len, end);
    if (added < 0)
        return js_no_memory(s);
    return added ? q : js_fail(s, JS_DUPLICATE_KEY, p, "key appears twice in a nested object");
}

static inline const uint8_t *js_check_key(
    js_scanner *s, const uint8_t *p, const uint8_t *inner, size_t len, size_t raw_len, int nul)
{
    if (raw_len == 0)
        return js_fail(s, JS_INVALID_KEY, p, "key is empty");
    if (raw_len > s->limits->max_key_bytes)
        return js_fail(s, JS_INVALID_KEY, p, "key is too long");
    if (nul)
        return js_fail(s, JS_INVALID_KEY, p, "key holds U+0000");
    if (len == 9 && memcmp(inner, "__proto__", 9) == 0)
        return js_fail(s, JS_RESERVED_KEY, p, "key is reserved");
    return p;
}

/* Entries to begin a table with: about as many as the text has members, so that a large one does
 * not build its index over and over. At most 1024, and no more than keys are allowed. */
static inline uint32_t js_first_room(const js_scanner *s)
{
    size_t room = (size_t)(s->end - s->start) / 64;
    if (room > 1024)
        room = 1024;
    if (room > s->limits->max_keys)
        room = s->limits->max_keys;
    return room ? (uint32_t)room : 1;
}

/* A key of the outermost object: normalise, check, enter as a member. */
static inline const uint8_t *js_member_key(
    js_scanner *s, const uint8_t *p, const uint8_t *q, int escaped)
{
    const uint8_t *inner = p;
    size_t len = (size_t)(q - p), raw_len = len, offset;
    int nul = 0;
    uint32_t hash;
    dt_text text;
    s->result->key_at = (size_t)(p - s->start);
    s->result->key_len = len;
    if (escaped) {
        /* Spelled where it will stand in the output; kept in the run if it was sent so. */
        uint8_t *to = s->out + js_offset(s, p);
        len = (size_t)(js_canonical(to, p, q, &raw_len, &nul) - to);
        if (len != (size_t)(q - p) || memcmp(to, p, len) != 0) {
            js_flush(s, p, q);
            s->out_len += len;
            inner = to;
        }
    }
    if (!js_check_key(s, p, inner, len, raw_len, nul))
        return NULL;
    offset = js_offset(s, q) - len - 1;
    hash = (uint32_t)js_hash(inner, len);
    /* Members before the run are in `out`, the others are still in the input. */
    text = (dt_text){s->out, s->run, s->out_len};
    if (dt_find(s->members, text, inner, len, hash) != DT_NONE)
        return js_fail(s, JS_DUPLICATE_KEY, p, "key appears twice");
    if (s->members->used >= s->limits->max_keys)
        return js_fail(s, JS_TOO_MANY_KEYS, p, "too many keys");
    if (!dt_reserve(s->members, s->members->room ? 1 : js_first_room(s)))
        return js_no_memory(s);
    dt_append(s->members, (uint32_t)offset, len, hash);
    return q;
}

static inline int js_in_object(const js_scanner *s)
{
    size_t bit = s->depth - 1;
    return (int)(s->objects[bit / 64] >> bit % 64 & 1);
}

static inline int js_in_members(const js_scanner *s)
{
    return s->depth == 1 && s->members;
}

/* Reads `"key":` with the space around it; the first byte of the value is returned. */
static inline const uint8_t *js_key(js_scanner *s, const uint8_t *p)
{
    int escaped = 0;
    const uint8_t *q;
    if (p == s->end || *p != '"')
        return js_unexpected(s, p, "a key is expected");
    if (!(q = js_string(s, p + 1, &escaped)))
        return NULL;
    q = js_in_members(s) ? js_member_key(s, p + 1, q, escaped)
                         : js_nested_key(s, p + 1, q, escaped);
    if (!q)
        return NULL;
    q = js_space(s, q + 1);
    if (q == s->end || *q != ':')
        return js_unexpected(s, q, "a colon is expected");
    return js_space(s, q + 1);
}

/* ### Containers ### */

/* p is at the bracket; the byte after it is returned. */
static inline const uint8_t *js_open(js_scanner *s, const uint8_t *p)
{
    size_t bit = s->depth;
    if (s->depth >= s->limits->max_depth || s->depth >= JS_MAX_DEPTH)
        return js_fail(s, JS_TOO_DEEP, p, "nested too deeply");
    if (*p == '{')
        s->objects[bit / 64] |= (uint64_t)1 << bit % 64;
    else
        s->objects[bit / 64] &= ~((uint64_t)1 << bit % 64);
    s->scopes[bit] = js_scope_open(&s->names);
    s->depth++;
    return p + 1;
}

static inline void js_close(js_scanner *s)
{
    s->depth--;
    js_scope_close(&s->names, s->scopes[s->depth]);
}

/* A value of the outermost object ends before p. */
static inline const uint8_t *js_member_end(js_scanner *s, const uint8_t *p)
{
    dt_entry *e = &s->members->entries[s->members->used - 1];
    size_t len = js_offset(s, p) - e->offset - e->key_len - 2;
    if (len > s->limits->max_value_bytes)
        return js_fail(s, JS_TOO_LARGE, p, "value is too large");
    e->value_len = (uint32_t)len;
    s->result->key_len = 0;
    return p;
}

/* A value has ended before p: closes what closes here, and returns the first byte of the next
 * value, or sets *done when the outermost one has ended. */
static inline const uint8_t *js_after_value(js_scanner *s, const uint8_t *p, int *done)
{
    while (s->depth) {
        int object = js_in_object(s);
        if (js_in_members(s) && !js_member_end(s, p))
            return NULL;
        p = js_space(s, p);
        if (p == s->end)
            return js_unexpected(s, p, NULL);
        if (*p == ',') {
            p = js_space(s, p + 1);
            return object ? js_key(s, p) : p;
        }
        if (*p != (object ? '}' : ']'))
            return js_unexpected(s, p, "a comma or a closing bracket is expected");
        js_close(s);
        p++;
    }
    *done = 1;
    return p;
}

/* One value from p; the byte after it is returned. */
static const uint8_t *js_value(js_scanner *s, const uint8_t *p)
{
    int done = 0;
    while (p && !done) {
        if (p == s->end)
            return js_unexpected(s, p, NULL);
        if (*p != '{' && *p != '[') {
            p = js_scalar(s, p);
        } else {
            uint8_t closing = *p + 2; /* '{' + 2 is '}', '[' + 2 is ']' */
            if (!(p = js_open(s, p)))
                return NULL;
            p = js_space(s, p);
            if (p == s->end || *p != closing) {
                p = closing == '}' ? js_key(s, p) : p;
                continue;
            }
            js_close(s);
            p++;
        }
        if (p)
            p = js_after_value(s, p, &done);
    }
    return p;
}

/* ### Entry points ### */

static const uint8_t *js_text(js_scanner *s)
{
    const uint8_t *p = js_space(s, s->start), *after;
    int wrong_kind = s->members && p < s->end && *p != '{';
    if (wrong_kind)
        s->members = NULL;
    if (!(after = js_value(s, p)))
        return NULL;
    s->result->out_len = js_offset(s, after);
    s->result->same = s->run == s->start;
    if (!s->result->same)
        js_flush(s, after, after);
    for (; after < s->end; after++)
        if (!js_is_space(*after))
            return js_unexpected(s, after, "more text after the value");
    if (wrong_kind)
        return js_fail(s, JS_NOT_AN_OBJECT, p, "an object is expected");
    return after;
}

/* Scans `len` bytes. `out` has room for as many. With `members` (an empty table) the text has to
 * be an object and its members are entered; after a failure the caller still frees the table. */
static js_code js_scan(const uint8_t *data, size_t len, const js_limits *limits, uint8_t *out,
                       dt_table *members, js_result *result)
{
    js_scanner s;
    memset(result, 0, sizeof *result);
    s.start = s.run = data;
    s.end = data + len;
    s.out = out;
    s.out_len = 0;
    s.limits = limits;
    s.members = members;
    s.result = result;
    s.spelled = s.spelled_end = NULL;
    s.depth = 0;
    if (len > limits->max_bytes) {
        js_fail(&s, JS_TOO_LARGE, s.start, "text is too large");
        return result->code;
    }
    js_names_init(&s.names);
    js_text(&s);
    js_names_free(&s.names);
    free(s.spelled);
    return result->code;
}

#endif
