/* What only copying can get wrong, and copying in place. Contract 31, 34.
 * The other backends run all of it: they must answer the same, and 0 copies.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

static greenlet *a, *b;
static greenlet_statistics before, after;

static greenlet_statistics of_thread(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    return s;
}

static void use_lanes(int lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = lanes;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
}

/* ---- 31 ----------------------------------------------------------------- */

static greenlet_message entry_to_b(void *value) {
    greenlet_message m = val(I(value));
    for (int i = 0; i < 1000; i++)
        m = go(b, I(m.value) + 1);
    return m;
}

static greenlet_message entry_to_a(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0)
        m = go(a, I(m.value) + 1);
    return m;
}

static void *two_lanes(void *unused) {
    (void)unused;
    use_lanes(2);
    a = spawn(entry_to_b);
    b = spawn(entry_to_a);
    CHECK_MSG(go(a, 0), 2000, 0);
    after = of_thread();
    CHECK_EQ(after.switches, 2002);
    CHECK_EQ(after.hits, 2002);
    CHECK_EQ(after.misses, 0);
    CHECK_EQ(after.saved_bytes, 0);
    CHECK_EQ(after.filled_bytes, 0);
    CHECK_EQ(after.evictions, 0);
    CHECK_EQ(after.fills, 0);
    CHECK_MSG(greenlet_kill(b), 0, 0);
    greenlet_unref(a);
    greenlet_unref(b);
    return NULL;
}

TEST(contract_31_residents_cost_no_copies) {
    test_join(test_thread(two_lanes, NULL));
}

/* Up to `lanes` greenlets, visited in turn from main, are all residents. */
static void *four_lanes(void *unused) {
    static greenlet *four[4];
    static int i, n;
    (void)unused;
    use_lanes(4);
    for (i = 0; i < 4; i++) {
        greenlet_options o = GREENLET_OPTIONS_INIT;
        o.lane = i;
        four[i] = greenlet_new(entry_pump, &o);
        CHECK(four[i] != NULL);
    }
    for (n = 0; n < 20; n++)
        for (i = 0; i < 4; i++)
            CHECK_MSG(go(four[i], n), n, 0);
    after = of_thread();
    CHECK_EQ(after.hits, after.switches);
    CHECK_EQ(after.saved_bytes + after.filled_bytes, 0);
    for (i = 0; i < 4; i++)
        greenlet_unref(four[i]);
    return NULL;
}

TEST(contract_31_a_lane_each) { test_join(test_thread(four_lanes, NULL)); }

static void *unnamed_lanes(void *unused) {
    static greenlet *four[4];
    static int i, n;
    (void)unused;
    use_lanes(4);
    for (i = 0; i < 4; i++)
        four[i] = spawn(entry_pump);
    for (n = 0; n < 20; n++)
        for (i = 0; i < 4; i++)
            CHECK_MSG(go(four[i], n), n, 0);
    after = of_thread();
    CHECK_EQ(after.hits, after.switches);
    for (i = 0; i < 4; i++)
        greenlet_unref(four[i]);
    return NULL;
}

TEST(contract_31_starts_spread_over_the_lanes) {
    test_join(test_thread(unnamed_lanes, NULL));
}

static void *names_lanes(void *unused) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    (void)unused;
    use_lanes(2);
    o.lane = 2;
    errno = 0;
    a = greenlet_new(entry_echo, &o);
    if (test_is_copy()) {
        CHECK_PTR(a, NULL);
        CHECK_EQ(errno, EINVAL);
    } else {
        CHECK(a != NULL); /* ignored */
        greenlet_unref(a);
    }
    o.lane = -2;
    errno = 0;
    a = greenlet_new(entry_echo, &o);
    if (test_is_copy()) {
        CHECK_PTR(a, NULL);
        CHECK_EQ(errno, EINVAL);
    } else {
        greenlet_unref(a);
    }
    return NULL;
}

/* A lane that somebody has come back to is passed over once by those who
 * start; starts alone do not count as that. */
static void *spares_who_came_back(void *unused) {
    enum { LANES = 3 };
    static greenlet *all[2 * LANES + 1];
    (void)unused;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = LANES;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    for (int i = 0; i < 2 * LANES; i++) {
        all[i] = spawn(entry_pump);
        CHECK_MSG(go(all[i], i), i, 0);
    }
    CHECK_MSG(go(all[0], 7), 7, 0); /* to its lane, the next to be given */
    all[2 * LANES] = spawn(entry_pump);
    CHECK_MSG(go(all[2 * LANES], 8), 8, 0);
    greenlet_statistics s = GREENLET_STATISTICS_INIT, then;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    then = s;
    CHECK_MSG(go(all[0], 9), 9, 0);
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    CHECK_EQ(s.evictions, then.evictions);
    for (int i = 0; i <= 2 * LANES; i++)
        greenlet_unref(all[i]);
    return NULL;
}

