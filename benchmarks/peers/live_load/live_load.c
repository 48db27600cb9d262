/* Devices on WebSockets for any server whose messages are JSON text: one thread, one epoll.
 *
 * What a server's messages look like is given, not built in: a folder has the text with which each
 * device begins (`hello`, a line for each; 0x1e stands for a line break within a message), the
 * message that publishes (`frame`), the texts by which replies are told apart (`dialect`), and,
 * where they are used, `resume` and `post`. In these texts %s is the session's number, %d the
 * device's, %n the update's in 12 digits, %i the same as a JSON number, %k that modulo 3, %e and
 * %v the epoch and the version that the device has. A device belongs to the session number / GROUP;
 * the first of each session publishes.
 *
 * An update carries `upd-` and its number in its value. From the number follows when it was due, so
 * latency runs from there, whatever the server does and however late this program is; how late that
 * was is told, too. The CPU of server and Redis is that of the kernel's clocks of the processes.
 *
 * Run:  live_load PORT PATH COUNT GROUP SERVER_PID REDIS_PID FOLDER, with commands on stdin:
 *   connect CONCURRENCY               every device, until each is told that it has joined
 *   wait SECONDS                      only read
 *   steady RATE SECONDS WARM          updates, the sessions in turn, each at its time
 *   ceiling OUTSTANDING SECONDS WARM  that many under way in each session, always
 *   crowd SECONDS WARM                the first device publishes to all, again when all have it
 *   post SECONDS WARM                 the same with an HTTP request
 *   recover CONCURRENCY               two updates a session; `ready`; the server is killed and
 *                                     started; `until`, by the monotonic clock, each has joined
 *                                     and been given what it missed
 * Each answers with a line of JSON; {"failed": TEXT} ends the program.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

enum { UPDATES = 1 << 22, BUFFER = 1 << 23, FRAME = 1 << 16, EVENTS = 1024, KEYS = 3, DIGITS = 12 };
enum { AWAY, DIALLING, UPGRADING, JOINING, JOINED };
enum { SENT = 1, ACKNOWLEDGED = 2, DELIVERED = 4 };
static const double DRAIN = 5.0, FAN_LIMIT = 10.0, LONGEST = 100.0, AGAIN = 0.002;

typedef struct {
    int fd, state;
    long version, missed;
    char epoch[24];
    char *rest;
    size_t rest_size;
} Device;

static struct { char *joined, *error, *version, *resumed; } dialect;
static const char *path, *folder;
static int port, count, group, epoll, http = -1;
static Device *devices;
static char **hellos, **resumes, *frame, *request, request_head[1024];
static char last_error[256], buffer[BUFFER + 1], answer[1 << 16];
static size_t answer_size;

static double due[UPDATES];
static uint8_t seen[UPDATES];
static float late[UPDATES], sent_late[UPDATES];
static long numbered, measured_from, late_count, sent_late_count;
static long sent, delivered, repeated, errors, closed, answered, resumed, whole;
static int joined, joining;
static bool returning, refilling, crowd;
static double last_arrival, not_before;

static void tell(Meter m) {
    printf("{\"seconds\": %.4f, \"server_cpu\": %.4f, \"redis_cpu\": %.4f, \"load_cpu\": %.4f, "
           "\"sent\": %ld, \"delivered\": %ld, \"repeated\": %ld, \"errors\": %ld, "
           "\"closed\": %ld, \"p50_us\": %.0f, \"p99_us\": %.0f, "
           "\"sent_late_p99_us\": %.0f}\n",
           m.wall, m.server, m.redis, m.load, sent, delivered, repeated, errors, closed,
           percentile(late, late_count, 0.5), percentile(late, late_count, 0.99),
           percentile(sent_late, sent_late_count, 0.99));
    fflush(stdout);
}

/* ---- messages to a server */

static size_t expand(char *out, const char *text, int id, long number) {
    char *o = out;
    const Device *d = &devices[id];
    for (; *text; text++) {
        if (*text == 0x1e) *o++ = '\n';
        else if (*text != '%') *o++ = *text;
        else switch (*++text) {
            case 's': o += sprintf(o, "%d", id / group); break;
            case 'd': o += sprintf(o, "%d", id); break;
            case 'n': o += sprintf(o, "%0*ld", DIGITS, number); break;
            case 'i': o += sprintf(o, "%ld", number + 10); break;
            case 'k': o += sprintf(o, "%ld", number / (count / group) % KEYS); break;
            case 'e': o += sprintf(o, "%s", d->epoch); break;
            case 'v': o += sprintf(o, "%ld", d->version); break;
            default: *o++ = *text;
        }
    }
    return o - out;
}

