/* Parents. Contract 12 and the references that children hold.
 * SPDX-License-Identifier: MIT */
#include "test.h"

static greenlet *a, *b, *c, *other_main, *other_new, *other_active;
static struct test_gate gate;

TEST(contract_12_cycles_are_refused) {
    a = spawn(entry_echo);
    b = spawn_under(entry_echo, a);
    c = spawn_under(entry_echo, b);
    CHECK_EQ(greenlet_set_parent(a, a), -ELOOP);
    CHECK_EQ(greenlet_set_parent(a, b), -ELOOP);
    CHECK_EQ(greenlet_set_parent(a, c), -ELOOP);
    CHECK_EQ(greenlet_set_parent(b, c), -ELOOP);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_PTR(greenlet_parent(b), a);
    CHECK_PTR(greenlet_parent(c), b);
    CHECK_EQ(greenlet_set_parent(c, a), 0);
    CHECK_PTR(greenlet_parent(c), a);
    CHECK_EQ(greenlet_set_parent(b, c), 0);
    CHECK_EQ(greenlet_set_parent(c, b), -ELOOP);
    CHECK_PTR(greenlet_parent(c), a);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

TEST(contract_12_main_and_null_are_refused) {
    a = spawn(entry_echo);
    CHECK_EQ(greenlet_set_parent(greenlet_main(), a), -EINVAL);
    CHECK_EQ(greenlet_set_parent(NULL, a), -EINVAL);
    CHECK_EQ(greenlet_set_parent(a, NULL), -EINVAL);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_PTR(greenlet_parent(greenlet_main()), NULL);
    greenlet_unref(a);
}

static void *other_thread(void *unused) {
    (void)unused;
    other_main = greenlet_ref(greenlet_main());
    other_new = spawn(entry_echo);
    other_active = spawn(entry_pump);
    go(other_active, 1);
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_PTR(greenlet_parent(other_new), greenlet_main());
    CHECK_PTR(greenlet_parent(other_active), greenlet_main());
    CHECK_MSG(go(other_active, 2), 2, 0);
    CHECK_MSG(go(other_new, 3), 3, 0);
    greenlet_unref(other_main);
    greenlet_unref(other_new);
    CHECK_MSG(greenlet_kill(other_active), 0, 0);
    greenlet_unref(other_active);
    return NULL;
}

TEST(contract_12_other_threads_are_refused) {
    pthread_t thread = test_thread(other_thread, NULL);
    gate_wait(&gate, 1);
    a = spawn(entry_pump);
    go(a, 1);
    /* A started one cannot get a parent of another thread. */
    CHECK_EQ(greenlet_set_parent(a, other_main), -EPERM);
    CHECK_EQ(greenlet_set_parent(a, other_new), -EPERM);
    CHECK_EQ(greenlet_set_parent(a, other_active), -EPERM);
    /* Another thread's greenlet is not ours to change. */
    CHECK_EQ(greenlet_set_parent(other_new, a), -EPERM);
    CHECK_EQ(greenlet_set_parent(other_active, a), -EPERM);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_MSG(go(a, 5), 5, 0);
    CHECK_MSG(greenlet_kill(a), 0, 0);
    CHECK_EQ(greenlet_set_parent(a, other_main), -EPERM); /* dead: started */
    gate_reach(&gate, 2);
    test_join(thread);
    greenlet_unref(a);
}

static void *leave_main(void *unused) {
    (void)unused;
    other_main = greenlet_ref(greenlet_main());
    return NULL;
}

TEST(contract_12_parent_whose_thread_has_exited) {
    test_join(test_thread(leave_main, NULL));
    a = spawn(entry_echo);
    CHECK_EQ(greenlet_set_parent(a, other_main), -EOWNERDEAD);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_MSG(go(a, 5), 5, 0);
    greenlet_unref(other_main);
    greenlet_unref(a);
}

/* Reparenting decides who receives the end. */
static greenlet_message entry_waits_then_tells(void *value) {
    greenlet_message m = back(I(value));
    return err(I(m.value) + 1000, m.status);
}

TEST(contract_12_reparenting_a_suspended_one_takes_effect) {
    a = spawn(entry_waits_then_tells);
    go(a, 0);
    b = spawn(entry_pump);
    go(b, 0);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    CHECK_MSG(greenlet_throw(b, 8, V(2)), 1002, 8);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* A child holds its parent: it may be the only one who does. */
TEST(contract_15_child_holds_its_parent) {
    a = spawn(entry_echo);
    b = spawn_under(entry_echo, a);
    greenlet_unref(a);
    CHECK_PTR(greenlet_parent(b), a);
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    CHECK_MSG(go(b, 5), 5, 0); /* starts a, which returns the value */
    greenlet_unref(b);
}

TEST(contract_15_long_chain_of_parents_is_freed) {
    unsigned n = test_amount(10000, 50000);
    greenlet *last = spawn(entry_echo);
    for (unsigned i = 0; i < n; i++) {
        greenlet *g = spawn_under(entry_echo, last);
        greenlet_unref(last);
        last = g;
    }
    greenlet_unref(last);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
}