TEST(contract_31_starts_spare_who_came_back) {
    test_join(test_thread(spares_who_came_back, NULL));
}

TEST(contract_31_lane_numbers_are_checked) {
    test_join(test_thread(names_lanes, NULL));
}

/* Displaced and put back: every byte, at its address. */
enum { BYTES = 3000 };
static unsigned long long keyed(uintptr_t address, intptr_t who) {
    uint64_t state = (uint64_t)address ^ ((uint64_t)who << 48);
    return test_random(&state);
}

struct linked {
    struct linked *self, *previous;
    unsigned long long words[BYTES / 8];
};

/* Frames that point at each other and at themselves. */
__attribute__((noinline)) static intptr_t chained(int deep, intptr_t who,
                                                  struct linked *previous) {
    volatile struct linked here;
    here.self = (struct linked *)(uintptr_t)&here;
    here.previous = previous;
    for (size_t i = 0; i < BYTES / 8; i++)
        here.words[i] = keyed((uintptr_t)&here.words[i], who);
    intptr_t got =
        deep ? chained(deep - 1, who, (struct linked *)(uintptr_t)&here)
             : I(back(who).value);
    CHECK_PTR(here.self, (const void *)(uintptr_t)&here);
    CHECK_PTR(here.previous, previous);
    for (size_t i = 0; i < BYTES / 8; i++)
        CHECK(here.words[i] == keyed((uintptr_t)&here.words[i], who));
    /* The innermost walks the chain by the pointers alone. */
    if (deep == 0) {
        int frames = 0;
        for (struct linked *p = here.self; p; p = p->previous) {
            CHECK_PTR(p->self, p);
            CHECK(p->words[1] == keyed((uintptr_t)&p->words[1], who));
            frames++;
        }
        CHECK(frames == 5);
    }
    return got;
}

static greenlet_message entry_chained(void *value) {
    intptr_t who = I(value);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(chained(4, who, NULL), who + 1);
    return val(-who);
}

static void *interior(void *lanes) {
    enum { N = 10 };
    static greenlet *all[N];
    static int i, n;
    use_lanes((int)I(lanes));
    for (i = 0; i < N; i++) {
        all[i] = spawn(entry_chained);
        CHECK_MSG(go(all[i], 10 * i), 10 * i, 0);
    }
    for (n = 0; n < 3; n++)
        for (i = n % 2 ? N - 1 : 0; i >= 0 && i < N; i += n % 2 ? -1 : 1)
            CHECK_MSG(go(all[i], 10 * i + 1), 10 * i, 0);
    for (i = 0; i < N; i++)
        CHECK_MSG(go(all[i], 10 * i + 1), -10 * i, 0);
    for (i = 0; i < N; i++)
        greenlet_unref(all[i]);
    return NULL;
}

TEST(contract_31_interior_pointers_hold) {
    for (int lanes = 0; lanes <= 3; lanes++)
        test_join(test_thread(interior, V(lanes)));
}

/* On lanes, main's locals can be reached at any time. */
static intptr_t *into_main;

static greenlet_message entry_writes_to_main(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0) {
        *into_main += I(m.value);
        m = back(*into_main);
    }
    return m;
}

static void *main_stays(void *unused) {
    (void)unused;
    volatile intptr_t local = 100;
    use_lanes(1);
    into_main = (intptr_t *)(uintptr_t)&local;
    a = spawn(entry_writes_to_main);
    b = spawn(entry_writes_to_main);
    for (int i = 0; i < 10; i++) {
        CHECK_MSG(go(a, 1), 100 + 2 * i + 1, 0);
        CHECK_MSG(go(b, 1), 100 + 2 * i + 2, 0);
    }
    CHECK_EQ(local, 120);
    greenlet_unref(a);
    greenlet_unref(b);
    return NULL;
}

TEST(contract_31_main_is_never_displaced_from_lanes) {
    test_join(test_thread(main_stays, NULL));
}

/* ---- 34 ----------------------------------------------------------------- */

