/* The members of a document: an ordered array of entries, and an index over it.
 *
 * An entry says where `"key":value` stands in a text; the table never owns that text, so lookups
 * get it passed in, in two parts: `base` (a rendered document) and `tail` (what was written since).
 * Offsets count through base and then tail.
 * The order of the array is the order of the document. A deleted entry stays as a hole
 * (key_len 0) until the table is packed; lookups step over it.
 *
 * Up to DT_LINEAR entries are searched one by one, by hash; above that an open-addressing index of
 * entry numbers is built, at most two thirds full. Small documents are by far the most frequent,
 * and three keys cost 24 bytes each and nothing else.
 *
 * find: O(1) expected. append: O(1) amortised. pack: O(entries).
 */
#ifndef SYNCBRIDGE_DOCUMENT_TABLE_H
#define SYNCBRIDGE_DOCUMENT_TABLE_H

#include <stdlib.h>

#include "_json_hash.h"

#define DT_LINEAR 8
#define DT_NONE UINT32_MAX

typedef struct {
    uint32_t offset;    /* of the opening quote of the key */
    uint32_t key_len;   /* of the inner spelling, without quotes, plus one; 0: a hole */
    uint32_t value_len; /* the value begins at offset + key_len + 2 */
    uint32_t hash;      /* low half of js_hash(inner) */
    uint64_t version;   /* commit that wrote the value */
} dt_entry;

typedef struct {
    dt_entry *entries;
    uint32_t *slots; /* 0: free, else entry number + 1; NULL: linear search */
    uint32_t used;   /* entries in the array, holes included */
    uint32_t room;
    uint32_t live;
    uint32_t slot_mask;
} dt_table;

/* The text that entries point into. */
typedef struct {
    const uint8_t *base;
    const uint8_t *tail;
    size_t base_len;
} dt_text;

static inline const uint8_t *dt_member(dt_text text, const dt_entry *e)
{
    return e->offset < text.base_len ? text.base + e->offset
                                     : text.tail + (e->offset - text.base_len);
}

static inline const uint8_t *dt_key(dt_text text, const dt_entry *e)
{
    return dt_member(text, e) + 1;
}

static inline const uint8_t *dt_value(dt_text text, const dt_entry *e)
{
    return dt_member(text, e) + e->key_len + 2;
}

/* Bytes of `"key":value`. */
static inline size_t dt_member_len(const dt_entry *e)
{
    return (size_t)e->key_len + 2 + e->value_len;
}

static inline void dt_free(dt_table *t)
{
    free(t->entries);
    free(t->slots);
    memset(t, 0, sizeof *t);
}

static inline void dt_put_slot(dt_table *t, uint32_t number)
{
    uint32_t slot = t->entries[number].hash & t->slot_mask;
    while (t->slots[slot])
        slot = (slot + 1) & t->slot_mask;
    t->slots[slot] = number + 1;
}

/* Makes the index fit `room` entries. 0: out of memory, and the table is as it was. */
static inline int dt_index(dt_table *t, uint32_t room)
{
    uint32_t size = 16, *slots;
    if (room <= DT_LINEAR)
        return 1;
    while (size < room + room / 2)
        size *= 2;
    slots = calloc(size, sizeof *slots);
    if (!slots)
        return 0;
    free(t->slots);
    t->slots = slots;
    t->slot_mask = size - 1;
    for (uint32_t i = 0; i < t->used; i++)
        if (t->entries[i].key_len)
            dt_put_slot(t, i);
    return 1;
}

/* Squeezes the holes out; order is kept. The index is cleared and filled again in place. */
static inline void dt_pack(dt_table *t)
{
    uint32_t to = 0;
    if (t->live == t->used)
        return;
    for (uint32_t i = 0; i < t->used; i++)
        if (t->entries[i].key_len)
            t->entries[to++] = t->entries[i];
    t->used = to;
    if (!t->slots)
        return;
    memset(t->slots, 0, ((size_t)t->slot_mask + 1) * sizeof *t->slots);
    for (uint32_t i = 0; i < to; i++)
        dt_put_slot(t, i);
}

/* Room for `more` entries behind the used ones. 0: out of memory, nothing changed. */
static inline int dt_reserve(dt_table *t, uint32_t more)
{
    uint64_t want = (uint64_t)t->used + more, room = t->room ? t->room : 3;
    dt_entry *entries;
    if (want <= t->room)
        return 1;
    if (t->live < t->used / 2) {
        dt_pack(t);
        return dt_reserve(t, more);
    }
    while (room < want)
        room += room / 2 + 1;
    if (room > UINT32_MAX / 4)
        return 0;
    entries = realloc(t->entries, room * sizeof *entries);
    if (!entries)
        return 0;
    t->entries = entries;
    if (!dt_index(t, (uint32_t)room))
        return 0;
    t->room = (uint32_t)room;
    return 1;
}

