/* The canonical form of a JSON value, so that values are compared by what they are and not by how
 * they are spelled: docs/decisions/0009, "Canonical form and imprint". Plain C11 without Python, so
 * that the fuzzer compiles the same code.
 *
 * Nearly every value is spelled canonically: JSON.stringify writes scalars so, arrays of them, and
 * objects whose names ascend. jc_is_canonical sees that in one pass, and keeps nothing but the last
 * name of each open object. It may say no where the answer is yes (an exponent, an escape in a name);
 * never yes where it is no.
 *
 * What is left is built in two passes. The first checks the grammar (RFC 8259 with RFC 7493, like
 * json_scan.h, but numbers of any size) and makes a record of each object and each member; the
 * members of an object are a list, which is sorted when the object is closed, if it has to be. The
 * second pass writes, and follows these lists. Objects are numbered as they begin in the text; a
 * member knows the number of the first object of its value, so the second pass finds them again in
 * whatever order it comes by.
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

#include <stdlib.h>

#include "_json_text.h"

#define JC_MAX_DEPTH 512
#define JC_MAX_TEXT 0x7FFFFFFF
#define JC_FEW 24          /* records that need no allocation */
#define JC_NUMBER_GROWS 24 /* bytes by which a number may become longer */

/* ### Is it canonical already? ### */

typedef struct {
    const uint8_t *text; /* NULL: none yet */
    size_t len;
} jc_name;

/* Order of two decoded names: below, at or above 0. */
static inline int jc_order(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

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

static inline int jc_is_digit(uint8_t c)
{
    return (uint8_t)(c - '0') < 10;
}

/* The byte after the number at p; NULL if it is broken or not surely canonical. */
static inline const uint8_t *jc_plain_number(const uint8_t *p, const uint8_t *end)
{
    int negative = *p == '-', zero;
    const uint8_t *start = p + negative, *point;
    for (p = start; p < end && jc_is_digit(*p); p++) {}
    if (p == start || p - start > 21)
        return NULL;
    zero = *start == '0';
    if (zero && p - start > 1)
        return NULL;
    point = p;
    if (p < end && *p == '.') {
        for (p++; p < end && jc_is_digit(*p); p++) {}
        if (p[-1] == '0' || p[-1] == '.')
            return NULL;
        if (zero && p - point > 6 && memcmp(point, ".000000", 7) == 0)
            return NULL;
    } else if (zero && negative) {
        return NULL;
    }
    return p < end && (*p | 0x20) == 'e' ? NULL : p;
}

/* Is that name of the object behind the one before? The name is remembered. */
static inline int jc_ascends(jc_name *last, const uint8_t *text, size_t len)
{
    int ascends = !last->text || jc_order(last->text, last->len, text, len) < 0;
    last->text = text;
    last->len = len;
    return ascends;
}

/* 1: the text, if it is JSON, is canonical. 0: it may or may not be. */
static inline int jc_is_canonical(const uint8_t *p, size_t len)
{
    jc_name last[JC_MAX_DEPTH];
    const uint8_t *end = p + len, *body;
    size_t depth = 0;
    int escaped;
    while (p < end) {
        switch (*p) {
        case '"':
            escaped = 0;
            body = p + 1;
            if (!(p = jc_plain_string(body, end, &escaped)))
                return 0;
            p++;
            if (p < end && *p == ':') {
                if (escaped || !depth
                    || !jc_ascends(&last[depth - 1], body, (size_t)(p - 1 - body)))
                    return 0;
                p++;
            }
            break;
        case '{':
        case '[':
            if (depth == JC_MAX_DEPTH)
                return 0;
            last[depth++].text = NULL;
            p++;
            break;
        case '}':
        case ']':
            if (!depth--)
                return 0;
            p++;
            break;
        case '-':
        case '0': case '1': case '2': case '3': case '4':
        case '5': case '6': case '7': case '8': case '9':
            if (!(p = jc_plain_number(p, end)))
                return 0;
            break;
        case ',':
            p++;
            break;
        case 't':
        case 'f':
        case 'n':
            body = p + (*p == 'f' ? 5 : 4);
            if (body > end)
                return 0;
            p = body;
            break;
        default:
            return 0;
        }
    }
    return 1;
}

/* ### Numbers ### */

/* A number that is not zero: the digits from `first` to `last`, a point perhaps among them, and the
 * power of ten of the first. An exponent of more than 18 digits is [exponent, end), with its sign in
 * `below`, and is still to be added to `power`. */
typedef struct {
    const uint8_t *first;
    size_t digits;
    int64_t power;
    const uint8_t *exponent, *end; /* NULL: in `power` already */
    int below;
} jc_number;

static void jc_read_exponent(jc_number *n, const uint8_t *p, const uint8_t *end)
{
    int64_t value = 0;
    n->below = *p == '-';
    for (p += *p == '-' || *p == '+'; p < end && *p == '0'; p++) {}
    if (end - p > 18) {
        n->exponent = p;
        n->end = end;
        return;
    }
    for (; p < end; p++)
        value = value * 10 + (*p - '0');
    n->power += n->below ? -value : value;
}

/* Takes the well-formed token apart that begins, without its sign, at p. 0: it is zero. */
static int jc_read_number(jc_number *n, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *mark, *point = NULL, *last = NULL;
    memset(n, 0, sizeof *n);
    for (mark = p; mark < end && (*mark | 0x20) != 'e'; mark++) {
        if (*mark == '.') {
            point = mark;
        } else if (*mark != '0') {
            last = mark;
            n->first = n->first ? n->first : mark;
        }
    }
    if (!last)
        return 0;
    point = point ? point : mark;
    n->digits = (size_t)(last - n->first) + 1 - (n->first < point && point < last);
    n->power = n->first < point ? point - n->first - 1 : point - n->first;
    if (mark < end)
        jc_read_exponent(n, mark + 1, end);
    return 1;
}

/* Copies so many digits from *from, which moves on. */
static uint8_t *jc_put_digits(uint8_t *to, const uint8_t **from, size_t count)
{
    const uint8_t *p = *from;
    while (count--) {
        p += *p == '.';
        *to++ = *p++;
    }
    *from = p;
    return to;
}

static uint8_t *jc_put_zeros(uint8_t *to, size_t count)
{
    memset(to, '0', count);
    return to + count;
}

/* Without exponent: -7 < power < 21. */
static uint8_t *jc_put_fixed(uint8_t *to, const jc_number *n)
{
    const uint8_t *from = n->first;
    size_t whole = n->power < 0 ? 0 : (size_t)n->power + 1;
    if (!whole) {
        *to++ = '0';
        *to++ = '.';
        to = jc_put_zeros(to, (size_t)(-n->power - 1));
        return jc_put_digits(to, &from, n->digits);
    }
    if (n->digits <= whole)
        return jc_put_zeros(jc_put_digits(to, &from, n->digits), whole - n->digits);
    to = jc_put_digits(to, &from, whole);
    *to++ = '.';
    return jc_put_digits(to, &from, n->digits - whole);
}

static uint8_t *jc_put_integer(uint8_t *to, uint64_t value)
{
    uint8_t digits[20];
    size_t count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10);
    } while (value /= 10);
    while (count)
        *to++ = digits[--count];
    return to;
}

