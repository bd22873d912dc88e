/* Threads: ownership, references that cross, exits. Contract 13, 14, 16, 18.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

#include <stdatomic.h>

static greenlet *a, *b, *c, *main_of_other;
static struct test_gate gate;
static atomic_int exits;

/* Waits; counts the EXITs thrown into it. */
static greenlet_message entry_waits(void *value) {
    greenlet_message m = back(I(value));
    if (m.status == GREENLET_EXIT)
        atomic_fetch_add(&exits, 1);
    return m;
}

/* ---- 13 ----------------------------------------------------------------- */

static void *owns_three(void *unused) {
    (void)unused;
    main_of_other = greenlet_ref(greenlet_main());
    a = spawn(entry_pump);
    CHECK_MSG(go(a, 1), 1, 0);
    b = spawn(entry_echo);
    c = spawn(entry_echo);
    go(c, 1);
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_PTR(greenlet_current(), greenlet_main());
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_EQ(greenlet_get_state(b), GREENLET_NEW);
    CHECK_MSG(go(a, 2), 2, 0);
    CHECK_MSG(go(b, 3), 3, 0);
    CHECK_MSG(greenlet_throw(a, 4, V(5)), 5, 4);
    greenlet_unref(main_of_other);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
    return NULL;
}

static greenlet_message entry_tries(void *value) {
    greenlet *const others[] = {a, b, main_of_other};
    (void)value;
    for (int i = 0; i < 3; i++) {
        CHECK_MSG(go(others[i], 1), 0, -EPERM);
        CHECK_MSG(greenlet_throw(others[i], 5, V(1)), 0, -EPERM);
    }
    CHECK_EQ(greenlet_kill(a).status, -EPERM);
    CHECK_EQ(greenlet_kill(b).status, -EPERM);
    return val(6);
}

TEST(contract_13_other_threads_are_refused) {
    pthread_t thread = test_thread(owns_three, NULL);
    gate_wait(&gate, 1);
    entry_tries(NULL);
    greenlet *g = spawn(entry_tries);
    CHECK_MSG(go(g, 0), 6, 0);
    CHECK_PTR(greenlet_current(), greenlet_main());
    greenlet_unref(g);
    gate_reach(&gate, 2);
    test_join(thread);
}

/* A first use of the library that is a switch to another's greenlet. */
static void *fresh_tries(void *unused) {
    (void)unused;
    CHECK_MSG(go(a, 1), 0, -EPERM);
    CHECK(greenlet_current() != NULL);
    return NULL;
}

TEST(contract_13_first_use_is_a_refused_switch) {
    a = spawn(entry_pump);
    go(a, 1);
    test_join(test_thread(fresh_tries, NULL));
    CHECK_MSG(go(a, 5), 5, 0);
    greenlet_unref(a);
}

static void *leaves_three(void *unused) {
    (void)unused;
    main_of_other = greenlet_ref(greenlet_main());
    a = spawn(entry_waits);
    go(a, 1);
    b = spawn(entry_echo);
    c = spawn(entry_echo);
    go(c, 1);
    return NULL;
}

TEST(contract_13_exited_owner_has_a_status_of_its_own) {
    test_join(test_thread(leaves_three, NULL));
    greenlet *const all[] = {a, b, main_of_other};
    for (int i = 0; i < 3; i++) {
        CHECK_MSG(go(all[i], 1), 0, -EOWNERDEAD);
        CHECK_MSG(greenlet_throw(all[i], 5, V(1)), 0, -EOWNERDEAD);
    }
    errno = 0;
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = main_of_other;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, EOWNERDEAD);
    greenlet_unref(main_of_other);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
    CHECK_EQ(atomic_load(&exits), 0);
}

/* ---- 14 ----------------------------------------------------------------- */

