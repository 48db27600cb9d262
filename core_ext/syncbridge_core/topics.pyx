"""Topics and their members: what `publish` walks over.

What is stored. Each topic has one dense array of members, so that fan-out is a linear walk. Each
connection slot has one dense array of its subscriptions. The two point at each other by index.

Invariant. For every topic t and position p: with m = t.members[p] and s = by_slot[m.slot].items,
s[m.back] is (t, p). Removal moves the last entry into the hole in both arrays and repairs the two
back references of the entries that moved, so it is O(1) once the entry is known.

Finding the entry of (topic, slot) walks the shorter of the two arrays: a connection has a few
topics and a small topic a few members; the product of a service with thousands of topics and a
topic with thousands of members is the only slow case, and nobody has it.

A topic id is (generation << 24 | slot) and never comes back. A connection slot carries no
generation here: the owner calls `topics_forget` before it gives the slot to someone else.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

__all__ = ["TopicIndex"]


cdef enum:
    SMALLEST = 4
    NO_MEMORY = -1


cdef void *_grown(void *items, uint32_t *capacity, uint32_t needed, size_t size) noexcept nogil:
    """Room for `needed` items, at least doubling. NULL without memory; `items` stays valid."""
    cdef uint64_t wanted = capacity[0]
    cdef void *grown
    if wanted < SMALLEST:
        wanted = SMALLEST
    while wanted < needed:
        wanted *= 2
    if wanted == capacity[0]:
        return items
    grown = realloc(items, wanted * size)
    if grown != NULL:
        capacity[0] = <uint32_t>wanted
    return grown


cdef void topics_clear(TopicTable *table) noexcept nogil:
    """Free everything. The table is empty and usable afterwards."""
    cdef uint32_t at
    for at in range(table.capacity):
        free(table.topics[at].members)
    for at in range(table.slots):
        free(table.by_slot[at].items)
    free(table.topics)
    free(table.by_slot)
    memset(table, 0, sizeof(TopicTable))


cdef bint topics_reserve(TopicTable *table, uint32_t slots) noexcept nogil:
    """Make connection slots 0 to `slots` - 1 known. False without memory."""
    cdef Subscriptions *grown
    if slots <= table.slots:
        return True
    grown = <Subscriptions *>realloc(table.by_slot, slots * sizeof(Subscriptions))
    if grown == NULL:
        return False
    memset(grown + table.slots, 0, (slots - table.slots) * sizeof(Subscriptions))
    table.by_slot = grown
    table.slots = slots
    return True


cdef bint _more_topics(TopicTable *table) noexcept nogil:
    cdef uint32_t old = table.capacity
    cdef uint32_t at
    cdef Topic *grown
    if old >= 1 << TOPIC_SLOT_BITS:
        return False
    grown = <Topic *>_grown(table.topics, &table.capacity, old + 1, sizeof(Topic))
    if grown == NULL:
        return False
    memset(grown + old, 0, (table.capacity - old) * sizeof(Topic))
    table.topics = grown
    for at in range(table.capacity, old, -1):
        grown[at - 1].next_free = table.free_head
        table.free_head = at
    return True


cdef uint64_t topic_open(TopicTable *table) noexcept nogil:
    """A new empty topic; 0 without memory."""
    cdef uint32_t slot
    cdef Topic *topic
    if table.free_head == 0 and not _more_topics(table):
        return 0
    slot = table.free_head - 1
    topic = &table.topics[slot]
    table.free_head = topic.next_free
    table.generation += 1
    table.open += 1
    topic.id = table.generation << TOPIC_SLOT_BITS | slot
    return topic.id


cdef Topic *topic_find(TopicTable *table, uint64_t topic) noexcept nogil:
    """The topic of an id, or NULL."""
    cdef uint64_t slot = topic & ((1 << TOPIC_SLOT_BITS) - 1)
    if topic == 0 or slot >= table.capacity or table.topics[slot].id != topic:
        return NULL
    return &table.topics[slot]


cdef void _drop_subscription(TopicTable *table, uint32_t slot, uint32_t index) noexcept nogil:
    """Take one entry out of a connection's list; its member must be gone already."""
    cdef Subscriptions *own = &table.by_slot[slot]
    cdef Subscription moved
    own.count -= 1
    if index != own.count:
        moved = own.items[own.count]
        own.items[index] = moved
        table.topics[moved.topic].members[moved.position].back = index
    if own.count == 0:
        free(own.items)
        own.items = NULL
        own.capacity = 0


cdef void _drop_member(TopicTable *table, Topic *topic, uint32_t position) noexcept nogil:
    """Take one entry out of a topic's list; its subscription stays."""
    cdef Member moved
    cdef Member *shrunk
    topic.count -= 1
    if position != topic.count:
        moved = topic.members[topic.count]
        topic.members[position] = moved
        table.by_slot[moved.slot].items[moved.back].position = position
    if topic.capacity > SMALLEST and topic.count < topic.capacity >> 2:
        shrunk = <Member *>realloc(topic.members, (topic.capacity >> 1) * sizeof(Member))
        if shrunk != NULL:
            topic.members = shrunk
            topic.capacity >>= 1


