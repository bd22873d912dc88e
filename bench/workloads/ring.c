/* N greenlets in a ring, each handing over to the next. Large rings are cold:
 * each switch goes to a stack that nobody has touched for N switches.
 *
 * SPDX-License-Identifier: MIT */
#include "../memory.h"
#include "common.h"

#include <stdlib.h>

enum { SWITCHES = 200000 }; /* a batch, about */

typedef struct ring {
    greenlet *main;
    greenlet **all;
    size_t count;
    long laps; /* yet to go in this batch */
} ring;

static ring r;

/* The first one counts the laps and gives control back after the last. */
static greenlet_message first(void *value) {
    for (;;) {
        greenlet_message m = greenlet_switch(r.main, value);
        while (m.status == 0 && r.laps-- > 0)
            m = greenlet_switch(r.all[1], NULL);
        if (m.status)
            return m;
    }
}

static greenlet_message member(void *value) {
    greenlet **next = value;
    greenlet_message m = greenlet_switch(r.main, NULL);
    while (m.status == 0)
        m = greenlet_switch(*next, NULL);
    return m;
}

/* Makes and starts them all. Returns 0 or a status. */
static intptr_t make(size_t count) {
    r.main = greenlet_current();
    r.all = calloc(count, sizeof *r.all);
    if (!r.all)
        return -ENOMEM;
    for (r.count = 0; r.count < count; r.count++) {
        size_t i = r.count;
        r.all[i] = greenlet_new(i == 0 ? first : member, NULL);
        if (!r.all[i])
            return -errno;
        greenlet_message m = greenlet_switch(r.all[i], &r.all[(i + 1) % count]);
        if (m.status)
            return m.status;
    }
    return 0;
}

static void drop(void) {
    if (r.all)
        for (size_t i = 0; i < r.count; i++)
            greenlet_unref(r.all[i]);
    free(r.all);
    r.all = NULL;
}

static void run(bench_state *state, int64_t number) {
    size_t count = (size_t)number;
    if (!bench_affordable(count, 16384)) {
        bench_lacks(state, "not enough memory");
        return;
    }
    intptr_t status = make(count);
    if (status) {
        char text[160];
        if (r.all && r.count < count && r.all[r.count])
            greenlet_unref(r.all[r.count]);
        snprintf(text, sizeof text, "the %zuth greenlet: %s", r.count + 1,
                 greenlet_strerror(status));
        bench_skip(state, text);
        drop();
        return;
    }
    long laps = SWITCHES / (long)count;
    laps = laps < 2 ? 2 : laps;
    greenlet_message m = {NULL, 0};
    r.laps = 1; /* one lap to warm up */
    m = greenlet_switch(r.all[0], NULL);
    greenlet_statistics before = bench_statistics();
    while (m.status == 0 && bench_keep_running(state, laps * (long)count + 2)) {
        r.laps = laps;
        m = greenlet_switch(r.all[0], NULL);
    }
    if (m.status)
        bench_skip_status(state, "greenlet_switch", m.status);
    else
        bench_count_copies(state, &before, 1);
    drop();
}

static const bench_case cases[] = {
    {NULL, 2}, {NULL, 16}, {NULL, 1024}, {NULL, 100000}, {NULL, 1000000}};

BENCH_WORKLOAD(.name = "ring", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
