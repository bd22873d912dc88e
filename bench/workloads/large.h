/* Work that needs larger stacks than a thread gives its greenlets by default.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_LARGE_H
#define BENCH_LARGE_H

#include <pthread.h>

#include "common.h"

/* Gives the calling thread's greenlets stacks, or lanes, of 1 MiB: only before
 * the thread's first use of the library. Returns a status. */
static inline int bench_large_stacks(void) {
    greenlet_thread_options options = GREENLET_THREAD_OPTIONS_INIT;
    options.lane_bytes = options.stack_bytes = (size_t)1 << 20;
    return greenlet_thread_configure(&options);
}

typedef struct bench_large {
    bench_state *state;
    int64_t number;
    void (*run)(bench_state *state, int64_t number);
} bench_large;

static inline void *bench_large_thread(void *data) {
    bench_large *work = data;
    int status = bench_large_stacks();
    if (status)
        bench_skip_status(work->state, "greenlet_thread_configure", status);
    else
        work->run(work->state, work->number);
    return NULL;
}

/* Runs a workload in a thread of its own, whose greenlets have 1 MiB. The CPU
 * time that counts is that of the thread which calls bench_keep_running(). */
static inline void bench_run_large(bench_state *state, int64_t number,
                                   void (*run)(bench_state *state,
                                               int64_t number)) {
    bench_large work = {state, number, run};
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, bench_large_thread, &work);
    if (failed)
        bench_skip(state, strerror(failed));
    else
        (void)pthread_join(thread, NULL);
}

#endif
