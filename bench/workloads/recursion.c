/* Is memory given back? Each of 100 greenlets goes 256 KiB deep in recursion,
 * where it switches to main and back, returns, and waits at its shallowest, as
 * a connection does after a large request. The time is per greenlet that went
 * deep and came back; the counters are what each keeps while it waits.
 *
 * SPDX-License-Identifier: MIT */
#include "crowd.h"
#include "large.h"

enum { GREENLETS = 100, FRAMES = 64, FRAME_BYTES = 4096 };

#ifdef __clang__
#define FRAME static __attribute__((noinline)) intptr_t
#else
#define FRAME static __attribute__((noinline, noclone)) intptr_t
#endif

FRAME dive(int frames, greenlet *parent) {
    char payload[FRAME_BYTES];
    memset(payload, frames, sizeof payload);
    bench_use(payload);
    intptr_t status = frames ? dive(frames - 1, parent)
                             : greenlet_switch(parent, NULL).status;
    bench_use(payload);
    return status;
}

/* At every even turn in the depth, at every odd one at its shallowest. */
static greenlet_message diver(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {value, 0};
    while (m.status == 0) {
        m = greenlet_switch(parent, m.value);
        if (m.status == 0)
            m.status = dive(FRAMES, parent);
    }
    return m;
}

static crowd c;

/* All of them down, then all of them up again. */
static intptr_t all_dive(void) {
    intptr_t status = 0;
    for (int turn = 0; turn < 2; turn++)
        for (size_t i = 0; i < c.count && status == 0; i++)
            status = greenlet_switch(c.all[i], NULL).status;
    return status;
}

static const char *dived(size_t count) {
    (void)bench_large_stacks(); /* -EBUSY the second time */
    if (!crowd_begin(&c, count, diver))
        return c.why_not;
    intptr_t status = all_dive();
    return status ? greenlet_strerror(status) : NULL;
}

static void measure(bench_state *state, int64_t number) {
    (void)number;
    bench_taken taken = bench_measure_memory("recursion", GREENLETS);
    if (!taken.ok) {
        bench_skip(state, taken.why_not);
        return;
    }
    if (!crowd_begin(&c, GREENLETS, diver)) {
        bench_skip(state, c.why_not);
    } else {
        intptr_t status = all_dive();
        greenlet_statistics before = bench_statistics();
        while (status == 0 && bench_keep_running(state, GREENLETS))
            status = all_dive();
        if (status) {
            bench_skip_status(state, "recursion", status);
        } else {
            bench_count_copies(state, &before, 2);
            bench_count_memory(state, &taken, GREENLETS, "greenlet");
        }
    }
    crowd_end(&c);
}

static void run(bench_state *state, int64_t number) {
    bench_run_large(state, number, measure);
}

BENCH_WORKLOAD(.name = "recursion", .unit = "dive", .run = run,
               .memory = dived);
