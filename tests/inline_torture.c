/* The inline switch against the compiler: whatever a function keeps in
 * registers, on its stack or below it must be there after a switch. Compiled
 * and run in many ways by inline.py, as C and as C++. Contract 30.
 *
 * Exits with 0; else says on standard error what went wrong and aborts.
 * SPDX-License-Identifier: MIT */
#include <alloca.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#include "greenlet_inline.h"
#include "registers.h"

#if !GREENLET_INLINE
#error "the switch is not inline here"
#endif

#define NOINLINE __attribute__((noinline, noclone))
#ifdef __clang__
#undef NOINLINE
#define NOINLINE __attribute__((noinline))
#endif

#define CHECK(cond)                                                            \
    do {                                                                       \
        if (!(cond)) {                                                         \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #cond);  \
            abort();                                                           \
        }                                                                      \
    } while (0)

#ifdef __cplusplus
#define EXTERN_C extern "C"
#else
#define EXTERN_C
#endif

static volatile long source = 1; /* what the compiler cannot foresee */
static greenlet *self_main, *other;
static int inline_other; /* how `other` switches back */
static long turns;
static int in_place; /* then no target is near, and a leaf cannot switch */

/* ---- The other side: ruins every register that it may ------------------ */

static void ruin(void *unused) {
    (void)unused;
#if defined(__x86_64__)
    __asm__ volatile(
        "movq $-1, %%rax\n\tmovq %%rax, %%rcx\n\tmovq %%rax, %%rdx\n\t"
        "movq %%rax, %%rsi\n\tmovq %%rax, %%rdi\n\tmovq %%rax, %%r8\n\t"
        "movq %%rax, %%r9\n\tmovq %%rax, %%r10\n\tmovq %%rax, %%r11\n\t"
        "movq %%rax, %%r12\n\tmovq %%rax, %%r13\n\tmovq %%rax, %%r14\n\t"
        "movq %%rax, %%r15\n\t"
        "pcmpeqb %%xmm0, %%xmm0\n\tpcmpeqb %%xmm1, %%xmm1\n\t"
        "pcmpeqb %%xmm2, %%xmm2\n\tpcmpeqb %%xmm3, %%xmm3\n\t"
        "pcmpeqb %%xmm4, %%xmm4\n\tpcmpeqb %%xmm5, %%xmm5\n\t"
        "pcmpeqb %%xmm6, %%xmm6\n\tpcmpeqb %%xmm7, %%xmm7\n\t"
        "pcmpeqb %%xmm8, %%xmm8\n\tpcmpeqb %%xmm9, %%xmm9\n\t"
        "pcmpeqb %%xmm10, %%xmm10\n\tpcmpeqb %%xmm11, %%xmm11\n\t"
        "pcmpeqb %%xmm12, %%xmm12\n\tpcmpeqb %%xmm13, %%xmm13\n\t"
        "pcmpeqb %%xmm14, %%xmm14\n\tpcmpeqb %%xmm15, %%xmm15\n\t"
#if defined(__AVX512F__)
        "kxnorw %%k0, %%k0, %%k0\n\tkxnorw %%k1, %%k1, %%k1\n\t"
        "kxnorw %%k2, %%k2, %%k2\n\tkxnorw %%k3, %%k3, %%k3\n\t"
        "kxnorw %%k4, %%k4, %%k4\n\tkxnorw %%k5, %%k5, %%k5\n\t"
        "kxnorw %%k6, %%k6, %%k6\n\tkxnorw %%k7, %%k7, %%k7\n\t"
        "vpternlogd $255, %%zmm16, %%zmm16, %%zmm16\n\t"
        "vmovdqa64 %%zmm16, %%zmm17\n\tvmovdqa64 %%zmm16, %%zmm18\n\t"
        "vmovdqa64 %%zmm16, %%zmm19\n\tvmovdqa64 %%zmm16, %%zmm20\n\t"
        "vmovdqa64 %%zmm16, %%zmm21\n\tvmovdqa64 %%zmm16, %%zmm22\n\t"
        "vmovdqa64 %%zmm16, %%zmm23\n\tvmovdqa64 %%zmm16, %%zmm24\n\t"
        "vmovdqa64 %%zmm16, %%zmm25\n\tvmovdqa64 %%zmm16, %%zmm26\n\t"
        "vmovdqa64 %%zmm16, %%zmm27\n\tvmovdqa64 %%zmm16, %%zmm28\n\t"
        "vmovdqa64 %%zmm16, %%zmm29\n\tvmovdqa64 %%zmm16, %%zmm30\n\t"
        "vmovdqa64 %%zmm16, %%zmm31\n\t"
#endif
#if defined(__AVX__)
        "vzeroupper\n\t"
#endif
        "cmpq $0, %%rax\n\t"
        :
        :
        : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
          "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
          "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
          "xmm14", "xmm15",
#if defined(__AVX512F__)
          "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "xmm16", "xmm17",
          "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24",
          "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31",
#endif
          "cc");
#elif defined(__aarch64__)
    __asm__ volatile(
        "mov x20, #-1\n\tmov x21, x20\n\tmov x22, x20\n\tmov x23, x20\n\t"
        "mov x24, x20\n\tmov x25, x20\n\tmov x26, x20\n\tmov x27, x20\n\t"
        "mov x28, x20\n\tmovi v8.16b, #255\n\tmovi v9.16b, #255\n\t"
        "movi v10.16b, #255\n\tmovi v11.16b, #255\n\tmovi v12.16b, #255\n\t"
        "movi v13.16b, #255\n\tmovi v14.16b, #255\n\tmovi v15.16b, #255\n\t"
        "movi v0.16b, #255\n\tmovi v31.16b, #255\n\tcmp x20, #0"
        :
        :
        : "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "v0",
          "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v31", "cc");
#endif
}

