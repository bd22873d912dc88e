/* floor/inline: the least that an inline switch can do: the stack pointers
 * change places, the compiler spills what is live. No checks, no state; the
 * frame pointer and clang's base pointer are saved by hand.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../workloads/common.h"

enum { TURNS = 1000, STACK_BYTES = 65536 };

static void *main_sp, *other_sp;

/* The image: where to go on, rbx, rbp, the red zone. */
static inline __attribute__((always_inline)) void *
jump(void *value, void **save, void *target) {
    __asm__ volatile(
        "leaq   -152(%%rsp), %%rsp\n\t"
        "leaq   1f(%%rip), %%r8\n\t"
        "movq   %%rbp, 16(%%rsp)\n\t"
        "movq   %%rbx, 8(%%rsp)\n\t"
        "movq   %%r8, (%%rsp)\n\t"
        "movq   %%rsp, (%[save])\n\t"
        "movq   16(%[target]), %%rbp\n\t"
        "movq   8(%[target]), %%rbx\n\t"
        "movq   (%[target]), %%r8\n\t"
        /* ------------------------------------------------- sp changes */
        "leaq   152(%[target]), %%rsp\n\t"
        "jmp    *%%r8\n"
        "1:"
        : "+a"(value), [target] "+c"(target), [save] "+S"(save)
        :
        : "rdx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
          "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
          "cc", "memory");
    return value;
}

static __attribute__((noinline)) void other(void) {
    void *value = NULL;
    for (;;)
        value = jump(value, &other_sp, main_sp);
}

static void run(bench_state *state, int64_t number) {
    (void)number;
    char *stack = aligned_alloc(64, STACK_BYTES);
    if (!stack) {
        bench_skip(state, "no memory for a stack");
        return;
    }
    /* sp as after a call, when other() begins. */
    void **image = (void **)(void *)(stack + STACK_BYTES - 64 - 8 - 152);
    memset(image, 0, 160);
    void (*entry)(void) = other;
    memcpy(image, &entry, sizeof entry);
    other_sp = image;
    void *value = jump(NULL, &main_sp, other_sp);
    while (bench_keep_running(state, 2 * (int64_t)TURNS))
        for (int i = 0; i < TURNS; i++)
            value = jump(value, &main_sp, other_sp);
    free(stack);
}

BENCH_WORKLOAD(.name = "inline", .unit = "switch", .run = run, .bare = true);
