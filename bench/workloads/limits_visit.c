/* N greenlets that wait, visited by the main greenlet one after the other, in
 * the order in which they were made or in a shuffled one: a visit is two
 * switches. Nobody's record, stack or slice has been touched for 2 N switches.
 *
 * floor/visit: the data only. As many records of 104 bytes and slices of as
 * many bytes as a waiting greenlet of this body has on a copying backend; a
 * visit reads and writes the one, and copies the other out and in again.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

#include <stdlib.h>

enum { RECORD_BYTES = 104, SLICE_BYTES = 96, WARM_UP_LAPS = 8 };

static greenlet *hub; /* the main greenlet */
static struct {
    greenlet **order;
    size_t count;
} v;

/* Whom it goes back to is read from where it is warm. A local would come from
 * the greenlet's own cold stack, and until that is there the CPU could not
 * even begin with the next visit: four times the time. */
static greenlet_message wait(void *value) {
    for (;;) {
        greenlet_message m = greenlet_switch(hub, value);
        if (m.status)
            return m;
    }
}

/* The same order each time: a linear congruential generator. */
static void shuffle(void *array, size_t count, size_t size) {
    char *a = array, held[sizeof(size_t)];
    uint64_t seed = 12345;
    for (size_t i = count; i > 1; i--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t k = (size_t)(seed >> 33) % i;
        memcpy(held, a + k * size, size);
        memcpy(a + k * size, a + (i - 1) * size, size);
        memcpy(a + (i - 1) * size, held, size);
    }
}

/* Bytes that waiting greenlets have, in their place and in slices. */
static double live_bytes(void) {
    double sum = 0;
    for (size_t i = 0; i < v.count; i++) {
        greenlet_stack s;
        if (greenlet_get_stack(v.order[i], &s) == 0)
            sum += (double)((const char *)s.base - (const char *)s.sp);
    }
    return sum / (double)v.count;
}

static void drop(void) {
    for (size_t i = 0; i < v.count; i++)
        greenlet_unref(v.order[i]);
    free(v.order);
    v.order = NULL;
    v.count = 0;
}

/* Made once for all runs of a case: what a second making gets is scattered
 * over the memory that the first one has left. */
static intptr_t make(int64_t number) {
    static int64_t made;
    size_t count = (size_t)(number < 0 ? -number : number);
    if (made == number)
        return 0;
    drop();
    made = 0;
    hub = greenlet_current();
    v.order = calloc(count, sizeof *v.order);
    if (!v.order)
        return -ENOMEM;
    for (; v.count < count; v.count++) {
        greenlet *g = v.order[v.count] = greenlet_new(wait, NULL);
        greenlet_message m = {NULL, -errno};
        if (g)
            m = greenlet_switch(g, NULL);
        if (m.status)
            return m.status;
    }
    if (number < 0)
        shuffle(v.order, count, sizeof *v.order);
    made = number;
    return 0;
}

static intptr_t visit_all(void) {
    greenlet_message m = {NULL, 0};
    for (size_t i = 0; i < v.count && m.status == 0; i++)
        m = greenlet_switch(v.order[i], NULL);
    return m.status;
}

static void run(bench_state *state, int64_t number) {
    intptr_t status = make(number);
    for (int lap = 0; lap < WARM_UP_LAPS && status == 0; lap++)
        status = visit_all();
    greenlet_statistics before = bench_statistics();
    while (status == 0 && bench_keep_running(state, 2 * (int64_t)v.count))
        status = visit_all();
    if (status) {
        bench_skip_status(state, "visit", status);
        drop();
        return;
    }
    bench_count_copies(state, &before, 2);
    bench_counter(state, "live bytes", live_bytes());
}

typedef struct record {
    size_t slice, visits;
    char rest[RECORD_BYTES - 2 * sizeof(size_t)];
} record;

static void run_floor(bench_state *state, int64_t number) {
    bool shuffled = number < 0;
    size_t count = (size_t)(shuffled ? -number : number);
    record *records = calloc(count, sizeof *records);
    size_t *order = calloc(count, sizeof *order);
    char *slices = malloc(count * SLICE_BYTES), place[SLICE_BYTES];
    if (!records || !order || !slices) {
        bench_skip(state, "no memory");
    } else {
        memset(slices, 0x5a, count * SLICE_BYTES);
        for (size_t i = 0; i < count; i++)
            order[i] = records[i].slice = i;
        if (shuffled)
            shuffle(order, count, sizeof *order);
        while (bench_keep_running(state, 2 * (int64_t)count))
            for (size_t i = 0; i < count; i++) {
                record *r = &records[order[i]];
                char *slice = slices + r->slice * SLICE_BYTES;
                r->visits++;
                memcpy(place, slice, SLICE_BYTES);
                bench_use(place);
                memcpy(slice, place, SLICE_BYTES);
            }
    }
    free(records);
    free(order);
    free(slices);
}

static const bench_case cases[] = {{"in-order", 100000}, {"shuffled", -100000}};

__attribute__((constructor)) static void register_both(void) {
    static const bench_workload ours = {.name = "visit",
                                        .unit = "switch",
                                        .run = run,
                                        .cases = cases,
                                        .case_count = BENCH_COUNT(cases)};
    static const bench_workload bare = {.name = "visit",
                                        .unit = "switch",
                                        .run = run_floor,
                                        .cases = cases,
                                        .case_count = BENCH_COUNT(cases),
                                        .bare = true};
    if (getenv("GREENLET_BENCH_LIMITS")) { /* see limits_park.c */
        bench_register(&ours);
        bench_register(&bare);
    }
}
