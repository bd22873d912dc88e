/* `switch` with somebody looking on: none, as `switch` itself; a tracer; the
 * hooks before and after each switch. What they do is next to nothing.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { NOBODY, TRACER, HOOKS };
enum { ROUNDS = 1000 };

static uint64_t seen;

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    (void)event;
    (void)origin;
    (void)target;
    (void)data;
    seen++;
}

static void hook(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)to;
    (void)data;
    seen++;
}

static greenlet_message answer(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {value, 0};
    while (m.status == 0)
        m = greenlet_switch(parent, m.value);
    return m;
}

static void run(bench_state *state, int64_t who) {
    greenlet *g = greenlet_new(answer, NULL);
    if (!g) {
        bench_skip_status(state, "greenlet_new", -errno);
        return;
    }
    greenlet_message m = greenlet_switch(g, NULL);
    greenlet_hooks hooks = GREENLET_HOOKS_INIT;
    hooks.pre_switch = hooks.post_switch = hook;
    if (m.status == 0 && who == TRACER)
        m.status = greenlet_set_tracer(tracer, NULL, NULL, NULL);
    if (m.status == 0 && who == HOOKS)
        m.status = greenlet_set_hooks(&hooks, NULL);
    seen = 0;
    uint64_t switches = 0;
    while (m.status == 0 && bench_keep_running(state, 2 * (int64_t)ROUNDS)) {
        for (int i = 0; i < ROUNDS; i++)
            m = greenlet_switch(g, m.value);
        switches += 2 * (uint64_t)ROUNDS;
    }
    (void)greenlet_set_tracer(NULL, NULL, NULL, NULL);
    (void)greenlet_set_hooks(NULL, NULL);
    if (m.status)
        bench_skip_status(state, "trace", m.status);
    else if (seen != switches * (uint64_t)who)
        bench_skip(state, "switches were not seen");
    greenlet_unref(g);
}

/* The number is how often each switch is seen. */
static const bench_case cases[] = {
    {"nobody", NOBODY}, {"tracer", TRACER}, {"hooks", HOOKS}};

BENCH_WORKLOAD(.name = "trace", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
