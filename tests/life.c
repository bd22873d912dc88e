/* Life: main, states, values and statuses, nesting. Contract 1-11.
 * SPDX-License-Identifier: MIT */
#include "test.h"

static greenlet *a, *b, *c;
static int ran;

static greenlet_message entry_mark(void *value) {
    ran++;
    return val(I(value));
}

/* ---- 1 ---------------------------------------------------------------- */

TEST(contract_01_main_is_made_at_first_use) {
    greenlet *m = greenlet_main();
    CHECK(m != NULL);
    CHECK_PTR(greenlet_current(), m);
    CHECK_PTR(greenlet_main(), m);
    CHECK(greenlet_is_main(m));
    CHECK_PTR(greenlet_parent(m), NULL);
    CHECK_EQ(greenlet_get_state(m), GREENLET_ACTIVE);
    CHECK_PTR(greenlet_user_data(m), NULL);
}

TEST(contract_01_main_cannot_be_unreferenced_away) {
    greenlet *m = greenlet_main();
    for (int i = 0; i < 5; i++)
        greenlet_unref(m);
    CHECK_EQ(greenlet_get_state(m), GREENLET_ACTIVE);
    a = spawn(entry_echo);
    greenlet_unref(m);
    CHECK_MSG(go(a, 3), 3, 0);
    CHECK_PTR(greenlet_current(), m);
    CHECK(greenlet_is_main(m));
    greenlet_unref(a);
    CHECK_MSG(greenlet_kill(m), 0, -EINVAL);
}

static void *own_main(void *other) {
    CHECK(greenlet_main() != NULL);
    CHECK(greenlet_main() != other);
    CHECK_PTR(greenlet_current(), greenlet_main());
    CHECK_PTR(greenlet_parent(greenlet_main()), NULL);
    return NULL;
}

TEST(contract_01_each_thread_has_its_own_main) {
    greenlet *m = greenlet_main();
    test_join(test_thread(own_main, m));
    CHECK_PTR(greenlet_main(), m);
}

/* A main greenlet is not killed by an error that reaches it. */
static greenlet_message entry_fails(void *value) { return err(I(value), 9); }

TEST(contract_01_main_survives_errors) {
    for (int i = 0; i < 3; i++) {
        a = spawn(entry_fails);
        CHECK_MSG(go(a, i), i, 9);
        CHECK_EQ(greenlet_get_state(greenlet_main()), GREENLET_ACTIVE);
        greenlet_unref(a);
    }
}

/* ---- 2 ---------------------------------------------------------------- */

static greenlet_message entry_makes_child(void *value) {
    (void)value;
    b = spawn(entry_echo);
    CHECK_PTR(greenlet_parent(b), greenlet_current());
    c = spawn_under(entry_echo, greenlet_main());
    CHECK_PTR(greenlet_parent(c), greenlet_main());
    return val(0);
}

TEST(contract_02_parent_is_the_creators_current) {
    a = spawn(entry_makes_child);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_MSG(go(a, 0), 0, 0);
    CHECK_PTR(greenlet_parent(b), a);
    greenlet_unref(b);
    greenlet_unref(c);
    greenlet_unref(a);
}

TEST(contract_02_parent_of_the_options) {
    a = spawn(entry_echo);
    b = spawn_under(entry_echo, a);
    CHECK_PTR(greenlet_parent(b), a);
    CHECK_PTR(greenlet_parent(NULL), NULL);
    greenlet_unref(b);
    greenlet_unref(a);
}

/* ---- 3 ---------------------------------------------------------------- */

static greenlet_message entry_states(void *value) {
    CHECK_EQ(greenlet_get_state(greenlet_current()), GREENLET_ACTIVE);
    CHECK_EQ(greenlet_get_state(greenlet_main()), GREENLET_ACTIVE);
    return back(I(value));
}