static bool send_frame(int id, const char *text, size_t size, int opcode) {
    static unsigned char out[FRAME + 8];
    static const unsigned char mask[4] = {0x5a, 0xc3, 0x17, 0x8e};
    size_t head = 2;
    if (size >= FRAME) fail("a message of %zu bytes", size);
    out[0] = 0x80 | opcode;
    out[1] = 0x80 | (size < 126 ? size : 126);
    if (size >= 126) {
        out[2] = size >> 8;
        out[3] = size;
        head = 4;
    }
    memcpy(out + head, mask, 4);
    head += 4;
    for (size_t i = 0; i < size; i++) out[head + i] = text[i] ^ mask[i & 3];
    ssize_t wrote = send(devices[id].fd, out, head + size, MSG_NOSIGNAL);
    if (wrote >= 0 && (size_t)wrote < head + size) fail("the server reads too slowly");
    return wrote >= 0;
}

static long begin_update(double at) {
    if (numbered == UPDATES) fail("more than %d updates", UPDATES);
    due[numbered] = at;
    seen[numbered] = SENT;
    return numbered++;
}

static void publish(int id, double at) {
    static char text[FRAME];
    long number = begin_update(at);
    double lateness = (now() - at) * 1e6;
    if (number >= measured_from) sent_late[sent_late_count++] = lateness;
    if (devices[id].fd >= 0 && send_frame(id, text, expand(text, frame, id, number), 1)) sent++;
    else errors++;
}

static void post(double at) {
    static char body[FRAME], text[FRAME + 2048];
    size_t size = expand(body, request, 0, begin_update(at));
    size_t head = sprintf(text, "%sContent-Length: %zu\r\n\r\n", request_head, size);
    memcpy(text + head, body, size);
    if (send(http, text, head + size, MSG_NOSIGNAL) != (ssize_t)(head + size)) fail("HTTP: %m");
    sent++;
}

/* ---- messages from a server */

static const char *find(const char *text, size_t size, const char *part) {
    return memmem(text, size, part, strlen(part));
}

/* The number of the next update in a text, or -1; `text` moves behind it. */
static long next_update(const char **text, const char *end) {
    while (*text < end) {
        const char *mark = memmem(*text, end - *text, "upd-", 4);
        if (!mark || end - mark < 4 + DIGITS) break;
        *text = mark + 4;
        if (isdigit(mark[4]) && isdigit(mark[3 + DIGITS])) {
            *text = mark + 4 + DIGITS;
            return atol(mark + 4);
        }
    }
    *text = end;
    return -1;
}

static void arrived(int id, long number, double at) {
    if (number < 0 || number >= numbered) return;
    int what = id % group ? DELIVERED : ACKNOWLEDGED;
    if (!crowd && seen[number] & what) {
        repeated++;
        return;
    }
    seen[number] |= what;
    if (!crowd && what == ACKNOWLEDGED) return;
    last_arrival = at;
    if (number >= measured_from) {
        delivered++;
        if (late_count < UPDATES) late[late_count++] = (at - due[number]) * 1e6;
    }
    if (refilling) publish(id - id % group, at);
}

static void keep_position(Device *d, const char *text, size_t size) {
    const char *found = find(text, size, dialect.version);
    if (found) d->version = atol(found + strlen(dialect.version));
    found = find(text, size, "\"epoch\":\"");
    if (found) sscanf(found + 9, "%23[^\"]", d->epoch);
}

static void has_joined(Device *d, const char *text, size_t size) {
    d->state = JOINED;
    joined++;
    joining--;
    if (!returning) keep_position(d, text, size);
    else resumed += find(text, size, dialect.resumed) != NULL;
}

static void note_error(const char *text, size_t size) {
    errors++;
    snprintf(last_error, sizeof last_error, "%.*s", (int)(size > 240 ? 240 : size), text);
}