static void *receives(void *unused) {
    (void)unused;
    main_of_other = greenlet_ref(greenlet_main());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_PTR(greenlet_parent(a), greenlet_main());
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    CHECK_MSG(go(a, 9), 9, 0); /* ours */
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_MSG(go(a, 8), 8, 0);
    CHECK_MSG(go(b, 7), 7, 0); /* reparented to us while new */
    greenlet_unref(main_of_other);
    gate_reach(&gate, 3);
    gate_wait(&gate, 4);
    greenlet_drain();
    CHECK_EQ(atomic_load(&exits), 0);
    return NULL;
}

TEST(contract_14_belongs_to_its_parents_thread) {
    pthread_t thread = test_thread(receives, NULL);
    gate_wait(&gate, 1);
    a = spawn_under(entry_pump, main_of_other);
    CHECK_MSG(go(a, 1), 0, -EPERM);
    CHECK_MSG(greenlet_throw(a, 5, V(1)), 0, -EPERM);
    b = spawn(entry_echo);
    CHECK_EQ(greenlet_set_parent(b, main_of_other), 0);
    CHECK_MSG(go(b, 1), 0, -EPERM);
    c = spawn_under(entry_echo, a); /* by the parent, whoever makes it */
    CHECK_MSG(go(c, 1), 0, -EPERM);
    greenlet_unref(c);
    gate_reach(&gate, 2);
    gate_wait(&gate, 3);
    greenlet_unref(a);
    greenlet_unref(b);
    gate_reach(&gate, 4);
    test_join(thread);
}

static void *makes_for_main(void *m) {
    for (int i = 0; i < 200; i++) {
        greenlet *g = spawn_under(entry_echo, (greenlet *)m);
        if (i % 2)
            greenlet_unref(g);
        else if (i == 100)
            a = g;
    }
    return NULL;
}

/* Made by a thread that is gone by now. */
TEST(contract_14_maker_may_exit) {
    test_join(test_thread(makes_for_main, greenlet_main()));
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    CHECK_MSG(go(a, 5), 5, 0);
    greenlet_unref(a);
    greenlet_drain();
}

static void *waits_to_exit(void *unused) {
    (void)unused;
    main_of_other = greenlet_ref(greenlet_main());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    return NULL;
}

TEST(contract_14_owner_exits_with_foreign_greenlets) {
    pthread_t thread = test_thread(waits_to_exit, NULL);
    gate_wait(&gate, 1);
    a = spawn_under(entry_pump, main_of_other);
    b = spawn_under(entry_pump, main_of_other);
    greenlet_unref(b);
    gate_reach(&gate, 2);
    test_join(thread);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_MSG(go(a, 1), 0, -EOWNERDEAD);
    greenlet_unref(a);
    greenlet_unref(main_of_other);
}

/* ---- 16 ----------------------------------------------------------------- */

static void *drops(void *g) {
    greenlet_unref((greenlet *)g);
    CHECK_EQ(atomic_load(&exits), 0); /* not here */
    return NULL;
}

static void queue_one(void) {
    a = spawn(entry_waits);
    go(a, 1);
    test_join(test_thread(drops, a));
    CHECK_EQ(atomic_load(&exits), 0);
}

TEST(contract_16_queued_until_current) {
    queue_one();
    greenlet_current();
    CHECK_EQ(atomic_load(&exits), 1);
}

TEST(contract_16_queued_until_new) {
    queue_one();
    greenlet_unref(spawn(entry_echo));
    CHECK_EQ(atomic_load(&exits), 1);
}

TEST(contract_16_queued_until_switch) {
    b = spawn(entry_pump);
    go(b, 1);
    queue_one();
    CHECK_MSG(go(b, 2), 2, 0);
    CHECK_EQ(atomic_load(&exits), 1);
    greenlet_unref(b);
}

TEST(contract_16_drain_on_demand) {
    CHECK_EQ(greenlet_drain(), 0);
    queue_one();
    CHECK_EQ(greenlet_drain(), 1);
    CHECK_EQ(atomic_load(&exits), 1);
    CHECK_EQ(greenlet_drain(), 0);
}

