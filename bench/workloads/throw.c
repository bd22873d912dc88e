/* Errors instead of values.
 *
 *   error    main throws at a greenlet, which takes the error as its switch's
 *            status and switches back: as `switch`, by the slow path; the time
 *            is per throw with the switch back
 *   unborn   an error thrown at a greenlet that never ran: made, thrown at,
 *            freed
 *   kill     a suspended greenlet is killed: made, started, killed, freed
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

enum { ERROR, UNBORN, KILL };
enum { ROUNDS = 100, CODE = 7 };

/* Survives every error but GREENLET_EXIT. */
static greenlet_message stubborn(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {value, 0};
    while (m.status != GREENLET_EXIT)
        m = greenlet_switch(parent, (void *)m.status);
    return m;
}

/* Returns 0 or the status of what went wrong. */
static intptr_t throw_at(greenlet *g) {
    greenlet_message m = greenlet_throw(g, CODE, NULL);
    if (m.status)
        return m.status;
    return m.value == (void *)CODE ? 0 : -EPROTO;
}

static intptr_t life(int64_t end) {
    greenlet *g = greenlet_new(stubborn, NULL);
    if (!g)
        return -errno;
    greenlet_message m = {NULL, 0};
    if (end == UNBORN) {
        m = greenlet_throw(g, CODE, NULL); /* arrives here, at its parent */
        m.status = m.status == CODE ? 0 : -EPROTO;
    } else {
        m = greenlet_switch(g, NULL);
        if (m.status == 0)
            m = greenlet_kill(g);
        if (m.status == 0 && greenlet_get_state(g) != GREENLET_DEAD)
            m.status = -EPROTO;
    }
    greenlet_unref(g);
    return m.status;
}

static void run(bench_state *state, int64_t what) {
    greenlet *g = greenlet_new(stubborn, NULL);
    intptr_t status = g ? greenlet_switch(g, NULL).status : -errno;
    while (status == 0 && bench_keep_running(state, ROUNDS))
        for (int i = 0; i < ROUNDS && status == 0; i++)
            status = what == ERROR ? throw_at(g) : life(what);
    if (status)
        bench_skip_status(state, "throw", status);
    greenlet_unref(g);
}

static const bench_case cases[] = {
    {"error", ERROR}, {"unborn", UNBORN}, {"kill", KILL}};

BENCH_WORKLOAD(.name = "throw", .unit = "throw", .run = run, .cases = cases,
               .case_count = BENCH_COUNT(cases));
