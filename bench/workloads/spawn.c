/* A greenlet's whole life: made, started, finished, freed. The time is per
 * greenlet; it includes two switches.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { ROUNDS = 100 };

static greenlet_message nothing(void *value) {
    return (greenlet_message){value, 0};
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    greenlet_message m = {NULL, 0};
    while (m.status == 0 && bench_keep_running(state, ROUNDS)) {
        for (int i = 0; i < ROUNDS && m.status == 0; i++) {
            greenlet *g = greenlet_new(nothing, NULL);
            if (!g) {
                m.status = -errno;
                break;
            }
            m = greenlet_switch(g, NULL);
            greenlet_unref(g);
        }
    }
    if (m.status)
        bench_skip_status(state, "spawn", m.status);
}

BENCH_WORKLOAD(.name = "spawn", .unit = "greenlet", .run = run);