/* Each of two threads holds one; whoever is last, the owner carries it out. */
static void *takes_and_drops(void *g) {
    greenlet_ref((greenlet *)g);
    greenlet_ref((greenlet *)g);
    greenlet_unref((greenlet *)g);
    greenlet_unref((greenlet *)g);
    return NULL;
}

TEST(contract_16_owner_drops_last) {
    a = spawn(entry_waits);
    go(a, 1);
    test_join(test_thread(takes_and_drops, a));
    greenlet_drain();
    CHECK_EQ(atomic_load(&exits), 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    greenlet_unref(a);
    CHECK_EQ(atomic_load(&exits), 1);
}

static void *takes_one(void *g) { return greenlet_ref((greenlet *)g); }

TEST(contract_16_owner_drops_first) {
    a = spawn(entry_waits);
    go(a, 1);
    CHECK_PTR(test_join(test_thread(takes_one, a)), a);
    greenlet_unref(a);
    CHECK_EQ(atomic_load(&exits), 0);
    CHECK_MSG(go(greenlet_main(), 1), 1, 0);
    CHECK_EQ(atomic_load(&exits), 0);
    test_join(test_thread(drops, a));
    CHECK_EQ(atomic_load(&exits), 0);
    greenlet_drain();
    CHECK_EQ(atomic_load(&exits), 1);
}

/* New and dead ones dropped elsewhere. */
TEST(contract_16_new_and_dead_ones_dropped_elsewhere) {
    for (int i = 0; i < 20; i++) {
        a = spawn(entry_echo);
        test_join(test_thread(drops, a));
        b = spawn(entry_echo);
        go(b, 1);
        test_join(test_thread(drops, b));
    }
    greenlet_drain();
    CHECK_EQ(greenlet_drain(), 0);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
}

/* Two threads count one greenlet up and down at the same time. */
static atomic_int balance_rounds;

static void *hammers(void *g) {
    int n = atomic_load(&balance_rounds);
    gate_wait(&gate, 1);
    for (int i = 0; i < n; i++) {
        greenlet_ref((greenlet *)g);
        if (i % 3 == 0)
            greenlet_ref((greenlet *)g);
        greenlet_unref((greenlet *)g);
        if (i % 3 == 0)
            greenlet_unref((greenlet *)g);
    }
    greenlet_unref((greenlet *)g);
    return NULL;
}

TEST(contract_16_references_from_many_threads_balance) {
    enum { THREADS = 4 };
    static pthread_t threads[THREADS];
    static int i, round;
    atomic_store(&balance_rounds, (int)test_amount(2000, 200000));
    for (round = 0; round < 5; round++) {
        gate.step = 0;
        atomic_store(&exits, 0);
        a = spawn(entry_waits);
        go(a, 1);
        for (i = 0; i < THREADS; i++) {
            greenlet_ref(a);
            threads[i] = test_thread(hammers, a);
        }
        gate_reach(&gate, 1);
        for (i = 0; i < 1000; i++) {
            greenlet_ref(a);
            greenlet_unref(a);
        }
        greenlet_unref(a);
        for (i = 0; i < THREADS; i++)
            test_join(threads[i]);
        greenlet_drain();
        CHECK_EQ(atomic_load(&exits), 1);
    }
}

/* Dropped while the owner is inside a greenlet, carried out there. */
static greenlet_message entry_drains_inside(void *value) {
    test_join(test_thread(drops, a));
    CHECK_EQ(atomic_load(&exits), 0);
    CHECK_EQ(greenlet_drain(), 1);
    CHECK_EQ(atomic_load(&exits), 1);
    CHECK_PTR(greenlet_current(), b);
    return val(I(value));
}

TEST(contract_16_drain_in_a_greenlet) {
    a = spawn(entry_waits);
    go(a, 1);
    b = spawn(entry_drains_inside);
    CHECK_MSG(go(b, 4), 4, 0);
    greenlet_unref(b);
}

/* ---- 18 ----------------------------------------------------------------- */

TEST(contract_18_exit_frees_stacks_and_keeps_handles) {
    test_join(test_thread(leaves_three, NULL));
    CHECK_EQ(atomic_load(&exits), 0); /* no entry code ran */
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(c), GREENLET_DEAD);
    CHECK_STR(greenlet_name(a), "");
    greenlet_ref(a);
    greenlet_unref(a);
    CHECK_MSG(go(a, 1), 0, -EOWNERDEAD);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
    greenlet_unref(main_of_other);
}

