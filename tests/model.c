/* Random operations against a plain model of the contract.
 *
 * Every greenlet runs the same loop: choose an operation, let the model say
 * who will run next and with which message, do it, and look whether that is
 * so. GREENLET_TEST_SEED and GREENLET_TEST_ITERATIONS come from the
 * environment; the seed is printed.
 * SPDX-License-Identifier: MIT */
#include "test.h"

enum { SLOTS = 14, MAIN = 0, DEEPEST = 6, FREE = 0 };

static greenlet *real[SLOTS];
static int state[SLOTS];  /* FREE or a greenlet_state                     */
static int parent[SLOTS]; /* a slot                                       */
static int refs[SLOTS];   /* ours and one for each child                  */
static int held[SLOTS];   /* ours                                         */
static int current;
static uint64_t seed;
static unsigned long steps_left;
static intptr_t next_value;
static int unraised, unraised_expected;

/* Who is resumed or started next, and with what. */
static struct {
    int who;
    intptr_t value, status;
} expected;

/* Those that the operation under way kills, in order, and what they say. */
static struct {
    int who;
    intptr_t value, status;
} kills[SLOTS];
static int n_kills, at_kill;

static unsigned roll(unsigned n) { return (unsigned)(test_random(&seed) % n); }

static void unraisable(greenlet *g, greenlet_message last, void *data) {
    (void)g;
    (void)data;
    CHECK_EQ(last.status, 7);
    unraised++;
}

/* ---- The model --------------------------------------------------------------
 */

/* {value, status} sent to slot i: who gets it? */
static void deliver(int i, intptr_t value, intptr_t status) {
    for (;;) {
        if (state[i] == GREENLET_ACTIVE)
            break;
        if (state[i] == GREENLET_NEW && status == 0) {
            state[i] = GREENLET_ACTIVE;
            break;
        }
        state[i] = GREENLET_DEAD; /* a new one dies of what is thrown */
        if (status == GREENLET_EXIT)
            status = 0;
        i = parent[i];
    }
    expected.who = i;
    expected.value = value;
    expected.status = status;
}

/* Drops one reference of slot i: frees, kills, and so on up. Does nothing and
 * returns false if that would reach the current greenlet. */
static int plan[SLOTS];
static int n_plan;

static bool plan_drop(int i) {
    n_plan = 0;
    while (i != MAIN && refs[i] == 1) {
        if (i == current)
            return false;
        plan[n_plan++] = i;
        i = parent[i];
    }
    if (i != MAIN)
        refs[i]--;
    n_kills = at_kill = 0;
    for (int n = 0; n < n_plan; n++) {
        int who = plan[n];
        if (state[who] != GREENLET_ACTIVE)
            continue;
        static const intptr_t last[] = {0, GREENLET_EXIT, 7};
        kills[n_kills].who = who;
        kills[n_kills].value = next_value++;
        kills[n_kills].status = last[roll(3)];
        unraised_expected += kills[n_kills].status == 7;
        n_kills++;
    }
    return true;
}

static void drop_done(void) {
    CHECK_EQ(at_kill, n_kills);
    n_kills = at_kill = 0;
    for (int n = 0; n < n_plan; n++) {
        state[plan[n]] = FREE;
        real[plan[n]] = NULL;
    }
    n_plan = 0;
    CHECK_EQ(unraised, unraised_expected);
}

static bool is_ancestor(int i, int of) {
    for (;; of = parent[of]) {
        if (of == i)
            return true;
        if (of == MAIN)
            return false;
    }
}

static void check_all(void) {
    CHECK_PTR(greenlet_current(), real[current]);
    for (int i = 0; i < SLOTS; i++)
        if (state[i] != FREE) {
            if ((int)greenlet_get_state(real[i]) != state[i])
                FAIL("slot %d is %d, not %d", i,
                     (int)greenlet_get_state(real[i]), state[i]);
            if (i != MAIN)
                CHECK_PTR(greenlet_parent(real[i]), real[parent[i]]);
        }
}

/* ---- The operations
 * ----------------------------------------------------------- */

static int any_used(void) {
    for (;;) {
        int i = (int)roll(SLOTS);
        if (state[i] != FREE)
            return i;
    }
}

