/* Callee-saved registers hold across everything. Contract 30.
 *
 * Both sides of each switch plant a sentinel in every callee-saved register
 * (registers_CPU.S) and look for it afterwards, so each side clobbers what
 * the other one relies on.
 * SPDX-License-Identifier: MIT */
#include "registers.h"
#include "test.h"

#include <fenv.h>

/* For CPUs without a registers_CPU.S, hence weak: as many values as any CPU has
 * registers, alive over the call; the compiler keeps them where the callee
 * must. Volatile inputs keep it from computing them again. */
static volatile uintptr_t source_of_seed;
static volatile double source_of_double;

#define EACH(X)                                                                \
    X(1)                                                                       \
    X(2)                                                                       \
    X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)     \
        X(16) X(17) X(18) X(19) X(20)

__attribute__((noinline, weak)) uintptr_t
registers_hold(void (*call)(void *), void *argument, uintptr_t seed) {
    source_of_seed = seed;
    source_of_double = (double)(seed & 0xffff);
#define PLANT(i)                                                               \
    uintptr_t word##i = source_of_seed + i;                                    \
    double double##i = source_of_double + i;
    EACH(PLANT)
    call(argument);
    uintptr_t mask = 0;
#define COMPARE(i)                                                             \
    if (word##i != seed + i || double##i != (double)(seed & 0xffff) + i)       \
        mask |= (uintptr_t)1 << (i - 1);
    EACH(COMPARE)
    return mask;
}

__attribute__((weak)) uint64_t registers_fpu_get(void) {
    return (uint64_t)fegetround();
}

static greenlet *a, *b;
static unsigned rounds;

#define SEED_MAIN ((uintptr_t)0x1111111111111111)
#define SEED_A ((uintptr_t)0xaaaaaaaaaaaaaaaa)
#define SEED_B ((uintptr_t)0xbbbbbbbbbbbbbbbb)

/* One switch, with arguments and result apart from the stacks. */
static struct step {
    greenlet *to;
    intptr_t status;
    greenlet_message got;
} of_main, of_a, of_b;

static void do_step(void *argument) {
    struct step *s = (struct step *)argument;
    s->got = s->status ? greenlet_throw(s->to, s->status, V(1))
                       : greenlet_switch(s->to, V(1));
}

static void step(struct step *s, greenlet *to, intptr_t status,
                 uintptr_t seed) {
    s->to = to;
    s->status = status;
    CHECK_EQ(registers_hold(do_step, s, seed), 0);
}

static greenlet_message entry_a(void *value) {
    (void)value;
    while (of_a.got.status == 0)
        step(&of_a, greenlet_main(), 0, SEED_A);
    return of_a.got;
}

static greenlet_message entry_b(void *value) {
    (void)value;
    while (of_b.got.status == 0)
        step(&of_b, a, 0, SEED_B);
    return of_b.got;
}

static void reset(void) {
    of_a.got = of_b.got = val(0);
    rounds = test_amount(100, 10000);
}

/* Start, switches, throws, death. */
static void main_and_one(void) {
    reset();
    for (unsigned life = 0; life < 5; life++) {
        of_a.got = val(0);
        a = spawn(entry_a);
        for (unsigned i = 0; i < rounds; i++) {
            step(&of_main, a, 0, SEED_MAIN); /* the first one starts it */
            CHECK_MSG(of_main.got, 1, 0);
        }
        step(&of_main, a, 7, SEED_MAIN); /* its death resumes us */
        CHECK_MSG(of_main.got, 1, 7);
        CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
        greenlet_unref(a);
    }
}

/* Three, sideways: main -> b -> a -> main. */
static void sideways(void) {
    reset();
    a = spawn(entry_a);
    b = spawn(entry_b);
    for (unsigned i = 0; i < rounds; i++) {
        step(&of_main, b, 0, SEED_MAIN);
        CHECK_MSG(of_main.got, 1, 0);
    }
    step(&of_main, b, 9, SEED_MAIN);
    CHECK_MSG(of_main.got, 1, 9);
    step(&of_main, a, 8, SEED_MAIN);
    CHECK_MSG(of_main.got, 1, 8);
    greenlet_unref(a);
    greenlet_unref(b);
}

static void everything(void) {
    main_and_one();
    sideways();
}

TEST(contract_30_switch_start_throw_death) { everything(); }

static void *on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    everything();
    return NULL;
}

TEST(contract_30_evictions_and_fills) {
    test_join(test_thread(on_lanes, V(1)));
    test_join(test_thread(on_lanes, V(0)));
    test_join(test_thread(on_lanes, V(2)));
}

/* The paths that pass through C in the target. */
static void clobber(void *argument) { (void)argument; }

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    (void)event;
    (void)origin;
    (void)target;
    (void)data;
    registers_hold(clobber, NULL, (uintptr_t)0x3333333333333333);
}

static void hook(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)to;
    (void)data;
    registers_hold(clobber, NULL, (uintptr_t)0x4444444444444444);
}

static void *with_hooks(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    CHECK_EQ(greenlet_set_tracer(tracer, NULL, NULL, NULL), 0);
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = hook;
    h.post_switch = hook;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    everything();
    return NULL;
}

TEST(contract_30_through_hooks_and_tracers) {
    for (int lanes = 0; lanes <= 3; lanes++)
        test_join(test_thread(with_hooks, V(lanes)));
}

