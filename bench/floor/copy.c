/* floor/live/N and floor/exchange/N: two stacks of N live bytes on one place,
 * each switch saving one and filling the other. No checks, no state, no
 * allocation: two slices that stay where they are, copied in two passes; or
 * one slice, exchanged with the stack in one pass.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../workloads/common.h"

enum { TURNS = 1000, RUN_BYTES = 16384, FRAME_BYTES = 56 };

/* copy_x86_64.S */
struct floor_copy {
    void *frame, *run_sp;
    void (*move)(struct floor_copy *c);
    void *to_sp;
};
#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN void floor_copy_play(void);
HIDDEN void *floor_switch(void **save, void *target, void *value);
HIDDEN struct floor_copy floor_copy_now;
HIDDEN long floor_copy_turns;
HIDDEN void *floor_copy_play_sp, *floor_copy_main_sp;

struct floor_copy floor_copy_now;
long floor_copy_turns;
void *floor_copy_play_sp, *floor_copy_main_sp;

typedef uint64_t vec32 __attribute__((vector_size(32), aligned(8), may_alias));
typedef uint64_t word __attribute__((may_alias));

static struct {
    char *place; /* its high end: that of both stacks */
    char *slice[2];
    size_t bytes;
    int current;
    word registers[8];
} f;

/* Both are multiples of 8. */
__attribute__((target("avx2"))) static void copy_avx2(char *d, const char *s,
                                                      size_t n) {
    for (; n >= 128; n -= 128, d += 128, s += 128) {
        vec32 v0 = ((const vec32 *)s)[0], v1 = ((const vec32 *)s)[1],
              v2 = ((const vec32 *)s)[2], v3 = ((const vec32 *)s)[3];
        ((vec32 *)d)[0] = v0;
        ((vec32 *)d)[1] = v1;
        ((vec32 *)d)[2] = v2;
        ((vec32 *)d)[3] = v3;
    }
    for (; n >= 32; n -= 32, d += 32, s += 32)
        *(vec32 *)d = *(const vec32 *)s;
    for (; n; n -= 8, d += 8, s += 8)
        *(word *)d = *(const word *)s;
}

static inline void copy(char *d, const char *s, size_t n) {
    if (n > 8192)
        memcpy(d, s, n);
    else
        copy_avx2(d, s, n);
}

/* The frame of the one that leaves is in its slice already. */
__attribute__((target("avx2"))) static void two_passes(struct floor_copy *c) {
    char *sp = f.place - f.bytes;
    int from = f.current, to = !from;
    copy(f.slice[from] + FRAME_BYTES, sp + FRAME_BYTES, f.bytes - FRAME_BYTES);
    copy(sp, f.slice[to], f.bytes);
    f.current = to;
    c->frame = f.slice[to];
    c->to_sp = sp;
}

/* The frame is in f.registers. */
__attribute__((target("avx2"))) static void exchange(struct floor_copy *c) {
    char *p = f.place - f.bytes, *q = f.slice[0];
    c->to_sp = p;
    for (int i = 0; i < FRAME_BYTES / 8; i++) {
        ((word *)p)[i] = ((word *)q)[i];
        ((word *)q)[i] = f.registers[i];
    }
    size_t n = f.bytes - FRAME_BYTES;
    p += FRAME_BYTES;
    q += FRAME_BYTES;
    for (; n % 32; n -= 8, p += 8, q += 8) {
        word a = *(word *)p;
        *(word *)p = *(word *)q;
        *(word *)q = a;
    }
    for (; n >= 64; n -= 64, p += 64, q += 64) {
        vec32 a = ((vec32 *)p)[0], b = ((vec32 *)p)[1], x = ((vec32 *)q)[0],
              y = ((vec32 *)q)[1];
        ((vec32 *)p)[0] = x;
        ((vec32 *)p)[1] = y;
        ((vec32 *)q)[0] = a;
        ((vec32 *)q)[1] = b;
    }
    if (n) {
        vec32 a = *(vec32 *)p;
        *(vec32 *)p = *(vec32 *)q;
        *(vec32 *)q = a;
    }
}

static void *aligned(size_t bytes) {
    void *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (p)
        memset(p, 0x5a, bytes);
    return p;
}

/* An image that goes on in floor_copy_play(). */
static void prime(void *sp) {
    void (*entry)(void) = floor_copy_play;
    memset(sp, 0, FRAME_BYTES);
    memcpy((char *)sp + FRAME_BYTES - 8, &entry, sizeof entry);
}

static void run(bench_state *state, size_t bytes, bool one_pass) {
    if (!__builtin_cpu_supports("avx2")) {
        bench_skip(state, "this floor is for CPUs with AVX2");
        return;
    }
    char *place = aligned(bytes + 4096), *a = aligned(bytes + 4096),
         *b = aligned(bytes + 4096), *run_stack = aligned(RUN_BYTES);
    if (place && a && b && run_stack) {
        /* Equal places within cache lines, different ones within pages. */
        f.bytes = bytes;
        f.place = place + bytes;
        f.slice[0] = a + 1024;
        f.slice[1] = b + 2112;
        prime(place);
        prime(f.slice[0]);
        prime(f.slice[1]);
        f.current = 0;
        floor_copy_now = (struct floor_copy){
            one_pass ? (void *)f.registers : f.slice[0], run_stack + RUN_BYTES,
            one_pass ? exchange : two_passes, NULL};
        floor_copy_play_sp = place;
        while (bench_keep_running(state, TURNS)) {
            floor_copy_turns = TURNS;
            floor_switch(&floor_copy_main_sp, floor_copy_play_sp, NULL);
        }
    } else {
        bench_skip(state, "no memory");
    }
    free(place);
    free(a);
    free(b);
    free(run_stack);
}

static void run_two_passes(bench_state *state, int64_t number) {
    run(state, (size_t)number, false);
}

static void run_exchange(bench_state *state, int64_t number) {
    run(state, (size_t)number, true);
}

static const bench_case cases[] = {{NULL, 64},   {NULL, 256},   {NULL, 1024},
                                   {NULL, 4096}, {NULL, 16384}, {NULL, 65536}};

__attribute__((constructor)) static void register_both(void) {
    static const bench_workload two = {.name = "live",
                                       .unit = "switch",
                                       .run = run_two_passes,
                                       .cases = cases,
                                       .case_count = BENCH_COUNT(cases),
                                       .bare = true};
    static const bench_workload one = {.name = "exchange",
                                       .unit = "switch",
                                       .run = run_exchange,
                                       .cases = cases,
                                       .case_count = BENCH_COUNT(cases),
                                       .bare = true};
    bench_register(&two);
    bench_register(&one);
}
