/* Time, CPU and percentiles, and how a program ends that cannot go on. Part of live_load.c. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static clockid_t clocks[2]; /* of the server's process and of Redis */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *format, ...) {
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    for (char *c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 32) *c = ' ';
    printf("{\"failed\": \"%s\"}\n", text);
    exit(1);
}

typedef struct { double wall, server, redis, load; } Meter;

static double clock_of(int which) {
    struct timespec t;
    return clock_gettime(clocks[which], &t) ? 0 : t.tv_sec + t.tv_nsec * 1e-9;
}

static Meter meter(void) {
    struct timespec own;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    return (Meter){now(), clock_of(0), clock_of(1), own.tv_sec + own.tv_nsec * 1e-9};
}

static Meter since(Meter begun, double end) {
    Meter m = meter();
    return (Meter){(end > begun.wall ? end : m.wall) - begun.wall, m.server - begun.server,
                   m.redis - begun.redis, m.load - begun.load};
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static double percentile(float *values, long size, double share) {
    if (!size) return 0;
    qsort(values, size, sizeof *values, compare);
    return values[(long)((size - 1) * share)];
}
