/* Others run in the middle of a call, and change what it is about.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

static greenlet *target, *victim, *parent, *next_one, *main_of_other;
static struct test_gate gate;

static greenlet_message entry_never(void *value) {
    (void)value;
    FAIL("it runs");
}

/* The next greenlet that is made has the freed one's place. */
static void drop_target(void) {
    greenlet_unref(target);
    next_one = spawn(entry_never);
}

static void *unref_elsewhere(void *g) {
    greenlet_unref((greenlet *)g);
    return NULL;
}

/* Dropped in another thread, it is killed by the next call of this one; then
 * it drops the last reference to what that call is about. */
static greenlet_message entry_drops_target(void *value) {
    greenlet_message m = back(I(value));
    note('v');
    drop_target();
    return m;
}

static void make_victim(void) {
    victim = spawn(entry_drops_target);
    CHECK_MSG(go(victim, 1), 1, 0);
    test_join(test_thread(unref_elsewhere, victim));
}

TEST(contract_16_drain_drops_the_target_of_a_switch) {
    target = spawn(entry_never);
    make_victim();
    CHECK_MSG(go(target, 2), 0, -EINVAL);
    CHECK_STR(notes(), "v");
}

static greenlet_message entry_notes_exit(void *value) {
    greenlet_message m = back(I(value));
    note(m.status == GREENLET_EXIT ? 'k' : 'm');
    return m;
}

TEST(contract_16_drain_drops_the_target_of_a_throw) {
    target = spawn(entry_notes_exit);
    CHECK_MSG(go(target, 2), 2, 0);
    make_victim();
    /* It dies of its last reference, not of this. */
    CHECK_MSG(greenlet_throw(target, 7, NULL), 0, -EINVAL);
    CHECK_STR(notes(), "vk");
}

TEST(contract_16_drain_drops_the_parent_of_a_new_one) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = target = spawn(entry_never);
    make_victim();
    errno = 0;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, EINVAL);
    CHECK_STR(notes(), "v");
}

/* It may drop a reference that is not the last, and those that nobody refers
 * to can be switched to as before. */
TEST(contract_16_drain_leaves_a_target_with_references) {
    target = greenlet_ref(spawn(entry_echo));
    make_victim();
    CHECK_MSG(go(target, 2), 2, 0);
    greenlet_unref(target);

    greenlet *g = greenlet_current();
    make_victim();
    target = spawn(entry_never);
    CHECK_MSG(go(g, 3), 3, 0);
    CHECK_STR(notes(), "vv");
}

static int resolve_drops_target(greenlet *g, greenlet_entry **entry,
                                void *data) {
    (void)g;
    (void)data;
    *entry = entry_never;
    if (target)
        drop_target();
    target = NULL;
    return 0;
}

TEST(contract_22_resolve_entry_drops_the_target) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.resolve_entry = resolve_drops_target;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    target = spawn(NULL);
    CHECK_MSG(go(target, 1), 0, -EINVAL);
    CHECK_PTR(target, NULL);
    /* A dead one's parent is to start, and the dead one goes. */
    parent = spawn(NULL);
    target = spawn_under(entry_never, parent);
    greenlet_unref(parent);
    CHECK_MSG(greenlet_kill(target), 0, 0);
    CHECK_MSG(go(target, 1), 0, -EINVAL);
}

/* ---- A reference that only another thread can count ---------------------- */

static greenlet *borrowed;

static int resolve_drops_borrowed(greenlet *g, greenlet_entry **entry,
                                  void *data) {
    (void)g, (void)data;
    *entry = entry_notes_exit;
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    greenlet_unref(borrowed);
    return 0;
}

static void *uses_borrowed(void *unused) {
    (void)unused;
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    main_of_other = greenlet_ref(greenlet_main());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    h.resolve_entry = resolve_drops_borrowed;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    CHECK_MSG(go(borrowed, 1), 1, 0);
    gate_reach(&gate, 3);
    gate_wait(&gate, 4);
    CHECK_STR(notes(), "");
    greenlet_drain();
    CHECK_STR(notes(), "k");
    greenlet_unref(main_of_other);
    return NULL;
}

