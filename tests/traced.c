/* What is recorded: a known number of switches, starts, throws and deaths, in
 * several threads.
 *
 *     traced THREADS ROUNDS [how it ends: exit, abort, inside, fork]
 *
 * Each thread: "ping" and "pong" are started (2), switched to ROUNDS times
 * each (and back), thrown at (2) and so die (2). The first thread then tells
 * the counters of the process, and ends as asked: "inside" is _exit() in a
 * greenlet; "fork" does the same work once more in a child.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "greenlet.h"

static long rounds;
static const char *ending = "exit";

static greenlet_message entry_pump(void *value) {
    greenlet_message m = {value, 0};
    while (m.status == 0)
        m = greenlet_switch(greenlet_main(), m.value);
    return m; /* what was thrown: EXIT arrives as a value */
}

static greenlet_message entry_ends(void *value) {
    if (strcmp(ending, "abort") == 0)
        abort();
    _exit(3);
    return (greenlet_message){value, 0};
}

static greenlet *make(greenlet_entry *entry, const char *name) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.name = name;
    greenlet *g = greenlet_new(entry, &o);
    if (!g)
        abort();
    return g;
}

static void *work(void *unused) {
    greenlet *pair[2] = {make(entry_pump, "ping"), make(entry_pump, "pong")};
    for (int i = 0; i < 2; i++)
        greenlet_switch(pair[i], NULL);
    for (long n = 0; n < rounds; n++)
        greenlet_switch(pair[n % 2], NULL),
            greenlet_switch(pair[1 - n % 2], NULL);
    for (int i = 0; i < 2; i++) {
        greenlet_throw(pair[i], GREENLET_EXIT, NULL);
        greenlet_unref(pair[i]);
    }
    return unused;
}

int main(int argc, char **argv) {
    pthread_t threads[64];
    long n = argc > 1 ? atol(argv[1]) : 1;
    rounds = argc > 2 ? atol(argv[2]) : 10;
    ending = argc > 3 ? argv[3] : "exit";
    for (long i = 0; i < n - 1 && i < 64; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return 1;
    work(NULL);
    for (long i = 0; i < n - 1 && i < 64; i++)
        pthread_join(threads[i], NULL);
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    greenlet_process_statistics(&s);
    printf("switches %ju evictions %ju fills %ju saved %ju filled %ju\n",
           (uintmax_t)s.switches, (uintmax_t)s.evictions, (uintmax_t)s.fills,
           (uintmax_t)s.saved_bytes, (uintmax_t)s.filled_bytes);
    fflush(stdout);
    if (strcmp(ending, "fork") == 0) {
        pid_t child = fork();
        if (child == 0) {
            work(NULL);
            return 0;
        }
        int status;
        return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
    }
    if (strcmp(ending, "exit") != 0) {
        greenlet_set_name(greenlet_main(), "the first");
        greenlet_switch(make(entry_ends, "last"), NULL);
    }
    return 0;
}
