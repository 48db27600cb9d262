/* The canonical form of a JSON value, so that values are compared by what they are and not by how
 * they are spelled: docs/decisions/0009, "Canonical form and imprint". Plain C11 without Python, so
 * that the fuzzer compiles the same code.
 *
 * Nearly every value is spelled canonically: JSON.stringify writes scalars so, arrays of them, and
 * objects whose names ascend. jc_is_canonical sees that in one pass, and keeps nothing but the last
 * name of each open object. It may say no where the answer is yes (an exponent, an escape in a
 * name), and never yes where it is no.
 *
 * What is left is built in two passes. The first (_canonical_read.h) checks the grammar, RFC 8259
 * with RFC 7493 like json_scan.h, but numbers of any size; it makes a record of each object and
 * each member, and sorts the members. The second writes, and follows these lists: a member knows
 * the number of the first object of its value, so objects are found again in whatever order.
 *
 * Text that is not JSON, has a name twice in one object, or is nested deeper than JC_MAX_DEPTH is
 * its own canonical form: it equals itself and nothing else.
 *
 * Cost: O(len), and O(names * log(members)) for objects out of order, whatever the text. No
 * recursion. Memory: 32 bytes a member and 16 an object, besides the result, which is at most 24
 * bytes a number longer than the text; none for small values up to the result.
 */
#ifndef SYNCBRIDGE_JSON_CANONICAL_H
#define SYNCBRIDGE_JSON_CANONICAL_H

#include "_canonical_read.h"

#define JC_MAX_TEXT 0x7FFFFFFF

/* ### Is it canonical already? ### */

typedef struct {
    const uint8_t *text; /* NULL: none yet */
    size_t len;
} jc_name;

/* The byte after a canonical escape at p, or NULL. */
static inline const uint8_t *jc_plain_escape(const uint8_t *p, const uint8_t *end)
{
    int code;
    if (end - p < 2)
        return NULL;
    if (p[1] != 'u')
        return p[1] == '/' ? NULL : p + 2;
    if ((code = js_code_unit(p + 2, end)) < 0 || code >= 0x20 || js_short_escape((uint8_t)code))
        return NULL;
    return p[5] >= 'A' && p[5] <= 'F' ? NULL : p + 6;
}

/* The closing quote of the string whose body begins at p; NULL if it is not surely canonical. */
static inline const uint8_t *jc_plain_string(const uint8_t *p, const uint8_t *end, int *escaped)
{
    while ((p = js_skip_plain(p, end)) < end && *p != '"') {
        if (*p >= 0x80) {
            while (p < end && *p >= 0x80)
                p++;
        } else {
            *escaped = 1;
            if (*p != '\\' || !(p = jc_plain_escape(p, end)))
                return NULL;
        }
    }
    return p < end ? p : NULL;
}

/* Is that name of the object behind the one before? The name is remembered. */
static inline int jc_ascends(jc_name *last, const uint8_t *text, size_t len)
{
    int ascends = !last->text || jc_order(last->text, last->len, text, len) < 0;
    last->text = text;
    last->len = len;
    return ascends;
}

/* The byte after the scalar at p, or after a name and its colon; NULL if it is not surely
 * canonical. `last` is the name before this one, NULL outside of containers. */
static inline const uint8_t *jc_plain_token(const uint8_t *p, const uint8_t *end, jc_name *last)
{
    const uint8_t *body = p + 1;
    int escaped = 0;
    if (*p == 't' || *p == 'f' || *p == 'n') {
        size_t len = *p == 'f' ? 5 : 4;
        return (size_t)(end - p) < len ? NULL : p + len;
    }
    if (*p != '"')
        return jc_plain_number(p, end);
    if (!(p = jc_plain_string(body, end, &escaped)))
        return NULL;
    if (++p == end || *p != ':')
        return p;
    return !escaped && last && jc_ascends(last, body, (size_t)(p - 1 - body)) ? p + 1 : NULL;
}

/* 1: the text, if it is JSON, is canonical. 0: it may or may not be. */
static inline int jc_is_canonical(const uint8_t *p, size_t len)
{
    jc_name last[JC_MAX_DEPTH];
    const uint8_t *end = p + len;
    size_t depth = 0;
    while (p < end) {
        if (*p == ',') {
            p++;
        } else if (*p == '{' || *p == '[') {
            if (depth == JC_MAX_DEPTH)
                return 0;
            last[depth++].text = NULL;
            p++;
        } else if (*p == '}' || *p == ']') {
            if (!depth--)
                return 0;
            p++;
        } else if (!(p = jc_plain_token(p, end, depth ? &last[depth - 1] : NULL))) {
            return 0;
        }
    }
    return 1;
}

/* ### Second pass: writing ### */

/* An object that is being written, and how many arrays are open in the value of its member. */
typedef struct {
    uint32_t object, member, arrays;
} jc_frame;

/* Where the second pass stands: in the text, in the objects, and in the output. */
typedef struct {
    const uint8_t *at;
    uint8_t *to;
    uint32_t object; /* number of the next one in the text */
    size_t depth;
    jc_frame frames[JC_MAX_DEPTH + 1]; /* the first one is around the outermost value */
} jc_writer;