static greenlet_message answer_value; /* of a switch apart from the stacks */

static void answer_inline(void *value) {
    ruin(NULL);
    answer_value = greenlet_switch_inline(self_main, value);
}

static void answer_by_call(void *value) {
    ruin(NULL);
    answer_value = greenlet_switch(self_main, value);
}

/* Hands each value back, with all callee-saved registers planted: frame and
 * base pointer too. */
static greenlet_message answer(void *value) {
    for (;;) {
        turns++;
        CHECK(registers_hold(inline_other ? answer_inline : answer_by_call,
                             value, (uintptr_t)0xaaaa0000) == 0);
        if (answer_value.status)
            return answer_value;
        value = answer_value.value;
    }
}

static long turn(long n) { /* what most cases do in their middle */
    return (long)(intptr_t)greenlet_switch_inline(other, (void *)(intptr_t)n)
        .value;
}
#define TURN(n)                                                                \
    ((long)(intptr_t)greenlet_switch_inline(other, (void *)(intptr_t)(n)).value)

/* ---- What functions keep ------------------------------------------------ */

#define EACH(X)                                                                \
    X(1)                                                                       \
    X(2)                                                                       \
    X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)     \
        X(16) X(17) X(18) X(19) X(20)

#define KEEP(type)                                                             \
    EACH(PLANT_##type)                                                         \
    CHECK(TURN(source) == source);                                             \
    EACH(COMPARE_##type)                                                       \
    CHECK(TURN(source + 7) == source + 7);                                     \
    EACH(COMPARE_##type)

#define PLANT_long(i) long a##i = source * 1000 + i;
#define COMPARE_long(i) CHECK(a##i == source * 1000 + i);
NOINLINE static void words(void){KEEP(long)}

#define PLANT_double(i) double a##i = (double)source + i * 0.5;
#define COMPARE_double(i) CHECK(a##i == (double)source + i * 0.5);
NOINLINE static void doubles(void){KEEP(double)}

#define PLANT_x87(i) long double a##i = (long double)source + i * 0.25L;
#define COMPARE_x87(i) CHECK(a##i == (long double)source + i * 0.25L);
NOINLINE static void long_doubles(void){KEEP(x87)}

#define VECTORS(name, size)                                                    \
    typedef long name __attribute__((vector_size(size)));                      \
    static int same_##name(name a, name b) {                                   \
        for (size_t i = 0; i < sizeof a / sizeof a[0]; i++)                    \
            if (a[i] != b[i])                                                  \
                return 0;                                                      \
        return 1;                                                              \
    }                                                                          \
    static name make_##name(long i) {                                          \
        name v;                                                                \
        for (size_t n = 0; n < sizeof v / sizeof v[0]; n++)                    \
            v[n] = source * 100 + i * 10 + (long)n;                            \
        return v;                                                              \
    }
VECTORS(v128, 16)
#define PLANT_v128(i) v128 a##i = make_v128(i);
#define COMPARE_v128(i) CHECK(same_v128(a##i, make_v128(i)));
    NOINLINE static void vectors_128(void){KEEP(v128)}

#if defined(__AVX__)
VECTORS(v256, 32)
#define PLANT_v256(i) v256 a##i = make_v256(i);
#define COMPARE_v256(i) CHECK(same_v256(a##i, make_v256(i)));
    NOINLINE static void vectors_256(void){KEEP(v256)}
#endif

#if defined(__AVX512F__)
VECTORS(v512, 64)
#define PLANT_v512(i) v512 a##i = make_v512(i);
#define COMPARE_v512(i) CHECK(same_v512(a##i, make_v512(i)));
    NOINLINE static void vectors_512(void){KEEP(v512)}

#include <immintrin.h>
NOINLINE static void masks(void) {
    __m512i v = _mm512_set1_epi32((int)source);
    __mmask16 m = _mm512_cmpeq_epi32_mask(
        v, _mm512_setr_epi32(1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2));
    CHECK(TURN(3) == 3);
    int got[16], sum = 0;
    _mm512_storeu_si512(got, _mm512_mask_add_epi32(v, m, v, v));
    for (int i = 0; i < 16; i++)
        sum += got[i];
    CHECK((int)m == 0x5555 && sum == 24);
}
#endif

/* What a comparison found, before and after. */
NOINLINE static void flags(long n) {
    int less = n < source, equal = n == source;
    long got = TURN(n);
    CHECK(less == (n < source) && equal == (n == source) && got == n);
}

/* A frame that the compiler must address by a base pointer. */
NOINLINE static void realigned(size_t n) {
    char line[64] __attribute__((aligned(64)));
    char *more = (char *)alloca(n);
    memset(line, 0x5a, sizeof line);
    memset(more, 0xa5, n);
    volatile uintptr_t at = (uintptr_t)line;
    CHECK(at % 64 == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(TURN(i) == i);
        for (size_t k = 0; k < n; k++)
            CHECK(more[k] == (char)0xa5);
        for (size_t k = 0; k < sizeof line; k++)
            CHECK(line[k] == 0x5a);
        more = (char *)alloca(n); /* again a new sp */
        memset(more, 0xa5, n);
    }
}

/* Several in one expression; and in loops that may be unrolled. */
NOINLINE static long many(long a, long b, long c) {
    return TURN(a) * 100 + TURN(b) * 10 + TURN(c);
}

NOINLINE static long sum_up(const long *values, int n) {
    long sum = 0;
    for (int i = 0; i < n; i++)
        sum += TURN(values[i]);
    return sum;
}

NOINLINE static greenlet_message in_tail_position(long n) {
    return greenlet_switch_inline(other, (void *)(intptr_t)n);
}

NOINLINE static long deep(long n) {
    if (n == 0)
        return TURN(1000);
    long below = deep(n - 1);
    return below + TURN(n);
}

/* A leaf, to the compiler: without the call of the way out its locals may
 * stand in the red zone, and sp be a multiple of 8 only. */
static inline __attribute__((always_inline)) long leaf_turn(long n) {
    char *t = (char *)GREENLET_INLINE_SELF;
    greenlet *from = *(greenlet_inline_pointer *)(t + GREENLET_INLINE_CURRENT);
    greenlet_message m;
    m.value = (void *)(intptr_t)n;
    m.status = 0;
    *(greenlet_inline_pointer *)(t + GREENLET_INLINE_CURRENT) = other;
    m = greenlet_inline_registers(
        m, (void **)(void *)from,
        *(greenlet_inline_sp *)((char *)other + GREENLET_INLINE_SP));
    return (long)(intptr_t)m.value;
}

NOINLINE static long leaf(long n) {
    volatile long kept[12];
    for (int i = 0; i < 12; i++)
        kept[i] = n + i;
    long got = leaf_turn(n);
    for (int i = 0; i < 12; i++)
        if (kept[i] != n + i)
            return -1;
    return got;
}

NOINLINE static long leaf_less(long n) { return leaf_turn(n) + n; }

static void hold_step(void *n) {
    CHECK(greenlet_switch_inline(other, n).value == n);
}

static void all_shapes(void) {
    long values[37], sum = 0;
    for (int i = 0; i < 37; i++)
        sum += values[i] = source * i;
    words();
    doubles();
    long_doubles();
    vectors_128();
#if defined(__AVX__)
    vectors_256();
#endif
#if defined(__AVX512F__)
    vectors_512();
    masks();
#endif
    flags(source - 1);
    flags(source);
    flags(source + 1);
    realigned((size_t)source * 40);
    realigned((size_t)source * 500);
    CHECK(many(1, 2, 3) == 123);
    CHECK(sum_up(values, 37) == sum);
    CHECK(in_tail_position(5).value == (void *)5);
    CHECK(deep(20) == 1000 + 210);
    if (!in_place) {
        CHECK(leaf(77) == 77);
        CHECK(leaf_less(8) == 16);
    }
    CHECK(turn(3) == 3);
    CHECK(registers_hold(hold_step, (void *)9, (uintptr_t)0x1111) == 0);
}

static void start_other(void) {
    other = greenlet_new(answer, NULL);
    CHECK(other != NULL);
    /* The start is not an ordinary switch: it goes to the library. */
    CHECK(greenlet_switch_inline(other, (void *)1).value == (void *)1);
}

/* By a throw to somebody who waits inline, and its death, which resumes us. */
static void end_other(void) {
    answer_value.status = 0;
    greenlet_message m = greenlet_throw(other, 7, (void *)6);
    CHECK(m.status == 7 && m.value == (void *)6);
    CHECK(greenlet_get_state(other) == GREENLET_DEAD);
    m = greenlet_switch_inline(other, (void *)5); /* passed on to us */
    CHECK(m.status == 0 && m.value == (void *)5);
    greenlet_unref(other);
}

static void with_one(void) {
    for (inline_other = 0; inline_other <= 1; inline_other++) {
        start_other();
        all_shapes();
        end_other();
    }
    CHECK(greenlet_switch_inline(NULL, NULL).status < 0);
    CHECK(greenlet_switch_inline(greenlet_current(), (void *)4).value ==
          (void *)4);
}

/* ---- Bytes that move: all of them wait inline, on one lane -------------- */

enum { MOVERS = 5, LAPS = 60 };

static greenlet *movers[MOVERS];

static greenlet_message mover(void *value) {
    long id = (long)(intptr_t)value;
    volatile unsigned char bytes[3000];
    size_t n = 100 + (size_t)id * 700;
    for (int lap = 0;; lap++) {
        for (size_t i = 0; i < n; i++)
            bytes[i] = (unsigned char)(id * 31 + lap + (long)i);
        long a = source + id, b = a * 3, c = b * 5;
        double d = (double)c * 0.5;
        greenlet_message m = greenlet_switch_inline(
            lap % 3 == 2 ? self_main : movers[(id + 1 + lap % 3) % MOVERS],
            (void *)(intptr_t)-1);
        CHECK(a == source + id && b == a * 3 && c == b * 5 &&
              d == (double)c * 0.5);
        for (size_t i = 0; i < n; i++)
            CHECK(bytes[i] == (unsigned char)(id * 31 + lap + (long)i));
        if (m.status)
            return m;
    }
}

static greenlet_message wait_for_turn(void *value) {
    greenlet_message m = greenlet_switch_inline(self_main, NULL);
    return m.status ? m : mover(value);
}

static void with_many(void) {
    for (long i = 0; i < MOVERS; i++) {
        greenlet_options o = GREENLET_OPTIONS_INIT;
        if (i != MOVERS - 1) /* the last one has another lane, if it can */
            o.lane = 0;
        movers[i] = greenlet_new(wait_for_turn, &o);
        CHECK(movers[i] != NULL);
        CHECK(greenlet_switch_inline(movers[i], (void *)(intptr_t)i).status ==
              0);
    }
    for (int lap = 0; lap < LAPS; lap++)
        CHECK(greenlet_switch_inline(movers[lap % MOVERS], NULL).status == 0);
    for (int i = 0; i < MOVERS; i++) {
        greenlet_message m = greenlet_kill(movers[i]);
        CHECK(m.status == 0);
        greenlet_unref(movers[i]);
    }
}

/* ---- C on top of an inline image: alignment, and the way back ----------- */

struct walk {
    void *wanted;
    int found, frames;
};

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *arg) {
    struct walk *w = (struct walk *)arg;
    int before;
    uintptr_t ip = _Unwind_GetIPInfo(context, &before);
    void *function = _Unwind_FindEnclosingFunction((void *)(ip - !before));
    w->found |= function == w->wanted;
    return ++w->frames == 200 ? _URC_END_OF_STACK : _URC_NO_REASON;
}