static void message(int id, const char *text, size_t size) {
    Device *d = &devices[id];
    double at = now();
    if (size <= 3 && text[0] == '{' && text[1] == '}') {  /* a ping of Centrifugo's JSON protocol */
        send_frame(id, "{}", 2, 1);
        return;
    }
    if (d->state == JOINING) {
        if (find(text, size, dialect.joined)) has_joined(d, text, size);
        else if (find(text, size, dialect.error)) fail("not let in: %.*s", 240, text);
        if (d->state != JOINED) return;
    } else if (find(text, size, dialect.error)) note_error(text, size);
    long last = -1;
    const char *place = text;
    for (long number; (number = next_update(&place, text + size)) >= 0; last = number) {
        if (number == last) continue;
        if (d->missed == number) {
            d->missed = -1;
            whole++;
            last_arrival = at;
        } else if (!returning) {
            if (d->missed == -2) keep_position(d, text, size);
            arrived(id, number, at);
        }
    }
}

static void drop(int id) {
    Device *d = &devices[id];
    if (d->fd < 0) return;
    if (d->state == JOINED) joined--;
    else joining--;
    if (d->state != JOINED && !returning) fail("closed before it had joined: %s", last_error);
    if (d->state == DIALLING) not_before = now() + AGAIN;
    closed++;
    close(d->fd);
    free(d->rest);
    d->fd = -1;
    d->state = AWAY;
    d->rest = NULL;
    d->rest_size = 0;
}

/* Bytes of a frame at the start of what came, or 0 when it has not ended. Calls message(). */
static size_t one_frame(int id, char *data, size_t have) {
    unsigned char *b = (unsigned char *)data;
    if (have < 2) return 0;
    uint64_t size = b[1] & 127, head = size == 126 ? 4 : size == 127 ? 10 : 2;
    if (have < head) return 0;
    if (head > 2)
        for (uint64_t i = 2, all = size = 0; i < head; i++) size = all = all << 8 | b[i];
    if (have < head + size) return 0;
    char after = data[head + size];
    data[head + size] = 0;
    if ((b[0] & 15) == 9) send_frame(id, data + head, size, 10);
    else if ((b[0] & 15) == 8) {
        if (size > 2) snprintf(last_error, sizeof last_error, "%.200s", data + head + 2);
        drop(id);
    } else message(id, data + head, size);
    data[head + size] = after;
    return head + size;
}

static void say_hello(int id) {
    static char text[FRAME];
    devices[id].state = JOINING;
    send_frame(id, text, expand(text, (returning ? resumes : hellos)[id], id, 0), 1);
}

static size_t upgraded(int id, char *data, size_t have) {
    char *end = memmem(data, have, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(data, "HTTP/1.1 101", 12)) {
        if (!returning) fail("no WebSocket: %.100s", data);
        drop(id);
        return 0;
    }
    say_hello(id);
    return end + 4 - data;
}

static void readable(int id) {
    Device *d = &devices[id];
    size_t have = d->rest_size, used = 0, step = 1;
    if (have) memcpy(buffer, d->rest, have);
    ssize_t got = recv(d->fd, buffer + have, BUFFER - have, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        drop(id);
        return;
    }
    have += got;
    while (step && used < have && d->fd >= 0) {
        buffer[have] = 0;
        step = d->state == UPGRADING ? upgraded(id, buffer + used, have - used)
                                     : one_frame(id, buffer + used, have - used);
        used += step;
    }
    if (d->fd < 0) return;
    free(d->rest);
    d->rest_size = have - used;
    d->rest = d->rest_size ? memcpy(malloc(d->rest_size), buffer + used, d->rest_size) : NULL;
}

static void http_readable(void) {
    ssize_t got = recv(http, answer + answer_size, sizeof answer - 1 - answer_size, MSG_DONTWAIT);
    if (got <= 0) fail("HTTP: the connection was closed");
    answer_size += got;
    answer[answer_size] = 0;
    char *body = strstr(answer, "\r\n\r\n"), *told = strcasestr(answer, "content-length:");
    if (!body) return;
    body += 4;
    if (told && told < body ? answer + answer_size - body < atol(told + 15)
                            : !strstr(body, "0\r\n\r\n"))
        return;
    if (strncmp(answer, "HTTP/1.1 2", 10)) fail("HTTP: %.200s", answer);
    answered++;
    answer_size = 0;
}

/* ---- connections */

static int dial(uint32_t id, int blocking) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | (blocking ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0) fail("socket: %m");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    struct epoll_event event = {.events = blocking ? EPOLLIN : EPOLLIN | EPOLLOUT, .data.u32 = id};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