TEST(contract_30_at_check_level_0) {
    CHECK_EQ(greenlet_set_check_level(0), 0);
    everything();
}

/* Kills resume their caller from a death. */
static void do_kill(void *g) { of_main.got = greenlet_kill((greenlet *)g); }
static void do_unref(void *g) { greenlet_unref((greenlet *)g); }

TEST(contract_30_kills_and_last_references) {
    reset();
    for (int i = 0; i < 20; i++) {
        of_a.got = val(0);
        a = spawn(entry_a);
        step(&of_main, a, 0, SEED_MAIN);
        CHECK_EQ(registers_hold(do_kill, a, SEED_MAIN), 0);
        CHECK_MSG(of_main.got, 0, 0);
        greenlet_unref(a);
        of_a.got = val(0);
        a = spawn(entry_a);
        step(&of_main, a, 0, SEED_MAIN);
        CHECK_EQ(registers_hold(do_unref, a, SEED_MAIN), 0);
    }
}

static greenlet_message entry_stays_unwound(void *value) {
    (void)value;
    step(&of_b, a, 0, SEED_B);
    return val(5); /* its parent is main, which never called us */
}

/* Main is resumed, from its switch to one, by the death of another. */
TEST(contract_30_resumed_by_anothers_death) {
    reset();
    a = spawn(entry_a);
    step(&of_main, a, 0, SEED_MAIN);
    b = spawn(entry_stays_unwound);
    step(&of_main, b, 0, SEED_MAIN); /* b -> a -> main */
    CHECK_MSG(of_main.got, 1, 0);
    step(&of_main, b, 0, SEED_MAIN);
    CHECK_MSG(of_main.got, 5, 0);
    step(&of_main, a, 3, SEED_MAIN);
    CHECK_MSG(of_main.got, 1, 3);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* ---- The control words ----------------------------------------------------
 */

static uint64_t words_of_a, words_of_main;

static greenlet_message entry_rounds(void *value) {
    int mode = (int)I(value);
    CHECK_EQ(fesetround(mode), 0);
    uint64_t mine = registers_fpu_get();
    CHECK(mine != words_of_main);
    for (;;) {
        greenlet_message m = back(mode);
        CHECK_EQ(fegetround(), mode);
        CHECK_EQ(registers_fpu_get(), mine);
        if (m.status)
            return m;
        words_of_a = mine;
    }
}

static greenlet *spawn_fpu(void) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.flags = GREENLET_FPU;
    greenlet *g = greenlet_new(entry_rounds, &o);
    CHECK(g != NULL);
    return g;
}

TEST(contract_30_control_words_with_the_fpu_flag) {
#if defined(FE_UPWARD) && defined(FE_DOWNWARD)
    if (fesetround(FE_UPWARD) != 0)
        SKIP("this CPU knows only one rounding mode");
    CHECK_EQ(fesetround(FE_TONEAREST), 0);
    words_of_main = registers_fpu_get();
    CHECK_EQ(fegetround(), FE_TONEAREST);
    a = spawn_fpu();
    b = spawn_fpu();
    for (int i = 0; i < 20; i++) {
        CHECK_MSG(go(a, FE_UPWARD), FE_UPWARD, 0);
        CHECK_EQ(fegetround(), FE_TONEAREST);
        CHECK_EQ(registers_fpu_get(), words_of_main);
        CHECK_MSG(go(b, FE_DOWNWARD), FE_DOWNWARD, 0);
        CHECK_EQ(fegetround(), FE_TONEAREST);
        CHECK_EQ(registers_fpu_get(), words_of_main);
    }
    CHECK_MSG(greenlet_throw(a, 3, NULL), 0, 3); /* and at its death */
    CHECK_EQ(fegetround(), FE_TONEAREST);
    CHECK_EQ(registers_fpu_get(), words_of_main);
    CHECK_MSG(greenlet_throw(b, 3, NULL), 0, 3);
    CHECK_EQ(registers_fpu_get(), words_of_main);
    greenlet_unref(a);
    greenlet_unref(b);
#else
    SKIP("this C library knows only one rounding mode");
#endif
}

static void *fpu_on_lanes(void *lanes) {
#if defined(FE_UPWARD) && defined(FE_DOWNWARD)
    enum { N = 5 };
    static greenlet *all[N];
    static const int modes[2] = {FE_UPWARD, FE_DOWNWARD};
    static int i, n;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    words_of_main = registers_fpu_get();
    for (i = 0; i < N; i++)
        all[i] = spawn_fpu();
    for (n = 0; n < 5; n++)
        for (i = 0; i < N; i++) {
            CHECK_MSG(go(all[i], modes[i % 2]), modes[i % 2], 0);
            CHECK_EQ(registers_fpu_get(), words_of_main);
        }
    for (i = 0; i < N; i++)
        greenlet_unref(all[i]);
    CHECK_EQ(registers_fpu_get(), words_of_main);
#else
    (void)lanes;
#endif
    return NULL;
}

TEST(contract_30_control_words_over_evictions) {
#if defined(FE_UPWARD)
    if (fesetround(FE_UPWARD) != 0)
        SKIP("this CPU knows only one rounding mode");
    CHECK_EQ(fesetround(FE_TONEAREST), 0);
#endif
    for (int lanes = 0; lanes <= 2; lanes++)
        test_join(test_thread(fpu_on_lanes, V(lanes)));
}
