"""C side of `document`: the headers beside this file, as Cython sees them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "_json_hash.h" nogil:
    uint64_t[2] js_seed
    uint64_t js_hash(const uint8_t *p, size_t len)


cdef extern from "_json_text.h" nogil:
    const uint8_t *js_skip_plain(const uint8_t *p, const uint8_t *end)
    bint js_is_utf8(const uint8_t *p, const uint8_t *end)
    size_t js_inner_size(const uint8_t *p, size_t len)
    uint8_t *js_escape(uint8_t *to, const uint8_t *p, size_t len)
    uint8_t *js_put_member(
        uint8_t *to, const uint8_t *key, size_t len, const uint8_t *value, size_t value_len)
    uint8_t *js_unescape(uint8_t *to, const uint8_t *p, size_t len)


cdef extern from "document_table.h" nogil:
    const uint32_t DT_NONE

    ctypedef struct dt_entry:
        uint32_t offset
        uint32_t key_len
        uint32_t value_len
        uint32_t hash
        uint64_t version

    ctypedef struct dt_table:
        dt_entry *entries
        uint32_t *slots
        uint32_t used
        uint32_t room
        uint32_t live
        uint32_t slot_mask

    ctypedef struct dt_text:
        const uint8_t *base
        const uint8_t *tail
        size_t base_len

    void dt_free(dt_table *t)
    void dt_pack(dt_table *t)
    bint dt_reserve(dt_table *t, uint32_t more)
    const uint8_t *dt_key(dt_text text, const dt_entry *e)
    const uint8_t *dt_value(dt_text text, const dt_entry *e)
    size_t dt_member_len(const dt_entry *e)
    uint32_t dt_find(
        const dt_table *t, dt_text text, const uint8_t *key, size_t len, uint32_t hash)
    bint dt_same_member(dt_text a_text, const dt_entry *a, dt_text b_text, const dt_entry *b)
    uint32_t dt_match(
        const dt_table *t, dt_text text, const dt_entry *e, const uint8_t *key, uint32_t hint)
    dt_entry *dt_append(dt_table *t, uint32_t offset, size_t key_len, uint32_t hash)
    void dt_remove(dt_table *t, uint32_t number)
    size_t dt_rendered_len(const dt_table *t, size_t members_len)
    void dt_render(dt_table *t, dt_text text, uint8_t *out)
    size_t dt_render_since(const dt_table *t, dt_text text, uint64_t version, uint8_t *out)


cdef extern from "json_canonical.h" nogil:
    int jc_same(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)


cdef extern from "_json_scope.h" nogil:
    pass


cdef extern from "json_scan.h" nogil:
    const size_t JS_MAX_DEPTH

    ctypedef enum js_code:
        JS_OK
        JS_INVALID_JSON
        JS_TOO_DEEP
        JS_NUMBER_RANGE
        JS_DUPLICATE_KEY
        JS_INVALID_KEY
        JS_RESERVED_KEY
        JS_TOO_LARGE
        JS_TOO_MANY_KEYS
        JS_NOT_AN_OBJECT
        JS_NO_MEMORY

    ctypedef struct js_limits:
        size_t max_bytes
        size_t max_keys
        size_t max_key_bytes
        size_t max_value_bytes
        size_t max_depth
        size_t max_number_bytes

    ctypedef struct js_result:
        size_t out_len
        bint same
        js_code code
        const char *why
        size_t at
        size_t key_at
        size_t key_len

    js_code js_scan(
        const uint8_t *data, size_t len, const js_limits *limits, uint8_t *out,
        dt_table *members, js_result *result)


cdef class DocumentLimits:
    cdef js_limits c


cdef class Split:
    cdef dt_table table
    cdef bytes _text

    cdef dt_text text(self)


cdef class Doc:
    cdef dt_table table
    cdef bytes _text         # the document as last rendered; entries point into it
    cdef uint8_t *tail       # members written since
    cdef uint32_t tail_len, tail_room
    cdef size_t members_len  # of all members, without braces and commas
    cdef bint stale          # the text no longer is the document
    cdef bint foreign        # a key is not UTF-8
    cdef dict tombstones     # key -> version of its deletion, oldest first; None until needed
    cdef uint64_t floor      # since() knows nothing below this version
    cdef readonly uint64_t version
    cdef readonly str epoch

    cdef dt_text text(self)
    cdef int load(self, tuple flat) except -1
    cdef int make_room(self, tuple sets) except -1
    cdef int put(self, bytes key, bytes value, uint64_t version) except -1
    cdef int write(self, dt_entry *e, bytes inner, bytes value) except -1
    cdef int remove(self, bytes key, uint64_t version) except -1
    cdef int forget(self) except -1
    cdef int flatten(self) except -1
    cdef bytes changes_since(self, uint64_t version)
    cdef bytes deleted_since(self, uint64_t version)
    cdef uint32_t diff_sets(self, Split target, list sets, uint8_t *hit) except? 0xFFFFFFFF
    cdef list diff_deletes(self, const uint8_t *hit)