/* Writes the string or name at w->at, which moves behind it. */
static void jc_put_string(const jc_builder *b, jc_writer *w)
{
    const uint8_t *p = w->at;
    int escaped = 0, nul = 0;
    size_t raw, len;
    const uint8_t *quote = jc_string(b, p + 1, &escaped);
    w->at = quote + 1;
    len = (size_t)(quote - p);
    if (!escaped) {
        memcpy(w->to, p, len + 1);
        w->to += len + 1;
        return;
    }
    *w->to++ = '"';
    w->to = js_canonical(w->to, p + 1, quote, &raw, &nul);
    *w->to++ = '"';
}

static void jc_put_scalar(const jc_builder *b, jc_writer *w)
{
    const uint8_t *p = w->at;
    int exponent = 0;
    if (*p == '"') {
        jc_put_string(b, w);
    } else if (*p == '-' || jc_is_digit(*p)) {
        w->at = js_number_end(p, b->end, &exponent);
        w->to = jc_put_number(w->to, p, w->at);
    } else {
        w->at += *p == 'f' ? 5 : 4;
        memcpy(w->to, p, (size_t)(w->at - p));
        w->to += w->at - p;
    }
}

/* Writes the name of a member, and its value if that can be copied (1); else goes to it (0). */
static int jc_put_member(const jc_builder *b, jc_writer *w, uint32_t number)
{
    const jc_member *m = &b->members[number];
    w->to = js_put_member(w->to, m->name, m->name_len, NULL, 0);
    *w->to++ = ':';
    memcpy(w->to, m->value, m->plain);
    w->to += m->plain;
    w->frames[w->depth].member = number;
    w->at = m->value;
    w->object = m->object;
    return m->plain != 0;
}

/* Leaves the object on top, in text and numbers. */
static void jc_leave(const jc_builder *b, jc_writer *w)
{
    const jc_object *object = &b->objects[w->frames[w->depth--].object];
    *w->to++ = '}';
    w->at = object->end;
    w->object = object->after;
}

/* A value has been written: the next member follows, or the object ends, and with it a value. */
static void jc_value_written(const jc_builder *b, jc_writer *w)
{
    while (w->depth && !w->frames[w->depth].arrays) {
        uint32_t next = b->members[w->frames[w->depth].member].next;
        if (!next) {
            jc_leave(b, w);
            continue;
        }
        *w->to++ = ',';
        if (!jc_put_member(b, w, next))
            return;
    }
}

/* Enters the object at w->at; 1 if it is empty, or its first member is written. */
static int jc_put_object(const jc_builder *b, jc_writer *w)
{
    uint32_t first = b->objects[w->object].first;
    w->frames[++w->depth] = (jc_frame){w->object, 0, 0};
    *w->to++ = '{';
    if (first)
        return jc_put_member(b, w, first);
    jc_leave(b, w);
    return 1;
}

/* Writes what was read; the byte after the last is returned. */
static uint8_t *jc_write(jc_builder *b, uint8_t *out)
{
    jc_writer w;
    int written = 0;
    w.at = jc_space(b, b->start);
    w.to = out;
    w.object = 0;
    w.depth = 0;
    w.frames[0] = (jc_frame){0, 0, 0};
    do {
        uint32_t *arrays = &w.frames[w.depth].arrays;
        uint8_t c = *w.at;
        if (c == '{') {
            written = jc_put_object(b, &w);
        } else if (c == '[' || c == ']' || c == ',') {
            *arrays += (c == '[') - (c == ']');
            *w.to++ = c;
            w.at++;
            written = c == ']';
        } else {
            jc_put_scalar(b, &w);
            written = 1;
        }
        if (written)
            jc_value_written(b, &w);
        w.at = jc_space(b, w.at);
    } while (!written || w.depth || w.frames[0].arrays);
    return w.to;
}

/* ### Entry points ### */

/* The canonical form of a text, without asking first whether the text has it: *out, to be freed by
 * the caller, or NULL if it is the text itself. 0: out of memory. */
static inline int jc_build(const uint8_t *text, size_t len, uint8_t **out, size_t *out_len)
{
    jc_builder b;
    int valid;
    b.start = text;
    b.end = text + len;
    b.objects = b.few_objects;
    b.members = b.few_members;
    b.object_room = b.member_room = JC_FEW;
    b.object_count = 0;
    b.member_count = 1;
    b.names = b.names_end = NULL;
    b.growth = b.odd = 0;
    b.no_memory = 0;
    *out = NULL;
    valid = len <= JC_MAX_TEXT && jc_read(&b);
    if (valid && !(*out = malloc(len + b.growth)))
        b.no_memory = 1;
    if (*out)
        *out_len = (size_t)(jc_write(&b, *out) - *out);
    if (b.objects != b.few_objects)
        free(b.objects);
    if (b.members != b.few_members)
        free(b.members);
    free(b.names);
    return !b.no_memory;
}

/* As jc_build, after a look at the text. */
static inline int jc_canonical(const uint8_t *text, size_t len, uint8_t **out, size_t *out_len)
{
    *out = NULL;
    return jc_is_canonical(text, len) || jc_build(text, len, out, out_len);
}

/* Are the values of two texts equal? -1: out of memory. */
static inline int jc_same(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    uint8_t *a_own = NULL, *b_own = NULL;
    int same = -1;
    if (a_len == b_len && memcmp(a, b, a_len) == 0)
        return 1;
    if (jc_canonical(a, a_len, &a_own, &a_len) && jc_canonical(b, b_len, &b_own, &b_len))
        same = a_len == b_len && memcmp(a_own ? a_own : a, b_own ? b_own : b, a_len) == 0;
    free(a_own);
    free(b_own);
    return same;
}

#endif
