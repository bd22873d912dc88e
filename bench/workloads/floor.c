/* The yardstick: the bare switch of bench/floor/ between this stack and
 * another one, measured in the same process as everything else.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "common.h"

enum { ROUNDS = 1000, STACK_BYTES = 65536 };

/* bench/floor/x86_64.S */
extern void *floor_switch(void **save, void *target, void *value);

static void *main_sp, *other_sp;

static void other(void) {
    void *value = NULL;
    for (;;)
        value = floor_switch(&other_sp, main_sp, value);
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    char *stack = aligned_alloc(64, STACK_BYTES);
    if (!stack) {
        bench_skip(state, "no memory for a stack");
        return;
    }
    /* The picture of floor_switch: six registers, the address, and a return
     * address that is never used, so that other() sees sp as after a call. */
    void **sp = (void **)(void *)(stack + STACK_BYTES) - 8;
    memset(sp, 0, 8 * sizeof *sp);
    void (*entry)(void) = other;
    memcpy(&sp[6], &entry, sizeof entry);
    other_sp = sp;
    void *value = floor_switch(&main_sp, other_sp, NULL);
    while (bench_keep_running(state, 2 * (int64_t)ROUNDS))
        for (int i = 0; i < ROUNDS; i++)
            value = floor_switch(&main_sp, other_sp, value);
    free(stack);
}

BENCH_WORKLOAD(.name = "switch", .unit = "switch", .run = run, .bare = true);
