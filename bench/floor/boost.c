/* floor/boost-switch: Boost's jump_fcontext between this stack and another
 * one, the yardstick that others know. Declared here as Boost 1.74's
 * boost/context/detail/fcontext.hpp does, which is C++.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../workloads/common.h"

enum { ROUNDS = 1000, STACK_BYTES = 65536 };

struct transfer {
    void *from, *data;
};
struct transfer jump_fcontext(void *to, void *data);
void *make_fcontext(void *base, size_t bytes, void (*entry)(struct transfer));

static void other(struct transfer t) {
    for (;;)
        t = jump_fcontext(t.from, t.data);
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    char *stack = aligned_alloc(64, STACK_BYTES);
    if (!stack) {
        bench_skip(state, "no memory for a stack");
        return;
    }
    struct transfer t = {make_fcontext(stack + STACK_BYTES, STACK_BYTES, other),
                         NULL};
    t = jump_fcontext(t.from, NULL);
    while (bench_keep_running(state, 2 * (int64_t)ROUNDS))
        for (int i = 0; i < ROUNDS; i++)
            t = jump_fcontext(t.from, t.data);
    free(stack);
}

BENCH_WORKLOAD(.name = "boost-switch", .unit = "switch", .run = run,
               .bare = true);