TEST(contract_03_new_active_dead) {
    a = spawn(entry_states);
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    go(a, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    go(a, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(NULL), 0);
    greenlet_unref(a);
}

static void *leave_three(void *unused) {
    (void)unused;
    a = spawn(entry_pump);
    CHECK_MSG(go(a, 1), 1, 0);
    b = spawn(entry_echo);
    c = greenlet_ref(greenlet_main());
    return NULL;
}

TEST(contract_03_dead_after_their_thread) {
    test_join(test_thread(leave_three, NULL));
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(c), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

/* ---- 4 ---------------------------------------------------------------- */

static greenlet_message entry_counts(void *value) {
    intptr_t want = 10;
    CHECK_EQ(I(value), want);
    for (int i = 0; i < 100; i++) {
        greenlet_message m = back(want + 1);
        want += 2;
        CHECK_MSG(m, want, 0);
    }
    return val(-1);
}

TEST(contract_04_first_value_is_the_argument_then_messages) {
    static intptr_t at;
    a = spawn(entry_counts);
    for (at = 10; at < 210; at += 2)
        CHECK_MSG(go(a, at), at + 1, 0);
    CHECK_MSG(go(a, at), -1, 0);
    greenlet_unref(a);
}

static greenlet_message entry_to_b(void *value) {
    greenlet_message m = go(b, I(value) + 1);
    note('a');
    return val(I(m.value) + 1);
}

static greenlet_message entry_to_a(void *value) {
    greenlet_message m = go(a, I(value) + 1);
    FAIL("resumed with %jd", (intmax_t)I(m.value));
}

TEST(contract_04_sideways) {
    a = spawn(entry_to_b);
    b = spawn(entry_to_a);
    CHECK_MSG(go(a, 1), 4, 0); /* main 1, a 2, b 3, a 4, main */
    CHECK_STR(notes(), "a");
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    greenlet_unref(a);
}

/* ---- 5 ---------------------------------------------------------------- */

TEST(contract_05_returned_value_reaches_parent) {
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 42), 42, 0);
    greenlet_unref(a);
}

TEST(contract_05_returned_status_reaches_parent_as_thrown) {
    a = spawn(entry_fails);
    CHECK_MSG(go(a, 42), 42, 9);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
}

static greenlet_message entry_parent_of_b(void *value) {
    greenlet_message m = go(b, I(value));
    return err(I(m.value) + 100, m.status);
}

/* The parent is resumed, not whoever switched here last. */
TEST(contract_05_parent_not_the_switcher) {
    a = spawn(entry_parent_of_b);
    b = spawn_under(entry_pump, a);
    greenlet_set_parent(b, greenlet_main());
    CHECK_MSG(go(a, 1), 1, 0); /* b hands 1 to main; a waits in its switch */
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    CHECK_MSG(greenlet_throw(b, 7, V(5)), 105, 7);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(b);
}

