/* Ordinary greenlets take short ways through their life: a new one is started,
 * a dead one ended, an absent one fetched after a single comparison. Each test
 * here takes one off such a way at the last moment, or runs it at its limits.
 *
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

static greenlet *a, *b;

static greenlet_statistics of_thread(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    return s;
}

static void *use_lanes(int lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = lanes;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    return NULL;
}

static greenlet_message entry_noting(void *value) {
    note('e');
    return val(I(value) + 1);
}

/* ---- A new one that does not start ----------------------------------------
 */

TEST(contract_09_a_new_one_that_died_does_not_start) {
    a = spawn(entry_noting);
    CHECK_MSG(greenlet_throw(a, 7, V(70)), 70, 7);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_MSG(go(a, 5), 5, 0); /* to its parent: us */
    CHECK_STR(notes(), "");
    greenlet_unref(a);

    a = spawn(entry_noting);
    CHECK_MSG(greenlet_kill(a), 0, 0);
    CHECK_MSG(go(a, 6), 6, 0);
    CHECK_STR(notes(), "");
    greenlet_unref(a);
}

/* The error passes through unstarted ones: all of them are dead. */
TEST(contract_09_new_ones_that_an_error_passed_do_not_start) {
    a = spawn(entry_noting);
    b = spawn_under(entry_noting, a);
    CHECK_MSG(greenlet_throw(b, 7, V(70)), 70, 7);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(go(b, 2), 2, 0);
    CHECK_STR(notes(), "");
    greenlet_unref(b);
    greenlet_unref(a);
}

static struct test_gate gate;
static greenlet *elsewhere;

static void *other_thread(void *unused) {
    (void)unused;
    elsewhere = greenlet_ref(greenlet_current());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    greenlet_drain();
    return NULL;
}

/* A new child of a new one goes where that one goes. */
TEST(contract_14_a_new_one_follows_its_new_parent) {
    pthread_t thread = test_thread(other_thread, NULL);
    gate_wait(&gate, 1);
    a = spawn(entry_noting);
    b = spawn(entry_noting);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    greenlet *c = spawn_under(entry_noting, a);
    CHECK_EQ(greenlet_set_parent(a, elsewhere), 0);
    CHECK_MSG(go(a, 1), 0, -EPERM);
    CHECK_MSG(go(b, 1), 0, -EPERM);
    CHECK_MSG(go(c, 1), 0, -EPERM);
    CHECK_STR(notes(), "");
    greenlet_unref(c);
    greenlet_unref(b);
    greenlet_unref(a);
    greenlet_unref(elsewhere);
    gate_reach(&gate, 2);
    test_join(thread);
}

/* Of a thread that is no more, but whose parent went to us in time. */
static void *makes_two(void *unused) {
    (void)unused;
    a = spawn(entry_pump);
    b = spawn_under(entry_pump, a);
    CHECK_EQ(greenlet_set_parent(a, elsewhere), 0);
    return NULL;
}

TEST(contract_18_one_that_came_with_its_parent_is_shut_down) {
    elsewhere = greenlet_current();
    test_join(test_thread(makes_two, NULL));
    CHECK_EQ(greenlet_set_parent(b, elsewhere), 0);
    CHECK_MSG(go(b, 1), 1, 0);
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(b);
    greenlet_unref(a);
}

/* Two threads shut down; what one made lives in the other. */
static int kills;

static greenlet_message entry_hard_to_kill(void *value) {
    greenlet_message m = back(I(value));
    while (m.status) {
        kills++;
        gate_reach(&gate, 2 * kills + 1); /* 3, and 5 if it is tried again */
        gate_wait(&gate, 4);
        m = greenlet_switch(greenlet_main(), m.value);
    }
    return m;
}

static void *shuts_down(void *unused) {
    (void)unused;
    elsewhere = greenlet_current();
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(greenlet_thread_shutdown(), -EBUSY);
    CHECK_EQ(kills, 1);
    return NULL;
}

TEST(contract_18_two_shutdowns_at_once) {
    pthread_t thread = test_thread(shuts_down, NULL);
    gate_wait(&gate, 1);
    a = spawn(entry_hard_to_kill);
    CHECK_EQ(greenlet_set_parent(a, elsewhere), 0);
    gate_reach(&gate, 2);
    gate_wait(&gate, 3);
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    gate_reach(&gate, 4);
    test_join(thread);
    greenlet_unref(a);
}

