/* JSON Merge Patch (RFC 7396) on compact JSON texts, without building values. Plain C11 without
 * Python, so that a fuzzer compiles the same code.
 *
 * Both texts have passed js_scan (json_scan.h): they are valid, compact, and no object has a name
 * twice. What a patch says about a target is decided object by object, so only the patch is taken
 * apart: one pass makes a node of each member of each object that lies in objects only (a merge
 * never looks into an array), in the order of the text. The children of a node follow it, and
 * `next` leads past its subtree.
 *
 * Then the target is read once, from left to right. At each of its members the patch is asked:
 * unknown there, it is copied; null there, it is dropped; an object there, the merge descends
 * without leaving its place in the target; else it is replaced. What the patch has and the target
 * has not follows at the end of the object, in the order of the patch, without its nulls.
 *
 * Names are compared in the inner spelling (_json_text.h), as "\u0061" and "a" are one name; a
 * name without backslash is its own. Objects of the patch with more than JM_LINEAR members get an
 * index under the seeded hash, so no pair of texts costs more than O(target + patch).
 *
 * The result never exceeds target + patch. The recursion is as deep as the patch, which js_scan
 * holds to JS_MAX_DEPTH; a frame takes some 150 bytes.
 */
#ifndef SYNCBRIDGE_JSON_MERGE_H
#define SYNCBRIDGE_JSON_MERGE_H

#include <stdlib.h>

#include "_json_hash.h"
#include "_json_text.h"

#define JM_LINEAR 8
#define JM_MAX_DEPTH 512

typedef struct {
    const uint8_t *key, *value; /* key: body of the string, as it was sent */
    const uint8_t *name;        /* inner spelling of the key */
    uint32_t key_len, name_len;
    uint32_t value_len;
    uint32_t next;     /* the node after this subtree */
    uint32_t children; /* of an object */
    uint32_t hash;
    uint8_t is_object, is_null;
    uint8_t nulls; /* an object that holds a null somewhere, so that it is not copied as a whole */
    uint8_t used;
} jm_node;

typedef struct {
    const uint8_t *end; /* of the patch, while it is parsed; of the target after that */
    jm_node *nodes;     /* 0: the patch itself */
    uint32_t count, room;
    uint8_t *names, *names_end; /* inner spellings that are not in the patch */
    uint8_t *spelled;           /* the one of the target's name under the eye */
    size_t patch_len, target_len;
    int no_memory;
} jm_merger;

/* ### Reading compact text ### */

/* The closing quote of the string whose body begins at p. */
static inline const uint8_t *jm_string_end(const uint8_t *p, const uint8_t *end, int *escaped)
{
    while ((p = js_skip_plain(p, end)) < end && *p != '"') {
        if (*p == '\\') {
            *escaped = 1;
            p++;
        }
        p++;
    }
    return p;
}

/* The byte after the value at p. */
static const uint8_t *jm_skip(const uint8_t *p, const uint8_t *end)
{
    size_t depth = 0;
    int escaped = 0;
    while (p < end) {
        switch (*p) {
        case '"':
            p = jm_string_end(p + 1, end, &escaped) + 1;
            break;
        case '{':
        case '[':
            depth++, p++;
            continue;
        case '}':
        case ']':
            depth--, p++;
            break;
        case ',':
        case ':':
            p++;
            continue;
        default:
            while (p < end && *p != ',' && *p != '}' && *p != ']')
                p++;
        }
        if (!depth)
            break;
    }
    return p;
}

static inline uint8_t *jm_put(uint8_t *to, const uint8_t *p, size_t len)
{
    memcpy(to, p, len);
    return to + len;
}

/* ### The patch as nodes ### */

static uint32_t jm_add(jm_merger *m)
{
    if (m->count == m->room) {
        uint32_t room = m->room ? m->room * 2 : 16;
        jm_node *nodes = realloc(m->nodes, room * sizeof *nodes);
        if (!nodes) {
            m->no_memory = 1;
            return 0;
        }
        m->nodes = nodes;
        m->room = room;
    }
    memset(&m->nodes[m->count], 0, sizeof *m->nodes);
    return m->count++;
}