static void *exits_with_many(void *unused) {
    static greenlet *many[50];
    (void)unused;
    for (int i = 0; i < 50; i++) {
        many[i] = spawn_named(entry_waits, "left");
        go(many[i], 1);
    }
    return NULL;
}

TEST(contract_18_exit_leaks_nothing) {
    static long mapped, blocks;
    greenlet_main();
    for (int i = 0; i < 12; i++) {
        test_join(test_thread(exits_with_many, NULL));
        if (i == 3) {
            mapped = faults_mapped();
            blocks = faults_blocks();
        }
    }
    CHECK_EQ(atomic_load(&exits), 0);
    /* The handles are never dropped: the small blocks of 8 threads may stay,
     * the stacks may not. */
    CHECK_EQ((faults_mapped() - mapped) / (8 * 50 * 8 * 1024), 0);
    CHECK_EQ((faults_blocks() - blocks) / (8 * 50 * 3), 0);
}

static void *exits_cleanly(void *unused) {
    (void)unused;
    for (int i = 0; i < 20; i++) {
        greenlet *g = spawn_named(entry_waits, "gone");
        go(g, 1);
        greenlet_unref(g);
    }
    return NULL;
}

TEST(contract_18_clean_threads_leave_nothing) {
    static long mapped, blocks;
    greenlet_main();
    for (int i = 0; i < 20; i++) {
        test_join(test_thread(exits_cleanly, NULL));
        if (i == 3) {
            mapped = faults_mapped();
            blocks = faults_blocks();
        }
    }
    CHECK_EQ(faults_mapped(), mapped);
    CHECK_EQ(faults_blocks(), blocks);
}

static void *checks_the_dead(void *unused) {
    (void)unused;
    greenlet *g = spawn(entry_pump);
    go(g, 1);
    CHECK_MSG(go(a, 1), 0, -EOWNERDEAD);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_MSG(go(main_of_other, 1), 0, -EOWNERDEAD);
    greenlet_unref(g);
    return NULL;
}

/* New threads never take the place of the dead one that handles refer to. */
TEST(contract_18_threads_block_is_not_reused) {
    test_join(test_thread(leaves_three, NULL));
    for (int i = 0; i < 20; i++)
        test_join(test_thread(checks_the_dead, NULL));
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
    greenlet_unref(main_of_other);
    for (int i = 0; i < 3; i++)
        test_join(test_thread(exits_cleanly, NULL));
}

/* Queued entries of an owner that exits without looking at its queue. */
static void *ignores_queue(void *unused) {
    (void)unused;
    a = spawn(entry_waits);
    go(a, 1);
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    return NULL;
}

TEST(contract_18_exit_with_a_queue) {
    pthread_t thread = test_thread(ignores_queue, NULL);
    gate_wait(&gate, 1);
    greenlet_unref(a);
    gate_reach(&gate, 2);
    test_join(thread);
    CHECK(atomic_load(&exits) <= 1);
    CHECK(greenlet_current() != NULL);
}

/* Many threads at once, each with its own greenlets, some left behind. */
static greenlet_message entry_sums(void *value) {
    greenlet_message m = val(I(value));
    intptr_t sum = 0;
    while (m.status == 0) {
        sum += I(m.value);
        m = back(sum);
    }
    return val(sum);
}