static struct walk last_walk;
static int traced;

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    (void)event;
    (void)origin;
    (void)data;
    char line[16] __attribute__((aligned(16)));
    volatile uintptr_t at = (uintptr_t)line;
    CHECK(at % 16 == 0);
    v128 a = make_v128(1);
    v128 volatile b = a; /* an aligned store */
    CHECK(same_v128(b, a));
    ruin(NULL);
    if (target != self_main)
        return;
    traced++;
    last_walk.found = last_walk.frames = 0;
    _Unwind_Backtrace(step, &last_walk);
}

NOINLINE static void traced_turn(void) {
    long a = source, b = a + 1;
    CHECK(TURN(a + b) == a + b);
    CHECK(a == source && b == a + 1);
}

/* `other` sets the tracer while we wait inline, so that core_after() runs on
 * top of our image. */
static greenlet_message set_tracer(void *value) {
    for (;;) {
        CHECK(greenlet_set_tracer(value ? tracer : NULL, NULL, NULL, NULL) ==
              0);
        greenlet_message m = greenlet_switch(self_main, value);
        if (m.status)
            return m;
        value = m.value;
    }
}

static void under_a_tracer(void) {
    other = greenlet_new(set_tracer, NULL);
    CHECK(other && greenlet_switch(other, NULL).status == 0);
    union {
        void (*function)(void);
        void *address;
    } wanted;
    wanted.function = traced_turn;
    last_walk.wanted = wanted.address;
    traced = 0;
    traced_turn();
    CHECK(traced == 1 && last_walk.found);
    CHECK(last_walk.frames < 200);
    CHECK(TURN(0) == 0); /* the tracer is off again */
    for (int i = 0; i < 2 && !in_place; i++) {
        CHECK(i ? leaf_less(5) == 10 : leaf(5) == 5); /* on, over a leaf */
        CHECK(traced == 2 + i);
        CHECK(TURN(0) == 0);
    }
    CHECK(greenlet_kill(other).status == 0);
    greenlet_unref(other);
}