/* One that died unstarted stays where it was: not where its message went. */
static void *starts_the_parent(void *unused) {
    (void)unused;
    gate_wait(&gate, 2);
    CHECK_MSG(greenlet_throw(b, GREENLET_EXIT, V(4)), 5, 0);
    CHECK_MSG(go(b, 1), 0, -EPERM);
    gate_reach(&gate, 3);
    return NULL;
}

static void *is_given_one(void *unused) {
    (void)unused;
    elsewhere = greenlet_ref(greenlet_current());
    gate_reach(&gate, 1);
    return starts_the_parent(NULL);
}

TEST(contract_13_one_that_died_unstarted_stays_at_home) {
    pthread_t thread = test_thread(is_given_one, NULL);
    gate_wait(&gate, 1);
    a = spawn(entry_noting);
    b = spawn_under(entry_noting, a);
    CHECK_EQ(greenlet_set_parent(a, elsewhere), 0);
    gate_reach(&gate, 2);
    gate_wait(&gate, 3);
    test_join(thread);
    CHECK_STR(notes(), "e");
    CHECK_MSG(go(b, 3), 0, -EOWNERDEAD); /* its parent's parent was there */
    greenlet_unref(b);
    greenlet_unref(a);
    greenlet_unref(elsewhere);
}

/* A hook may take the entry away again. */
static int resolve_to_none(greenlet *g, greenlet_entry **entry, void *data) {
    (void)g;
    (void)data;
    *entry = NULL;
    return 0;
}

TEST(contract_22_an_entry_that_was_taken_away) {
    greenlet_hooks hooks = GREENLET_HOOKS_INIT;
    hooks.resolve_entry = resolve_to_none;
    a = spawn(entry_noting);
    CHECK_EQ(greenlet_set_hooks(&hooks, NULL), 0);
    CHECK_MSG(go(a, 1), 0, -EINVAL);
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    CHECK_MSG(go(a, 1), 0, -EINVAL);
    CHECK_STR(notes(), "");
    greenlet_unref(a);
}

/* ---- A dead one ------------------------------------------------------------
 */

/* Who keeps it, names it or gives it away after its death. */
TEST(contract_15_a_dead_one_is_freed_once) {
    greenlet_unref(spawn(entry_echo)); /* the thread is adopted */
    long blocks = faults_blocks();
    for (int way = 0; way < 4; way++)
        for (int i = 0; i < 3000; i++) {
            a = spawn(entry_echo);
            CHECK_MSG(go(a, i), i, 0);
            if (way == 1)
                CHECK_EQ(greenlet_set_name(a, "late"), 0);
            if (way == 2)
                greenlet_unref(greenlet_ref(a));
            if (way == 3) {
                b = spawn_under(entry_echo, a); /* a dead parent */
                greenlet_unref(a);
                CHECK_MSG(go(b, i), i, 0);
                CHECK_EQ(greenlet_get_state(greenlet_parent(b)), GREENLET_DEAD);
                greenlet_unref(b);
            } else {
                greenlet_unref(a);
            }
        }
    CHECK_EQ(faults_blocks(), blocks);
}

static void *drop_a(void *unused) {
    (void)unused;
    greenlet_unref(a);
    return NULL;
}

TEST(contract_16_a_dead_one_dropped_elsewhere) {
    for (int i = 0; i < 100; i++) {
        a = spawn(entry_echo);
        CHECK_MSG(go(a, i), i, 0);
        test_join(test_thread(drop_a, NULL));
    }
    greenlet_drain();
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_ref(a);
    test_join(test_thread(drop_a, NULL));
    CHECK_MSG(go(a, 2), 2, 0);
    greenlet_unref(a);
    greenlet_drain();
}

