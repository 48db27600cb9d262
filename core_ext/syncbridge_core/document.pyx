# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False
"""JSON documents as bytes: validate, split, splice, render, diff.

A session's state is never turned into Python objects. Building and dumping those costs far more
than everything that is done with them, so this module keeps the text and an index over it.

Input is validated once, by `split` and `compact`, on the way in (json_scan.h): I-JSON (RFC 7493)
with limits, whitespace dropped, keys normalised so that `"\\u0061"` and `"a"` are one key. What
has passed is trusted from then on. A value keeps the spelling in which it came, and `diff` compares
by value (json_canonical.h).

A `Doc` stores the rendered document itself as its arena (`_text`) and one 24-byte entry a key that
says where the member stands (document_table.h). A commit does not touch the text: changed members
are written to a small tail, and their entries point there. `render` gathers text and tail into a
new text, one memcpy for each run of untouched neighbours, and drops the tail. The invariants:

* every live entry points at a whole `"key":value`, in the text or in the tail;
* `stale` is false exactly when the text is the document;
* `members_len` is the sum of the lengths of the live members;
* an entry's version is that of the last commit that set its key, and a key that was deleted after
  `floor` and is absent now has a tombstone.

The tail is at most half as long as the text (or TAIL_MIN): past that, a commit renders first. So a
commit costs O(changed members) amortised, a render O(keys) plus a copy of the bytes, and a second
render nothing. A replica of three short keys takes about 300 bytes; a replica up to eight keys has
no index.

Keys from Redis may be any bytes. They are stored as they are and found as they are; a
replica that holds one that is not UTF-8 is rendered on a slow path, with U+FFFD in place of what
is not UTF-8. Two such keys can then look alike; state written by this project has none.

Everything runs with the GIL held and without calling back into Python code.
"""

import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memcmp, memcpy

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *p, Py_ssize_t size) except NULL
    char *bytes_at "PyBytes_AS_STRING"(PyObject *text)
    int _PyBytes_Resize(PyObject **text, Py_ssize_t size) except -1
    void Py_DECREF(PyObject *o)

cdef enum:
    MAX_TOMBSTONES = 256
    TAIL_MIN = 256
    SHOWN_KEY_BYTES = 64

# Offsets are 32 bits wide and count through text and tail; each stays below half of that.
cdef size_t MAX_TEXT = 0x7FFFFFFF

cdef bytes EMPTY = b"{}"


include "document_bytes.pxi"


# ### Untrusted input ###

def split(data, DocumentLimits limits not None=DEFAULT_LIMITS):
    """Validate one JSON object and take it apart. O(len(data)).

    Raises DocumentError for bytes that are not I-JSON, exceed `limits`, or are not an object.
    """
    cdef Split members = Split.__new__(Split)
    members._text = scan(data, limits, &members.table)
    return members


def compact(data, DocumentLimits limits not None=DEFAULT_LIMITS):
    """Validate one JSON value of any type and return it without insignificant whitespace.

    `max_value_bytes` bounds the result, `max_bytes` the input. Raises DocumentError.
    """
    cdef bytes text = scan(data, limits, NULL)
    if size_of(text) > limits.c.max_value_bytes:
        raise DocumentError("too_large", 413, "value is too large")
    return text


@cython.final
@cython.no_gc
cdef class Split:
    """A validated object taken apart: keys unescaped, values compact."""

    def __cinit__(self):
        self._text = EMPTY

    def __dealloc__(self):
        dt_free(&self.table)

    @cython.linetrace(False)  # A trace would turn the result into Python, NULL included.
    @cython.profile(False)
    cdef dt_text text(self):
        return dt_text(ptr(self._text), NULL, size_of(self._text))

    @property
    def nbytes(self):
        """Length of `render()`."""
        return PyBytes_GET_SIZE(self._text)

    def __len__(self):
        return self.table.live

    def __contains__(self, bytes key not None):
        return find(&self.table, self.text(), inner_key(key)) != DT_NONE

    def __iter__(self):
        return iter([key for key, _ in self.items()])

    def get(self, bytes key not None):
        """The compact value, or None."""
        return value_or_none(&self.table, self.text(), inner_key(key))

    def items(self):
        """`[(key, value), ...]` in the order of the text."""
        return pairs_of(&self.table, self.text(), None)

    def flat(self):
        """`[key, value, key, value, ...]`, ready for HSET."""
        cdef list flat = []
        cdef dt_text text = self.text()
        cdef uint32_t i
        for i in range(self.table.used):
            add_pair(flat, text, &self.table.entries[i])
        return flat

    def render(self):
        """The object as compact JSON. O(1)."""
        return self._text