/* An exponent of more than 18 digits, and `power` added to it; that changes its length by one digit
 * at most, and never its sign. */
static uint8_t *jc_put_long_exponent(uint8_t *to, const jc_number *n)
{
    size_t len = (size_t)(n->end - n->exponent);
    int64_t carry = n->below ? -n->power : n->power;
    to[0] = '0';
    memcpy(to + 1, n->exponent, len);
    for (size_t i = len; carry; i--) {
        int64_t sum = to[i] - '0' + carry, digit = (sum % 10 + 10) % 10;
        to[i] = (uint8_t)('0' + digit);
        carry = (sum - digit) / 10;
    }
    for (len++; *to == '0'; len--)
        memmove(to, to + 1, len - 1);
    return to + len;
}

/* The canonical form of the well-formed token [p, end). */
static uint8_t *jc_put_number(uint8_t *to, const uint8_t *p, const uint8_t *end)
{
    jc_number n;
    const uint8_t *from;
    int negative = *p == '-', below;
    if (!jc_read_number(&n, p + negative, end)) {
        *to++ = '0';
        return to;
    }
    if (negative)
        *to++ = '-';
    if (!n.exponent && -7 < n.power && n.power < 21)
        return jc_put_fixed(to, &n);
    from = n.first;
    to = jc_put_digits(to, &from, 1);
    if (n.digits > 1)
        *to++ = '.';
    to = jc_put_digits(to, &from, n.digits - 1);
    below = n.exponent ? n.below : n.power < 0;
    *to++ = 'e';
    *to++ = below ? '-' : '+';
    if (n.exponent)
        return jc_put_long_exponent(to, &n);
    return jc_put_integer(to, (uint64_t)(below ? -n.power : n.power));
}

/* ### First pass: objects and their members ### */

typedef struct {
    const uint8_t *name; /* decoded */
    const uint8_t *value;
    uint32_t name_len;
    uint32_t plain;  /* length of the value, if it is surely canonical; else 0 */
    uint32_t object; /* number of the first object that begins at `value` or behind it */
    uint32_t next;   /* member; 0: none, as numbers begin with 1 */
} jc_member;

typedef struct {
    const uint8_t *end; /* of its text */
    uint32_t first;     /* member, or 0 */
    uint32_t after;     /* number of the first object behind its end */
} jc_object;