TEST(contract_05_dead_parent_nearest_live_ancestor) {
    a = spawn(entry_echo);
    b = spawn_under(entry_echo, a);
    c = spawn_under(entry_fails, b);
    go(a, 0);
    go(b, 0);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_MSG(go(c, 3), 3, 9);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

static greenlet_message entry_adds_ten(void *value) {
    ran++;
    return val(I(value) + 10);
}

TEST(contract_05_new_parent_is_started_with_the_value) {
    a = spawn(entry_adds_ten);
    b = spawn_under(entry_adds_ten, a);
    c = spawn_under(entry_echo, b);
    CHECK_MSG(go(c, 1), 21, 0);
    CHECK_EQ(ran, 2);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

/* Thrown into a new parent: it dies without running (9), and so on up. */
TEST(contract_05_new_parent_dies_of_an_error) {
    a = spawn(entry_adds_ten);
    b = spawn_under(entry_adds_ten, a);
    c = spawn_under(entry_fails, b);
    CHECK_MSG(go(c, 1), 1, 9);
    CHECK_EQ(ran, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

/* The new live ancestor above a dead parent is started. */
TEST(contract_05_new_ancestor_above_a_dead_parent) {
    a = spawn(entry_adds_ten);
    b = spawn(entry_echo);
    c = spawn_under(entry_echo, b);
    go(b, 0);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    CHECK_MSG(go(c, 5), 15, 0);
    CHECK_EQ(ran, 1);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

/* ---- 6 ---------------------------------------------------------------- */

static greenlet_message entry_exits(void *value) {
    return err(I(value), GREENLET_EXIT);
}

TEST(contract_06_exit_arrives_as_a_value) {
    a = spawn(entry_exits);
    CHECK_MSG(go(a, 8), 8, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
    a = spawn(entry_pump);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(greenlet_throw(a, GREENLET_EXIT, V(11)), 11, 0);
    greenlet_unref(a);
}

TEST(contract_06_exit_starts_a_new_parent) {
    a = spawn(entry_adds_ten);
    b = spawn_under(entry_exits, a);
    CHECK_MSG(go(b, 1), 11, 0);
    CHECK_EQ(ran, 1);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* ---- 7 ---------------------------------------------------------------- */

TEST(contract_07_switch_to_dead_returns_to_self) {
    a = spawn(entry_echo);
    go(a, 0);
    CHECK_MSG(go(a, 77), 77, 0);
    CHECK_MSG(go(a, 78), 78, 0);
    CHECK_MSG(greenlet_throw(a, 5, V(79)), 79, 5);
    CHECK_MSG(greenlet_throw(a, GREENLET_EXIT, V(80)), 80, 0);
    greenlet_unref(a);
}

static greenlet_message entry_to_dead_c(void *value) {
    go(c, I(value));
    FAIL("b must not run again");
}

static greenlet_message entry_waits_then_tells(void *value) {
    greenlet_message m = back(I(value));
    return err(I(m.value) + 1000, m.status);
}

TEST(contract_07_nearest_live_ancestor_is_resumed) {
    a = spawn(entry_waits_then_tells);
    CHECK_MSG(go(a, 1), 1, 0);
    c = spawn_under(entry_echo, a);
    /* c dies with its parent moved out of the way for the moment. */
    CHECK_EQ(greenlet_set_parent(c, greenlet_main()), 0);
    go(c, 0);
    CHECK_EQ(greenlet_set_parent(c, a), 0);
    b = spawn(entry_to_dead_c);
    CHECK_MSG(go(b, 5), 1005, 0); /* b -> dead c -> a -> main */
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    greenlet_unref(a);
    greenlet_unref(c);
}

TEST(contract_07_new_ancestor_of_a_dead_one_is_started) {
    a = spawn(entry_adds_ten);
    b = spawn(entry_echo);
    go(b, 0);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    CHECK_MSG(go(b, 3), 13, 0);
    CHECK_EQ(ran, 1);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(b);
}

TEST(contract_07_throw_to_dead_with_a_new_ancestor) {
    a = spawn(entry_adds_ten);
    b = spawn(entry_echo);
    go(b, 0);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    CHECK_MSG(greenlet_throw(b, 6, V(3)), 3, 6);
    CHECK_EQ(ran, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* ---- 8 ---------------------------------------------------------------- */

static int traced;

static void count_self(greenlet_event event, greenlet *origin, greenlet *target,
                       void *data) {
    CHECK_EQ(event, GREENLET_EVENT_SWITCH);
    CHECK_PTR(origin, data);
    CHECK_PTR(target, data);
    traced++;
}

static greenlet_message entry_to_self(void *value) {
    return go(greenlet_current(), I(value) + 1);
}

TEST(contract_08_switch_to_oneself) {
    CHECK_MSG(go(greenlet_main(), 5), 5, 0);
    a = spawn(entry_to_self);
    CHECK_MSG(go(a, 1), 2, 0);
    greenlet_unref(a);
}

TEST(contract_08_switch_to_oneself_is_traced) {
    greenlet *m = greenlet_main();
    CHECK_EQ(greenlet_set_tracer(count_self, m, NULL, NULL), 0);
    CHECK_MSG(go(m, 5), 5, 0);
    CHECK_EQ(traced, 1);
    CHECK_MSG(go(m, 6), 6, 0);
    CHECK_EQ(traced, 2);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
    CHECK_MSG(go(m, 7), 7, 0);
    CHECK_EQ(traced, 2);
}

TEST(contract_08_throw_to_oneself) {
    CHECK_MSG(greenlet_throw(greenlet_main(), 5, V(6)), 6, 5);
    CHECK_EQ(greenlet_get_state(greenlet_main()), GREENLET_ACTIVE);
}

/* ---- 9 ---------------------------------------------------------------- */

TEST(contract_09_status_must_be_positive) {
    a = spawn(entry_pump);
    CHECK_EQ(greenlet_throw(a, 0, V(1)).status, -EINVAL);
    CHECK_EQ(greenlet_throw(a, -1, V(1)).status, -EINVAL);
    CHECK_EQ(greenlet_throw(a, INTPTR_MIN, V(1)).status, -EINVAL);
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(greenlet_throw(a, 0, V(1)).status, -EINVAL);
    CHECK_EQ(greenlet_throw(a, -7, V(1)).status, -EINVAL);
    CHECK_MSG(go(a, 2), 2, 0);
    CHECK_MSG(greenlet_throw(a, INTPTR_MAX, V(3)), 3, INTPTR_MAX);
    CHECK_EQ(greenlet_throw(a, 0, V(1)).status, -EINVAL); /* dead now */
    greenlet_unref(a);
}

static greenlet_message entry_negative(void *value) {
    return err(I(value), -5);
}

TEST(contract_09_negative_status_from_an_entry) {
    a = spawn(entry_negative);
    CHECK_EQ(go(a, 1).status, -EINVAL);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
}

static greenlet_message entry_catches(void *value) {
    greenlet_message m = back(I(value));
    CHECK_MSG(m, 21, 5);
    m = back(1);
    CHECK_MSG(m, 22, GREENLET_EXIT);
    m = back(2);
    CHECK_MSG(m, 23, 0);
    return val(3);
}

TEST(contract_09_throw_to_suspended_can_be_caught) {
    a = spawn(entry_catches);
    CHECK_MSG(go(a, 0), 0, 0);
    CHECK_MSG(greenlet_throw(a, 5, V(21)), 1, 0);
    CHECK_MSG(greenlet_throw(a, GREENLET_EXIT, V(22)), 2, 0);
    CHECK_MSG(go(a, 23), 3, 0);
    greenlet_unref(a);
}

TEST(contract_09_throw_to_new_never_runs) {
    a = spawn(entry_mark);
    CHECK_MSG(greenlet_throw(a, 5, V(1)), 1, 5);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(ran, 0);
    greenlet_unref(a);
}

TEST(contract_09_exit_to_new_is_a_value_for_its_parent) {
    a = spawn(entry_mark);
    CHECK_MSG(greenlet_throw(a, GREENLET_EXIT, V(2)), 2, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(ran, 0);
    greenlet_unref(a);
}

static greenlet_message entry_throws_to_c(void *value) {
    greenlet_throw(c, 5, value);
    FAIL("b must not run again");
}

TEST(contract_09_throw_to_new_reaches_its_parent_not_the_thrower) {
    a = spawn(entry_waits_then_tells);
    CHECK_MSG(go(a, 1), 1, 0);
    c = spawn_under(entry_mark, a);
    b = spawn(entry_throws_to_c);
    CHECK_MSG(go(b, 4), 1004, 5); /* b -> new c dies -> a -> main */
    CHECK_EQ(ran, 0);
    CHECK_EQ(greenlet_get_state(c), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(c);
}

TEST(contract_09_throw_to_dead) {
    a = spawn(entry_echo);
    go(a, 0);
    CHECK_MSG(greenlet_throw(a, GREENLET_EXIT, V(5)), 5, 0);
    CHECK_MSG(greenlet_throw(a, 2, V(6)), 6, 2);
    greenlet_unref(a);
}

/* ---- 10 --------------------------------------------------------------- */

TEST(contract_10_values_pass_untouched) {
    static const uintptr_t odd[] = {0,
                                    1,
                                    2,
                                    3,
                                    UINTPTR_MAX,
                                    UINTPTR_MAX / 2,
                                    UINTPTR_MAX / 2 + 1,
                                    (uintptr_t)-EPERM};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        void *v = (void *)odd[i];
        a = spawn(entry_pump);
        greenlet_message m = greenlet_switch(a, v);
        CHECK_PTR(m.value, v);
        CHECK_EQ(m.status, 0);
        m = greenlet_switch(a, v);
        CHECK_PTR(m.value, v);
        CHECK_EQ(m.status, 0);
        m = greenlet_throw(a, 3, v);
        CHECK_PTR(m.value, v);
        CHECK_EQ(m.status, 3);
        greenlet_unref(a);
    }
}

/* ---- 11 --------------------------------------------------------------- */

static int depth_reached;

static greenlet_message entry_nests(void *value) {
    intptr_t left = I(value);
    depth_reached++;
    if (left == 0)
        return val(1);
    greenlet *g = spawn(entry_nests);
    greenlet_message m = go(g, left - 1);
    CHECK_EQ(m.status, 0);
    greenlet_unref(g);
    return val(I(m.value) + 1);
}

TEST(contract_11_nested_starts) {
    a = spawn(entry_nests);
    CHECK_MSG(go(a, 40), 41, 0);
    CHECK_EQ(depth_reached, 41);
    greenlet_unref(a);
}

/* Starts from frames of different depth, which then stand suspended. */
static greenlet *many[24];

__attribute__((noinline)) static intptr_t dig(int deep, greenlet *g) {
    volatile char hole[512];
    hole[0] = (char)deep;
    hole[511] = (char)(deep + 1);
    intptr_t sum = deep == 0 ? I(go(g, 1).value) : dig(deep - 1, g);
    CHECK_EQ(hole[0], (char)deep);
    CHECK_EQ(hole[511], (char)(deep + 1));
    return sum + 1;
}

static greenlet_message entry_digs(void *value) {
    int me = (int)I(value);
    if (me + 1 < (int)(sizeof many / sizeof *many)) {
        many[me + 1] = spawn_under(entry_digs, greenlet_main());
        CHECK_EQ(dig(me % 7, greenlet_main()), 1 + me % 7 + 1);
    }
    return val(1000 + me);
}

TEST(contract_11_starts_from_any_depth) {
    static int i;
    int n = (int)(sizeof many / sizeof *many);
    many[0] = spawn(entry_digs);
    for (i = 0; i < n; i++) {
        greenlet_message m = go(many[i], i);
        CHECK_MSG(m, i + 1 < n ? 1 : 1000 + i, 0);
    }
    for (i = n - 2; i >= 0; i--) {
        CHECK_MSG(go(many[i], 1), 1000 + i, 0);
        CHECK_EQ(greenlet_get_state(many[i]), GREENLET_DEAD);
    }
    for (i = 0; i < n; i++)
        greenlet_unref(many[i]);
}

static greenlet_message entry_starts_b(void *value) {
    greenlet_message m = go(b, I(value)); /* b's parent is main, not a */
    return val(I(m.value) + 1);
}

TEST(contract_11_parent_need_not_be_the_starter) {
    a = spawn(entry_starts_b);
    b = spawn(entry_echo);
    CHECK_MSG(go(a, 5), 5, 0); /* from b's end, not a's */
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_MSG(go(a, 6), 7, 0);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* A parent deeper in the starts than its child. */
TEST(contract_11_child_outlives_the_frames_of_its_starter) {
    a = spawn(entry_starts_b);
    b = spawn(entry_pump);
    CHECK_MSG(go(a, 5), 5, 0); /* b waits; started on top of a */
    CHECK_MSG(go(a, 6), 7, 0); /* a is gone */
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_MSG(go(b, 8), 8, 0);
    CHECK_MSG(greenlet_throw(b, 3, V(9)), 9, 3);
    greenlet_unref(a);
    greenlet_unref(b);
}
