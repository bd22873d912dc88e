/* floor/visit-stacks: a bare switch to each of 100,000 stacks and back, in
 * order or shuffled. One mapping, their tops staggered over cache lines, no
 * guards; what is known of each is its stack pointer.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <sys/mman.h>

#include "../workloads/common.h"

enum { STACK_BYTES = 65536, STAGGERED = 32, RECORD_WORDS = 13 };

#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN void *floor_switch(void **save, void *target, void *value);

static void *main_sp, **records;
static size_t current;

static void other(void) {
    for (;;)
        floor_switch(&records[current * RECORD_WORDS], main_sp, NULL);
}

static void run(bench_state *state, int64_t number) {
    bool shuffled = number < 0;
    size_t count = (size_t)(shuffled ? -number : number);
    size_t *order = calloc(count, sizeof *order);
    records = calloc(count, RECORD_WORDS * sizeof *records);
    char *stacks = mmap(NULL, count * STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!order || !records || stacks == MAP_FAILED) {
        bench_skip(state, "no memory");
        return;
    }
    void (*entry)(void) = other;
    for (size_t i = 0; i < count; i++) {
        char *top = stacks + (i + 1) * STACK_BYTES - i % STAGGERED * 64;
        void **sp = (void **)(void *)top - 8;
        memcpy(&sp[6], &entry, sizeof entry);
        order[i] = current = i;
        floor_switch(&main_sp, sp, NULL);
    }
    uint64_t seed = 12345;
    for (size_t i = count; shuffled && i > 1; i--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t k = (size_t)(seed >> 33) % i, held = order[k];
        order[k] = order[i - 1];
        order[i - 1] = held;
    }
    for (int lap = 0; lap < 8; lap++)
        for (size_t i = 0; i < count; i++) {
            current = order[i];
            floor_switch(&main_sp, records[current * RECORD_WORDS], NULL);
        }
    while (bench_keep_running(state, 2 * (int64_t)count))
        for (size_t i = 0; i < count; i++) {
            current = order[i];
            floor_switch(&main_sp, records[current * RECORD_WORDS], NULL);
        }
    munmap(stacks, count * STACK_BYTES);
    free(records);
    free(order);
}

static const bench_case cases[] = {{"in-order", 100000}, {"shuffled", -100000}};

__attribute__((constructor)) static void register_this(void) {
    static const bench_workload workload = {.name = "visit-stacks",
                                            .unit = "switch",
                                            .run = run,
                                            .cases = cases,
                                            .case_count = BENCH_COUNT(cases),
                                            .bare = true};
    if (getenv("GREENLET_BENCH_LIMITS")) /* see limits_park.c */
        bench_register(&workload);
}
