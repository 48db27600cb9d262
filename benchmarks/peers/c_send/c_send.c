/* The physical limit of fan-out: a bare loop of send() over all connections.
 *
 * Not a server anybody would run. It accepts, answers the WebSocket handshake with the one
 * Sec-WebSocket-Accept that fits the load generator's fixed key, and then ignores what clients say
 * except for a text message "fan N", at which it sends N frames of 200 bytes to every other client:
 *
 *   default    one send() for each frame and client: what any server does that writes a frame
 *              when it has one, without its bookkeeping
 *   --gather   one send() for each client, the N frames in one buffer: the limit of a server that
 *              collects a tick's frames first
 *
 * No parsing worth the name, no outbox, no partial write handled: a client that cannot take a frame
 * ends the program, because a lost frame would make the loop look faster than it is.
 *
 * Build: cc -O2 -o c_send c_send.c        Run: c_send PORT [--gather]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CLIENTS = 65536, PAYLOAD = 200, FRAME = PAYLOAD + 4, MAX_FAN = 64 };

static const char REPLY[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static int clients[MAX_CLIENTS];
static int count;
static char frames[FRAME * MAX_FAN];

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* One text frame: 0x81, 126, a 16-bit length, 200 bytes of JSON. */
static void fill_frames(void) {
    char text[PAYLOAD + 1];
    int used = snprintf(text, sizeof text, "{\"type\":13,\"payload\":{\"message\":\"");
    memset(text + used, 'x', PAYLOAD - used);
    memcpy(text + PAYLOAD - 3, "\"}}", 3);
    for (int at = 0; at < MAX_FAN; at++) {
        char *frame = frames + at * FRAME;
        frame[0] = (char)0x81;
        frame[1] = 126;
        frame[2] = 0;
        frame[3] = (char)PAYLOAD;
        memcpy(frame + 4, text, PAYLOAD);
    }
}

static void send_all(int fd, const char *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
        die("send");
}

static void fan_out(int controller, int messages, int gather) {
    for (int round = 0; round < (gather ? 1 : messages); round++)
        for (int at = 0; at < count; at++)
            if (clients[at] != controller)
                send_all(clients[at], frames, (size_t)FRAME * (gather ? messages : 1));
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024))
        die("listen");
    return fd;
}

static void adopt(int epoll, int listener) {
    struct epoll_event event = {.events = EPOLLIN};
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0 || count == MAX_CLIENTS)
        die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    event.data.fd = fd;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void forget(int fd) {
    for (int at = 0; at < count; at++)
        if (clients[at] == fd)
            clients[at] = clients[--count];
    close(fd);
}

/* "fan N" in one short masked frame, or a request to upgrade, or something to ignore. */
static void hear(int fd, int gather) {
    char data[4096];
    ssize_t size = recv(fd, data, sizeof data - 1, 0);
    if (size <= 0) {
        forget(fd);
        return;
    }
    data[size] = 0;
    if (!strncmp(data, "GET ", 4)) {
        send_all(fd, REPLY, sizeof REPLY - 1);
        clients[count++] = fd;
    } else if ((uint8_t)data[0] == 0x81 && size == 6 + (data[1] & 127)) {
        for (ssize_t at = 6; at < size; at++)
            data[at] ^= data[2 + (at - 6) % 4];
        if (!strncmp(data + 6, "fan ", 4) && atoi(data + 10) <= MAX_FAN)
            fan_out(fd, atoi(data + 10), gather);
    }
}

int main(int argc, char **argv) {
    int gather = argc > 2 && !strcmp(argv[2], "--gather");
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0), epoll = epoll_create1(0);
    struct epoll_event events[256], event = {.events = EPOLLIN, .data = {.fd = listener}};
    fill_frames();
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int at = 0; at < ready; at++) {
            if (events[at].data.fd == listener)
                adopt(epoll, listener);
            else
                hear(events[at].data.fd, gather);
        }
    }
}
