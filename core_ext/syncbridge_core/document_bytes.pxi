"""Included by document.pyx: errors, limits, and the way between C text and Python bytes."""


# ### Errors and limits ###


class DocumentError(ValueError):
    """Input that is not acceptable.

    `code` is a catalogue code, `status` an HTTP status hint, `where` names the byte offset and, if
    there is one, the top-level key.
    """

    def __init__(self, code, status, message, where=""):
        super().__init__(f"{message} ({where})" if where else message)
        self.code = code
        self.status = status
        self.where = where


cdef dict CODES = {
    <int>JS_INVALID_JSON: ("invalid_json", 400),
    <int>JS_TOO_DEEP: ("too_deep", 400),
    <int>JS_NUMBER_RANGE: ("number_range", 422),
    <int>JS_DUPLICATE_KEY: ("duplicate_key", 422),
    <int>JS_INVALID_KEY: ("invalid_key", 422),
    <int>JS_RESERVED_KEY: ("reserved_key", 422),
    <int>JS_TOO_LARGE: ("too_large", 413),
    <int>JS_TOO_MANY_KEYS: ("too_many_keys", 413),
    <int>JS_NOT_AN_OBJECT: ("invalid_field", 422),
}

cdef dict KINDS = {
    ord("["): "array", ord('"'): "string", ord("t"): "boolean", ord("f"): "boolean",
    ord("n"): "null",
}


cdef object scan_error(const uint8_t *data, const js_result *result):
    """The exception for a failed scan."""
    cdef Py_ssize_t shown = min(result.key_len, <size_t>SHOWN_KEY_BYTES)
    cdef bytes key
    if result.code == JS_NO_MEMORY:
        return MemoryError()
    code, status = CODES[<int>result.code]
    message = result.why.decode("ascii")
    where = f"byte {result.at}"
    if result.key_len:
        key = PyBytes_FromStringAndSize(<const char *>data + result.key_at, shown)
        where = f'key "{key.decode("utf-8", "replace")}", {where}'
    if result.code == JS_NOT_AN_OBJECT:
        message += ", got " + KINDS.get(data[result.at], "number")
    return DocumentError(code, status, message, where)


@cython.final
cdef class DocumentLimits:
    """Bounds for one document, in bytes. Immutable.

    Raises ValueError for a bound below 1, a depth above 512 or a size above 2^31 - 1.
    """

    def __cinit__(
        self,
        *,
        size_t max_bytes=1048576,
        size_t max_keys=2000,
        size_t max_key_bytes=256,
        size_t max_value_bytes=262144,
        size_t max_depth=64,
        size_t max_number_bytes=64,
    ):
        self.c.max_bytes = max_bytes
        self.c.max_keys = max_keys
        self.c.max_key_bytes = max_key_bytes
        self.c.max_value_bytes = max_value_bytes
        self.c.max_depth = max_depth
        self.c.max_number_bytes = max_number_bytes
        if max_depth > JS_MAX_DEPTH or max_bytes > MAX_TEXT or max_keys > MAX_TEXT:
            raise ValueError("limit is too large")
        if not (max_bytes and max_keys and max_key_bytes and max_value_bytes and max_depth
                and max_number_bytes):
            raise ValueError("limit is zero")

    @property
    def max_bytes(self):
        return self.c.max_bytes

    @property
    def max_keys(self):
        return self.c.max_keys

    @property
    def max_key_bytes(self):
        return self.c.max_key_bytes

    @property
    def max_value_bytes(self):
        return self.c.max_value_bytes

    @property
    def max_depth(self):
        return self.c.max_depth

    @property
    def max_number_bytes(self):
        return self.c.max_number_bytes


DEFAULT_LIMITS = DocumentLimits()
cdef DocumentLimits _DEFAULT = DEFAULT_LIMITS

_seed = os.urandom(16)
memcpy(js_seed, PyBytes_AS_STRING(_seed), 16)
del _seed


# ### Bytes and pointers ###

cdef inline const uint8_t *ptr(bytes text) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(text)


cdef inline size_t size_of(bytes text) noexcept:
    return <size_t>PyBytes_GET_SIZE(text)


cdef inline bytes copy_of(const uint8_t *p, size_t size):
    return PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>size)


cdef inline bytes room_for(size_t size):
    """Bytes to be written before anybody else sees them."""
    return PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)