/* An open container; object and last are 0 in an array and in front of the first member. */
typedef struct {
    uint32_t object; /* its number, plus one */
    uint32_t last;   /* member */
    int descends;    /* its names are not in order */
    size_t odd;      /* jc_builder.odd when the value of the last member began */
} jc_open;

typedef struct {
    const uint8_t *start, *end;
    jc_object *objects;
    jc_member *members; /* members[0] is not used */
    uint32_t object_count, object_room, member_count, member_room;
    uint8_t *names, *names_end; /* decoded names that are not in the text */
    size_t growth;              /* bytes by which numbers may become longer */
    size_t odd;                 /* places so far that may not be canonical */
    int no_memory;
    jc_object few_objects[JC_FEW];
    jc_member few_members[JC_FEW];
} jc_builder;

/* Twice the room for records that are full; NULL without memory. */
static void *jc_grow(jc_builder *b, void *items, const void *few, uint32_t *room, size_t size)
{
    size_t bytes = *room * size;
    void *grown = realloc(items == few ? NULL : items, 2 * bytes);
    if (!grown) {
        b->no_memory = 1;
        return NULL;
    }
    if (items == few)
        memcpy(grown, few, bytes);
    *room *= 2;
    return grown;
}

static inline int jc_more_objects(jc_builder *b)
{
    void *grown = b->objects;
    if (b->object_count == b->object_room
        && (grown = jc_grow(b, grown, b->few_objects, &b->object_room, sizeof *b->objects)))
        b->objects = grown;
    return grown != NULL;
}

static inline int jc_more_members(jc_builder *b)
{
    void *grown = b->members;
    if (b->member_count == b->member_room
        && (grown = jc_grow(b, grown, b->few_members, &b->member_room, sizeof *b->members)))
        b->members = grown;
    return grown != NULL;
}

static inline const uint8_t *jc_space(jc_builder *b, const uint8_t *p)
{
    const uint8_t *next = p;
    while (next < b->end && (*next == ' ' || *next == '\n' || *next == '\r' || *next == '\t'))
        next++;
    b->odd += next > p;
    return next;
}

/* The closing quote of the string whose body begins at p; NULL if it is broken. */
static const uint8_t *jc_string(const jc_builder *b, const uint8_t *p, int *escaped)
{
    uint32_t code;
    size_t n;
    while ((p = js_skip_plain(p, b->end)) < b->end && *p != '"') {
        if (*p >= 0x80) {
            if (!(n = js_utf8_length(p, b->end)))
                return NULL;
            p += n;
        } else {
            *escaped = 1;
            if (*p != '\\' || !(p = js_read_escape(p, b->end, &code)))
                return NULL;
        }
    }
    return p < b->end ? p : NULL;
}

static const uint8_t *jc_word(const jc_builder *b, const uint8_t *p, const char *word, size_t len)
{
    return (size_t)(b->end - p) >= len && memcmp(p, word, len) == 0 ? p + len : NULL;
}

/* The byte after the scalar at p; NULL if it is none. */
static const uint8_t *jc_scalar(jc_builder *b, const uint8_t *p)
{
    int flag = 0;
    const uint8_t *after;
    switch (*p) {
    case '"':
        after = jc_string(b, p + 1, &flag);
        b->odd += flag;
        return after ? after + 1 : NULL;
    case 't': return jc_word(b, p, "true", 4);
    case 'f': return jc_word(b, p, "false", 5);
    case 'n': return jc_word(b, p, "null", 4);
    }
    if (*p != '-' && !jc_is_digit(*p))
        return NULL;
    if ((after = jc_plain_number(p, b->end)))
        return after;
    b->odd++;
    b->growth += JC_NUMBER_GROWS;
    return js_number_end(p, b->end, &flag);
}

/* Decodes the name [p, quote) into the new member. All names together fit the length of the text. */
static int jc_decode(jc_builder *b, jc_member *m, const uint8_t *p, const uint8_t *quote)
{
    if (!b->names && !(b->names = b->names_end = malloc((size_t)(b->end - b->start)))) {
        b->no_memory = 1;
        return 0;
    }
    m->name = b->names_end;
    b->names_end = js_unescape(b->names_end, p, (size_t)(quote - p));
    m->name_len = (uint32_t)(b->names_end - m->name);
    return 1;
}

/* Enters a member behind the last of its object. */
static void jc_link(jc_builder *b, jc_open *in, uint32_t number)
{
    jc_member *m = &b->members[number], *last = &b->members[in->last];
    m->next = m->plain = 0;
    m->object = b->object_count;
    if (in->last) {
        in->descends |= jc_order(last->name, last->name_len, m->name, m->name_len) >= 0;
        last->next = number;
    } else {
        b->objects[in->object - 1].first = number;
    }
    in->last = number;
}