/* Its parent goes with it, and slabs come and go: more than fit in two. */
TEST(contract_17_many_at_once_in_any_order) {
    enum { N = 2000 };
    static greenlet *all[N];
    long mapped = 0;
    for (int round = 0; round < 4; round++) {
        uint64_t seed = (uint64_t)round;
        for (int i = 0; i < N; i++) {
            all[i] = i && round % 2 ? spawn_under(entry_echo, all[i - 1])
                                    : spawn(entry_echo);
            CHECK_MSG(go(all[i], i), i, 0);
        }
        for (int i = N - 1; i > 0; i--) {
            int k = (int)(test_random(&seed) % (unsigned)(i + 1));
            greenlet *g = all[k];
            all[k] = all[i];
            greenlet_unref(g);
        }
        greenlet_unref(all[0]);
        if (round == 0)
            mapped = faults_mapped();
        CHECK(faults_mapped() <= mapped);
    }
}

/* ---- A start that must evict ------------------------------------------------
 */

static greenlet_message entry_holding(void *value) {
    volatile char bytes[700];
    faults_disarm(); /* in place, the way back needs memory, too */
    memset((char *)(uintptr_t)bytes, (int)I(value), sizeof(bytes));
    greenlet_message m = back(I(value));
    for (size_t i = 0; i < sizeof(bytes); i++)
        CHECK_EQ(bytes[i], (char)I(value));
    return m;
}

static void *start_without_memory(void *lanes) {
    enum { N = 6 };
    static greenlet *all[N];
    static int i;
    use_lanes((int)I(lanes));
    for (i = 0; i < N; i++) {
        all[i] = spawn(entry_holding);
        faults_arm(1, FAULTS_FOREVER);
        greenlet_message m = go(all[i], i);
        faults_disarm();
        if (m.status) {
            CHECK_MSG(m, 0, -ENOMEM);
            CHECK_EQ(greenlet_get_state(all[i]), GREENLET_NEW);
            m = go(all[i], i);
        }
        CHECK_MSG(m, i, 0);
    }
    for (i = 0; i < N; i++) {
        CHECK_MSG(go(all[i], 10 * i), 10 * i, 0);
        greenlet_unref(all[i]);
    }
    return NULL;
}

TEST(contract_26_a_start_that_evicts) {
    for (int lanes = 0; lanes < 4; lanes++)
        test_join(test_thread(start_without_memory, V(lanes)));
}

/* Memory fails again and again amid very many, at the n-th request of each
 * kind of step; afterwards each of them has all its bytes. */
static unsigned failures;

static greenlet_message entry_of_many(void *value) {
    uint64_t words[16], seed = (uint64_t)I(value);
    for (int i = 0; i < 16; i++)
        words[i] = test_random(&seed);
    greenlet_message m;
    while ((m = back(I(value))).status == -ENOMEM) { /* in place */
        faults_disarm();
        failures++;
    }
    faults_disarm();
    seed = (uint64_t)I(value);
    for (int i = 0; i < 16; i++)
        CHECK(words[i] == test_random(&seed));
    return m;
}

static greenlet_message try_to(greenlet *g, unsigned k) {
    greenlet_message m = val(0);
    for (unsigned n = k % 3 ? 0 : 1;; n = 0) {
        if (n)
            faults_arm(1 + k % 2, FAULTS_FOREVER);
        m = greenlet_switch(g, V(k));
        faults_disarm();
        if (m.status != -ENOMEM)
            return m;
        CHECK_PTR(greenlet_current(), greenlet_main());
        failures++;
    }
}

TEST(contract_26_no_memory_amid_very_many) {
    static unsigned n, k;
    static greenlet **all;
    bool own_stacks = !test_is_copy();
    n = own_stacks ? test_amount(500, 4000) : test_amount(20000, 1000000);
    all = calloc(n, sizeof(*all));
    for (k = 0; k < n; k++) {
        if (k % 100 == 7) {
            faults_arm(1, FAULTS_FOREVER);
            all[k] = greenlet_new(entry_of_many, NULL);
            faults_disarm();
            failures += !all[k];
        }
        if (!all[k])
            all[k] = spawn(entry_of_many);
        CHECK_MSG(try_to(all[k], k), k, 0);
    }
    for (k = n; k-- > 0;) {
        CHECK_MSG(try_to(all[k], k), k, 0);
        greenlet_unref(all[k]);
    }
    free(all);
    test_say("%u failures", failures);
    CHECK(failures > 0);
}