/* Its maker gives its only reference to the thread that it moves to, which
 * drops it in the middle of the first switch: whether that was the last one is
 * for the maker to find. */
TEST(contract_16_resolve_entry_drops_what_its_maker_counts) {
    pthread_t user = test_thread(uses_borrowed, NULL);
    gate_wait(&gate, 1);
    borrowed = spawn_under(entry_never, greenlet_main());
    CHECK_EQ(greenlet_set_parent(borrowed, main_of_other), 0);
    gate_reach(&gate, 2);
    gate_wait(&gate, 3);
    CHECK_EQ(greenlet_drain(), 1);
    gate_reach(&gate, 4);
    test_join(user);
}

/* ---- A greenlet that moves to another thread during a shutdown ---------- */

static greenlet *moved;

static greenlet_message entry_moves(void *value) {
    greenlet_message m = back(I(value));
    CHECK_EQ(greenlet_set_parent(moved, main_of_other), 0);
    return m;
}

static void *other_thread(void *unused) {
    (void)unused;
    main_of_other = greenlet_ref(greenlet_main());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_EQ(greenlet_get_state(moved), GREENLET_NEW);
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    CHECK_EQ(greenlet_get_state(moved), GREENLET_DEAD);
    return NULL;
}

/* A third thread made it, so that it is in nobody's slab but that one's. */
static void *maker_thread(void *at) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = (greenlet *)at;
    moved = greenlet_new(entry_never, &o);
    CHECK(moved != NULL);
    return NULL;
}

TEST(contract_18_moves_away_during_a_shutdown) {
    pthread_t other = test_thread(other_thread, NULL);
    gate_wait(&gate, 1);
    test_join(test_thread(maker_thread, greenlet_main()));
    CHECK_MSG(go(spawn(entry_moves), 1), 1, 0);
    /* What has moved is not this thread's to kill. */
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    gate_reach(&gate, 2);
    test_join(other);
    greenlet_unref(moved);
    greenlet_unref(main_of_other);
}

/* One whose parent has moved belongs to the parent's thread, but is still
 * found by a shutdown where it was made, which cannot kill it; and while that
 * shutdown goes on, the other thread starts it. */
static greenlet_message entry_waits_for_the_other(void *value) {
    greenlet_message m = back(I(value));
    CHECK_EQ(m.status, GREENLET_EXIT);
    note('w');
    gate_reach(&gate, 3);
    gate_wait(&gate, 4);
    return m;
}

/* What it starts is for the second round. */
static greenlet_message entry_starts_one_at_its_end(void *value) {
    greenlet_message m = back(I(value));
    CHECK_EQ(m.status, GREENLET_EXIT);
    CHECK_EQ(greenlet_get_state(moved), GREENLET_NEW);
    CHECK_MSG(go(spawn(entry_waits_for_the_other), 5), 5, 0);
    return m;
}

static greenlet_message entry_answers_main(void *value) {
    return greenlet_switch(greenlet_main(), value);
}

static void *starts_what_was_visited(void *unused) {
    (void)unused;
    main_of_other = greenlet_ref(greenlet_main());
    gate_reach(&gate, 1);
    gate_wait(&gate, 3);
    CHECK_MSG(go(moved, 6), 6, 0);
    gate_reach(&gate, 4);
    gate_wait(&gate, 5);
    CHECK_EQ(greenlet_get_state(moved), GREENLET_ACTIVE);
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    CHECK_EQ(greenlet_get_state(moved), GREENLET_DEAD);
    greenlet_unref(main_of_other);
    return NULL;
}

TEST(contract_18_moves_away_after_a_shutdown_tried_it) {
    pthread_t other = test_thread(starts_what_was_visited, NULL);
    gate_wait(&gate, 1);
    CHECK_MSG(go(spawn(entry_starts_one_at_its_end), 1), 1, 0);
    parent = spawn(entry_never);
    moved = spawn_under(entry_answers_main, parent);
    CHECK_EQ(greenlet_set_parent(parent, main_of_other), 0);
    CHECK_EQ(greenlet_thread_shutdown(), -EBUSY);
    CHECK_STR(notes(), "w");
    gate_reach(&gate, 5);
    test_join(other);
    greenlet_unref(moved);
    greenlet_unref(parent);
}

