/* Statistics, exactly. Contract 25.
 * SPDX-License-Identifier: MIT */
#include "test.h"

static greenlet *a, *b;

static greenlet_statistics of_thread(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    return s;
}

static greenlet_statistics of_process(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_process_statistics(&s), 0);
    return s;
}

static void check_no_copies(const greenlet_statistics *s) {
    CHECK_EQ(s->misses, 0);
    CHECK_EQ(s->evictions, 0);
    CHECK_EQ(s->fills, 0);
    CHECK_EQ(s->saved_bytes, 0);
    CHECK_EQ(s->filled_bytes, 0);
    CHECK_EQ(s->hits, s->switches);
}

TEST(contract_25_switches_are_counted) {
    static greenlet_statistics before, s;
    before = of_thread();
    CHECK_EQ(before.switches, 0);
    a = spawn(entry_pump);
    go(a, 1); /* start, and back: 2 */
    s = of_thread();
    CHECK_EQ(s.switches, 2);
    for (int i = 0; i < 10; i++)
        go(a, 1);
    s = of_thread();
    CHECK_EQ(s.switches, 22);
    CHECK_EQ(s.hits + s.misses, s.switches);
    greenlet_throw(a, 5, NULL); /* in, and the death */
    s = of_thread();
    CHECK_EQ(s.switches, 24);
    CHECK_EQ(s.hits + s.misses, 24);
    greenlet_unref(a);
    if (!test_is_copy()) {
        s = of_thread();
        check_no_copies(&s);
    }
}

TEST(contract_25_fast_and_slow_paths_count_alike) {
    static greenlet_statistics s;
    static greenlet_hooks h = GREENLET_HOOKS_INIT;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    a = spawn(entry_pump);
    for (int i = 0; i < 5; i++)
        go(a, 1);
    s = of_thread();
    CHECK_EQ(s.switches, 10);
    greenlet_unref(a);
}

/* Lanes: each visit of two that share the only lane is a miss in, none out. */
static void *one_lane(void *unused) {
    static greenlet_statistics x, y;
    (void)unused;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = 1;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    a = spawn(entry_pump);
    b = spawn(entry_pump);
    go(a, 1);
    x = of_thread();
    check_no_copies(&x); /* nobody was in its way */
    go(b, 1);            /* evicts a */
    y = of_thread();
    if (!test_is_copy()) {
        check_no_copies(&y);
        go(a, 1);
        go(b, 1);
        y = of_thread();
        check_no_copies(&y);
        return NULL;
    }
    CHECK_EQ(y.evictions, 1);
    CHECK_EQ(y.fills, 0);
    CHECK_EQ(y.misses, 1);
    CHECK(y.saved_bytes > 0);
    CHECK_EQ(y.filled_bytes, 0);
    for (unsigned i = 0; i < 50; i++) {
        x = of_thread();
        go(i % 2 ? b : a, 1);
        y = of_thread();
        CHECK_EQ(y.switches - x.switches, 2);
        CHECK_EQ(y.evictions - x.evictions, 1);
        CHECK_EQ(y.fills - x.fills, 1);
        CHECK_EQ(y.misses - x.misses, 1);
        CHECK_EQ(y.hits - x.hits, 1);
        if (i >= 2) {
            CHECK_EQ(y.allocations, x.allocations); /* steady state */
            CHECK_EQ(y.saved_bytes - x.saved_bytes,
                     y.filled_bytes - x.filled_bytes);
        }
        CHECK(y.stack_high >= y.saved_bytes - x.saved_bytes);
    }
    /* a is out; b dies in place: nothing is saved. */
    go(b, 1);
    x = of_thread();
    greenlet_throw(b, 5, NULL);
    y = of_thread();
    CHECK_EQ(y.evictions, x.evictions);
    CHECK_EQ(y.fills, x.fills);
    greenlet_throw(a, 5, NULL); /* filled into the empty lane, dies there */
    y = of_thread();
    CHECK_EQ(y.evictions, x.evictions);
    CHECK_EQ(y.fills, x.fills + 1);
    CHECK_EQ(y.saved_bytes, y.filled_bytes); /* the balance */
    return NULL;
}

TEST(contract_25_one_lane_counts_exactly) {
    test_join(test_thread(one_lane, NULL));
}

/* Between two greenlets of one lane, without main. */
static greenlet_message entry_to_b(void *value) {
    greenlet_message m = val(I(value));
    for (int i = 0; i < 20; i++)
        m = go(b, I(m.value));
    return m;
}