TEST(contract_34_configure_before_first_use_only) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    CHECK_EQ(greenlet_thread_configure(NULL), -EINVAL);
    o.size = 0;
    CHECK_EQ(greenlet_thread_configure(&o), -EINVAL);
    o.size = sizeof o;
    o.lanes = GREENLET_LANES_MAX + 1;
    CHECK_EQ(greenlet_thread_configure(&o), -EINVAL);
    o.lanes = -2;
    CHECK_EQ(greenlet_thread_configure(&o), -EINVAL);
    o.lanes = -1;
    o.lane_bytes = GREENLET_STACK_BYTES_MIN - 1;
    CHECK_EQ(greenlet_thread_configure(&o), -EINVAL);
    o.lane_bytes = 0;
    o.stack_bytes = GREENLET_STACK_BYTES_MIN - 1;
    CHECK_EQ(greenlet_thread_configure(&o), -EINVAL);
    o.stack_bytes = 0;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    CHECK_EQ(greenlet_thread_configure(&o), -EBUSY);
    CHECK(greenlet_current() != NULL);
    CHECK_EQ(greenlet_thread_configure(&o), -EBUSY);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
}

/* The whole life in place: values, errors, nesting, kills, the rest. */
static greenlet_message entry_nests(void *value) {
    intptr_t left = I(value);
    volatile unsigned long long words[20];
    for (int i = 0; i < 20; i++)
        words[i] = keyed((uintptr_t)&words[i], left);
    greenlet_message m = val(1);
    if (left > 0) {
        greenlet *g = spawn(entry_nests);
        m = go(g, left - 1);
        CHECK_EQ(m.status, 0);
        CHECK_EQ(greenlet_get_state(g), GREENLET_DEAD);
        greenlet_unref(g);
    }
    for (int i = 0; i < 20; i++)
        CHECK(words[i] == keyed((uintptr_t)&words[i], left));
    return val(I(m.value) + 1);
}

static greenlet_message entry_starts_b(void *value) {
    greenlet_message m = go(b, I(value));
    return err(I(m.value) + 1, m.status);
}

