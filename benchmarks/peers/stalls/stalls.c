/* Watches one core from above everything else that runs there: a thread of real-time priority that
 * sleeps for a millisecond, again and again. When it is woken later than that, nobody ran on the
 * core but the kernel's interrupts or, on a rented machine, another machine.
 *
 * stalls CORE MICROSECONDS: a line "begin end" (ns, CLOCK_MONOTONIC) on standard output for each
 * sleep that took that much too long, from the first line, which is "ready". Ends by a signal, or
 * after an hour. Exit 1: real-time priority is not allowed here.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define SLEEP_NS 1000000L
#define LONGEST_NS (3600LL * 1000000000LL)

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct sched_param priority = {.sched_priority = 50};
    const struct timespec sleep = {0, SLEEP_NS};
    cpu_set_t core;
    if (argc != 3)
        return 2;
    CPU_ZERO(&core);
    CPU_SET(atoi(argv[1]), &core);
    if (sched_setaffinity(0, sizeof core, &core) || sched_setscheduler(0, SCHED_FIFO, &priority))
        return 1;
    mlockall(MCL_CURRENT | MCL_FUTURE);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    int64_t least = SLEEP_NS + atol(argv[2]) * 1000LL, begun = now(), last = begun;
    while (last - begun < LONGEST_NS) {
        nanosleep(&sleep, NULL);
        int64_t woken = now();
        if (woken - last > least)
            printf("%lld %lld\n", (long long)last, (long long)woken);
        last = woken;
    }
    return 0;
}
