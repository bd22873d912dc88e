/* The same as `switch` (hub) and `pair` (pair), but each switch is made three
 * call frames deep and those frames return before the next one. The CPU
 * predicts returns by a stack of its own, which knows nothing of a switch: each
 * of these returns is predicted wrong, whatever the technique. That is nearer
 * to what programs see than the flat ping-pong of the other two.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { HUB, PAIR, ROUNDS = 1000 };

#ifdef __clang__
#define FRAME static __attribute__((noinline)) greenlet_message
#else
#define FRAME static __attribute__((noinline, noclone)) greenlet_message
#endif

/* bench_use() behind the call keeps it a call: not a jump. */
FRAME switch_1(greenlet *to, void *value) {
    greenlet_message m = greenlet_switch(to, value);
    bench_use(to);
    return m;
}

FRAME switch_2(greenlet *to, void *value) {
    greenlet_message m = switch_1(to, value);
    bench_use(to);
    return m;
}

FRAME switch_3(greenlet *to, void *value) {
    greenlet_message m = switch_2(to, value);
    bench_use(to);
    return m;
}

static greenlet *hub, *a, *b;

static greenlet_message answer(void *value) {
    greenlet_message m = {value, 0};
    while (m.status == 0)
        m = switch_3(hub, m.value);
    return m;
}

static greenlet_message lead(void *value) {
    for (;;) {
        greenlet_message m = switch_3(hub, value);
        for (int i = 0; i < ROUNDS && m.status == 0; i++)
            m = switch_3(b, NULL);
        if (m.status)
            return m;
    }
}

static greenlet_message follow(void *value) {
    greenlet_message m = switch_3(hub, value);
    while (m.status == 0)
        m = switch_3(a, NULL);
    return m;
}

static void run(bench_state *state, int64_t pattern) {
    hub = greenlet_current();
    a = greenlet_new(pattern == HUB ? answer : lead, NULL);
    b = pattern == PAIR ? greenlet_new(follow, NULL) : NULL;
    if (!a || (pattern == PAIR && !b)) {
        bench_skip_status(state, "greenlet_new", -errno);
    } else {
        greenlet_message m = greenlet_switch(a, NULL);
        if (m.status == 0 && b)
            m = greenlet_switch(b, NULL);
        greenlet_statistics before = bench_statistics();
        /* main -> a, ROUNDS times a -> b -> a, a -> main */
        while (pattern == PAIR && m.status == 0 &&
               bench_keep_running(state, 2 * (int64_t)ROUNDS + 2))
            m = greenlet_switch(a, NULL);
        while (pattern == HUB && m.status == 0 &&
               bench_keep_running(state, 2 * (int64_t)ROUNDS))
            for (int i = 0; i < ROUNDS; i++)
                m = switch_3(a, NULL);
        if (m.status)
            bench_skip_status(state, "greenlet_switch", m.status);
        else
            bench_count_copies(state, &before, pattern == HUB ? 2 : 1);
    }
    greenlet_unref(b);
    greenlet_unref(a);
}

static const bench_case cases[] = {{"hub", HUB}, {"pair", PAIR}};

BENCH_WORKLOAD(.name = "nested", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
