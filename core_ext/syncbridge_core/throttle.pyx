# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False
"""The speaking throttle, compiled: sends speaking changes no more often than needed.

The rules and why they hold stand in the pure twin, `syncbridge.kernels._throttle_py`. Here is how
they are stored. An entry belongs to the dict of its channel and to nobody else; it carries two
nodes, one for READY, WINDOW or RESTING and one for its lease. The four queues are rings of nodes
around a sentinel in the throttle, without reference counts.

Invariant. A node that is in a ring belongs to an entry that is in its channel's dict: `_forget` is
the only way out of the dict, and takes both nodes out first. So a pointer found in a ring is alive.

Entries are not known to the cyclic collector: a participant is `str` or `bytes`, which refer to
nothing, and the pointer to the channel is borrowed.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t

__all__ = ["CHANGED", "RESTED", "REST_WINDOWS", "Throttle"]


cdef enum:
    NONE = 0
    READY = 1
    WINDOW = 2
    RESTING = 3


cdef enum:
    C_CHANGED = 1
    C_RESTED = 2
    C_REST_WINDOWS = 4

CHANGED = C_CHANGED
RESTED = C_RESTED
REST_WINDOWS = C_REST_WINDOWS


cdef inline void ring(Node *node) noexcept nogil:
    node.prev = node
    node.next = node


cdef inline void unlink(Node *node) noexcept nogil:
    node.prev.next = node.next
    node.next.prev = node.prev
    ring(node)


cdef inline void append(Node *head, Node *node) noexcept nogil:
    node.prev = head.prev
    node.next = head
    head.prev.next = node
    head.prev = node


@cython.final
cdef class Channel:
    """A channel and its remembered participants."""


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Entry:
    """One participant of one channel."""

    def __cinit__(self):
        ring(&self.place)
        ring(&self.lease)
        self.place.entry = <void *> self
        self.lease.entry = <void *> self


@cython.final
cdef class Throttle:
    """Speaking states of the participants of many channels. Times in integer ms."""

    def __init__(
        self,
        int64_t interval_ms=250,
        int64_t clear_ms=2000,
        Py_ssize_t max_participants=1024,
        Py_ssize_t max_channels=65536,
    ):
        if self._channels is not None:
            raise RuntimeError("a throttle is made once")
        if min(interval_ms, clear_ms, max_participants, max_channels) < 1:
            raise ValueError("every argument must be at least 1")
        self.interval_ms = interval_ms
        self.clear_ms = clear_ms
        self.max_participants = max_participants
        self.max_channels = max_channels
        self._channels = {}

    def __cinit__(self):
        ring(&self._ready)
        ring(&self._windows)
        ring(&self._leases)
        ring(&self._resting)

    @property
    def channels(self):
        """Channels with held changes."""
        return len(self._channels)

    def report(self, channel, participant, bint speaking, int64_t now):
        """Take in a report, O(1). Not 0: a change can be handed out, CHANGED or RESTED."""
        cdef Channel known = <Channel> self._channels.get(channel)
        cdef Entry entry = None
        now = self._advance(now)
        if known is not None:
            entry = <Entry> known.entries.get(participant)
        if entry is None:
            if speaking:
                entry = self._admit(channel, known, participant)
            if entry is None:
                return 0
        unlink(&entry.lease)
        if speaking:
            entry.lease.due = now + self.clear_ms
            append(&self._leases, &entry.lease)
        self._want(entry, speaking, now)
        self._settle(entry, now)
        if entry.kind != READY:
            return 0
        return C_RESTED if entry.news else C_CHANGED

    def collect(self, int64_t now):
        """Return due changes: one batch for each channel, each participant at most once."""
        cdef Entry entry
        cdef Channel channel
        cdef list spoken = []
        now = self._advance(now)
        while self._leases.next != &self._leases and self._leases.next.due <= now:
            entry = <Entry> self._leases.next.entry
            unlink(&entry.lease)
            self._want(entry, False, now)
            self._settle(entry, now)
        while self._windows.next != &self._windows and self._windows.next.due <= now:
            entry = <Entry> self._windows.next.entry
            self._settle(entry, now)
        while self._resting.next != &self._resting and self._resting.next.due <= now:
            self._forget(<Entry> self._resting.next.entry)
        while self._ready.next != &self._ready:
            entry = <Entry> self._ready.next.entry
            channel = <Channel> entry.channel
            if channel.batch is None:
                channel.batch = []
                spoken.append(channel)
            channel.batch.append((entry.participant, True if entry.wanted else False))
            unlink(&entry.place)
            entry.told = entry.wanted
            entry.kind = WINDOW
            entry.place.due = now + self.interval_ms
            append(&self._windows, &entry.place)
        return [_closed(<Channel> item) for item in spoken]

    def next_due(self):
        """When `collect` next has work; None: time changes nothing."""
        cdef int64_t due = INT64_MAX
        if self._ready.next != &self._ready:
            return self._clock
        if self._windows.next != &self._windows:
            due = self._windows.next.due
        if self._leases.next != &self._leases:
            due = min(due, self._leases.next.due)
        if self._resting.next != &self._resting:
            due = min(due, self._resting.next.due)
        return None if due == INT64_MAX else due

    def drop(self, channel, participant=None):
        """Forget a participant or a channel without a word. How many were held."""
        cdef Channel known = <Channel> self._channels.get(channel)
        cdef list gone
        if known is None:
            return 0
        if participant is None:
            gone = list(known.entries.values())
        else:
            gone = [known.entries[participant]] if participant in known.entries else []
        for entry in gone:
            self._forget(<Entry> entry)
        return len(gone)

    def snapshot(self, channel):
        """The speakers, as last sent to listeners."""
        cdef Channel known = <Channel> self._channels.get(channel)
        cdef list speakers = []
        if known is not None:
            for entry in known.entries.values():
                if (<Entry> entry).told:
                    speakers.append((<Entry> entry).participant)
        return speakers

    cdef inline int64_t _advance(self, int64_t now) noexcept:
        if now > self._clock:
            self._clock = now
        return self._clock

    cdef Entry _admit(self, object channel, Channel known, object participant):
        """A new entry, or None over a bound."""
        cdef Entry entry
        if type(participant) is not str and type(participant) is not bytes:
            raise TypeError("a participant is str or bytes")
        if known is None:
            full = len(self._channels) >= self.max_channels
        else:
            full = len(known.entries) >= self.max_participants
        if full:
            self.refused += 1
            return None
        if known is None:
            known = Channel.__new__(Channel)
            known.id = channel
            known.entries = {}
            self._channels[channel] = known
        entry = Entry.__new__(Entry)
        entry.participant = participant
        entry.channel = <void *> known
        known.entries[participant] = entry
        self.held += 1
        return entry

    cdef inline void _want(self, Entry entry, bint speaking, int64_t now) noexcept:
        """Note what was reported, and whether it is news."""
        if entry.wanted == speaking:
            return
        entry.wanted = speaking
        entry.news = now >= entry.rested
        entry.rested = now + C_REST_WINDOWS * self.interval_ms

    cdef bint _settle(self, Entry entry, int64_t now) except -1:
        """Put an entry into the queue where it belongs at `now`, or forget it."""
        if entry.kind == WINDOW:
            if entry.place.due > now:
                return False
            unlink(&entry.place)
            entry.kind = NONE
        if entry.kind != READY and entry.wanted != entry.told:
            unlink(&entry.place)
            append(&self._ready, &entry.place)
            entry.kind = READY
        elif entry.kind == READY and entry.wanted == entry.told:
            unlink(&entry.place)
            entry.kind = NONE
        if entry.kind == NONE and not entry.told:
            self._rest(entry, now)
        return True

    cdef bint _rest(self, Entry entry, int64_t now) except -1:
        """Remember a quiet participant until rested; at once for one who is."""
        if entry.rested <= now:
            return self._forget(entry)
        entry.kind = RESTING
        entry.place.due = entry.rested
        append(&self._resting, &entry.place)
        return True

    cdef bint _forget(self, Entry entry) except -1:
        """Take an entry out of its queues and of its channel; an empty channel goes with it."""
        cdef Channel channel = <Channel> entry.channel
        unlink(&entry.place)
        unlink(&entry.lease)
        del channel.entries[entry.participant]
        self.held -= 1
        if not channel.entries:
            del self._channels[channel.id]
        return True


cdef tuple _closed(Channel channel):
    """Take the batch of a channel; the next one begins empty."""
    cdef list batch = channel.batch
    channel.batch = None
    return (channel.id, batch)
