# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False
"""Compares JSON values: canonical form, spelling and imprint of a JSON text.

What stands in Redis is the text as it was first spelled, and scripts there never parse JSON. So a
value whose imprint cannot be told from its text carries the imprint beside it, its *spelling*:
`b""` where the text is canonical and short enough to be hashed in a script, which is nearly always.
The rules are those of docs/decisions/0009; json_canonical.h has the work.

Texts are trusted, as they have passed `document`. What is not JSON is its own canonical form.
"""

from hashlib import sha1

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free

cdef extern from "json_canonical.h" nogil:
    bint jc_is_canonical(const uint8_t *p, size_t len)
    int jc_same(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
    bint jc_build(const uint8_t *text, size_t len, uint8_t **out, size_t *out_len)

cdef const char *HEX = b"0123456789abcdef"

cdef enum:
    SHORT = 24
    LONG = 2048

IMPRINT_SHORT = SHORT
IMPRINT_LONG = LONG
UNKNOWN = b"?"


cdef int same_value(
    const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len
) noexcept nogil:
    return jc_same(a, a_len, b, b_len)


def canonical(bytes text not None):
    """The canonical form of a JSON text: equal values, and only they, have the same. O(n log n).

    Raises MemoryError.
    """
    return text if jc_is_canonical(at(text), size_of(text)) else built(text)


def imprint(bytes text):
    """What stands for a value where values are compared; None for no value.

    b"" for no value; else "=" and the canonical form up to 24 bytes, the first 16 hexadecimal
    digits of its SHA-1 above.
    """
    return b"" if text is None else imprint_of(canonical(text))


def spelling(bytes text not None):
    """What has to stand beside a stored text: b"", or its imprint.

    b"" when the text is canonical and at most 2,048 bytes, so that a script can tell the imprint.
    """
    return b"" if stands_alone(text) else longer_spelling(text)


def spellings(flat):
    """The spelling of each value of `[key, value, ...]`; [] when all of them are b"".

    Raises ValueError for a list of odd length, TypeError for a value that is not bytes.
    """
    cdef list found = [], texts = flat if type(flat) is list else list(flat)
    cdef Py_ssize_t i, size = len(texts)
    cdef bytes text
    if size % 2:
        raise ValueError("a flat list of keys and values has an even length")
    for i in range(1, size, 2):
        if not isinstance(texts[i], bytes):
            raise TypeError(f"bytes are expected, got {type(texts[i]).__name__}")
        text = b"" if stands_alone(<bytes>texts[i]) else longer_spelling(<bytes>texts[i])
        if text and not found:
            found = [b""] * (i // 2)
        if text or found:
            found.append(text)
    return found


cdef inline const uint8_t *at(bytes text) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(text)


cdef inline size_t size_of(bytes text) noexcept:
    return <size_t>PyBytes_GET_SIZE(text)


cdef inline bint stands_alone(bytes text) noexcept:
    """Seen at a glance, for nearly every value, that its spelling is b""."""
    return size_of(text) <= LONG and jc_is_canonical(at(text), size_of(text))


cdef bytes longer_spelling(bytes text):
    """The spelling of a text that does not stand alone at first sight."""
    cdef bytes form
    if size_of(text) > LONG:
        return imprint_of(canonical(text))
    form = built(text)
    return b"" if form == text else imprint_of(form)


cdef bytes built(bytes text):
    """The canonical form, without asking first whether the text has it."""
    cdef uint8_t *own = NULL
    cdef size_t size = 0
    if not jc_build(at(text), size_of(text), &own, &size):
        raise MemoryError()
    if own == NULL:
        return text
    try:
        return PyBytes_FromStringAndSize(<const char *>own, <Py_ssize_t>size)
    finally:
        free(own)


cdef bytes imprint_of(bytes form):
    cdef bytes digest, found
    cdef char *to
    cdef int i
    if size_of(form) <= SHORT:
        return b"=" + form
    digest = sha1(form, usedforsecurity=False).digest()
    found = PyBytes_FromStringAndSize(NULL, 16)
    to = PyBytes_AS_STRING(found)
    for i in range(8):
        to[2 * i] = HEX[<uint8_t>digest[i] >> 4]
        to[2 * i + 1] = HEX[<uint8_t>digest[i] & 15]
    return found