static inline int dt_is(dt_text text, const dt_entry *e, const uint8_t *key, size_t len)
{
    return e->key_len == len + 1 && memcmp(dt_key(text, e), key, len) == 0;
}

/* Number of the entry with this inner key, or DT_NONE. */
static inline uint32_t dt_find(
    const dt_table *t, dt_text text, const uint8_t *key, size_t len, uint32_t hash)
{
    if (t->slots) {
        uint32_t slot = hash & t->slot_mask, number;
        for (; (number = t->slots[slot]) != 0; slot = (slot + 1) & t->slot_mask)
            if (t->entries[number - 1].hash == hash
                && dt_is(text, &t->entries[number - 1], key, len))
                return number - 1;
        return DT_NONE;
    }
    for (uint32_t i = 0; i < t->used; i++)
        if (t->entries[i].hash == hash && dt_is(text, &t->entries[i], key, len))
            return i;
    return DT_NONE;
}

/* Appends an entry whose key is new. Room was reserved; the caller fills value_len and version. */
static inline dt_entry *dt_append(dt_table *t, uint32_t offset, size_t key_len, uint32_t hash)
{
    dt_entry *e = &t->entries[t->used++];
    e->offset = offset;
    e->key_len = (uint32_t)key_len + 1;
    e->value_len = 0;
    e->hash = hash;
    e->version = 0;
    t->live++;
    if (t->slots)
        dt_put_slot(t, t->used - 1);
    return e;
}

/* The entry becomes a hole; its slot keeps pointing at it, so later probes step over. */
static inline void dt_remove(dt_table *t, uint32_t number)
{
    t->entries[number].key_len = 0;
    t->live--;
}

/* Do two entries spell the same member, key and value? */
static inline int dt_same_member(
    dt_text a_text, const dt_entry *a, dt_text b_text, const dt_entry *b)
{
    return a->hash == b->hash && a->key_len == b->key_len && a->value_len == b->value_len
           && memcmp(dt_member(a_text, a), dt_member(b_text, b), dt_member_len(a)) == 0;
}

/* Number of the entry of `t` equal in key to `e` of another table, or DT_NONE. `hint` is looked
 * at first: documents of one session keep their order, so it is nearly always right. */
static inline uint32_t dt_match(
    const dt_table *t, dt_text text, const dt_entry *e, const uint8_t *key, uint32_t hint)
{
    if (hint < t->used && t->entries[hint].hash == e->hash
        && dt_is(text, &t->entries[hint], key, e->key_len - 1))
        return hint;
    return dt_find(t, text, key, e->key_len - 1, e->hash);
}

/* Bytes of the members of a packed or unpacked table as one JSON object. */
static inline size_t dt_rendered_len(const dt_table *t, size_t members_len)
{
    return 2 + members_len + (t->live ? t->live - 1 : 0);
}

/* Writes the packed table as one JSON object to `out` and makes the entries point there. Members
 * that stand side by side in the base go over in one memcpy, their commas with them. */
static inline void dt_render(dt_table *t, dt_text text, uint8_t *out)
{
    size_t at = 1;
    out[0] = '{';
    for (uint32_t i = 0; i < t->used;) {
        dt_entry *e = &t->entries[i++];
        const uint8_t *from = dt_member(text, e);
        size_t start = e->offset, len = dt_member_len(e);
        e->offset = (uint32_t)at;
        for (; i < t->used && start + len + 1 < text.base_len; i++) {
            e = &t->entries[i];
            if (e->offset != start + len + 1)
                break;
            e->offset = (uint32_t)(at + len + 1);
            len += 1 + dt_member_len(e);
        }
        memcpy(out + at, from, len);
        at += len;
        out[at++] = ',';
    }
    out[t->used ? at - 1 : at] = '}';
}

/* Writes `"key":value` for each entry newer than `version`, as one JSON object; with out == NULL
 * only measures. The length is returned. */
static inline size_t dt_render_since(
    const dt_table *t, dt_text text, uint64_t version, uint8_t *out)
{
    size_t at = 1;
    for (uint32_t i = 0; i < t->used; i++) {
        const dt_entry *e = &t->entries[i];
        if (!e->key_len || e->version <= version)
            continue;
        if (out) {
            memcpy(out + at, dt_member(text, e), dt_member_len(e));
            out[at + dt_member_len(e)] = ',';
        }
        at += dt_member_len(e) + 1;
    }
    at += at == 1;
    if (out) {
        out[0] = '{';
        out[at - 1] = '}';
    }
    return at;
}

#endif
