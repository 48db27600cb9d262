/* The first pass over a text that is to be made canonical: it checks the grammar, and makes a
 * record of each object and each member. See json_canonical.h.
 *
 * Objects are numbered as they begin in the text. The members of an object are a list, which is
 * sorted by merging when the object is closed, if its names do not ascend; that finds each name
 * that occurs twice. A member whose value is canonical is noted as such, to be copied.
 */
#ifndef SYNCBRIDGE_CANONICAL_READ_H
#define SYNCBRIDGE_CANONICAL_READ_H

#include <stdlib.h>

#include "_canonical_number.h"
#include "_json_text.h"

#define JC_MAX_DEPTH 512
#define JC_FEW 24 /* records that need no allocation */

/* Order of two decoded names: below, at or above 0. */
static inline int jc_order(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* ### Objects and members ### */

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

/* ### Tokens ### */

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

/* ### Members ### */

/* Decodes the name [p, quote) into the new member. All names together are no longer than the text.
 */
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

/* ### Order ### */

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

/* ### Containers ### */

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

/* A value has ended before p: closes what closes here, and returns the first byte of the next
 * value, or of what is behind the outermost one when nothing is open any more. NULL: broken. */
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

#endif
