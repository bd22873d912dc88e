/* `switch` by greenlet_inline.h: a switch between a resident greenlet and the
 * main greenlet, to and fro. Compiled for each backend; compare it with
 * floor/inline.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"
#include "greenlet_inline.h"

enum { ROUNDS = 1000 };

static greenlet_message answer(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    for (;;) {
        greenlet_message m = greenlet_switch_inline(parent, value);
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
            m = greenlet_switch_inline(g, m.value);
    if (m.status)
        bench_skip_status(state, "greenlet_switch_inline", m.status);
    else
        bench_count_copies(state, &before, 2);
    if (!GREENLET_INLINE)
        bench_label(state, "not inline in this build");
    greenlet_unref(g);
}

BENCH_WORKLOAD(.name = "inline", .unit = "switch", .run = run);
