/* Kills, last references, what a death leaves. Contract 15 and 17.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

static greenlet *a, *b, *killer;
static intptr_t seen_status, seen_value;
static greenlet *seen_parent;
static int ran;

/* Waits; notes with what it is resumed, returns it. */
static greenlet_message entry_waits(void *value) {
    greenlet_message m = back(I(value));
    note('x');
    ran++;
    seen_status = m.status;
    seen_value = I(m.value);
    seen_parent = greenlet_parent(greenlet_current());
    return m;
}

/* Answers EXIT with an error, a value, or a refusal. */
static greenlet_message entry_fails(void *value) {
    back(I(value));
    return err(6, 7);
}

static greenlet_message entry_returns(void *value) {
    back(I(value));
    return val(66);
}

static greenlet_message entry_refuses(void *value) {
    greenlet_message m = back(I(value));
    while (m.status <= GREENLET_EXIT) {
        note(m.status == GREENLET_EXIT ? 'r' : 'v');
        m = back(m.status == 0 ? I(m.value) : 67);
    }
    return m;
}

/* ---- unraisable, counted ------------------------------------------------ */

static int unraised;
static greenlet *unraised_greenlet;
static greenlet_message unraised_last;

static void unraisable(greenlet *g, greenlet_message last, void *data) {
    (void)data;
    unraised++;
    unraised_greenlet = g;
    unraised_last = last;
}

static void watch_unraisable(void) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.unraisable = unraisable;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
}

/* ---- kill --------------------------------------------------------------- */

TEST(contract_15_kill_returns_the_last_message) {
    a = spawn(entry_waits);
    go(a, 1);
    CHECK_MSG(greenlet_kill(a), 0, 0); /* it returns EXIT: a value */
    CHECK_EQ(seen_status, GREENLET_EXIT);
    CHECK_EQ(seen_value, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
    a = spawn(entry_returns);
    go(a, 1);
    CHECK_MSG(greenlet_kill(a), 66, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
    a = spawn(entry_fails);
    go(a, 1);
    CHECK_MSG(greenlet_kill(a), 6, 7);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
}

TEST(contract_15_kill_new_and_dead) {
    a = spawn(entry_waits);
    CHECK_MSG(greenlet_kill(a), 0, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(ran, 0);
    CHECK_MSG(greenlet_kill(a), 0, 0);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    greenlet_unref(a);
}

TEST(contract_15_kill_refused_is_busy) {
    watch_unraisable();
    a = spawn(entry_refuses);
    go(a, 1);
    CHECK_MSG(greenlet_kill(a), 67, -EBUSY);
    CHECK_MSG(greenlet_kill(a), 67, -EBUSY);
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_MSG(go(a, 5), 5, 0);
    CHECK_STR(notes(), "rrv");
    CHECK_EQ(unraised, 0);
}

static greenlet_message entry_kills_a(void *value) {
    (void)value;
    killer = greenlet_current();
    greenlet_message m = greenlet_kill(a);
    note('k');
    CHECK_PTR(greenlet_current(), killer);
    return m;
}

/* The killer, not the parent, is resumed; the parent is put back. */
TEST(contract_15_kill_returns_to_its_caller) {
    b = spawn(entry_pump);
    go(b, 1);
    a = spawn(entry_fails);
    go(a, 1);
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    greenlet *k = spawn(entry_kills_a);
    CHECK_MSG(go(k, 0), 6, 7);
    CHECK_STR(notes(), "k");
    CHECK_PTR(greenlet_parent(a), b);
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    CHECK_MSG(go(b, 3), 3, 0);
    greenlet_unref(a);
    greenlet_unref(k);
    greenlet_unref(b);
}

TEST(contract_15_parent_is_the_killer_for_the_moment) {
    b = spawn(entry_pump);
    go(b, 1);
    a = spawn(entry_waits);
    go(a, 1);
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    greenlet *k = spawn(entry_kills_a);
    CHECK_MSG(go(k, 0), 0, 0);
    CHECK_PTR(seen_parent, killer);
    CHECK_PTR(greenlet_parent(a), b);
    greenlet_unref(a);
    greenlet_unref(k);
    greenlet_unref(b);
}

/* The victim's frames run others before it dies. */
static greenlet_message entry_unwinds_by_switching(void *value) {
    back(I(value));
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 12), 12, 0);
    greenlet_unref(g);
    CHECK_MSG(go(b, 13), 13, 0);
    return val(14);
}

static greenlet_message entry_answers_current(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0)
        m = greenlet_switch(a, m.value);
    return m;
}