static void dialled(int id) {
    char text[512];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = id};
    epoll_ctl(epoll, EPOLL_CTL_MOD, devices[id].fd, &event);
    int size = snprintf(text, sizeof text,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Sec-WebSocket-Version: 13\r\n\r\n", path, port);
    devices[id].state = UPGRADING;
    if (send(devices[id].fd, text, size, MSG_NOSIGNAL) != size) drop(id);
}

static void pump(double until) {
    static struct epoll_event events[EVENTS];
    double seconds = until - now();
    if (seconds < 0) seconds = 0;
    struct timespec timeout = {(time_t)seconds, (long)((seconds - (long)seconds) * 1e9)};
    int found = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < found; i++) {
        int id = events[i].data.u32;
        if (id == count) http_readable();
        else if (devices[id].fd < 0) continue;
        else if (devices[id].state != DIALLING) readable(id);
        else if (events[i].events & (EPOLLERR | EPOLLHUP)) drop(id);
        else dialled(id);
    }
}

static void pump_for(double seconds) {
    for (double end = now() + seconds; now() < end;) pump(end);
}

/* One look over the devices that are away; at most `concurrency` are on their way. */
static void dial_some(int concurrency) {
    static int next;
    for (int looked = 0; looked < count && joining < concurrency; looked++) {
        int id = next++ % count;
        if (devices[id].fd >= 0) continue;
        if (now() < not_before) return;
        devices[id].fd = dial(id, 0);
        if (devices[id].fd < 0) {
            not_before = now() + AGAIN;
            return;
        }
        devices[id].state = DIALLING;
        joining++;
    }
}

static void join_all(int concurrency) {
    for (double limit = now() + LONGEST; joined < count;) {
        dial_some(concurrency);
        pump(now() + (returning ? AGAIN : 0.1));
        if (now() > limit) fail("only %d of %d have joined: %s", joined, count, last_error);
    }
}

/* ---- commands */

static void reset(void) {
    sent = delivered = repeated = errors = closed = late_count = sent_late_count = 0;
    measured_from = UPDATES;
}

static void do_connect(int concurrency) {
    reset();
    Meter begun = meter();
    join_all(concurrency);
    tell(since(begun, 0));
}

static void do_steady(double rate, double seconds, double warm) {
    reset();
    int sessions = count / group;
    double begin = now(), next = begin, step = 1 / rate, end = begin + warm + seconds;
    Meter begun = {0};
    for (long k = 0; next < end;) {
        for (double t = now(); next <= t && next < end; next += step) {
            if (measured_from == UPDATES && next >= begin + warm) {
                measured_from = numbered;
                sent = 0;
                begun = meter();
            }
            publish(k++ % sessions * group, next);
        }
        pump(next);
    }
    for (double limit = now() + DRAIN; delivered < sent && now() < limit;) pump(now() + 0.01);
    tell(since(begun, last_arrival));
    pump_for(0.2);
}

static void do_ceiling(int outstanding, double seconds, double warm) {
    reset();
    refilling = true;
    for (int i = 0; i < outstanding; i++)
        for (int id = 0; id < count; id += group) publish(id, now());
    pump_for(warm);
    sent = late_count = delivered = sent_late_count = 0;
    measured_from = 0;
    Meter begun = meter();
    pump_for(seconds);
    tell(since(begun, 0));
    refilling = false;
    pump_for(1.0);
}

/* Publishes to all and waits until all have it, for so long. */
static void fans(double seconds) {
    for (double end = now() + seconds; now() < end;) {
        long wanted = delivered + count, answers = answered + (http >= 0);
        if (http >= 0) post(now());
        else publish(0, now());
        for (double limit = now() + FAN_LIMIT; delivered < wanted || answered < answers;) {
            pump(now() + 0.1);
            if (now() > limit)
                fail("%ld of %d did not get it: %s", wanted - delivered, count, last_error);
        }
    }
}

static void do_crowd(double seconds, double warm) {
    reset();
    crowd = true;
    measured_from = 0;
    fans(warm);
    reset();
    measured_from = 0;
    Meter begun = meter();
    fans(seconds);
    tell(since(begun, last_arrival));
    crowd = false;
}

