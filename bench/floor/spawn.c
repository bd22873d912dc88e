/* floor/spawn: the least that a coroutine's life can do with a stack that is
 * ready: take a record from a list, put the entry on the stack, switch there,
 * return, leave the stack for good, give the record back.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../workloads/common.h"

enum { ROUNDS = 1000, STACK_BYTES = 65536 };

#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN void *floor_switch(void **save, void *target, void *value);
HIDDEN _Noreturn void floor_leave(void *target, void *value);

struct record {
    struct record *next;
    void *sp, *(*entry)(void *value), *value;
};

static struct record *free_records, records[4], *current;
static void *main_sp;

static __attribute__((noinline)) void *nothing(void *value) { return value; }

static void begin(void) {
    struct record *r = current;
    void *value = r->entry(r->value);
    r->next = free_records;
    free_records = r;
    floor_leave(main_sp, value);
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    char *stack = aligned_alloc(64, STACK_BYTES);
    if (!stack) {
        bench_skip(state, "no memory for a stack");
        return;
    }
    free_records = NULL;
    for (size_t i = 0; i < BENCH_COUNT(records); i++) {
        records[i].next = free_records;
        free_records = &records[i];
    }
    void (*start)(void) = begin;
    void *value = NULL;
    while (bench_keep_running(state, ROUNDS))
        for (int i = 0; i < ROUNDS; i++) {
            struct record *r = free_records;
            free_records = r->next;
            r->entry = nothing;
            r->value = value;
            void **sp = (void **)(void *)(stack + STACK_BYTES) - 8;
            memcpy(&sp[6], &start, sizeof start);
            sp[7] = NULL;
            r->sp = sp;
            current = r;
            value = floor_switch(&main_sp, sp, NULL);
        }
    free(stack);
}

BENCH_WORKLOAD(.name = "spawn", .unit = "greenlet", .run = run, .bare = true);