TEST(contract_15_victim_may_switch_while_unwinding) {
    a = spawn(entry_unwinds_by_switching);
    b = spawn(entry_answers_current);
    go(a, 1);
    CHECK_MSG(greenlet_kill(a), 14, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
}

/* ---- the last reference -------------------------------------------------- */

TEST(contract_15_last_unref_throws_exit) {
    watch_unraisable();
    a = spawn(entry_waits);
    go(a, 1);
    greenlet_unref(a);
    CHECK_EQ(ran, 1);
    CHECK_EQ(seen_status, GREENLET_EXIT);
    CHECK_EQ(seen_value, 0);
    CHECK_PTR(seen_parent, greenlet_main());
    CHECK_EQ(unraised, 0);
}

TEST(contract_15_not_the_last_unref) {
    a = spawn(entry_waits);
    go(a, 1);
    greenlet_ref(a);
    greenlet_unref(a);
    CHECK_EQ(ran, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_PTR(greenlet_ref(NULL), NULL);
    greenlet_unref(NULL);
    greenlet_unref(a);
    CHECK_EQ(ran, 1);
}

static greenlet_message entry_drops_a(void *value) {
    killer = greenlet_current();
    greenlet_unref(a);
    CHECK_PTR(greenlet_current(), killer);
    note('k');
    return val(I(value));
}

TEST(contract_15_dropper_is_the_parent_for_the_moment) {
    b = spawn(entry_pump);
    go(b, 1);
    a = spawn(entry_waits);
    go(a, 1);
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    greenlet *k = spawn(entry_drops_a);
    CHECK_MSG(go(k, 5), 5, 0);
    CHECK_STR(notes(), "xk");
    CHECK_PTR(seen_parent, killer);
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    greenlet_unref(k);
    greenlet_unref(b);
}

TEST(contract_15_refusal_is_leaked_and_reported) {
    watch_unraisable();
    a = spawn(entry_refuses);
    go(a, 1);
    greenlet_unref(a);
    CHECK_STR(notes(), "r");
    CHECK_EQ(unraised, 1);
    CHECK_PTR(unraised_greenlet, a);
    CHECK_EQ(unraised_last.status, -EBUSY);
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE); /* leaked: valid */
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_MSG(go(a, 5), 5, 0);
}

TEST(contract_15_error_of_the_last_unref_is_reported) {
    watch_unraisable();
    a = spawn(entry_fails);
    go(a, 1);
    greenlet_unref(a);
    CHECK_EQ(unraised, 1);
    CHECK_PTR(unraised_greenlet, a);
    CHECK_MSG(unraised_last, 6, 7);
}

TEST(contract_15_value_of_the_last_unref_is_not_reported) {
    watch_unraisable();
    a = spawn(entry_returns);
    go(a, 1);
    greenlet_unref(a);
    CHECK_EQ(unraised, 0);
}

static void refuse_without_hook(void *unused) {
    (void)unused;
    a = spawn_named(entry_refuses, "stubborn");
    go(a, 1);
    greenlet_unref(a);
    test_say("survived");
}

TEST(contract_15_without_a_hook_a_line_tells) {
    static struct test_death death;
    test_die(refuse_without_hook, NULL, &death);
    CHECK_EQ(death.status, 0);
    CHECK(strstr(death.text, "stubborn") != NULL);
    CHECK(strstr(death.text, "survived") != NULL);
}

static greenlet_message entry_resurrects(void *value) {
    greenlet_message m = back(I(value));
    while (m.status == GREENLET_EXIT) {
        note('e');
        b = greenlet_ref(greenlet_current());
        m = back(1);
    }
    return val(I(m.value) + 1);
}

TEST(contract_15_new_reference_keeps_it_alive) {
    watch_unraisable();
    killer = spawn(entry_pump);
    go(killer, 1);
    a = spawn(entry_resurrects);
    go(a, 1);
    CHECK_EQ(greenlet_set_parent(a, killer), 0);
    greenlet_unref(a);
    CHECK_STR(notes(), "e");
    CHECK_EQ(unraised, 0);
    CHECK_PTR(b, a);
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    CHECK_PTR(greenlet_parent(b), killer); /* put back */
    CHECK_EQ(greenlet_set_parent(b, greenlet_main()), 0);
    greenlet_unref(b); /* once more */
    CHECK_STR(notes(), "e");
    CHECK_MSG(go(b, 5), 6, 0);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    greenlet_unref(b);
    greenlet_unref(killer);
}

/* The current greenlet gives up its own last reference. */
static greenlet_message entry_drops_itself(void *value) {
    greenlet_unref(greenlet_current());
    note('1');
    CHECK_PTR(greenlet_current(), a); /* still whole */
    greenlet_message m = back(I(value));
    note('2');
    CHECK_EQ(m.status, GREENLET_EXIT);
    return m;
}

TEST(contract_15_last_unref_of_the_current_takes_effect_at_its_switch) {
    watch_unraisable();
    a = spawn(entry_drops_itself);
    CHECK_MSG(go(a, 5), 5, 0);
    CHECK_STR(notes(), "12");
    CHECK_EQ(unraised, 0);
    CHECK_MSG(go(greenlet_main(), 6), 6, 0);
    CHECK_STR(notes(), "");
}

static greenlet_message entry_drops_itself_and_ends(void *value) {
    greenlet_unref(greenlet_current());
    return val(I(value) + 1);
}

TEST(contract_15_current_without_references_may_return) {
    for (int i = 0; i < 200; i++) {
        a = spawn(entry_drops_itself_and_ends);
        CHECK_MSG(go(a, i), i + 1, 0);
    }
}

static greenlet_message entry_drops_and_takes_itself(void *value) {
    greenlet_unref(greenlet_current());
    greenlet_ref(greenlet_current());
    return back(I(value));
}

TEST(contract_15_current_may_take_itself_back) {
    a = spawn(entry_drops_and_takes_itself);
    CHECK_MSG(go(a, 5), 5, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_MSG(go(a, 6), 6, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
}

/* A dying child drops the last reference of its parent, and so on. */
TEST(contract_15_chain_of_suspended_parents_unwinds) {
    enum { CHAIN = 20 };
    greenlet *last = spawn(entry_waits);
    go(last, 0);
    for (int i = 1; i < CHAIN; i++) {
        greenlet *g = spawn(entry_waits);
        go(g, 0);
        CHECK_EQ(greenlet_set_parent(g, last), 0);
        greenlet_unref(last);
        last = g;
    }
    CHECK_EQ(ran, 0);
    greenlet_unref(last);
    CHECK_EQ(ran, CHAIN);
}

/* Killed in the middle of nested starts: others go on. */
static greenlet_message entry_starts_b_then_ends(void *value) {
    go(b, I(value));
    return val(100);
}

TEST(contract_15_starter_dies_before_the_started) {
    a = spawn(entry_starts_b_then_ends);
    b = spawn(entry_waits);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a); /* EXIT is ignored: it ends anyway */
    CHECK_EQ(ran, 0);
    CHECK_MSG(go(b, 4), 4, 0);
    CHECK_EQ(ran, 1);
    greenlet_unref(b);
}

/* ---- 17 ----------------------------------------------------------------- */

TEST(contract_17_new_ones_are_freed_silently) {
    watch_unraisable();
    for (int i = 0; i < 1000; i++)
        greenlet_unref(spawn(entry_waits));
    CHECK_EQ(ran, 0);
    CHECK_EQ(unraised, 0);
}

static void drop_new_and_dead(void *unused) {
    (void)unused;
    greenlet_unref(spawn(entry_waits));
    a = spawn(entry_echo);
    go(a, 1);
    greenlet_unref(a);
}

TEST(contract_17_nothing_is_printed) {
    static struct test_death death;
    test_die(drop_new_and_dead, NULL, &death);
    CHECK_EQ(death.status, 0);
    CHECK_EQ(death.length, 0);
}

/* Many dead ones whose handles are kept own no stacks. */
TEST(contract_17_dead_ones_release_their_stack_at_once) {
    enum { DEAD = 400 };
    static greenlet *dead[DEAD];
    static long before;
    for (int i = 0; i < DEAD; i++) {
        dead[i] = spawn(entry_waits);
        go(dead[i], 1);
        go(dead[i], 1);
        CHECK_EQ(greenlet_get_state(dead[i]), GREENLET_DEAD);
        greenlet_stack s = {&s, &s, 1};
        CHECK_EQ(greenlet_get_stack(dead[i], &s), 0);
        CHECK_PTR(s.sp, NULL);
        CHECK_PTR(s.base, NULL);
        CHECK_EQ(s.saved_bytes, 0);
        if (i == 10)
            before = faults_mapped();
    }
    CHECK(faults_mapped() - before <
          (long)(DEAD / 2) * GREENLET_STACK_BYTES_MIN);
    for (int i = 0; i < DEAD; i++)
        greenlet_unref(dead[i]);
}

/* Nothing grows over many lives. */
TEST(contract_17_nothing_leaks_over_many_lives) {
    static long blocks, mapped;
    for (int i = 0; i < 300; i++) {
        a = spawn_named(entry_waits, "short");
        b = spawn(entry_waits);
        go(a, 1);
        go(b, 1);
        go(a, 1);
        greenlet_unref(a);
        greenlet_unref(b);
        if (i == 50) {
            blocks = faults_blocks();
            mapped = faults_mapped();
        }
    }
    CHECK_EQ(faults_blocks(), blocks);
    CHECK_EQ(faults_mapped(), mapped);
}