/* After every call that may have switched: it is `me` who runs, with m. Sets
 * *last and returns true if `me` has been killed and is to end. */
static bool resumed(int me, greenlet_message m, greenlet_message *last) {
    if (at_kill < n_kills && kills[at_kill].who == me) {
        CHECK_MSG(m, 0, GREENLET_EXIT);
        *last = err(kills[at_kill].value, kills[at_kill].status);
        at_kill++;
        state[me] = GREENLET_DEAD;
        return true;
    }
    if (expected.who != me)
        FAIL("slot %d runs instead of %d", me, expected.who);
    CHECK_MSG(m, expected.value, expected.status);
    current = me;
    return false;
}

static greenlet_message entry_model(void *value);

static void do_new(void) {
    int i = 1;
    while (i < SLOTS && state[i] != FREE)
        i++;
    if (i == SLOTS)
        return;
    parent[i] = roll(2) ? current : any_used();
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = parent[i] == current && roll(2) ? NULL : real[parent[i]];
    o.user_data = V(i);
    o.flags = roll(6) ? 0 : roll(4);
    real[i] = greenlet_new(entry_model, &o);
    CHECK(real[i] != NULL);
    state[i] = GREENLET_NEW;
    refs[i] = held[i] = 1;
    refs[parent[i]]++;
}

static void *unref_elsewhere(void *g) {
    greenlet_unref((greenlet *)g);
    return NULL;
}

static void do_unref(void) {
    int i = any_used();
    if (i == MAIN || held[i] == 0 || !plan_drop(i))
        return;
    held[i]--;
    if (roll(100) == 0) {
        bool queued = refs[i] == 1 && n_plan > 0;
        test_join(test_thread(unref_elsewhere, real[i]));
        size_t n = greenlet_drain();
        CHECK(!queued || n >= 1);
    } else {
        greenlet_unref(real[i]);
    }
    drop_done();
}

static void do_ref(void) {
    int i = any_used();
    if (held[i] < 4) {
        CHECK_PTR(greenlet_ref(real[i]), real[i]);
        held[i]++;
        refs[i]++;
    }
}

static void do_set_parent(void) {
    int i = any_used(), to = any_used();
    if (i == MAIN) {
        CHECK_EQ(greenlet_set_parent(real[i], real[to]), -EINVAL);
        return;
    }
    if (is_ancestor(i, to)) {
        CHECK_EQ(greenlet_set_parent(real[i], real[to]), -ELOOP);
        return;
    }
    int old = parent[i];
    refs[to]++;
    if (!plan_drop(old)) {
        refs[to]--;
        return;
    }
    parent[i] = to;
    CHECK_EQ(greenlet_set_parent(real[i], real[to]), 0);
    drop_done();
}

static void do_kill(void) {
    int i = any_used();
    if (i == MAIN) {
        CHECK_MSG(greenlet_kill(real[i]), 0, -EINVAL);
    } else if (state[i] != GREENLET_ACTIVE) {
        state[i] = GREENLET_DEAD;
        CHECK_MSG(greenlet_kill(real[i]), 0, 0);
    } else if (i != current) {
        static const intptr_t last[] = {0, GREENLET_EXIT, 7};
        kills[0].who = i;
        kills[0].value = next_value++;
        kills[0].status = last[roll(3)];
        n_kills = 1;
        at_kill = 0;
        greenlet_message m = greenlet_kill(real[i]);
        CHECK_MSG(m, kills[0].value,
                  kills[0].status == GREENLET_EXIT ? 0 : kills[0].status);
        CHECK_EQ(at_kill, 1);
        n_kills = at_kill = 0;
    }
}

/* Operates until it is to end (true, *last) or to climb out of this frame
 * (false). */
