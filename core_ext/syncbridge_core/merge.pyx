# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False
"""Putting changes together: JSON Merge Patch, three-way merge, composition of change sets.

All three work on bytes and on top of `document`: texts are validated there, and a whole state is
compared with a replica by its `diff`, which is where the time goes.

*Three-way merge* without the base. A server that keeps no old states still knows two things about
the state that a client started from: which keys it has changed since, and an *imprint* of what
each of these was. The imprint of a value is its canonical form where that is short, else 64 bits of
its SHA-1 (a device can only fool its own merge with a collision), so another spelling of the value
has the same. For each key that differs:

* the server has not changed it: then the client has, and its value is right;
* the client's value has the imprint of the base: then only the server has changed it;
* else both have: the key is contested, and the client's value is proposed.

A change set is `(sets, deletes)`: a flat `[key, value, ...]` list and a list of keys. No key is in
both of its halves; deletes come before sets.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from syncbridge_core.canonical import UNKNOWN as _UNKNOWN
from syncbridge_core.canonical import imprint
from syncbridge_core.document import DEFAULT_LIMITS as _DEFAULT
from syncbridge_core.document import DocumentError, DocumentLimits, compact

cdef extern from "json_merge.h" nogil:
    uint64_t[2] js_seed
    size_t jm_merge_patch(
        const uint8_t *target, size_t target_len, const uint8_t *patch, size_t patch_len,
        uint8_t *out)

# Stored text was held to narrower limits when it came in.
STORED = DocumentLimits(
    max_bytes=0x7FFFFFFF, max_value_bytes=0x7FFFFFFF, max_depth=512, max_number_bytes=0x7FFFFFFF
)

_seed = os.urandom(16)
memcpy(js_seed, PyBytes_AS_STRING(_seed), 16)
del _seed


def merge_patch(bytes value not None, patch, limits=_DEFAULT):
    """Apply a JSON Merge Patch (RFC 7396) to one JSON value; O(len(value) + len(patch)).

    `value` is stored text, b"" for none; it only has to be JSON. `patch` is held to `limits`, and
    so is the size of the result (`max_value_bytes`). Members keep their place and spelling, new
    ones follow in the order of the patch. Raises DocumentError.
    """
    cdef bytes change = compact(patch, limits)
    cdef bytes target = compact(value, STORED) if value else b""
    cdef bytes out = PyBytes_FromStringAndSize(
        NULL, PyBytes_GET_SIZE(target) + PyBytes_GET_SIZE(change)
    )
    cdef size_t size = jm_merge_patch(
        <const uint8_t *>PyBytes_AS_STRING(target), <size_t>PyBytes_GET_SIZE(target),
        <const uint8_t *>PyBytes_AS_STRING(change), <size_t>PyBytes_GET_SIZE(change),
        <uint8_t *>PyBytes_AS_STRING(out),
    )
    if size == 0:
        raise MemoryError()
    if size > <size_t>limits.max_value_bytes:
        raise DocumentError("too_large", 413, "value is too large")
    return out[:size]


def compose(first, second):
    """One change set that does what `first` and then `second` do. O(size).

    Keys stand where they stood first.
    """
    cdef dict merged = {}
    add_changes(merged, first)
    add_changes(merged, second)
    sets = []
    deletes = []
    for key, value in merged.items():
        if value is None:
            deletes.append(key)
        else:
            sets.append(key)
            sets.append(value)
    return sets, deletes


cdef int add_changes(dict merged, tuple change) except -1:
    cdef list sets = list(change[0])
    cdef Py_ssize_t i
    if len(sets) % 2:
        raise ValueError("a flat list of keys and values has an even length")
    for key in change[1]:
        merged[key] = None
    for i in range(0, len(sets), 2):
        merged[sets[i]] = sets[i + 1]
    return 0


def merge3(server, client, base, complete=False):
    """What a client changed since its base, as far as the server's present state has it otherwise.

    `server` is a Doc, `client` a Split. `base` has an imprint of the old value of each key that the
    server has changed since. Keys that the client does not have count as deleted only if `complete`
    says that it sent everything.

    Returns `(sets, deletes, contested, unknown)`: the client's changes, which of these keys the
    server changed too, and for which of those nothing is known of the base. O(size).
    """
    cdef list differing, absent, sets = [], deletes = [], contested = [], unknown = []
    cdef Py_ssize_t i
    differing, absent = server.diff(client)
    for i in range(0, len(differing), 2):
        if is_change(base, differing[i], differing[i + 1], contested, unknown):
            sets.append(differing[i])
            sets.append(differing[i + 1])
    if complete:
        deletes = [key for key in absent if is_change(base, key, None, contested, unknown)]
    return sets, deletes, contested, unknown


cdef bint is_change(object base, bytes key, bytes value, list contested, list unknown) except -1:
    """Whether the client has changed a key in which it differs from the server."""
    was = base.get(key)
    if was is None:
        return True
    if was == _UNKNOWN:
        unknown.append(key)
    elif was == imprint(value):
        return False
    contested.append(key)
    return True
