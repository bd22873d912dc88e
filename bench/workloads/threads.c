/* T threads at once, each of which does what `switch` does, with a greenlet of
 * its own. The time is CPU time of one of them per switch: what T - 1 others
 * add is what the threads share. They may use all CPUs; where there are fewer
 * than threads the CPU time stays what it is.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "common.h"

enum { ROUNDS = 1000, THREADS_MAX = 4 };

static atomic_bool stop;
static atomic_int ready;

static greenlet_message answer(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {value, 0};
    while (m.status == 0)
        m = greenlet_switch(parent, m.value);
    return m;
}

/* Switches until it is told to stop. Returns a status. */
static void *other(void *data) {
    (void)data;
    greenlet *g = greenlet_new(answer, NULL);
    intptr_t status = g ? greenlet_switch(g, NULL).status : -errno;
    atomic_fetch_add(&ready, 1);
    while (status == 0 && !atomic_load_explicit(&stop, memory_order_relaxed))
        for (int i = 0; i < ROUNDS; i++)
            status = greenlet_switch(g, NULL).status;
    greenlet_unref(g);
    return (void *)status;
}

/* Threads inherit the CPUs of the one that starts them: that one, which
 * measures, is let go for the moment of that and pinned again. */
static void run(bench_state *state, int64_t count) {
    pthread_t threads[THREADS_MAX];
    int started = 0, failed = 0;
    atomic_store(&stop, false);
    atomic_store(&ready, 0);
    bench_unpin();
    while (started < count - 1 && !failed) {
        failed = pthread_create(&threads[started], NULL, other, NULL);
        started += !failed;
    }
    bench_pin();
    while (atomic_load(&ready) < started)
        (void)sched_yield();
    greenlet *g = failed ? NULL : greenlet_new(answer, NULL);
    intptr_t status = failed ? -failed : -errno;
    if (g)
        status = greenlet_switch(g, NULL).status;
    while (status == 0 && bench_keep_running(state, 2 * (int64_t)ROUNDS))
        for (int i = 0; i < ROUNDS; i++)
            status = greenlet_switch(g, NULL).status;
    greenlet_unref(g);
    atomic_store(&stop, true);
    while (started > 0) {
        void *result = NULL;
        (void)pthread_join(threads[--started], &result);
        if (status == 0)
            status = (intptr_t)result;
    }
    if (status)
        bench_skip_status(state, "threads", status);
}

static const bench_case cases[] = {{NULL, 1}, {NULL, 2}, {NULL, 4}};

BENCH_WORKLOAD(.name = "threads", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