__attribute__((noinline)) static bool operate(int me, int deep,
                                              greenlet_message *last) {
    volatile unsigned char frame[400];
    uint64_t mark = test_random(&seed);
    size_t size = 1 + (size_t)(mark % sizeof frame);
    for (size_t i = 0; i < size; i++)
        frame[i] = (unsigned char)(mark >> (i % 56));
    bool ends = false, climbs = false;
    while (!ends && !climbs) {
        intptr_t value = next_value++, status;
        greenlet_message m;
        int to;
        if (steps_left == 0) {
            if (me == MAIN)
                break;
            deliver(MAIN, value, 0);
            m = go(real[MAIN], value);
            ends = resumed(me, m, last);
            continue;
        }
        steps_left--;
        check_all();
        switch (roll(16)) {
        case 0:
        case 1:
            do_new();
            break;
        case 2:
        case 3:
        case 4:
        case 5:
        case 6:
            to = any_used();
            deliver(to, value, 0);
            m = go(real[to], value);
            ends = resumed(me, m, last);
            break;
        case 7:
            to = any_used();
            status = (intptr_t)roll(3) + 1;
            deliver(to, value, status);
            m = greenlet_throw(real[to], status, V(value));
            ends = resumed(me, m, last);
            break;
        case 8:
            CHECK_EQ(greenlet_throw(real[any_used()], -(intptr_t)roll(3), NULL)
                         .status,
                     -EINVAL);
            break;
        case 9:
            do_unref();
            break;
        case 10:
            do_ref();
            break;
        case 11:
            do_set_parent();
            break;
        case 12:
            if (roll(3) == 0)
                do_kill();
            break;
        case 13:
            if (deep < DEEPEST)
                ends = operate(me, deep + 1, last);
            break;
        case 14:
            climbs = deep > 0;
            break;
        default:
            if (me == MAIN || roll(2))
                break;
            status = (intptr_t)roll(4);
            state[me] = GREENLET_DEAD;
            *last = err(value, status);
            deliver(parent[me], value, status == GREENLET_EXIT ? 0 : status);
            ends = true;
            break;
        }
    }
    for (size_t i = 0; i < size; i++)
        if (frame[i] != (unsigned char)(mark >> (i % 56)))
            FAIL("slot %d: byte %zu of a frame at depth %d", me, i, deep);
    return ends;
}

static greenlet_message entry_model(void *value) {
    int me = (int)I(greenlet_user_data(greenlet_current()));
    greenlet_message last = val(0);
    CHECK(!resumed(me, val(I(value)), &last));
    while (!operate(me, 0, &last))
        continue;
    return last;
}

static void run_model(uint64_t start, unsigned long steps) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    test_say("seed %ju, %lu steps", (uintmax_t)start, steps);
    seed = start;
    steps_left = steps;
    next_value = 1;
    unraised = unraised_expected = 0;
    memset(state, 0, sizeof state);
    real[MAIN] = greenlet_main();
    state[MAIN] = GREENLET_ACTIVE;
    current = MAIN;
    h.unraisable = unraisable;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    static greenlet_message last;
    while (steps_left)
        operate(MAIN, 0, &last);
    /* The end: every reference of ours is dropped. */
    for (int i = 1; i < SLOTS; i++)
        while (state[i] != FREE && held[i] > 0) {
            CHECK(plan_drop(i));
            held[i]--;
            greenlet_unref(real[i]);
            drop_done();
        }
    for (int i = 1; i < SLOTS; i++)
        CHECK_EQ(state[i], FREE); /* there are no cycles */
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
}

static void run_seeds(void) {
    unsigned long steps = (unsigned long)test_env("GREENLET_TEST_ITERATIONS",
                                                  test_amount(6000, 200000));
    if (getenv("GREENLET_TEST_SEED")) {
        run_model(test_env("GREENLET_TEST_SEED", 1), steps);
        return;
    }
    static unsigned i;
    for (i = 1; i <= test_amount(12, 100); i++)
        run_model(i, steps);
}

TEST(contract_05_model_of_the_contract) { run_seeds(); }

static void *on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    run_seeds();
    return NULL;
}

TEST(contract_34_model_in_place) { test_join(test_thread(on_lanes, V(0))); }

TEST(contract_31_model_on_few_lanes) {
    for (int lanes = 1; lanes <= 4; lanes++)
        test_join(test_thread(on_lanes, V(lanes)));
}

TEST(contract_28_model_at_check_level_0) {
    CHECK_EQ(greenlet_set_check_level(0), 0);
    run_seeds();
}
