/* The validators: `pair` with about 1 KiB of live bytes on each side, at each
 * check level. A level that this build of the library does not have says so.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "common.h"

enum { ROUNDS = 1000, PAYLOAD = 1024 };

static greenlet *hub, *a, *b;

static greenlet_message lead(void *value) {
    char payload[PAYLOAD];
    memset(payload, 0xa5, sizeof payload);
    for (;;) {
        bench_use(payload);
        greenlet_message m = greenlet_switch(hub, value);
        for (int i = 0; i < ROUNDS && m.status == 0; i++)
            m = greenlet_switch(b, NULL);
        if (m.status)
            return m;
    }
}

static greenlet_message follow(void *value) {
    char payload[PAYLOAD];
    memset(payload, 0x5a, sizeof payload);
    greenlet_message m = greenlet_switch(hub, value);
    while (m.status == 0) {
        bench_use(payload);
        m = greenlet_switch(a, NULL);
    }
    return m;
}

static void measure(bench_state *state) {
    hub = greenlet_current();
    a = greenlet_new(lead, NULL);
    b = greenlet_new(follow, NULL);
    if (!a || !b) {
        bench_skip_status(state, "greenlet_new", -errno);
    } else {
        greenlet_message m = greenlet_switch(a, NULL);
        if (m.status == 0)
            m = greenlet_switch(b, NULL);
        if (m.status == 0)
            bench_count_live(state, b);
        greenlet_statistics before = bench_statistics();
        while (m.status == 0 &&
               bench_keep_running(state, 2 * (int64_t)ROUNDS + 2))
            m = greenlet_switch(a, NULL);
        if (m.status)
            bench_skip_status(state, "greenlet_switch", m.status);
        else
            bench_count_copies(state, &before, 1);
    }
    greenlet_unref(b);
    greenlet_unref(a);
}

static void run(bench_state *state, int64_t level) {
    int status = greenlet_set_check_level((int)level);
    if (status == 0) {
        measure(state);
        const char *usual = getenv("GREENLET_CHECK");
        (void)greenlet_set_check_level(usual ? atoi(usual) : -1);
        return;
    }
    char text[160];
    snprintf(text, sizeof text, "no check level %d in this build: %s",
             (int)level, greenlet_strerror(status));
    /* Wrong, not lacking, where the library is that this level needs. */
    if (level == 2 && BENCH_HAS_DEBUG)
        bench_skip(state, text);
    else
        bench_lacks(state, text);
}

static const bench_case cases[] = {
    {"off", -1}, {NULL, 0}, {NULL, 1}, {NULL, 2}};

BENCH_WORKLOAD(.name = "check", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
