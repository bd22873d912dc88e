/* How large the public structs are, beside the cheapest call there is, as a
 * check that the harness measures what it should.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { ROUNDS = 1000 };

static void run(bench_state *state, int64_t number) {
    (void)number;
    char text[120];
    snprintf(text, sizeof text,
             "bytes: message %zu, options %zu, statistics %zu, hooks %zu",
             sizeof(greenlet_message), sizeof(greenlet_options),
             sizeof(greenlet_statistics), sizeof(greenlet_hooks));
    while (bench_keep_running(state, ROUNDS))
        for (int i = 0; i < ROUNDS; i++)
            bench_use(greenlet_current());
    bench_label(state, text);
}

BENCH_WORKLOAD(.name = "sizes", .unit = "call", .run = run);