/* Reads `"key":` at p into a new node; the byte after it is returned, NULL without memory. */
static const uint8_t *jm_key(jm_merger *m, const uint8_t *p, uint32_t *node)
{
    int escaped = 0, nul = 0;
    size_t raw;
    const uint8_t *quote = jm_string_end(p + 1, m->end, &escaped);
    jm_node *n;
    *node = jm_add(m);
    if (m->no_memory)
        return NULL;
    n = &m->nodes[*node];
    n->key = n->name = p + 1;
    n->key_len = n->name_len = (uint32_t)(quote - p - 1);
    if (escaped) {
        /* All spellings together are no longer than the patch. */
        if (!m->names && !(m->names = m->names_end = malloc(m->patch_len))) {
            m->no_memory = 1;
            return NULL;
        }
        n->name = m->names_end;
        m->names_end = js_canonical(m->names_end, p + 1, quote, &raw, &nul);
        n->name_len = (uint32_t)(m->names_end - n->name);
    }
    return quote + 2;
}

/* A value has ended before p: notes it in its node, and in the object around it. */
static void jm_end_value(jm_merger *m, uint32_t node, const uint8_t *p, const uint32_t *open,
                         size_t depth)
{
    jm_node *n = &m->nodes[node];
    n->value_len = (uint32_t)(p - n->value);
    n->next = m->count;
    if (depth) {
        jm_node *parent = &m->nodes[open[depth - 1]];
        parent->children++;
        parent->nulls |= n->is_null | n->nulls;
    }
}

/* Takes the patch apart. Everything that can be open at once fits `open`. */
static void jm_parse(jm_merger *m, const uint8_t *p)
{
    uint32_t open[JM_MAX_DEPTH], node = jm_add(m);
    size_t depth = 0;
    while (!m->no_memory) {
        jm_node *n = &m->nodes[node];
        n->value = p;
        n->is_object = *p == '{';
        n->is_null = *p == 'n';
        if (n->is_object && p[1] != '}') {
            open[depth++] = node;
            if (!(p = jm_key(m, p + 1, &node)))
                return;
            continue;
        }
        p = n->is_object ? p + 2 : jm_skip(p, m->end);
        jm_end_value(m, node, p, open, depth);
        while (depth && *p == '}') {
            node = open[--depth];
            jm_end_value(m, node, ++p, open, depth);
        }
        if (!depth)
            return;
        if (!(p = jm_key(m, p + 1, &node)))
            return;
    }
}

/* ### Looking up ### */

/* Slots with node numbers of an object's children, 0 for free; NULL for few or without memory. */
static uint32_t *jm_index(jm_merger *m, uint32_t object, uint32_t *mask)
{
    jm_node *nodes = m->nodes;
    uint32_t size = 32, *slots;
    if (nodes[object].children <= JM_LINEAR)
        return NULL;
    while (size < nodes[object].children * 2)
        size *= 2;
    if (!(slots = calloc(size, sizeof *slots))) {
        m->no_memory = 1;
        return NULL;
    }
    *mask = size - 1;
    for (uint32_t i = object + 1; i < nodes[object].next; i = nodes[i].next) {
        uint32_t slot;
        nodes[i].hash = (uint32_t)js_hash(nodes[i].name, nodes[i].name_len);
        for (slot = nodes[i].hash & *mask; slots[slot]; slot = (slot + 1) & *mask) {}
        slots[slot] = i;
    }
    return slots;
}

static inline int jm_is(const jm_node *n, const uint8_t *name, size_t len)
{
    return n->name_len == len && memcmp(n->name, name, len) == 0;
}

/* The child of `object` with that inner name, or 0. */
static uint32_t jm_find(const jm_merger *m, uint32_t object, const uint32_t *slots, uint32_t mask,
                        const uint8_t *name, size_t len)
{
    const jm_node *nodes = m->nodes;
    uint32_t hash, slot;
    if (!slots) {
        for (uint32_t i = object + 1; i < nodes[object].next; i = nodes[i].next)
            if (jm_is(&nodes[i], name, len))
                return i;
        return 0;
    }
    hash = (uint32_t)js_hash(name, len);
    for (slot = hash & mask; slots[slot]; slot = (slot + 1) & mask)
        if (nodes[slots[slot]].hash == hash && jm_is(&nodes[slots[slot]], name, len))
            return slots[slot];
    return 0;
}

/* ### Writing ### */

static uint8_t *jm_put_new(const jm_merger *m, uint8_t *to, uint32_t node);

