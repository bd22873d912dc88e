/* What several workloads need.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "greenlet.h"
#include "shim.h"

/* Statistics of the calling thread. */
static inline greenlet_statistics bench_statistics(void) {
    greenlet_statistics now = GREENLET_STATISTICS_INIT;
    (void)greenlet_thread_statistics(&now);
    return now;
}

/* Reports what was copied since `before`, per switch; and how often, and what
 * the system's allocators were asked for, if anything. */
static inline void bench_count_copies(bench_state *state,
                                      const greenlet_statistics *before) {
    greenlet_statistics now = bench_statistics();
    uint64_t switches = now.switches - before->switches;
    uint64_t bytes = now.saved_bytes - before->saved_bytes + now.filled_bytes -
                     before->filled_bytes;
    if (!switches)
        return;
    double each = 1 / (double)switches;
    bench_counter(state, "bytes/switch", (double)bytes * each);
    if (now.evictions != before->evictions)
        bench_counter(state, "evictions/switch",
                      (double)(now.evictions - before->evictions) * each);
    if (now.fills != before->fills)
        bench_counter(state, "fills/switch",
                      (double)(now.fills - before->fills) * each);
    if (now.allocations != before->allocations)
        bench_counter(state, "allocations/switch",
                      (double)(now.allocations - before->allocations) * each);
}

/* Gives up because the library did not make a greenlet, or not switch. */
static inline void bench_skip_status(bench_state *state, const char *what,
                                     intptr_t status) {
    char text[160];
    snprintf(text, sizeof text, "%s: %s", what, greenlet_strerror(status));
    bench_skip(state, text);
}

#endif