cdef inline bytes raw_key(const uint8_t *inner, size_t size):
    """The key of an inner spelling."""
    cdef bytes raw = copy_of(inner, size)
    cdef const uint8_t *begin = ptr(raw)
    if memchr(inner, 0x5C, size) == NULL:
        return raw
    return raw[:js_unescape(<uint8_t *>begin, inner, size) - begin]


cdef inline bytes inner_key(bytes raw):
    """The inner spelling of a key; itself if nothing is escaped."""
    cdef size_t size = js_inner_size(ptr(raw), size_of(raw))
    if size == size_of(raw):
        return raw
    cdef bytes inner = room_for(size)
    js_escape(<uint8_t *>ptr(inner), ptr(raw), size_of(raw))
    return inner


cdef inline bint is_utf8(bytes text) noexcept:
    return js_is_utf8(ptr(text), ptr(text) + size_of(text))


cdef tuple flat_bytes(object items):
    """A snapshot of the items; TypeError unless all are bytes."""
    cdef tuple snapshot = tuple(items)
    for item in snapshot:
        if not isinstance(item, bytes):
            raise TypeError(f"bytes are expected, got {type(item).__name__}")
    return snapshot


cdef tuple flat_pairs(object items):
    cdef tuple snapshot = flat_bytes(items)
    if len(snapshot) % 2:
        raise ValueError("a flat list of keys and values has an even length")
    return snapshot


cdef size_t pairs_size(tuple flat) except? 0:
    """Bytes of the members of `[key, value, ...]`, without commas."""
    cdef size_t size = 0
    cdef Py_ssize_t i
    for i in range(0, len(flat), 2):
        size += js_inner_size(ptr(<bytes>flat[i]), size_of(<bytes>flat[i])) + 3
        size += size_of(<bytes>flat[i + 1])
    if size + len(flat) // 2 + 2 > MAX_TEXT:
        raise DocumentError("too_large", 413, "document is too large")
    return size


# ### Entries as Python objects ###

cdef inline uint32_t find(dt_table *t, dt_text text, bytes inner) noexcept:
    cdef uint32_t hash = <uint32_t>js_hash(ptr(inner), size_of(inner))
    return dt_find(t, text, ptr(inner), size_of(inner), hash)


cdef inline bytes key_of(dt_text text, const dt_entry *e):
    return raw_key(dt_key(text, e), e.key_len - 1)


cdef inline bytes value_of(dt_text text, const dt_entry *e):
    return copy_of(dt_value(text, e), e.value_len)


cdef object value_or_none(dt_table *t, dt_text text, bytes inner):
    cdef uint32_t number = find(t, text, inner)
    return None if number == DT_NONE else value_of(text, &t.entries[number])


cdef int add_pair(list flat, dt_text text, const dt_entry *e) except -1:
    flat.append(key_of(text, e))
    flat.append(value_of(text, e))
    return 0


cdef list pairs_of(dt_table *t, dt_text text, object newer_than):
    """`(key, value)` of the live entries, of those above a version if one is given."""
    cdef uint64_t least = 0 if newer_than is None else <uint64_t>newer_than + 1
    cdef list pairs = []
    cdef uint32_t i
    for i in range(t.used):
        if t.entries[i].key_len and t.entries[i].version >= least:
            pairs.append((key_of(text, &t.entries[i]), value_of(text, &t.entries[i])))
    return pairs


# ### Scanning ###

cdef bytes scan(object data, DocumentLimits limits, dt_table *members):
    """Compact text of `data`, its members entered in `members`; see js_scan."""
    cdef Py_buffer view
    cdef js_result result
    cdef PyObject *out = NULL
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        out = new_bytes(NULL, view.len if <size_t>view.len <= limits.c.max_bytes else 0)
        if js_scan(<const uint8_t *>view.buf, <size_t>view.len, &limits.c,
                   <uint8_t *>bytes_at(out), members, &result) != JS_OK:
            raise scan_error(<const uint8_t *>view.buf, &result)
        if result.same:
            if type(data) is bytes and <size_t>view.len == result.out_len:
                return <bytes>data
            return copy_of(<const uint8_t *>view.buf, result.out_len)
        _PyBytes_Resize(&out, <Py_ssize_t>result.out_len)
        return <bytes>out
    finally:
        PyBuffer_Release(&view)
        if out != NULL:
            Py_DECREF(out)
