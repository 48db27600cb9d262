/* The few socket calls of the swarm, with the options that a load generator needs.
 *
 * Linux only, as the server's hub is: epoll, IP_BIND_ADDRESS_NO_PORT.
 */
#ifndef SYNCBRIDGE_SWARM_SOCKET_H
#define SYNCBRIDGE_SWARM_SOCKET_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static inline int64_t sw_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A port range belongs to a source address: more clients than ports need more of 127.0.0.0/8. */
static inline int sw_bind_source(int fd, unsigned source) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    return bind(fd, (struct sockaddr *)&from, sizeof from);
}

static inline int sw_connect(int fd, int family, const void *target, int port) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    if (family == AF_INET6) {
        six.sin6_port = htons((uint16_t)port);
        memcpy(&six.sin6_addr, target, 16);
        return connect(fd, (struct sockaddr *)&six, sizeof six);
    }
    four.sin_port = htons((uint16_t)port);
    memcpy(&four.sin_addr, target, 4);
    return connect(fd, (struct sockaddr *)&four, sizeof four);
}

/* A connecting non-blocking socket, or -1 with errno. Source 0: the kernel chooses an address. */
static inline int sw_open(int family, const void *target, int port, unsigned source) {
    int one = 1, error;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if ((source && sw_bind_source(fd, source)) ||
        (sw_connect(fd, family, target, port) && errno != EINPROGRESS)) {
        error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static inline int sw_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

/* `reset` closes with RST: without TIME_WAIT the ports are free for the next round. */
static inline void sw_close(int fd, int reset) {
    struct linger now = {1, 0};
    if (reset)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static inline int sw_watch(int epoll, int operation, int fd, uint32_t events, uint32_t index) {
    struct epoll_event event = {.events = events, .data = {.u32 = index}};
    return epoll_ctl(epoll, operation, fd, &event);
}

/* Ready events now, or after at most `nanoseconds`: ppoll has the resolution epoll_wait lacks. */
static inline int sw_wait(int epoll, struct epoll_event *events, int size, int64_t nanoseconds) {
    struct pollfd one = {.fd = epoll, .events = POLLIN};
    struct timespec pause;
    int ready = epoll_wait(epoll, events, size, 0);
    if (ready || nanoseconds <= 0)
        return ready;
    pause.tv_sec = nanoseconds / 1000000000;
    pause.tv_nsec = nanoseconds % 1000000000;
    if (ppoll(&one, 1, &pause, NULL) <= 0)
        return 0;
    return epoll_wait(epoll, events, size, 0);
}

/* The kernel may delay a sleeper's wake-up by 50 us; an open loop at 10,000/s cannot have that. */
static inline void sw_sharp_timers(void) { prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0); }

static inline ssize_t sw_send(int fd, const void *data, size_t size) {
    return send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static inline ssize_t sw_receive(int fd, void *data, size_t size) {
    return recv(fd, data, size, MSG_DONTWAIT);
}

#endif
