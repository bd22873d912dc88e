/* A server's working set: 1,000 greenlets with about 512 live bytes each,
 * visited from a hub in turn (robin), or the more often the lower their number
 * (zipf: half of the visits go to 23 of them). How much is copied then is a
 * matter of lanes: to be run with several of them, by GREENLET_LANES.
 *
 * SPDX-License-Identifier: MIT */
#include "../order.h"
#include "crowd.h"

enum { ROBIN, ZIPF };
enum { POPULATION = 1000, VISITS = 20000, PAYLOAD = 512 };

static greenlet_message task(void *value) {
    char payload[PAYLOAD];
    memset(payload, 0xa5, sizeof payload);
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {value, 0};
    while (m.status == 0) {
        bench_use(payload);
        m = greenlet_switch(parent, m.value);
    }
    return m;
}

static void run(bench_state *state, int64_t pattern) {
    static crowd c; /* not on a stack that may be displaced */
    uint32_t *visits = pattern == ZIPF ? bench_zipf(VISITS, POPULATION)
                                       : calloc(VISITS, sizeof *visits);
    if (!visits) {
        bench_skip(state, "no memory for the order");
        return;
    }
    for (size_t i = 0; pattern == ROBIN && i < VISITS; i++)
        visits[i] = (uint32_t)(i % POPULATION);
    if (!crowd_begin(&c, POPULATION, task)) {
        bench_skip(state, c.why_not);
    } else {
        bench_count_live(state, c.all[0]);
        greenlet_message m = {NULL, 0};
        greenlet_statistics before = bench_statistics();
        while (m.status == 0 && bench_keep_running(state, 2 * (int64_t)VISITS))
            for (size_t i = 0; i < VISITS; i++)
                m = greenlet_switch(c.all[visits[i]], NULL);
        if (m.status)
            bench_skip_status(state, "greenlet_switch", m.status);
        else
            bench_count_copies(state, &before, 2);
    }
    crowd_end(&c);
    free(visits);
}

static const bench_case cases[] = {{"robin", ROBIN}, {"zipf", ZIPF}};

BENCH_WORKLOAD(.name = "population", .unit = "switch", .run = run,
               .cases = cases, .case_count = BENCH_COUNT(cases));
