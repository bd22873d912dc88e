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

/* Reports what was copied since `before`: per switch, and per turn, in which a
 * task is resumed and yields. That is two switches where control comes from a
 * hub and goes back to it; one where tasks hand over to each other. */
static inline void bench_count_copies(bench_state *state,
                                      const greenlet_statistics *before,
                                      int switches_per_turn) {
    greenlet_statistics now = bench_statistics();
    uint64_t switches = now.switches - before->switches;
    uint64_t bytes = now.saved_bytes - before->saved_bytes + now.filled_bytes -
                     before->filled_bytes;
    if (!switches)
        return;
    double each = (double)bytes / (double)switches;
    bench_counter(state, "bytes/switch", each);
    bench_counter(state, "bytes/turn", each * switches_per_turn);
}

/* Reports how many live bytes the suspended `g` has, the library's and the
 * compiler's included. */
static inline void bench_count_live(bench_state *state, const greenlet *g) {
    greenlet_stack stack;
    if (greenlet_get_stack(g, &stack) == 0)
        bench_counter(state, "live bytes",
                      (double)((uintptr_t)stack.base - (uintptr_t)stack.sp));
}

/* Gives up because the library did not make a greenlet, or not switch. */
static inline void bench_skip_status(bench_state *state, const char *what,
                                     intptr_t status) {
    char text[160];
    snprintf(text, sizeof text, "%s: %s", what, greenlet_strerror(status));
    bench_skip(state, text);
}

#endif