static void *lives_in_place(void *unused) {
    (void)unused;
    use_lanes(0);
    greenlet *m = greenlet_main();
    a = spawn(entry_nests);
    CHECK_MSG(go(a, 15), 17, 0);
    greenlet_unref(a);
    /* Started on top of another, which dies first. */
    a = spawn(entry_starts_b);
    b = spawn(entry_pump);
    CHECK_MSG(go(a, 5), 5, 0);
    CHECK_MSG(go(a, 6), 7, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    for (int i = 0; i < 10; i++)
        CHECK_MSG(go(b, i), i, 0);
    CHECK_MSG(greenlet_throw(b, 3, V(4)), 4, 3);
    greenlet_unref(a);
    greenlet_unref(b);
    /* Kill by the last reference. */
    a = spawn(entry_pump);
    b = spawn(entry_pump);
    go(a, 1);
    go(b, 1);
    greenlet_unref(a);
    CHECK_MSG(greenlet_kill(b), 0, 0);
    greenlet_unref(b);
    CHECK_PTR(greenlet_current(), m);
    after = of_thread();
    if (!test_is_copy()) {
        CHECK_EQ(after.saved_bytes + after.filled_bytes, 0);
        return NULL;
    }
    CHECK(after.saved_bytes > 0);
    CHECK_EQ(after.hits + after.misses, after.switches);
    return NULL;
}

TEST(contract_34_life_in_place) {
    test_join(test_thread(lives_in_place, NULL));
}

/* In place is where the thread's stack stands: no stack is mapped. */
static uintptr_t where;

TEST_REAL_STACK static greenlet_message entry_tells_where(void *value) {
    volatile int here = 1;
    CHECK(here);
    where = (uintptr_t)&here;
    return back(I(value));
}

TEST_REAL_STACK static void *maps_nothing(void *unused) {
    (void)unused;
    volatile char here = 0;
    CHECK(!here);
    use_lanes(0);
    greenlet_main();
    static long mapped;
    mapped = faults_mapped();
    a = spawn(entry_tells_where);
    go(a, 1);
    CHECK(where < (uintptr_t)&here);
    CHECK((uintptr_t)&here - where < 65536);
    before = of_thread();
    go(a, 1);
    CHECK(faults_mapped() - mapped < 1024 * 1024);
    greenlet_unref(a);
    return NULL;
}

TEST(contract_34_runs_on_the_threads_own_stack) {
    if (!test_is_copy())
        SKIP("only the copy backend runs in place");
    test_join(test_thread(maps_nothing, NULL));
}

/* Main is displaced like any other, and comes back whole. */
static greenlet_message entry_smashes(void *value) {
    volatile char wide[20000];
    for (size_t i = 0; i < sizeof wide; i++)
        wide[i] = (char)(I(value) + (intptr_t)i);
    return back(I(value) + wide[0] - wide[0]);
}

__attribute__((noinline)) static void deep_start(int deep) {
    volatile unsigned long long words[200];
    for (int i = 0; i < 200; i++)
        words[i] = keyed((uintptr_t)&words[i], deep);
    if (deep == 0) {
        go(a, 1);
    } else {
        deep_start(deep - 1);
        if (deep == 5)
            go(b, 2); /* from a shallower place */
    }
    for (int i = 0; i < 200; i++)
        CHECK(words[i] == keyed((uintptr_t)&words[i], deep));
}

static void *main_comes_back(void *unused) {
    (void)unused;
    use_lanes(0);
    a = spawn(entry_smashes);
    b = spawn(entry_smashes);
    deep_start(10);
    volatile unsigned long long words[100];
    for (int i = 0; i < 100; i++)
        words[i] = keyed((uintptr_t)&words[i], 77);
    CHECK_MSG(go(b, 5), 5, 0); /* from above both bases */
    CHECK_MSG(go(a, 6), 6, 0);
    for (int i = 0; i < 100; i++)
        CHECK(words[i] == keyed((uintptr_t)&words[i], 77));
    greenlet_unref(a);
    greenlet_unref(b);
    return NULL;
}

TEST(contract_34_main_is_displaced_and_comes_back) {
    test_join(test_thread(main_comes_back, NULL));
}

/* ---- A refill after a start ------------------------------------------- */

static int begun;

__attribute__((noinline)) static greenlet_message wait_with(size_t size,
                                                            intptr_t who) {
    volatile char *bytes = __builtin_alloca(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(who + (intptr_t)i);
    greenlet_message m = {V(who), 0};
    while (m.status == 0) {
        m = back(I(m.value));
        for (size_t i = 0; i < size; i++)
            if (bytes[i] != (char)(who + (intptr_t)i))
                FAIL("byte %zu of %zu", i, size);
    }
    return m;
}

static greenlet_message entry_of_10k(void *value) {
    begun++;
    return wait_with(10000, I(value));
}

static greenlet_message entry_of_100(void *value) {
    begun++;
    return wait_with(100, I(value));
}

/* What one switch was told to do must not be left over for the next: small
 * and large stacks take different ways through the copying. */
TEST(contract_31_large_and_small_take_turns_on_one_lane) {
    enum { N = 6 };
    static greenlet *all[N];
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.lane = test_is_copy() && test_lanes() ? 0 : GREENLET_ANY_LANE;
    for (int i = 0; i < N; i++) {
        o.flags = i == 4 ? GREENLET_STATS : 0;
        all[i] = greenlet_new(i % 3 ? entry_of_100 : entry_of_10k, &o);
        CHECK(all[i] != NULL);
        CHECK_MSG(go(all[i], i), i, 0);
        CHECK_MSG(go(all[0], 5 * i), 5 * i, 0);
    }
    for (int i = 0; i < 400; i++) {
        int k = i * 7 % 13 % N;
        CHECK_MSG(go(all[k], i), i, 0);
    }
    CHECK_EQ(begun, N);
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_get_statistics(all[4], &s), 0);
    CHECK_EQ(s.evictions, s.fills + (s.evictions != s.fills));
    if (test_is_copy() && test_lanes()) {
        CHECK(s.evictions > 10);
        CHECK(s.misses > 10);
        CHECK_EQ(s.hits + s.misses, s.switches);
    }
    for (int i = 0; i < N; i++)
        greenlet_unref(all[i]);
}

/* Waits with 150,000 live bytes, then with few. */
static __attribute__((noinline)) greenlet_message deep(void *value) {
    char bytes[150000];
    memset(bytes, (int)I(value) & 0x7f, sizeof bytes);
    greenlet_message m =
        greenlet_switch(greenlet_parent(greenlet_current()), value);
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQ(bytes[i], (int)I(value) & 0x7f);
    return m;
}

static greenlet_message entry_deep(void *value) {
    greenlet_message m = deep(value);
    while (m.status == 0)
        m = greenlet_switch(greenlet_parent(greenlet_current()), m.value);
    return m;
}

/* More slices than are kept for the next: one that was filled from is unmapped
 * at once, and nothing may be read from it any more. */
static void *many_large(void *unused) {
    enum { N = 64 };
    static greenlet *all[N];
    static int i, n;
    (void)unused;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = test_is_copy() && test_lanes() == 0 ? 0 : 1;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    for (i = 0; i < N; i++) {
        all[i] = spawn(entry_deep);
        CHECK_MSG(go(all[i], i), i, 0);
    }
    for (n = 0; n < 2; n++)
        for (i = 0; i < N; i++)
            CHECK_MSG(go(all[i], i + n), i + n, 0);
    for (i = 0; i < N; i++) {
        CHECK_EQ(greenlet_kill(all[i]).status, 0);
        greenlet_unref(all[i]);
    }
    return NULL;
}

TEST(contract_31_a_large_slice_that_is_not_kept) {
    test_join(test_thread(many_large, NULL));
}
