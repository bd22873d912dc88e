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

enum { RECORD_BYTES = 104, SLICE_BYTES = 112 };

static struct {
    greenlet *main, **order;
    size_t count;
} v;

static greenlet_message wait(void *value) {
    greenlet *back = v.main;
    for (;;) {
        greenlet_message m = greenlet_switch(back, value);
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

static void run(bench_state *state, int64_t number) {
    bool shuffled = number < 0;
    size_t count = (size_t)(shuffled ? -number : number);
    v.main = greenlet_current();
    v.order = calloc(count, sizeof *v.order);
    greenlet_message m = {NULL, v.order ? 0 : -ENOMEM};
    for (v.count = 0; v.count < count && m.status == 0; v.count++) {
        v.order[v.count] = greenlet_new(wait, NULL);
        if (!v.order[v.count]) {
            m.status = -errno;
            break;
        }
        m = greenlet_switch(v.order[v.count], NULL);
    }
    if (shuffled && m.status == 0)
        shuffle(v.order, count, sizeof *v.order);
    for (size_t i = 0; i < count && m.status == 0; i++) /* one lap to warm up */
        m = greenlet_switch(v.order[i], NULL);
    greenlet_statistics before = bench_statistics();
    while (m.status == 0 && bench_keep_running(state, 2 * (int64_t)count))
        for (size_t i = 0; i < count && m.status == 0; i++)
            m = greenlet_switch(v.order[i], NULL);
    if (m.status) {
        bench_skip_status(state, "visit", m.status);
    } else {
        bench_count_copies(state, &before);
        bench_counter(state, "live bytes", live_bytes());
    }
    for (size_t i = 0; i < v.count; i++)
        greenlet_unref(v.order[i]);
    free(v.order);
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