static greenlet_message entry_to_a(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0)
        m = go(a, I(m.value) + 1);
    return m;
}

static void *ping_pong(void *unused) {
    static greenlet_statistics s;
    (void)unused;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = 1;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    a = spawn(entry_to_b);
    b = spawn(entry_to_a);
    CHECK_MSG(go(a, 0), 20, 0);
    s = of_thread();
    CHECK_EQ(s.switches, 42); /* in, 20 there, 20 back, out */
    if (test_is_copy()) {
        /* Each of the 40 evicts (the last one back finds b); all but b's
         * start also fill. */
        CHECK_EQ(s.evictions, 40);
        CHECK_EQ(s.fills, 39);
        CHECK_EQ(s.misses, 40);
        CHECK_EQ(s.hits, 2);
    } else {
        check_no_copies(&s);
    }
    greenlet_kill(b);
    if (test_is_copy()) {
        s = of_thread();
        CHECK_EQ(s.saved_bytes, s.filled_bytes);
    }
    return NULL;
}

TEST(contract_25_ping_pong_on_one_lane_counts_exactly) {
    test_join(test_thread(ping_pong, NULL));
}

static void *process_part(void *unused) {
    (void)unused;
    greenlet *g = spawn(entry_pump);
    for (int i = 0; i < 50; i++)
        go(g, 1);
    greenlet_unref(g);
    CHECK_EQ(of_thread().switches, 102);
    return NULL;
}

TEST(contract_25_process_counts_exited_threads) {
    static greenlet_statistics before, after;
    before = of_process();
    test_join(test_thread(process_part, NULL));
    after = of_process();
    CHECK_EQ(after.switches - before.switches, 102);
    CHECK_EQ(after.hits + after.misses, after.switches);
    CHECK_EQ(of_thread().switches, 0);
    process_part(NULL);
    after = of_process();
    CHECK_EQ(after.switches - before.switches, 204);
    CHECK(after.allocations >= of_thread().allocations);
}

static greenlet_statistics of_greenlet(greenlet *g) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_get_statistics(g, &s), 0);
    return s;
}

static void *asks_elsewhere(void *unused) {
    (void)unused;
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_get_statistics(a, &s), -EPERM);
    return NULL;
}

TEST(contract_25_per_greenlet) {
    static greenlet_statistics s;
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.flags = GREENLET_STATS;
    a = greenlet_new(entry_pump, &o);
    CHECK(a != NULL);
    b = spawn(entry_pump);
    go(b, 1);
    CHECK_EQ(of_greenlet(a).switches, 0);
    go(a, 1);
    s = of_greenlet(a);
    CHECK(s.switches >= 1);
    uint64_t per_visit = s.switches;
    for (unsigned i = 2; i < 12; i++) {
        go(a, 1);
        go(b, 1);
        CHECK_EQ(of_greenlet(a).switches, i * per_visit);
    }
    s = of_greenlet(a);
    CHECK(s.stack_high > 0);
    if (!test_is_copy())
        CHECK_EQ(s.saved_bytes + s.filled_bytes, 0);
    static greenlet_statistics out;
    out.size = sizeof out;
    CHECK_EQ(greenlet_get_statistics(b, &out), -ENOTSUP);
    CHECK_EQ(greenlet_get_statistics(NULL, &out), -EINVAL);
    CHECK_EQ(greenlet_get_statistics(a, NULL), -EINVAL);
    test_join(test_thread(asks_elsewhere, NULL));
    CHECK_MSG(greenlet_throw(a, 4, V(2)), 2, 4);
    greenlet_unref(a);
    greenlet_unref(b);
}

TEST(contract_25_sizes_are_checked) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(NULL), -EINVAL);
    CHECK_EQ(greenlet_process_statistics(NULL), -EINVAL);
    s.size = 0;
    CHECK_EQ(greenlet_thread_statistics(&s), -EINVAL);
    CHECK_EQ(greenlet_process_statistics(&s), -EINVAL);
    /* A caller compiled against an older header: the rest is not written. */
    s.size = offsetof(greenlet_statistics, hits);
    s.hits = 4711;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    CHECK_EQ(s.switches, 0);
    CHECK_EQ(s.hits, 4711);
}

TEST(contract_25_stack_high_grows_with_depth) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.flags = GREENLET_STATS;
    a = greenlet_new(entry_pump, &o);
    CHECK(a != NULL);
    go(a, 1);
    CHECK(of_greenlet(a).stack_high > 0);
    CHECK(of_greenlet(a).stack_high < GREENLET_STACK_BYTES_MIN * 4);
    greenlet_unref(a);
}
