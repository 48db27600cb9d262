"""Nodes, entries and the throttle: see throttle.pyx for what they mean."""

from libc.stdint cimport int64_t


cdef struct Node:
    Node *prev
    Node *next
    void *entry
    int64_t due


cdef class Channel:
    cdef object id
    cdef dict entries
    cdef list batch


cdef class Entry:
    cdef Node place
    cdef Node lease
    cdef void *channel
    cdef object participant
    cdef bint told
    cdef bint wanted
    cdef bint news
    cdef int kind
    cdef int64_t rested


cdef class Throttle:
    cdef readonly int64_t interval_ms
    cdef readonly int64_t clear_ms
    cdef readonly Py_ssize_t max_participants
    cdef readonly Py_ssize_t max_channels
    cdef readonly int64_t refused
    cdef readonly Py_ssize_t held
    cdef int64_t _clock
    cdef dict _channels
    cdef Node _ready
    cdef Node _windows
    cdef Node _leases
    cdef Node _resting

    cdef inline int64_t _advance(self, int64_t now) noexcept
    cdef Entry _admit(self, object channel, Channel known, object participant)
    cdef void _want(self, Entry entry, bint speaking, int64_t now) noexcept
    cdef bint _settle(self, Entry entry, int64_t now) except -1
    cdef bint _rest(self, Entry entry, int64_t now) except -1
    cdef bint _forget(self, Entry entry) except -1
