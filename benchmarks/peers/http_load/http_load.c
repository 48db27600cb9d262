/* A closed loop over HTTP/1.1: N kept-alive connections, each with one request under way.
 *
 * Every answer is checked: it must have status 200 and a content-length, and exactly so many bytes
 * must follow, else the program ends, because a server that answers wrongly may be fast. Chunked
 * answers are taken too (the last chunk is looked for), since one of the measured servers may
 * send them.
 *
 * No two requests are the same when the given one has eight zeros in it, `00000000`: they are
 * replaced by a counter, so that a server that remembers requests gains nothing.
 *
 * Build: cc -O2 -o http_load http_load.c
 * Run:   http_load PORT CONNECTIONS SECONDS < request        (the bytes of one request)
 * Out:   one line of JSON: answers, seconds, p50 and p99 in microseconds
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 1024, BUFFER = 65536, SAMPLES = 1 << 22, EVENTS = 256 };

typedef struct {
    int fd;
    size_t have;
    int64_t sent_at;
    char data[BUFFER + 1];
} Connection;

static Connection connections[MAX_CONNECTIONS];
static uint32_t samples[SAMPLES];
static size_t answers;
static char request[BUFFER];
static size_t request_size;
static char *counter;
static unsigned counted;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void ask(Connection *c) {
    c->sent_at = now();
    c->have = 0;
    if (counter) {
        unsigned value = ++counted;
        for (int i = 7; i >= 0; i--, value /= 10) counter[i] = (char)('0' + value % 10);
    }
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) fail("send");
}

/* Bytes of the whole answer at the beginning of the buffer, 0 while it is not complete. */
static size_t answer_size(Connection *c) {
    c->data[c->have] = 0;
    char *end = strstr(c->data, "\r\n\r\n");
    if (!end) return 0;
    if (strncmp(c->data, "HTTP/1.1 200 ", 13)) {
        fprintf(stderr, "unexpected answer: %.200s\n", c->data);
        exit(1);
    }
    size_t head = (size_t)(end + 4 - c->data);
    for (char *line = strstr(c->data, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, "content-length:", 15)) {
            size_t all = head + strtoul(line + 17, NULL, 10);
            return c->have >= all ? all : 0;
        }
    if (c->have < 5 || memcmp(c->data + c->have - 5, "0\r\n\r\n", 5)) return 0;
    return c->have;
}

static void take(Connection *c) {
    ssize_t n = recv(c->fd, c->data + c->have, BUFFER - c->have, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) fail("the server closed");
    c->have += (size_t)n;
    size_t size = answer_size(c);
    if (!size) return;
    if (size != c->have) {
        fprintf(stderr, "more bytes than one answer\n");
        exit(1);
    }
    if (answers < SAMPLES) samples[answers] = (uint32_t)((now() - c->sent_at) / 1000);
    answers++;
    ask(c);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: http_load PORT CONNECTIONS SECONDS < request\n");
        return 2;
    }
    int count = atoi(argv[2]);
    int64_t duration = (int64_t)(atof(argv[3]) * 1e9);
    if (count < 1 || count > MAX_CONNECTIONS) return 2;
    request_size = fread(request, 1, sizeof request - 1, stdin);
    counter = strstr(request, "00000000");
    int poll = epoll_create1(0), one = 1;
    uint16_t port = (uint16_t)atoi(argv[1]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    for (int i = 0; i < count; i++) {
        Connection *c = &connections[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
        ask(c);
    }
    int64_t start = now(), end = start + duration;
    while (now() < end) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poll, events, EVENTS, 10000);
        if (n == 0) fail("no answer within ten seconds");
        for (int i = 0; i < n; i++) take(events[i].data.ptr);
    }
    double seconds = (double)(now() - start) / 1e9;
    size_t kept = answers < SAMPLES ? answers : SAMPLES;
    qsort(samples, kept, sizeof *samples, compare);
    printf("{\"answers\": %zu, \"seconds\": %.6f, \"p50_us\": %u, \"p99_us\": %u}\n", answers,
           seconds, kept ? samples[kept / 2] : 0, kept ? samples[kept * 99 / 100] : 0);
    return 0;
}