/* ---- The current greenlet's last reference goes inside a hook -------------
 */

static greenlet *self_switching;

static void pre_drops_current(greenlet *from, greenlet *to, void *data) {
    (void)data;
    if (from == to && self_switching) {
        self_switching = NULL;
        greenlet_unref(from); /* queued: nobody may end here */
    }
}

static void post_drains(greenlet *from, greenlet *to, void *data) {
    (void)from, (void)to, (void)data;
    greenlet_drain();
}

static greenlet_message entry_switches_to_itself(void *value) {
    CHECK_MSG(greenlet_switch(greenlet_current(), value), I(value), 0);
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    greenlet_message m = back(2);
    if (m.status == GREENLET_EXIT)
        note('k');
    return m;
}

/* At its next switch away it is killed, as if nothing had been. */
TEST(contract_15_pre_switch_drops_the_current) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_drops_current;
    h.post_switch = post_drains;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    self_switching = spawn(entry_switches_to_itself);
    CHECK_MSG(go(self_switching, 1), 2, 0);
    CHECK_STR(notes(), "k");
}

static int leaked;

static void count_leaked(greenlet *g, greenlet_message last, void *data) {
    (void)g, (void)data;
    leaked += last.status == -EBUSY;
}

static greenlet_message entry_refuses(void *value) {
    greenlet_message m = back(I(value));
    CHECK_EQ(m.status, GREENLET_EXIT);
    back(3); /* leaked now */
    return val(4);
}

/* Leaked, it may still be resumed by who knows it, and die: then it is freed,
 * and so is its parent, which only it held. */
TEST(contract_15_leaked_one_is_freed_at_its_death) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.unraisable = count_leaked;
    for (int round = 0; round < 2; round++) {
        greenlet *g = spawn(entry_refuses);
        CHECK_MSG(go(g, 2), 2, 0);
        long blocks = faults_blocks();
        CHECK_EQ(greenlet_set_name(g, "its name is a block"), 0);
        CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
        greenlet_unref(g);
        CHECK_EQ(leaked, round + 1);
        CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
        CHECK_MSG(go(g, 5), 4, 0);
        CHECK(faults_blocks() <= blocks); /* a check keeps one for main */
    }
}

/* ---- Who lives elsewhere --------------------------------------------------
 */

static struct {
    greenlet *theirs, *mine[2];
    pthread_barrier_t step;
} apart;

static void step(void) { pthread_barrier_wait(&apart.step); }

static void *maker_elsewhere(void *unused) {
    (void)unused;
    apart.theirs = spawn(entry_pump);
    CHECK_MSG(go(apart.theirs, 1), 1, 0);
    greenlet_ref(apart.theirs);
    greenlet_ref(apart.theirs); /* both for the other thread */
    step();
    step(); /* one is dropped there: that shows only to this thread */
    greenlet_unref(apart.mine[0]);
    step();
    step();
    greenlet_unref(apart.mine[1]);
    step();
    step();
    greenlet_unref(apart.theirs);
    return NULL;
}

/* The call drains first, and cannot tell whether there is still a reference:
 * there is one, and the answer is the usual one. */
TEST(contract_16_drain_before_a_call_with_a_foreigner) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    CHECK_EQ(pthread_barrier_init(&apart.step, NULL, 2), 0);
    for (int i = 0; i < 2; i++)
        greenlet_ref(apart.mine[i] = spawn(entry_pump));
    pthread_t thread = test_thread(maker_elsewhere, NULL);
    step();
    greenlet_unref(apart.theirs);
    step();
    step(); /* mine[0] is in our queue */
    CHECK_MSG(go(apart.theirs, 2), 0, -EPERM);
    step();
    step(); /* mine[1], too */
    o.parent = apart.theirs;
    greenlet *child = greenlet_new(entry_pump, &o);
    CHECK(child != NULL);
    CHECK(greenlet_parent(child) == apart.theirs);
    greenlet_unref(child);
    greenlet_unref(apart.theirs);
    step();
    test_join(thread);
    greenlet_unref(apart.mine[0]);
    greenlet_unref(apart.mine[1]);
    pthread_barrier_destroy(&apart.step);
}
