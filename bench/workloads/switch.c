/* A switch between a resident greenlet and the main greenlet, to and fro.
 * The flattest case there is: compare it with floor/switch.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { ROUNDS = 1000 };

static greenlet_message answer(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    for (;;) {
        greenlet_message m = greenlet_switch(parent, value);
        if (m.status)
            return m;
        value = m.value;
    }
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    greenlet *g = greenlet_new(answer, NULL);
    if (!g) {
        bench_skip_status(state, "greenlet_new", -errno);
        return;
    }
    greenlet_message m = greenlet_switch(g, NULL);
    greenlet_statistics before = bench_statistics();
    while (m.status == 0 && bench_keep_running(state, 2 * (int64_t)ROUNDS))
        for (int i = 0; i < ROUNDS; i++)
            m = greenlet_switch(g, m.value);
    if (m.status)
        bench_skip_status(state, "greenlet_switch", m.status);
    else
        bench_count_copies(state, &before, 2);
    greenlet_unref(g);
}

BENCH_WORKLOAD(.name = "switch", .unit = "switch", .run = run);