# ### Trusted text ###

def quote(bytes text not None):
    """UTF-8 bytes as a JSON string, quotes included; what is not UTF-8 becomes U+FFFD."""
    if not is_utf8(text):
        text = text.decode("utf-8", "replace").encode()
    cdef bytes quoted = room_for(js_inner_size(ptr(text), size_of(text)) + 2)
    js_put_member(<uint8_t *>ptr(quoted), ptr(text), size_of(text), NULL, 0)
    return quoted


def render_pairs(flat):
    """`[key, value, ...]` (an HGETALL reply) as one compact JSON object; values are trusted."""
    cdef tuple pairs = flat_pairs(flat)
    cdef bytes out, key, value
    cdef uint8_t *to
    cdef Py_ssize_t i
    for i in range(0, len(pairs), 2):
        if not is_utf8(<bytes>pairs[i]):
            return foreign_object([(pairs[j], pairs[j + 1]) for j in range(0, len(pairs), 2)])
    if not pairs:
        return EMPTY
    out = room_for(pairs_size(pairs) + len(pairs) // 2 + 1)
    to = <uint8_t *>ptr(out)
    for i in range(0, len(pairs), 2):
        key, value = <bytes>pairs[i], <bytes>pairs[i + 1]
        to[0] = b"," if i else b"{"
        to = js_put_member(to + 1, ptr(key), size_of(key), ptr(value), size_of(value))
    to[0] = b"}"
    return out


cdef bytes foreign_object(list pairs):
    """The slow path, for keys that are not UTF-8."""
    return b"{" + b",".join([quote(key) + b":" + value for key, value in pairs]) + b"}"


# ### Replica ###

@cython.final
@cython.no_gc
cdef class Doc:
    """A node's replica of one session's document, with the version at which each key changed.

    `version` and `epoch` are those of the last commit applied. Raises OverflowError for a version
    outside 0 .. 2^64 - 1.
    """

    def __cinit__(self, uint64_t version=0, str epoch not None=""):
        self._text = EMPTY
        self.version = self.floor = version
        self.epoch = epoch

    def __dealloc__(self):
        dt_free(&self.table)
        free(self.tail)

    def __sizeof__(self):
        """The object and its C memory, without the text, the epoch and the tombstones."""
        cdef size_t size = self.table.room * sizeof(dt_entry) + self.tail_room
        if self.table.slots != NULL:
            size += (<size_t>self.table.slot_mask + 1) * sizeof(uint32_t)
        return object.__sizeof__(self) + size

    @staticmethod
    def from_flat(flat, uint64_t version, str epoch not None):
        """Replica from an HGETALL reply. Changes before `version` are unknown to `since`.

        Values are trusted to be JSON. Of a key that occurs twice the last value stays. O(size).
        """
        cdef Doc doc = Doc.__new__(Doc, version, epoch)
        doc.load(flat_pairs(flat))
        return doc

    # ### Reading ###

    @property
    def nbytes(self):
        """Length of `render()`; with keys that are not UTF-8, before their replacement."""
        return dt_rendered_len(&self.table, self.members_len)

    def __len__(self):
        return self.table.live

    def __contains__(self, bytes key not None):
        return find(&self.table, self.text(), inner_key(key)) != DT_NONE

    def get(self, bytes key not None):
        """The compact value, or None. O(1)."""
        return value_or_none(&self.table, self.text(), inner_key(key))

    def items(self):
        """`[(key, value), ...]` in the order in which the keys first came."""
        return pairs_of(&self.table, self.text(), None)

    def render(self):
        """The whole document as compact JSON; cached until the next change."""
        if self.foreign:
            return foreign_object(self.items())
        self.flatten()
        return self._text

    def since(self, version):
        """`(changes object, deleted keys array)` as JSON text, or None when not known that far.

        Known are the versions from the oldest that tombstones reach back to, up to this one.
        O(keys) plus the size of the answer.
        """
        if not self.floor <= version <= self.version:
            return None
        return self.changes_since(version), self.deleted_since(version)

    def diff(self, Split target not None):
        """`(flat sets, deletes)` that turn this document into `target`.

        Equal values drop, however they are spelled. Sets come in the order of `target`, deletes in
        the order of this document. O(size); values that differ may have to be sorted.
        """
        cdef list sets = []
        cdef uint32_t hits
        cdef uint8_t *hit
        if not self.stale and self._text == target._text:
            return sets, []
        hit = <uint8_t *>calloc(self.table.used + 1, 1)
        if hit == NULL:
            raise MemoryError()
        try:
            hits = self.diff_sets(target, sets, hit)
            return sets, self.diff_deletes(hit) if hits < self.table.live else []
        finally:
            free(hit)

    cdef bytes changes_since(self, uint64_t version):
        cdef dt_text text = self.text()
        cdef bytes out
        if self.foreign:
            return foreign_object(pairs_of(&self.table, text, version))
        out = room_for(dt_render_since(&self.table, text, version, NULL))
        dt_render_since(&self.table, text, version, <uint8_t *>ptr(out))
        return out

    cdef bytes deleted_since(self, uint64_t version):
        if not self.tombstones:
            return b"[]"
        keys = [quote(key) for key, gone in self.tombstones.items() if gone > version]
        return b"[" + b",".join(keys) + b"]"

    cdef uint32_t diff_sets(self, Split target, list sets, uint8_t *hit) except? 0xFFFFFFFF:
        """Adds what `target` has otherwise; marks the entries that it has, and counts them."""
        cdef dt_text mine = self.text(), theirs = target.text()
        cdef const dt_entry *e
        cdef uint32_t i, number, hint = 0, hits = 0
        for i in range(target.table.used):
            e = &target.table.entries[i]
            # Documents of one session keep their order: most members stand where they stood.
            if hint < self.table.used and dt_same_member(
                mine, &self.table.entries[hint], theirs, e
            ):
                hit[hint] = 1
                hint += 1
                hits += 1
                continue
            number = dt_match(&self.table, mine, e, dt_key(theirs, e), hint)
            if number != DT_NONE:
                hint = number + 1
                hit[number] = 1
                hits += 1
                if equal_values(mine, &self.table.entries[number], theirs, e):
                    continue
            add_pair(sets, theirs, e)
        return hits

    cdef list diff_deletes(self, const uint8_t *hit):
        cdef dt_text text = self.text()
        cdef uint32_t i
        return [
            key_of(text, &self.table.entries[i])
            for i in range(self.table.used) if self.table.entries[i].key_len and not hit[i]
        ]

    @cython.linetrace(False)  # A trace would turn the result into Python, NULL included.
    @cython.profile(False)
    cdef dt_text text(self):
        return dt_text(ptr(self._text), self.tail, size_of(self._text))

    # ### Writing ###

    def apply(self, sets, deletes, prev_version, version):
        """Splice a commit in; `sets` is flat `[key, value, ...]`. True if it was applied.

        False, and nothing done, when `prev_version` is not this replica's version (a gap) or
        `version` is not above it. Deletes come before sets; a delete of an absent key is ignored.
        Raises DocumentError `too_large` above 2 GiB, OverflowError for a version above 2^64 - 1.
        """
        cdef tuple pairs = flat_pairs(sets), keys = flat_bytes(deletes)
        cdef Py_ssize_t i
        cdef uint64_t number
        if prev_version != self.version or version <= prev_version:
            return False
        number = version
        self.make_room(pairs)
        for i in range(len(keys)):
            self.remove(<bytes>keys[i], number)
        for i in range(0, len(pairs), 2):
            self.put(<bytes>pairs[i], <bytes>pairs[i + 1], number)
        self.version = number
        return True

    cdef int load(self, tuple flat) except -1:
        """Fills an empty replica: the members become its text at once."""
        cdef size_t size = pairs_size(flat)
        cdef uint32_t n = <uint32_t>(len(flat) // 2)
        if not dt_reserve(&self.table, n):
            raise MemoryError()
        self.tail = <uint8_t *>realloc(NULL, size + 1)
        if self.tail == NULL:
            raise MemoryError()
        self.tail_room = <uint32_t>size + 1
        for i in range(0, len(flat), 2):
            self.put(<bytes>flat[i], <bytes>flat[i + 1], self.version)
        return self.flatten()

    cdef int make_room(self, tuple sets) except -1:
        """Room for all of the commit, so that nothing fails in the middle of it."""
        cdef size_t need = self.tail_len + pairs_size(sets)
        cdef uint8_t *tail
        if need + dt_rendered_len(&self.table, self.members_len) > MAX_TEXT:
            raise DocumentError("too_large", 413, "document is too large")
        if self.tail_len and need > max(<size_t>TAIL_MIN, size_of(self._text) // 2):
            need -= self.tail_len
            self.flatten()
        if need > self.tail_room:
            need += need // 4
            tail = <uint8_t *>realloc(self.tail, need)
            if tail == NULL:
                raise MemoryError()
            self.tail = tail
            self.tail_room = <uint32_t>need
        if not dt_reserve(&self.table, <uint32_t>(len(sets) // 2)):
            raise MemoryError()
        return 0

    cdef int put(self, bytes key, bytes value, uint64_t version) except -1:
        cdef bytes inner = inner_key(key)
        cdef uint32_t hash = <uint32_t>js_hash(ptr(inner), size_of(inner))
        cdef dt_text text = self.text()
        cdef uint32_t number = dt_find(&self.table, text, ptr(inner), size_of(inner), hash)
        cdef dt_entry *e
        if number != DT_NONE:
            e = &self.table.entries[number]
            e.version = version
            if same_value(text, e, ptr(value), size_of(value)):
                return 0
            self.members_len -= dt_member_len(e)
        else:
            if self.tombstones is not None:
                self.tombstones.pop(key, None)
            self.foreign |= not is_utf8(key)
            e = dt_append(&self.table, DT_NONE, size_of(inner), hash)
            e.version = version
        self.stale = True
        self.write(e, inner, value)
        self.members_len += dt_member_len(e)
        return 0

    cdef int write(self, dt_entry *e, bytes inner, bytes value) except -1:
        """Writes the member into the tail: over its last one there if it fits, else behind."""
        cdef size_t base_len = size_of(self._text), size = size_of(inner)
        cdef uint8_t *to
        if e.offset < base_len or e.offset == DT_NONE or size_of(value) > e.value_len:
            e.offset = <uint32_t>(base_len + self.tail_len)
            self.tail_len += <uint32_t>(size + size_of(value) + 3)
        to = self.tail + (e.offset - base_len)
        to[0] = b'"'
        memcpy(to + 1, ptr(inner), size)
        memcpy(to + size + 1, <const char *>b'":', 2)
        memcpy(to + size + 3, ptr(value), size_of(value))
        e.value_len = <uint32_t>size_of(value)
        return 0

    cdef int remove(self, bytes key, uint64_t version) except -1:
        cdef uint32_t number = find(&self.table, self.text(), inner_key(key))
        if number == DT_NONE:
            return 0
        if self.tombstones is None:
            self.tombstones = {}
        self.tombstones[key] = version
        self.members_len -= dt_member_len(&self.table.entries[number])
        self.stale = True
        dt_remove(&self.table, number)
        return self.forget()

    cdef int forget(self) except -1:
        """Drops the oldest tombstones above the bound; since() ends where they begin."""
        while len(self.tombstones) > MAX_TOMBSTONES:
            self.floor = self.tombstones.pop(next(iter(self.tombstones)))
        return 0

    cdef int flatten(self) except -1:
        """Gathers text and tail into a new text."""
        cdef bytes fresh
        if not self.stale:
            return 0
        fresh = room_for(dt_rendered_len(&self.table, self.members_len))
        dt_pack(&self.table)
        dt_render(&self.table, self.text(), <uint8_t *>ptr(fresh))
        self._text = fresh
        free(self.tail)
        self.tail = NULL
        self.tail_len = self.tail_room = 0
        self.stale = False
        return 0


cdef inline bint same_value(
    dt_text text, const dt_entry *e, const uint8_t *value, size_t size
) noexcept:
    return e.value_len == size and memcmp(dt_value(text, e), value, size) == 0


cdef inline bint equal_values(
    dt_text a_text, const dt_entry *a, dt_text b_text, const dt_entry *b
) except -1:
    """By value, not by spelling."""
    cdef int same = jc_same(
        dt_value(a_text, a), a.value_len, dt_value(b_text, b), b.value_len
    )
    if same < 0:
        raise MemoryError()
    return same