/* Reads `"name":` into a new member; the byte after it is returned, or NULL. */
static const uint8_t *jc_read_name(jc_builder *b, jc_open *in, const uint8_t *p)
{
    int escaped = 0;
    const uint8_t *quote;
    jc_member *m;
    if (p == b->end || *p != '"' || !(quote = jc_string(b, p + 1, &escaped)) || !jc_more_members(b))
        return NULL;
    m = &b->members[b->member_count];
    b->odd += escaped;
    m->name = p + 1;
    m->name_len = (uint32_t)(quote - p - 1);
    if (escaped && !jc_decode(b, m, p + 1, quote))
        return NULL;
    p = jc_space(b, quote + 1);
    if (p == b->end || *p != ':')
        return NULL;
    m->value = jc_space(b, p + 1);
    jc_link(b, in, b->member_count++);
    in->odd = b->odd;
    return m->value;
}

/* Merges two lists of members in the order of their names; *twice: a name is in both. */
static uint32_t jc_merge_lists(jc_member *members, uint32_t a, uint32_t b, int *twice)
{
    uint32_t first = 0, *to = &first;
    while (a && b) {
        jc_member *x = &members[a], *y = &members[b];
        int order = jc_order(x->name, x->name_len, y->name, y->name_len);
        *twice |= order == 0;
        *to = order <= 0 ? a : b;
        to = order <= 0 ? &x->next : &y->next;
        a = order <= 0 ? x->next : a;
        b = order <= 0 ? b : y->next;
    }
    *to = a ? a : b;
    return first;
}

/* Sorts the members of an object; 0 if a name occurs twice. Bin i holds a sorted list of 2^i. */
static int jc_sort(jc_builder *b, jc_object *object)
{
    uint32_t bins[32] = {0}, list = object->first, one;
    int twice = 0, i;
    while ((one = list)) {
        list = b->members[one].next;
        b->members[one].next = 0;
        for (i = 0; bins[i]; bins[i++] = 0)
            one = jc_merge_lists(b->members, bins[i], one, &twice);
        bins[i] = one;
    }
    for (i = 0; i < 32; i++)
        list = jc_merge_lists(b->members, bins[i], list, &twice);
    object->first = list;
    return !twice;
}

/* Opens the container whose bracket is `bracket`; 0 without memory. */
static int jc_begin(jc_builder *b, jc_open *open, uint8_t bracket)
{
    memset(open, 0, sizeof *open);
    if (bracket == '[')
        return 1;
    if (!jc_more_objects(b))
        return 0;
    b->objects[b->object_count].first = 0;
    open->object = ++b->object_count;
    return 1;
}

/* Closes a container whose text ends before `end`; 0 if a name occurs twice. */
static int jc_finish(jc_builder *b, const jc_open *open, const uint8_t *end)
{
    jc_object *object;
    if (!open->object)
        return 1;
    object = &b->objects[open->object - 1];
    object->end = end;
    object->after = b->object_count;
    b->odd += open->descends;
    return !open->descends || jc_sort(b, object);
}

/* A value has ended before p: closes what closes here, and returns the first byte of the next value,
 * or of what is behind the outermost one when nothing is open any more. NULL: broken. */
static const uint8_t *jc_after_value(jc_builder *b, jc_open *open, size_t *depth, const uint8_t *p)
{
    for (p = jc_space(b, p); *depth; p = jc_space(b, p + 1)) {
        jc_open *in = &open[*depth - 1];
        if (p == b->end)
            return NULL;
        if (in->last && in->odd == b->odd)
            b->members[in->last].plain = (uint32_t)(p - b->members[in->last].value);
        if (*p == ',') {
            p = jc_space(b, p + 1);
            return in->object ? jc_read_name(b, in, p) : p;
        }
        if (*p != (in->object ? '}' : ']') || !jc_finish(b, in, p + 1))
            return NULL;
        --*depth;
    }
    return p;
}

/* Reads the whole text; 0 if it is no JSON, or without memory. */
static int jc_read(jc_builder *b)
{
    jc_open open[JC_MAX_DEPTH];
    size_t depth = 0;
    const uint8_t *p = jc_space(b, b->start);
    do {
        if (p == b->end)
            return 0;
        if (*p == '{' || *p == '[') {
            uint8_t closing = *p + 2; /* '{' + 2 is '}', '[' + 2 is ']' */
            if (depth == JC_MAX_DEPTH || !jc_begin(b, &open[depth++], *p))
                return 0;
            p = jc_space(b, p + 1);
            if (p == b->end || *p != closing) {
                if (closing == '}' && !(p = jc_read_name(b, &open[depth - 1], p)))
                    return 0;
                continue;
            }
        } else if (!(p = jc_scalar(b, p))) {
            return 0;
        }
        if (!(p = jc_after_value(b, open, &depth, p)))
            return 0;
    } while (depth);
    return p == b->end;
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
