/* A switch between two greenlets that have the given number of live stack
 * bytes each and share one lane, so that on the copy backend each switch
 * saves one and fills the other. The other backends do the same without
 * copying; their stacks, too, have these bytes and touch none of them.
 *
 * The library's own frames are part of the live bytes: where they alone are
 * more than the number, there is no less. The counters tell the truth.
 *
 * SPDX-License-Identifier: MIT */
#include <alloca.h>

#include "large.h"

typedef struct duel {
    greenlet *main, *a, *b;
    size_t payload_bytes;
    int rounds;
} duel;

static duel d;

static greenlet_message lead(void *value) {
    char *payload = alloca(d.payload_bytes);
    memset(payload, 0xa5, d.payload_bytes);
    for (;;) {
        bench_use(payload);
        greenlet_message m = greenlet_switch(d.main, value);
        for (int i = 0; i < d.rounds && m.status == 0; i++)
            m = greenlet_switch(d.b, NULL);
        if (m.status)
            return m;
    }
}

static greenlet_message follow(void *value) {
    char *payload = alloca(d.payload_bytes);
    memset(payload, 0x5a, d.payload_bytes);
    greenlet_message m = greenlet_switch(d.main, value);
    while (m.status == 0) {
        bench_use(payload);
        m = greenlet_switch(d.a, NULL);
    }
    return m;
}

/* Starts both, from here, so that in place, too, they want the same bytes;
 * then lets them play once. Returns 0 or a status. */
static intptr_t begin(size_t payload_bytes, size_t stack_bytes) {
    greenlet_options options = GREENLET_OPTIONS_INIT;
    options.lane = 0;
    options.stack_bytes = stack_bytes;
    d.payload_bytes = payload_bytes;
    d.main = greenlet_current();
    d.a = greenlet_new(lead, &options);
    d.b = d.a ? greenlet_new(follow, &options) : NULL;
    if (!d.b)
        return -errno;
    greenlet *turns[] = {d.a, d.b, d.a};
    intptr_t status = 0;
    for (size_t i = 0; i < BENCH_COUNT(turns) && status == 0; i++)
        status = greenlet_switch(turns[i], NULL).status;
    return status;
}

static void end(void) {
    greenlet_unref(d.b);
    greenlet_unref(d.a);
    d.a = d.b = NULL;
}

static void measure(bench_state *state, int64_t number) {
    size_t live_bytes = (size_t)number, payload_bytes = 1;
    greenlet_stack stack = {NULL, NULL, 0};
    d.rounds = number > 4096 ? 200 : 1000;
    /* First with next to no payload, to see what the frames alone take. */
    intptr_t status = begin(1, live_bytes + 16384);
    if (status == 0)
        status = greenlet_get_stack(d.b, &stack);
    size_t least = (size_t)((const char *)stack.base - (const char *)stack.sp);
    end();
    if (status == 0) {
        if (live_bytes > least)
            payload_bytes = live_bytes - least;
        status = begin(payload_bytes, live_bytes + 16384);
    }
    if (status == 0)
        bench_count_live(state, d.b);
    greenlet_statistics before = bench_statistics();
    while (status == 0 && bench_keep_running(state, 2 * (int64_t)d.rounds + 2))
        status = greenlet_switch(d.a, NULL).status;
    if (status)
        bench_skip_status(state, "live", status);
    else
        bench_count_copies(state, &before, 1);
    end();
}

static void run(bench_state *state, int64_t number) {
    if (number > 65536)
        bench_run_large(state, number, measure);
    else
        measure(state, number);
}

static const bench_case cases[] = {{NULL, 64},    {NULL, 256},   {NULL, 1024},
                                   {NULL, 4096},  {NULL, 16384}, {NULL, 65536},
                                   {NULL, 262144}};

BENCH_WORKLOAD(.name = "live", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
