"""Who is a member of which topic, in dense arrays. See topics.pyx."""

from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    TOPIC_SLOT_BITS = 24


cdef struct Member:
    uint32_t slot       # of the connection
    uint32_t back       # index of its Subscription in the connection's list


cdef struct Topic:
    uint64_t id         # 0 while the slot is free
    Member *members
    uint32_t count
    uint32_t capacity
    uint32_t next_free  # slot + 1 of the next free topic, 0 at the end


cdef struct Subscription:
    uint32_t topic      # slot of the topic
    uint32_t position   # index of the Member in the topic's list


cdef struct Subscriptions:
    Subscription *items
    uint32_t count
    uint32_t capacity


cdef struct TopicTable:
    Topic *topics
    uint32_t capacity
    uint32_t free_head  # slot + 1
    uint32_t open
    uint64_t generation
    Subscriptions *by_slot
    uint32_t slots


cdef void topics_clear(TopicTable *table) noexcept nogil
cdef bint topics_reserve(TopicTable *table, uint32_t slots) noexcept nogil
cdef uint64_t topic_open(TopicTable *table) noexcept nogil
cdef bint topic_close(TopicTable *table, uint64_t topic) noexcept nogil
cdef Topic *topic_find(TopicTable *table, uint64_t topic) noexcept nogil
cdef int topic_subscribe(TopicTable *table, uint64_t topic, uint32_t slot) noexcept nogil
cdef bint topic_unsubscribe(TopicTable *table, uint64_t topic, uint32_t slot) noexcept nogil
cdef void topics_forget(TopicTable *table, uint32_t slot) noexcept nogil