/* ---- Exceptions pass through functions that have switched --------------- */

#ifdef __cplusplus
struct Noted {
    int *count;
    ~Noted() { ++*count; }
};

NOINLINE static long throws(long n, int *count) {
    Noted noted = {count};
    long a = source + n, b = TURN(a);
    if (b == a)
        throw a * 2;
    return b;
}

static void exceptions() {
    int count = 0;
    long caught = 0, kept = source * 3;
    inline_other = 1;
    start_other();
    for (long i = 0; i < 10; i++) {
        try {
            caught += throws(i, &count);
        } catch (long got) {
            CHECK(TURN(got) == got); /* also within a handler */
            caught += got;
        }
        CHECK(kept == source * 3 && count == i + 1);
    }
    CHECK(caught == 2 * 10 * source + 90);
    end_other();
}
#endif

static void everything(void) {
    self_main = greenlet_current();
    with_one();
    with_many();
    under_a_tracer();
#ifdef __cplusplus
    exceptions();
#endif
    CHECK(greenlet_thread_shutdown() == 0);
}

static void *on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)(intptr_t)lanes;
    in_place = o.lanes == 0 && strcmp(greenlet_backend(), "copy") == 0;
    CHECK(greenlet_thread_configure(&o) == 0);
    everything();
    return NULL;
}

EXTERN_C int torture(void);

EXTERN_C int torture(void) {
    everything();
    for (intptr_t lanes = 0; lanes <= 2; lanes++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, on_lanes, (void *)lanes) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(turns > 0);
    return 0;
}

#ifndef TORTURE_IN_A_LIBRARY
int main(void) { return torture(); }
#endif