cdef bint topic_close(TopicTable *table, uint64_t topic) noexcept nogil:
    """Drop a topic and all its memberships, O(members). False when there is no such topic."""
    cdef Topic *found = topic_find(table, topic)
    cdef uint32_t at
    if found == NULL:
        return False
    for at in range(found.count):
        _drop_subscription(table, found.members[at].slot, found.members[at].back)
    free(found.members)
    memset(found, 0, sizeof(Topic))
    found.next_free = table.free_head
    table.free_head = <uint32_t>(found - table.topics) + 1
    table.open -= 1
    return True


cdef int64_t _index_of(TopicTable *table, Topic *topic, uint32_t slot) noexcept nogil:
    """Index of the topic in the connection's list, or -1. Walks the shorter array."""
    cdef Subscriptions *own = &table.by_slot[slot]
    cdef uint32_t number = <uint32_t>(topic - table.topics)
    cdef uint32_t at
    if own.count <= topic.count:
        for at in range(own.count):
            if own.items[at].topic == number:
                return at
    else:
        for at in range(topic.count):
            if topic.members[at].slot == slot:
                return topic.members[at].back
    return -1


cdef int topic_subscribe(TopicTable *table, uint64_t topic, uint32_t slot) noexcept nogil:
    """1 when the slot is a member now (also when it was before), 0 for no such topic, -1 for
    no memory."""
    cdef Topic *found = topic_find(table, topic)
    cdef Subscriptions *own
    cdef void *grown
    if found == NULL or slot >= table.slots:
        return 0
    if _index_of(table, found, slot) >= 0:
        return 1
    own = &table.by_slot[slot]
    grown = _grown(found.members, &found.capacity, found.count + 1, sizeof(Member))
    if grown == NULL:
        return NO_MEMORY
    found.members = <Member *>grown
    grown = _grown(own.items, &own.capacity, own.count + 1, sizeof(Subscription))
    if grown == NULL:
        return NO_MEMORY
    own.items = <Subscription *>grown
    own.items[own.count].topic = <uint32_t>(found - table.topics)
    own.items[own.count].position = found.count
    found.members[found.count].slot = slot
    found.members[found.count].back = own.count
    own.count += 1
    found.count += 1
    return 1


cdef bint topic_unsubscribe(TopicTable *table, uint64_t topic, uint32_t slot) noexcept nogil:
    """False when the slot was not a member."""
    cdef Topic *found = topic_find(table, topic)
    cdef int64_t index
    if found == NULL or slot >= table.slots:
        return False
    index = _index_of(table, found, slot)
    if index < 0:
        return False
    _drop_member(table, found, table.by_slot[slot].items[index].position)
    _drop_subscription(table, slot, <uint32_t>index)
    return True


cdef void topics_forget(TopicTable *table, uint32_t slot) noexcept nogil:
    """Take a connection slot out of all its topics, O(its topics)."""
    cdef Subscriptions *own = &table.by_slot[slot]
    cdef uint32_t last
    while own.count:
        last = own.count - 1
        _drop_member(table, &table.topics[own.items[last].topic], own.items[last].position)
        _drop_subscription(table, slot, last)


cdef class TopicIndex:
    """The table alone, without sockets: for tests of the invariant and for measurements.

    slots: connection slots, 0 to slots - 1. Raises MemoryError.
    """

    cdef TopicTable table

    def __cinit__(self, uint32_t slots):
        memset(&self.table, 0, sizeof(TopicTable))
        if not topics_reserve(&self.table, slots):
            raise MemoryError

    def __dealloc__(self):
        topics_clear(&self.table)

    def open(self):
        """A new topic's id."""
        cdef uint64_t topic = topic_open(&self.table)
        if topic == 0:
            raise MemoryError
        return topic

    def close(self, uint64_t topic):
        """Drop a topic with its memberships; False when there is no such topic."""
        return topic_close(&self.table, topic)

    def subscribe(self, uint64_t topic, uint32_t slot):
        """True when the slot is a member now; False when topic or slot do not exist."""
        cdef int outcome = topic_subscribe(&self.table, topic, slot)
        if outcome == NO_MEMORY:
            raise MemoryError
        return outcome == 1

    def unsubscribe(self, uint64_t topic, uint32_t slot):
        """False when the slot was not a member."""
        return topic_unsubscribe(&self.table, topic, slot)

    def forget(self, uint32_t slot):
        """Take a slot out of all its topics."""
        if slot < self.table.slots:
            topics_forget(&self.table, slot)

    def members(self, uint64_t topic):
        """Slots of the members, in fan-out order; raises AssertionError on a bad back reference."""
        cdef Topic *found = topic_find(&self.table, topic)
        cdef Subscription *entry
        cdef uint32_t at
        slots = []
        if found == NULL:
            return slots
        for at in range(found.count):
            entry = &self.table.by_slot[found.members[at].slot].items[found.members[at].back]
            if entry.position != at or &self.table.topics[entry.topic] != found:
                raise AssertionError("a member and its subscription disagree")
            slots.append(found.members[at].slot)
        return slots

    def topics_of(self, uint32_t slot):
        """Ids of the topics of one slot."""
        cdef Subscriptions *own
        cdef uint32_t at
        if slot >= self.table.slots:
            return []
        own = &self.table.by_slot[slot]
        return [self.table.topics[own.items[at].topic].id for at in range(own.count)]

    def __len__(self):
        return self.table.open
