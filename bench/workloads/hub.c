/* The main greenlet gives control to each of N in turn, as a scheduler does,
 * and each gives it back. Many are cold: nobody has touched the stack for 2 N
 * switches. In an order of chance the CPU cannot fetch the next one ahead.
 *
 * SPDX-License-Identifier: MIT */
#include "../order.h"
#include "crowd.h"

enum { SWITCHES = 200000 }; /* a batch, about */

/* A number below 0: in an order of chance. */
static void run(bench_state *state, int64_t number) {
    size_t count = (size_t)(number < 0 ? -number : number);
    if (!bench_affordable(count, 16384)) {
        bench_lacks(state, "not enough memory");
        return;
    }
    static crowd c; /* not on a stack that may be displaced */
    uint32_t *order = bench_order(count, number < 0);
    if (!order) {
        bench_skip(state, "no memory for the order");
        return;
    }
    if (!crowd_begin(&c, count, crowd_answer)) {
        bench_skip(state, c.why_not);
    } else {
        long laps = SWITCHES / 2 / (long)count;
        laps = laps < 1 ? 1 : laps;
        greenlet_message m = {NULL, 0};
        greenlet_statistics before = bench_statistics();
        while (m.status == 0 &&
               bench_keep_running(state, 2 * laps * (int64_t)count))
            for (long lap = 0; lap < laps; lap++)
                for (size_t i = 0; i < count; i++)
                    m = greenlet_switch(c.all[order[i]], NULL);
        if (m.status)
            bench_skip_status(state, "greenlet_switch", m.status);
        else
            bench_count_copies(state, &before, 2);
    }
    crowd_end(&c);
    free(order);
}

static const bench_case cases[] = {
    {NULL, 16}, {NULL, 1024}, {NULL, 100000}, {"shuffled-100000", -100000}};

BENCH_WORKLOAD(.name = "hub", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
