/* N greenlets that are made, started, and wait: idle connections. The time is
 * that of making and starting one; the counters are what memory each takes, of
 * which the kernel's page tables, and the mappings, are part.
 *
 * SPDX-License-Identifier: MIT */
#include "crowd.h"

static crowd c;

static const char *park(size_t count) {
    return crowd_begin(&c, count, crowd_answer) ? NULL : c.why_not;
}

static void run(bench_state *state, int64_t number) {
    size_t count = (size_t)number;
    if (!bench_affordable(count, 16384)) {
        bench_lacks(state, "not enough memory");
        return;
    }
    bench_taken taken = bench_measure_memory("park", count);
    const char *why_not = taken.ok ? NULL : taken.why_not;
    while (!why_not && bench_keep_running(state, number)) {
        why_not = park(count);
        bench_pause(state);
        crowd_end(&c);
        bench_resume(state);
    }
    if (why_not)
        bench_skip(state, why_not);
    else
        bench_count_memory(state, &taken, count, "greenlet");
}

static const bench_case cases[] = {{NULL, 1000}, {NULL, 10000}, {NULL, 100000}};

BENCH_WORKLOAD(.name = "park", .unit = "greenlet", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases), .memory = park);