static void update_all(int position) {
    measured_from = 0;
    long wanted = delivered + count - count / group;
    for (int id = 0; id < count; id++) devices[id].missed = position;
    for (int id = 0; id < count; id += group) publish(id, now());
    for (double limit = now() + 20; delivered < wanted; pump(now() + 0.01))
        if (now() > limit) fail("%ld updates are missing: %s", wanted - delivered, last_error);
    pump_for(0.5);
}

static void do_recover(int concurrency) {
    reset();
    update_all(-2);
    long first = numbered;
    update_all(-1);
    for (int id = 0; id < count; id++) devices[id].missed = first + id / group;
    printf("{\"ready\": true}\n");
    fflush(stdout);
    returning = true;
    reset();
    for (double limit = now() + LONGEST; !closed; pump(now() + 0.01))
        if (now() > limit) fail("the server was not killed");
    while (joined > 0) pump(now() + 0.01);
    resumed = whole = 0;
    join_all(concurrency);
    for (double limit = now() + DRAIN; whole < count && now() < limit;) pump(now() + 0.01);
    printf("{\"until\": %.4f, \"whole\": %ld, \"resumed\": %ld}\n", last_arrival, whole,
           resumed);
    fflush(stdout);
}

/* ---- files and main */

static char *slurp(const char *name, bool needed) {
    char file[4096], *text = NULL;
    size_t room = 0;
    snprintf(file, sizeof file, "%s/%s", folder, name);
    FILE *stream = fopen(file, "r");
    if (!stream && needed) fail("%s: %m", file);
    if (!stream) return NULL;
    ssize_t size = getdelim(&text, &room, 0, stream);
    fclose(stream);
    while (size > 0 && text[size - 1] == '\n') text[--size] = 0;
    return text;
}

static char **lines(const char *name, bool needed) {
    char *text = slurp(name, needed), **found = calloc(count, sizeof *found);
    if (!text) return NULL;
    for (int i = 0; i < count; i++)
        if (!(found[i] = strsep(&text, "\n"))) fail("%s has only %d lines", name, i);
    return found;
}

static void load_texts(void) {
    char *parts = slurp("dialect", true), **place[] = {&dialect.joined, &dialect.error,
                                                       &dialect.version, &dialect.resumed};
    for (int i = 0; i < 4; i++) *place[i] = strsep(&parts, "\n");
    hellos = lines("hello", true);
    resumes = lines("resume", false);
    frame = slurp("frame", false);
    request = slurp("post", false);
    if (!request) return;
    /* It is the head, an empty line, the body. */
    char *body = strstr(request, "\n\n"), *out = request_head;
    for (char *c = request; c <= body; c++) {
        if (*c == '\n') *out++ = '\r';
        *out++ = *c;
    }
    request = body + 2;
}

static void obey(const char *line) {
    double a = 0, b = 0, c = 0;
    char name[16] = "";
    if (sscanf(line, "%15s %lf %lf %lf", name, &a, &b, &c) < 2) fail("what is %s", line);
    if (!strcmp(name, "connect")) do_connect(a);
    else if (!strcmp(name, "wait")) {
        reset();
        Meter begun = meter();
        pump_for(a);
        tell(since(begun, 0));
    } else if (!strcmp(name, "steady")) do_steady(a, b, c);
    else if (!strcmp(name, "ceiling")) do_ceiling(a, b, c);
    else if (!strcmp(name, "crowd")) do_crowd(a, b);
    else if (!strcmp(name, "post")) {
        if ((http = dial(count, 1)) < 0) fail("HTTP: %m");
        do_crowd(a, b);
    } else if (!strcmp(name, "recover")) do_recover(a);
    else fail("what is %s", name);
}

int main(int argc, char **argv) {
    if (argc != 8) fail("usage: live_load PORT PATH COUNT GROUP SERVER_PID REDIS_PID FOLDER");
    port = atoi(argv[1]);
    path = argv[2];
    count = atoi(argv[3]);
    group = atoi(argv[4]);
    for (int i = 0; i < 2; i++)
        if (clock_getcpuclockid(atoi(argv[5 + i]), &clocks[i])) fail("no process %s", argv[5 + i]);
    folder = argv[7];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1);
    epoll = epoll_create1(0);
    devices = calloc(count, sizeof *devices);
    for (int id = 0; id < count; id++) devices[id].fd = devices[id].missed = -1;
    load_texts();
    static char line[256];
    while (fgets(line, sizeof line, stdin)) obey(line);
    return 0;
}
