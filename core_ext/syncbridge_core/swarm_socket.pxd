"""Declarations of swarm_socket.h."""

from libc.stdint cimport int64_t, uint32_t

cdef extern from "swarm_socket.h" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLLERR
        EPOLLHUP
        EPOLLIN
        EPOLLOUT

    int epoll_create1(int flags)
    int64_t sw_now()
    int sw_open(int family, const void *target, int port, unsigned int source)
    int sw_error(int fd)
    void sw_close(int fd, int reset)
    int sw_watch(int epoll, int operation, int fd, uint32_t events, uint32_t index)
    int sw_wait(int epoll, epoll_event *events, int size, int64_t nanoseconds)
    void sw_sharp_timers()
    ssize_t sw_send(int fd, const void *data, size_t size)
    ssize_t sw_receive(int fd, void *data, size_t size)
