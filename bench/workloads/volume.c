/* How many bytes are copied per switch, by who switches to whom. Each member
 * has about 512 live bytes of its own; the backend chooses the lanes.
 *
 *   hub-one    main <-> one greenlet: a generator and its consumer
 *   hub-many   main <-> each of 16 in turn: a scheduler and its tasks
 *   siblings   16 in a ring, main aside: tasks that hand over directly
 *   nested     each of 4 has started the next from its own stack; the value
 *              goes down to the innermost and back up: generators that
 *              consume generators
 *
 * The figures of interest are bytes/switch and bytes/turn; the time is per
 * switch, too.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { HUB_ONE, HUB_MANY, SIBLINGS, NESTED };
enum { MANY = 16, DEEP = 4, PAYLOAD = 512, ROUNDS = 200 };

typedef struct party {
    greenlet *main;
    greenlet *all[MANY];
    int count;
    int laps; /* siblings: yet to go in this batch */
    intptr_t failed;
} party;

static party p;

/* Gives every value back to the hub. */
static greenlet_message task(void *value) {
    char payload[PAYLOAD];
    memset(payload, 0xa5, sizeof payload);
    greenlet_message m = {value, 0};
    while (m.status == 0) {
        bench_use(payload);
        m = greenlet_switch(p.main, m.value);
    }
    return m;
}

static greenlet_message sibling(void *value) {
    char payload[PAYLOAD];
    memset(payload, 0xa5, sizeof payload);
    int self = (int)(intptr_t)value;
    greenlet_message m = greenlet_switch(p.main, NULL);
    while (m.status == 0) {
        bench_use(payload);
        if (self == 0 && p.laps-- == 0)
            m = greenlet_switch(p.main, NULL);
        else
            m = greenlet_switch(p.all[(self + 1) % p.count], NULL);
    }
    return m;
}

/* Number `value` of the nest: asks the next inner one for each value. */
static greenlet_message generator(void *value) {
    char payload[PAYLOAD];
    memset(payload, 0xa5, sizeof payload);
    int self = (int)(intptr_t)value;
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {NULL, 0};
    if (self + 1 < p.count) {
        p.all[self + 1] = greenlet_new(generator, NULL);
        if (!p.all[self + 1])
            p.failed = -errno;
        else
            m = greenlet_switch(p.all[self + 1], (void *)(intptr_t)(self + 1));
    }
    while (m.status == 0) {
        bench_use(payload);
        m = greenlet_switch(parent, m.value);
        if (m.status == 0 && self + 1 < p.count && p.all[self + 1])
            m = greenlet_switch(p.all[self + 1], m.value);
    }
    return m;
}

/* One lap of main's: returns the last status. */
static intptr_t lap(int pattern) {
    greenlet_message m = {NULL, 0};
    if (pattern == SIBLINGS) {
        p.laps = ROUNDS;
        return greenlet_switch(p.all[0], NULL).status;
    }
    for (int i = 0; i < ROUNDS; i++) {
        int visited = pattern == HUB_MANY ? p.count : 1;
        for (int k = 0; k < visited && m.status == 0; k++)
            m = greenlet_switch(p.all[k], NULL);
    }
    return m.status;
}

static void run(bench_state *state, int64_t number) {
    static const int counts[] = {1, MANY, MANY, DEEP};
    int pattern = (int)number;
    memset(&p, 0, sizeof p);
    p.main = greenlet_current();
    p.count = counts[pattern];
    int started = pattern == NESTED ? 1 : p.count;
    greenlet_entry *entry = pattern == SIBLINGS ? sibling
                            : pattern == NESTED ? generator
                                                : task;
    for (int i = 0; i < started && p.failed == 0; i++) {
        p.all[i] = greenlet_new(entry, NULL);
        if (!p.all[i])
            p.failed = -errno;
        else
            p.failed = greenlet_switch(p.all[i], (void *)(intptr_t)i).status;
    }
    if (p.failed == 0)
        p.failed = lap(pattern);
    greenlet_statistics before = bench_statistics();
    int64_t switches = pattern == SIBLINGS ? (int64_t)ROUNDS * p.count + 2
                                           : 2 * (int64_t)ROUNDS * p.count;
    while (p.failed == 0 && bench_keep_running(state, switches))
        p.failed = lap(pattern);
    if (p.failed)
        bench_skip_status(state, "volume", p.failed);
    else
        bench_count_copies(state, &before, pattern == SIBLINGS ? 1 : 2);
    /* The nest's inner ones first: an outer one holds its parent only. */
    for (int i = p.count - 1; i >= 0; i--)
        greenlet_unref(p.all[i]);
}

static const bench_case cases[] = {{"hub-one", HUB_ONE},
                                   {"hub-many", HUB_MANY},
                                   {"siblings", SIBLINGS},
                                   {"nested", NESTED}};

BENCH_WORKLOAD(.name = "volume", .unit = "switch", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
