/* Duplicate names in nested objects.
 *
 * RFC 7493 section 2.3 forbids equal names in one object, at every level, after escapes are
 * undone. Parsers disagree on which of two equal names wins, so letting one through would let two
 * devices see different states.
 *
 * Almost every nested object has a handful of members. So the names of the open objects lie on one
 * stack, innermost on top; a new name is compared with those of its own object: first length and
 * first bytes as one 64-bit digest, then the rest. That is linear, so it ends at JS_NARROW names:
 * from there on the names of this object go to one hash table for all wide objects, keyed by
 * (scope, name) under the seeded hash. Every object gets a fresh scope number, so nothing is ever
 * deleted from the table.
 *
 * Cost: O(1) expected a name. Memory: 24 bytes a name on the stack; 48 to 96 bytes a name of a
 * wide object, bounded by the input; all freed with the scan. No allocation below 48 open names.
 */
#ifndef SYNCBRIDGE_JSON_SCOPE_H
#define SYNCBRIDGE_JSON_SCOPE_H

#include <stdlib.h>

#include "_json_hash.h"

#define JS_NARROW 16
#define JS_STACK 48

typedef struct {
    uint64_t digest;
    const uint8_t *name;
    uint32_t len;
    uint32_t scope; /* in the table only; 0: free slot */
} js_name;

typedef struct {
    uint32_t first; /* of its names on the stack */
    uint32_t scope; /* not 0: its names are in the table */
} js_scope;

typedef struct {
    js_name *stack;
    uint32_t used, room;
    js_name *table;
    uint32_t table_used, table_size;
    uint32_t scopes;
    js_name inplace[JS_STACK];
} js_names;

static inline void js_names_init(js_names *n)
{
    n->stack = n->inplace;
    n->used = 0;
    n->room = JS_STACK;
    n->table = NULL;
    n->table_used = n->table_size = n->scopes = 0;
}

static inline void js_names_free(js_names *n)
{
    if (n->stack != n->inplace)
        free(n->stack);
    free(n->table);
}

static inline js_scope js_scope_open(const js_names *n)
{
    js_scope scope = {n->used, 0};
    return scope;
}

static inline void js_scope_close(js_names *n, js_scope scope)
{
    n->used = scope.first;
}

/* Length and first eight bytes of a name; not a hash for tables. One masked load: the branches on
 * the length of each name would cost more than all the rest. `end` ends the readable bytes. */
static inline uint64_t js_digest(const uint8_t *name, size_t len, const uint8_t *end)
{
    uint64_t word;
    if (end - name < 8)
        return js_load_tail(name, len) ^ (uint64_t)len << 56;
    word = js_load64(name);
    return (len < 8 ? word & (((uint64_t)1 << 8 * len) - 1) : word) ^ (uint64_t)len << 56;
}

static inline int js_same_name(const js_name *a, uint64_t digest, const uint8_t *name, size_t len)
{
    return a->digest == digest && a->len == len && memcmp(a->name, name, len) == 0;
}

/* Slot of (scope, name): the one that holds it, or the free one where it belongs. */
static inline js_name *js_slot(
    js_name *table, uint32_t size, uint32_t scope, uint64_t digest, const uint8_t *name, size_t len)
{
    uint32_t slot = (uint32_t)digest & (size - 1);
    while (table[slot].scope
           && !(table[slot].scope == scope && js_same_name(&table[slot], digest, name, len)))
        slot = (slot + 1) & (size - 1);
    return &table[slot];
}

static int js_grow_table(js_names *n)
{
    uint32_t size = n->table_size ? n->table_size * 2 : 128;
    js_name *table = calloc(size, sizeof *table);
    if (!table)
        return 0;
    for (uint32_t i = 0; i < n->table_size; i++) {
        js_name *old = &n->table[i];
        if (old->scope)
            *js_slot(table, size, old->scope, old->digest, old->name, old->len) = *old;
    }
    free(n->table);
    n->table = table;
    n->table_size = size;
    return 1;
}

/* 1: new, 0: duplicate, -1: out of memory. */
static int js_add_wide(js_names *n, uint32_t scope, const uint8_t *name, size_t len)
{
    uint64_t digest = js_hash(name, len) + scope * 0x9E3779B97F4A7C15u;
    js_name *slot;
    if (n->table_used * 2 >= n->table_size && !js_grow_table(n))
        return -1;
    slot = js_slot(n->table, n->table_size, scope, digest, name, len);
    if (slot->scope)
        return 0;
    slot->digest = digest;
    slot->name = name;
    slot->len = (uint32_t)len;
    slot->scope = scope;
    n->table_used++;
    return 1;
}

/* Moves the names of an object from the stack to the table. */
static int js_widen(js_names *n, js_scope *scope)
{
    scope->scope = ++n->scopes;
    for (uint32_t i = scope->first; i < n->used; i++)
        if (js_add_wide(n, scope->scope, n->stack[i].name, n->stack[i].len) < 0)
            return -1;
    n->used = scope->first;
    return 1;
}

static int js_grow_stack(js_names *n)
{
    js_name *stack = malloc(2 * (size_t)n->room * sizeof *stack);
    if (!stack)
        return 0;
    memcpy(stack, n->stack, n->used * sizeof *stack);
    if (n->stack != n->inplace)
        free(n->stack);
    n->stack = stack;
    n->room *= 2;
    return 1;
}

/* Adds a name to an open object; `name` must stay where it is until the object is closed,
 * and is readable up to `end`. 1: new, 0: duplicate, -1: out of memory. */
static inline int js_add_name(
    js_names *n, js_scope *scope, const uint8_t *name, size_t len, const uint8_t *end)
{
    uint64_t digest;
    if (scope->scope)
        return js_add_wide(n, scope->scope, name, len);
    digest = js_digest(name, len, end);
    for (uint32_t i = scope->first; i < n->used; i++)
        if (js_same_name(&n->stack[i], digest, name, len))
            return 0;
    if (n->used - scope->first >= JS_NARROW)
        return js_widen(n, scope) < 0 ? -1 : js_add_wide(n, scope->scope, name, len);
    if (n->used == n->room && !js_grow_stack(n))
        return -1;
    n->stack[n->used++] = (js_name){digest, name, (uint32_t)len, 0};
    return 1;
}

#endif