static void *lives_alone(void *seed) {
    enum { MINE = 12 };
    greenlet **mine = (greenlet **)calloc(MINE, sizeof *mine);
    intptr_t *sums = (intptr_t *)calloc(MINE, sizeof *sums);
    uint64_t state = (uint64_t)I(seed);
    CHECK(mine && sums);
    for (int i = 0; i < MINE; i++)
        mine[i] = spawn(entry_sums);
    for (unsigned n = test_amount(2000, 50000); n; n--) {
        int i = (int)(test_random(&state) % MINE);
        intptr_t add = (intptr_t)(n % 17);
        sums[i] += add;
        CHECK_MSG(go(mine[i], add), sums[i], 0);
    }
    for (int i = 0; i < MINE; i += 2) {
        greenlet_message last = greenlet_kill(mine[i]);
        CHECK(last.status == 0);
        greenlet_unref(mine[i]);
    }
    free(mine);
    free(sums);
    return NULL;
}

TEST(contract_18_threads_side_by_side) {
    enum { THREADS = 6 };
    static pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = test_thread(lives_alone, V(i + 1));
    lives_alone(V(99));
    for (int i = 0; i < THREADS; i++)
        test_join(threads[i]);
}

/* ---- shutdown ----------------------------------------------------------- */

static greenlet_message entry_letter(void *value) {
    greenlet_message m = back(I(value));
    CHECK_EQ(m.status, GREENLET_EXIT);
    note((char)I(value));
    return m;
}

TEST(contract_18_shutdown_kills_the_latest_started_first) {
    a = spawn(entry_letter);
    b = spawn(entry_letter);
    c = spawn(entry_letter);
    go(c, 'c');
    go(a, 'a');
    go(b, 'b');
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    CHECK_STR(notes(), "bac");
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(c), GREENLET_DEAD);
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

/* At its end: was `c` still there? */
static greenlet_message entry_looks(void *value) {
    back(I(value));
    note(greenlet_get_state(c) == GREENLET_NEW ? 'n' : 'd');
    return val(0);
}

/* One that never started comes after them, whatever was in its place before. */
TEST(contract_18_shutdown_comes_to_new_ones_last) {
    a = spawn(entry_looks);
    go(a, 'a');
    b = spawn(entry_echo); /* later than a, and ends */
    go(b, 'b');
    greenlet_unref(b);
    c = spawn(entry_echo); /* the same memory, if nothing checks */
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    CHECK_STR(notes(), "n");
    CHECK_EQ(greenlet_get_state(c), GREENLET_DEAD);
    greenlet_unref(a);
    greenlet_unref(c);
}

static greenlet_message entry_refuses(void *value) {
    greenlet_message m = back(I(value));
    note(m.status == GREENLET_EXIT ? 'r' : 'v');
    m = back(1);
    return val(I(m.value));
}

TEST(contract_18_shutdown_goes_on_past_a_refusal) {
    a = spawn(entry_letter);
    go(a, 'a');
    b = spawn(entry_refuses);
    go(b, 0);
    c = spawn(entry_letter);
    go(c, 'c');
    CHECK_EQ(greenlet_thread_shutdown(), -EBUSY);
    CHECK_STR(notes(), "cra");
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_MSG(go(b, 5), 5, 0);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

static greenlet_message entry_shuts_down(void *value) {
    (void)value;
    return val(greenlet_thread_shutdown());
}

TEST(contract_18_shutdown_only_from_main) {
    a = spawn(entry_shuts_down);
    CHECK_MSG(go(a, 0), -EINVAL, 0);
    greenlet_unref(a);
}

static void *shuts_down(void *unused) {
    (void)unused;
    for (int i = 0; i < 10; i++)
        go(spawn(entry_waits), 1);
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    CHECK_EQ(atomic_load(&exits), 10);
    return NULL;
}

TEST(contract_18_shutdown_in_a_thread) {
    test_join(test_thread(shuts_down, NULL));
    CHECK_EQ(atomic_load(&exits), 10);
}