/* Each start and each return in its place among the counters. */
static void *counted(void *unused) {
    static greenlet *two[2];
    (void)unused;
    use_lanes(1);
    CHECK_MSG(go(two[0] = spawn(entry_pump), 1), 1, 0);
    greenlet_statistics s = of_thread(), t;
    CHECK_MSG(go(two[1] = spawn(entry_pump), 2), 2, 0);
    t = of_thread();
    CHECK_EQ(t.switches - s.switches, 2);
    CHECK_EQ(t.misses - s.misses, test_is_copy());
    CHECK_EQ(t.hits - s.hits, 2 - test_is_copy());
    CHECK_EQ(t.evictions - s.evictions, test_is_copy());
    CHECK_EQ(t.fills - s.fills, 0);
    CHECK_EQ(t.filled_bytes, s.filled_bytes);
    CHECK((t.saved_bytes > s.saved_bytes) == test_is_copy());
    for (int i = 0; i < 10; i++)
        CHECK_MSG(go(two[i % 2], i), i, 0);
    s = of_thread();
    CHECK_EQ(s.switches - t.switches, 20);
    CHECK_EQ(s.misses - t.misses, test_is_copy() ? 10 : 0);
    CHECK_EQ(s.evictions - t.evictions, test_is_copy() ? 10 : 0);
    CHECK_EQ(s.fills - t.fills, test_is_copy() ? 10 : 0);
    CHECK_EQ(s.allocations, t.allocations);
    greenlet_unref(two[0]);
    greenlet_unref(two[1]);
    return NULL;
}

TEST(contract_25_starts_and_refills_are_counted) {
    test_join(test_thread(counted, NULL));
}

/* ---- Bytes ------------------------------------------------------------------
 */

/* Two that take turns on one lane, with any pair of depths: of the small ones
 * every multiple of 16, of the large ones both sides of each limit at which
 * another way of moving begins. */
static size_t depth[2];

static greenlet_message entry_deep(void *value) {
    size_t who = (size_t)I(value), n = depth[who];
    unsigned char *bytes = __builtin_alloca_with_align(n, 128);
    greenlet_message m = val(0);
    for (unsigned turn = 0; m.status == 0; turn++) {
        uint64_t seed = who * 1000 + turn;
        for (size_t i = 0; i + 8 <= n; i += 8) {
            uint64_t word = test_random(&seed);
            memcpy(bytes + i, &word, 8);
        }
        m = go(who ? a : b, I(m.value));
        seed = who * 1000 + turn;
        for (size_t i = 0; i + 8 <= n; i += 8) {
            uint64_t word = test_random(&seed);
            CHECK(memcmp(bytes + i, &word, 8) == 0);
        }
        if (turn == 2)
            m = greenlet_switch(greenlet_main(), NULL);
    }
    return m;
}

static greenlet_message entry_zero(void *value) {
    (void)value;
    return entry_deep(V(0));
}

static greenlet_message entry_one(void *value) {
    (void)value;
    return entry_deep(V(1));
}

static void turns(size_t first, size_t second) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.lane = test_in_place() || !test_is_copy() ? GREENLET_ANY_LANE : 0;
    depth[0] = first;
    depth[1] = second;
    CHECK((a = greenlet_new(entry_zero, &o)) != NULL);
    CHECK((b = greenlet_new(entry_one, &o)) != NULL);
    CHECK_EQ(greenlet_switch(a, NULL).status, 0);
    CHECK_EQ(greenlet_switch(a, NULL).status, 0);
    greenlet_unref(b);
    greenlet_unref(a);
}

TEST(contract_31_small_depths_in_pairs) {
    for (size_t first = 16; first <= 640; first += 16)
        for (size_t second = 16; second <= 640; second += 208)
            turns(first, second);
}

TEST(contract_31_large_depths_in_pairs) {
    static const size_t limits[] = {656,   1024,  4096,  16384,
                                    32768, 65536, 98304, 131072};
    enum { N = sizeof(limits) / sizeof(*limits) };
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++)
            for (int side = 0; side < 4; side++)
                turns(limits[i] - (side & 1 ? 400 : 0),
                      limits[k] - (side & 2 ? 208 : 0));
}