/* `"key":value` of a node, behind a comma unless it is the first of its object. */
static uint8_t *jm_put_node(const jm_merger *m, uint8_t *to, uint32_t node)
{
    const jm_node *n = &m->nodes[node];
    if (to[-1] != '{')
        *to++ = ',';
    to = jm_put(to, n->key - 1, (size_t)n->key_len + 3);
    return jm_put_new(m, to, node);
}

/* The value of a node where the target has none: the patch applied to an empty object. */
static uint8_t *jm_put_new(const jm_merger *m, uint8_t *to, uint32_t node)
{
    const jm_node *n = &m->nodes[node];
    if (!n->nulls)
        return jm_put(to, n->value, n->value_len);
    *to++ = '{';
    for (uint32_t i = node + 1; i < n->next; i = m->nodes[i].next)
        if (!m->nodes[i].is_null)
            to = jm_put_node(m, to, i);
    *to++ = '}';
    return to;
}

static uint8_t *jm_merge(jm_merger *m, uint8_t *to, const uint8_t **at, uint32_t node);

/* The member of the target at *at, as the patch's `object` wants it; *at moves behind it. */
static uint8_t *jm_member(jm_merger *m, uint8_t *to, const uint8_t **at, uint32_t object,
                          const uint32_t *slots, uint32_t mask)
{
    const uint8_t *p = *at, *name = p + 1, *quote, *value;
    int escaped = 0, nul = 0;
    size_t len, raw;
    uint32_t node;
    quote = jm_string_end(name, m->end, &escaped);
    value = quote + 2;
    len = (size_t)(quote - name);
    if (escaped) {
        if (!m->spelled && !(m->spelled = malloc(m->target_len))) {
            m->no_memory = 1;
            *at = m->end;
            return to;
        }
        len = (size_t)(js_canonical(m->spelled, name, quote, &raw, &nul) - m->spelled);
        name = m->spelled;
    }
    node = jm_find(m, object, slots, mask, name, len);
    if (node)
        m->nodes[node].used = 1;
    if (node && m->nodes[node].is_null) {
        *at = jm_skip(value, m->end);
        return to;
    }
    if (to[-1] != '{')
        *to++ = ',';
    if (!node) {
        *at = jm_skip(value, m->end);
        return jm_put(to, p, (size_t)(*at - p));
    }
    to = jm_put(to, p, (size_t)(value - p));
    *at = value;
    return jm_merge(m, to, at, node);
}

/* The value of the target at *at merged with a node of the patch; *at moves behind it. */
static uint8_t *jm_merge(jm_merger *m, uint8_t *to, const uint8_t **at, uint32_t node)
{
    uint32_t mask = 0, *slots;
    const uint8_t *p = *at;
    if (!m->nodes[node].is_object || *p != '{') {
        *at = jm_skip(p, m->end);
        return jm_put_new(m, to, node);
    }
    slots = jm_index(m, node, &mask);
    *to++ = '{';
    for (p++; p < m->end && *p != '}' && !m->no_memory; p += p < m->end && *p == ',')
        to = jm_member(m, to, &p, node, slots, mask);
    free(slots);
    for (uint32_t i = node + 1; i < m->nodes[node].next; i = m->nodes[i].next)
        if (!m->nodes[i].used && !m->nodes[i].is_null)
            to = jm_put_node(m, to, i);
    *to++ = '}';
    *at = p + 1;
    return to;
}

/* Writes the merge of two valid compact texts to `out`, which has room for both; its length is
 * returned, 0 when memory ran out. `target_len` 0: there is no target. */
static size_t jm_merge_patch(const uint8_t *target, size_t target_len, const uint8_t *patch,
                             size_t patch_len, uint8_t *out)
{
    jm_merger m;
    uint8_t *to = out;
    memset(&m, 0, sizeof m);
    m.patch_len = patch_len;
    m.target_len = target_len;
    m.end = patch + patch_len;
    jm_parse(&m, patch);
    m.end = target + target_len;
    if (!m.no_memory)
        to = target_len ? jm_merge(&m, out, &target, 0) : jm_put_new(&m, out, 0);
    free(m.nodes);
    free(m.names);
    free(m.spelled);
    return m.no_memory ? 0 : (size_t)(to - out);
}

#endif
