/* Two greenlets that hand over to each other directly, the main greenlet
 * standing aside. With one lane or none each switch copies; with more, none.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { ROUNDS = 1000 };

typedef struct pair {
    greenlet *main, *a, *b;
} pair;

/* Leads: both were started by main. */
static greenlet_message lead(void *value) {
    pair *p = value;
    for (;;) {
        greenlet_message m = greenlet_switch(p->main, NULL);
        for (int i = 0; i < ROUNDS && m.status == 0; i++)
            m = greenlet_switch(p->b, NULL);
        if (m.status)
            return m;
    }
}

static greenlet_message follow(void *value) {
    pair *p = value;
    greenlet_message m = greenlet_switch(p->main, NULL);
    while (m.status == 0)
        m = greenlet_switch(p->a, NULL);
    return m;
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    static pair p; /* not on a stack that may be displaced */
    p.main = greenlet_current();
    p.a = greenlet_new(lead, NULL);
    p.b = greenlet_new(follow, NULL);
    if (!p.a || !p.b) {
        bench_skip_status(state, "greenlet_new", -errno);
    } else {
        greenlet_message m = greenlet_switch(p.a, &p);
        if (m.status == 0)
            m = greenlet_switch(p.b, &p);
        greenlet_statistics before = bench_statistics();
        /* main -> a, ROUNDS times a -> b -> a, a -> main */
        while (m.status == 0 &&
               bench_keep_running(state, 2 * (int64_t)ROUNDS + 2))
            m = greenlet_switch(p.a, NULL);
        if (m.status)
            bench_skip_status(state, "greenlet_switch", m.status);
        else
            bench_count_copies(state, &before, 1);
    }
    greenlet_unref(p.b);
    greenlet_unref(p.a);
}

BENCH_WORKLOAD(.name = "pair", .unit = "switch", .run = run);
