/* Corners that a reviewer found: references at the same time from several
 * threads, failures in the middle, kills in a ring.
 *
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

static greenlet *a, *b, *c, *boss;

/* Who gives a lock back pauses, if asked to: what others do next happens
 * before what he does next. (The suite is linked with --wrap.) */
static atomic_int pause_ns;

int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock) {
    int status = __real_pthread_mutex_unlock(lock);
    int ns = atomic_load_explicit(&pause_ns, memory_order_relaxed);
    if (ns) {
        struct timespec moment = {0, ns};
        nanosleep(&moment, NULL);
    }
    return status;
}

/* A refused switch must leave nothing behind: here the greenlets that an
 * error would have passed through. */
static greenlet_message entry_deep(void *value) {
    volatile char bytes[40000];
    bytes[0] = bytes[sizeof bytes - 1] = 1;
    greenlet_message m = back(I(value));
    while (m.status == 0)
        m = back(I(m.value) + bytes[0] + bytes[sizeof bytes - 1]);
    return m;
}

static void nothing_left_behind(void) {
    a = spawn(entry_deep);
    c = spawn(entry_deep);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(go(c, 1), 1, 0);
    greenlet *p = spawn(entry_deep), *v = spawn_under(entry_echo, p);
    /* v dies unstarted of EXIT, p starts with it as a value, or not. */
    faults_arm(1, FAULTS_FOREVER);
    greenlet_message m = greenlet_throw(v, GREENLET_EXIT, V(5));
    faults_disarm();
    if (m.status == -ENOMEM) {
        CHECK_EQ(greenlet_get_state(v), GREENLET_NEW);
        CHECK_EQ(greenlet_get_state(p), GREENLET_NEW);
        m = go(a, 10);
        CHECK_MSG(m, 12, 0);
        CHECK_MSG(go(c, 10), 12, 0);
        CHECK_MSG(go(a, 10), 12, 0);
        CHECK_EQ(greenlet_get_state(v), GREENLET_NEW);
        CHECK_EQ(greenlet_get_state(p), GREENLET_NEW);
        CHECK_MSG(go(p, 7), 7, 0);
    }
}

TEST(contract_26_refused_throw_buries_nobody) { nothing_left_behind(); }

/* Two threads free the last greenlets of a thread that has exited. */
enum { SHARED_BY_TWO = 2 };
static greenlet *halves[SHARED_BY_TWO];
static atomic_int ready;

static void *make_halves(void *arg) {
    (void)arg;
    for (int i = 0; i < SHARED_BY_TWO; i++)
        halves[i] = spawn(entry_echo);
    return NULL;
}

static void *free_half(void *arg) {
    atomic_fetch_add(&ready, 1);
    for (int i = 0; atomic_load(&ready) < SHARED_BY_TWO; i++)
        if (i > 1000)
            sched_yield();
    greenlet_unref(halves[I(arg)]);
    return NULL;
}

TEST(contract_18_last_handles_dropped_at_once) {
    long blocks = 0;
    atomic_store(&pause_ns, 50000);
    for (unsigned n = test_amount(100, 1000); n--;) {
        pthread_t threads[SHARED_BY_TWO];
        test_join(test_thread(make_halves, NULL));
        atomic_store(&ready, 0);
        for (int i = 0; i < SHARED_BY_TWO; i++)
            threads[i] = test_thread(free_half, V(i));
        for (int i = 0; i < SHARED_BY_TWO; i++)
            test_join(threads[i]);
        if (!blocks)
            blocks = faults_blocks();
        CHECK_EQ(faults_blocks(), blocks); /* each freed, and once */
    }
}

/* A long chain of parents of a thread that has exited. */
enum { CHAIN = 200000 };

static void *make_chain(void *arg) {
    (void)arg;
    greenlet *g = spawn(entry_echo);
    for (int i = 0; i < CHAIN; i++) {
        greenlet *child = spawn_under(entry_echo, g);
        greenlet_unref(g);
        g = child;
    }
    return g;
}

TEST(contract_18_long_chain_of_an_exited_thread) {
    greenlet_unref(test_join(test_thread(make_chain, NULL)));
}

static void *make_and_drop_chain(void *arg) {
    greenlet *g = make_chain(arg);
    CHECK_MSG(go(spawn(entry_pump), 1), 1, 0);
    a = spawn_under(entry_pump, g); /* suspended: holds the chain */
    greenlet_unref(g);
    return NULL;
}

static pthread_t small_thread(void *(*run)(void *)) {
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 1 << 20);
    CHECK_EQ(pthread_create(&thread, &attr, run, NULL), 0);
    return thread;
}

TEST(contract_18_long_chain_dropped_in_a_small_thread) {
    test_join(small_thread(make_and_drop_chain));
    greenlet_unref(a);
}

/* The last reference from elsewhere: the parents still go without recursion. */
static void *drop(void *g) {
    greenlet_unref(g);
    return NULL;
}

TEST(contract_16_long_chain_dropped_elsewhere) {
    greenlet *g = make_chain(NULL);
    test_join(test_thread(drop, g));
    CHECK(greenlet_drain() >= 1);
}

/* ---- A parent that leaves for another thread ------------------------------ */

static struct test_gate gate;

static void *boss_thread(void *arg) {
    boss = greenlet_ref(greenlet_current());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    (void)arg;
    return NULL;
}

TEST(contract_12_unstarted_parent_of_a_started_one_moves) {
    pthread_t thread = test_thread(boss_thread, NULL);
    gate_wait(&gate, 1);
    b = spawn(entry_echo);
    a = spawn_under(entry_pump, b);
    greenlet_options o = GREENLET_OPTIONS_INIT;
    (void)o;
    /* a suspended: started from main, it switches to its parent b */
    CHECK_EQ(greenlet_set_parent(a, greenlet_current()), 0);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    int status = greenlet_set_parent(b, boss);
    /* Either it is refused, or a's death finds its way. */
    if (status == 0) {
        greenlet_message m = greenlet_throw(a, 5, V(6));
        CHECK_MSG(m, 6, 5);
    }
    gate_reach(&gate, 2);
    test_join(thread);
}

/* A child moves with its parent; its old thread's exit does not kill it. */
static void *moves_parent(void *arg) {
    (void)arg;
    b = spawn(entry_echo);
    a = spawn_under(entry_echo, b);
    CHECK_EQ(greenlet_set_parent(b, boss), 0);
    return NULL;
}

TEST(contract_14_moved_child_outlives_its_old_thread) {
    boss = greenlet_current();
    test_join(test_thread(moves_parent, NULL));
    CHECK_EQ(greenlet_get_state(b), GREENLET_NEW);
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    CHECK_EQ(greenlet_set_parent(a, greenlet_current()), 0);
    CHECK_MSG(go(a, 3), 3, 0);
}

/* ---- Kills -------------------------------------------------------------- */

/* c kills its ancestor a; a does not die and makes its old parent b a child
 * of itself, so that the old parent cannot be put back. */
static greenlet_message entry_kills_a(void *value) {
    greenlet_message m = greenlet_kill(a);
    CHECK_EQ(m.status, -EBUSY);
    CHECK_EQ(I(m.value), 9);
    return val(I(value));
}

static greenlet_message entry_turns_over(void *value) {
    c = spawn(entry_kills_a); /* its parent: a */
    greenlet_message m = go(c, I(value));
    CHECK_MSG(m, 0, GREENLET_EXIT);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    m = go(c, 9); /* comes back when c ends */
    note('a');
    CHECK_EQ(m.status, 0);
    return val(77);
}

TEST(contract_15_kill_of_an_ancestor_leaves_no_ring) {
    b = spawn(entry_echo);
    a = spawn_under(entry_turns_over, b);
    greenlet_message m = go(a, 4);
    CHECK_EQ(m.status, 0);
    CHECK_STR(notes(), "a");
    int n = 0;
    for (greenlet *g = a; g; g = greenlet_parent(g))
        CHECK(n++ < 10);
}

/* A throw that finds its target inside greenlet_kill is not lost. */
static intptr_t told_status, told_value;

static greenlet_message entry_refuses(void *value) {
    back(I(value));
    greenlet_switch(boss, V(1)); /* not dying of it */
    return val(0);
}

static greenlet_message entry_killer(void *value) {
    (void)value;
    greenlet_message m = greenlet_kill(a);
    told_status = m.status;
    told_value = I(m.value);
    return val(0);
}

TEST(contract_15_throw_into_a_killer) {
    boss = greenlet_current();
    a = spawn(entry_refuses);
    go(a, 1);
    b = spawn(entry_killer);
    go(b, 1); /* back when a switches here */
    greenlet_throw(b, 5, V(55));
    CHECK_EQ(told_value, 55);
    CHECK(told_status == 5 || told_status == -EBUSY); /* documented? */
    if (told_status != 5)
        FAIL("the status of the throw is lost: %d", (int)told_status);
}

/* Refused to die without a reference: leaked, and left alone, traced or not. */
static int exits;

static greenlet_message entry_stubborn(void *value) {
    intptr_t i = I(value);
    for (;;) {
        greenlet_message m = back(i);
        if (m.status == GREENLET_EXIT)
            exits++;
        i = I(m.value);
        if (i == 99)
            return val(99);
    }
}

static int unraised;
static void unraisable(greenlet *g, greenlet_message m, void *data) {
    (void)g, (void)m, (void)data;
    unraised++;
}

static void tracer(greenlet_event e, greenlet *from, greenlet *to, void *data) {
    (void)e, (void)from, (void)to, (void)data;
}

TEST(contract_15_leaked_is_left_alone) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.unraisable = unraisable;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    a = spawn(entry_stubborn);
    go(a, 1);
    greenlet_unref(a);
    CHECK_EQ(exits, 1);
    CHECK_EQ(unraised, 1);
    CHECK_EQ(greenlet_set_tracer(tracer, NULL, NULL, NULL), 0);
    CHECK_MSG(go(a, 2), 2, 0);
    CHECK_MSG(go(a, 3), 3, 0);
    CHECK_EQ(exits, 1);
    CHECK_EQ(unraised, 1);
}

/* pre_switch drops the last reference of the one that dies. */
static void pre_drops(greenlet *from, greenlet *to, void *data) {
    (void)to, (void)data;
    if (from == a && greenlet_get_state(from) == GREENLET_DEAD && b) {
        b = NULL;
        greenlet_unref(from);
    }
}

TEST(contract_22_pre_switch_drops_the_dying) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_drops;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    b = a = spawn(entry_echo);
    CHECK_MSG(go(a, 3), 3, 0);
    CHECK(!b);
    for (int i = 0; i < 100; i++) {
        greenlet *g = spawn(entry_echo);
        CHECK_MSG(go(g, 4), 4, 0);
        greenlet_unref(g);
    }
}

static void pre_drops_new(greenlet *from, greenlet *to, void *data) {
    (void)from, (void)data;
    if (to == a && b) {
        b = NULL;
        greenlet_unref(a);
    }
}

TEST(contract_22_pre_switch_drops_the_new) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_drops_new;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    b = a = spawn(entry_echo);
    CHECK_MSG(go(a, 3), 3, 0);
    for (int i = 0; i < 100; i++) {
        greenlet *g = spawn(entry_echo);
        CHECK_MSG(go(g, 4), 4, 0);
        greenlet_unref(g);
    }
}

/* ---- Reserves ------------------------------------------------------------- */

/* What a death starts without memory has as much stack as it asked for, or
 * the process ends with both names. */
static greenlet_message entry_uses_600k(void *value) {
    volatile char bytes[600 * 1024];
    for (size_t i = 0; i < sizeof bytes; i += 512)
        bytes[i] = 1;
    return val(I(value) + bytes[0]);
}

static greenlet_message entry_dies_poor(void *value) {
    faults_arm(1, FAULTS_FOREVER);
    return val(I(value));
}

static void die_poor(void *arg) {
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lane_bytes = 2 << 20;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.stack_bytes = 1 << 20;
    o.name = "rich";
    b = greenlet_new(entry_uses_600k, &o);
    o = (greenlet_options)GREENLET_OPTIONS_INIT;
    o.parent = b;
    o.name = "poor";
    a = greenlet_new(entry_dies_poor, &o);
    greenlet_message m = go(a, 1);
    faults_disarm();
    CHECK_MSG(m, 2, 0);
    (void)arg;
}

TEST(contract_26_reserve_is_large_enough) {
    static struct test_death d;
    test_die(die_poor, NULL, &d);
    if (WIFEXITED(d.status) && WEXITSTATUS(d.status) == 0)
        return;
    if (WIFSIGNALED(d.status) && WTERMSIG(d.status) == SIGABRT &&
        strstr(d.text, "poor") && strstr(d.text, "rich"))
        return;
    FAIL("ended with %#x: %s", d.status, d.text);
}

/* A small stack does not become the reserve: the death of a small one uses
 * it up, the next death without memory needs it again. */
static greenlet_message entry_relieved(void *value) {
    faults_disarm();
    return entry_pump(value);
}

static void small_reserve(void *arg) {
    (void)arg;
    greenlet_options o = GREENLET_OPTIONS_INIT;
    b = spawn_named(entry_relieved, "rich");
    o.parent = b;
    o.stack_bytes = GREENLET_STACK_BYTES_MIN;
    o.name = "poor and small";
    a = greenlet_new(entry_dies_poor, &o);
    CHECK_MSG(go(a, 1), 1, 0);
    faults_disarm();
    c = spawn_named(entry_deep, "rich");
    o.stack_bytes = 0;
    o.parent = c;
    o.name = "poor";
    a = greenlet_new(entry_dies_poor, &o);
    go(a, 1);
    faults_disarm();
}

TEST(contract_26_small_stack_is_no_reserve) {
    static struct test_death d;
    test_die(small_reserve, NULL, &d);
    if (WIFEXITED(d.status) && WEXITSTATUS(d.status) == 0)
        return;
    if (WIFSIGNALED(d.status) && WTERMSIG(d.status) == SIGABRT &&
        strstr(d.text, "poor") && strstr(d.text, "rich"))
        return;
    FAIL("ended with %#x: %s", d.status, d.text);
}

/* ---- Statistics ----------------------------------------------------------- */

/* A timer makes the thread pause at any instruction. */
static void pause_somewhere(int signal) {
    (void)signal;
    struct timespec moment = {0, 100000};
    nanosleep(&moment, NULL);
}

static void pause_often(void) {
    struct sigaction act = {.sa_handler = pause_somewhere,
                            .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 500}, {0, 500}};
    sigaction(SIGPROF, &act, NULL);
    setitimer(ITIMER_PROF, &every, NULL);
}

static void pause_no_more(void) {
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_PROF, &never, NULL);
}

static atomic_bool stop;

static void *all_misses(void *arg) {
    (void)arg;
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lanes = 0;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
    greenlet *g = spawn(entry_pump), *h = spawn_under(entry_pump, g);
    (void)h;
    while (!atomic_load(&stop)) {
        go(g, 1);
        atomic_store(&ready, 1);
    }
    return NULL;
}

TEST(contract_25_hits_never_wrap) {
    pthread_t x = test_thread(all_misses, NULL);
    while (!atomic_load(&ready))
        sched_yield();
    pause_often();
    for (unsigned n = test_amount(2000000, 20000000); n; n--) {
        greenlet_statistics s = GREENLET_STATISTICS_INIT;
        CHECK_EQ(greenlet_process_statistics(&s), 0);
        if (s.hits > s.switches)
            FAIL("hits %jd of %jd", (intmax_t)s.hits, (intmax_t)s.switches);
    }
    atomic_store(&stop, true);
    test_join(x);
}

/* ---- Thread exit: every destructor runs ------------------------------------ */

enum { MANY = 4 * 600 };
static greenlet *many[MANY], *to_drop;
static greenlet_key key;
static int destroyed;

static void destructor(void *value) {
    destroyed++;
    if (value == V(1) && to_drop) {
        greenlet *g = to_drop;
        to_drop = NULL;
        greenlet_unref(g);
    }
}

static greenlet_message entry_local(void *value) {
    greenlet_local_set(key, value);
    return back(I(value));
}

static void *exit_with_locals(void *arg) {
    (void)arg;
    for (int i = 0; i < MANY; i++)
        many[i] = spawn(entry_local);
    go(many[MANY - 1], 1); /* in the slab that is visited first */
    for (int i = 0; i < MANY - 1; i++)
        if (i % 100 == 0)
            go(many[i], 2);
    to_drop = many[1350]; /* its slab moves to the front */
    return NULL;
}

TEST(contract_24_exit_runs_every_destructor) {
    CHECK_EQ(greenlet_key_create(&key, destructor), 0);
    test_join(test_thread(exit_with_locals, NULL));
    CHECK_EQ(destroyed, 1 + MANY / 100);
}

/* ---- References, counted by several threads at once ------------------------ */

/* Each round the maker hands one reference to each of the other threads, which
 * drop theirs at the same time as the maker drops its own and drains. A
 * timer makes them pause. */
enum { DROPPERS = 3 };
static _Atomic(greenlet *) offers[DROPPERS];

static void *dropper(void *arg) {
    intptr_t i = I(arg);
    while (!atomic_load(&stop)) {
        greenlet *g = atomic_exchange(&offers[i], NULL);
        if (g)
            greenlet_unref(g);
        else
            sched_yield();
    }
    return NULL;
}

TEST(contract_16_drops_at_the_same_time) {
    pthread_t threads[DROPPERS];
    for (intptr_t i = 0; i < DROPPERS; i++)
        threads[i] = test_thread(dropper, V(i));
    greenlet_current();
    pause_often();
    for (unsigned n = test_amount(20000, 1000000); n--;) {
        greenlet *g = spawn(entry_echo);
        for (int i = 0; i < DROPPERS; i++) {
            greenlet_ref(g);
            atomic_store(&offers[i], g);
        }
        greenlet_unref(g);
        for (int i = 0; i < DROPPERS; i++)
            while (atomic_load(&offers[i])) {
                greenlet_drain();
                sched_yield();
            }
    }
    pause_no_more();
    atomic_store(&stop, true);
    for (int i = 0; i < DROPPERS; i++)
        test_join(threads[i]);
    greenlet_drain();
}

/* Others make greenlets here while this thread shuts down. */
static atomic_int done;

static void *makes_here(void *arg) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = boss;
    for (int i = 0; i < 2000; i++)
        greenlet_unref(greenlet_new(entry_echo, &o));
    atomic_fetch_add(&done, 1);
    return arg;
}

TEST(contract_18_shutdown_while_others_make) {
    boss = greenlet_current();
    pthread_t x = test_thread(makes_here, NULL),
              y = test_thread(makes_here, NULL);
    atomic_store(&pause_ns, 1000);
    while (atomic_load(&done) < 2) {
        CHECK_EQ(greenlet_thread_shutdown(), 0);
        greenlet_drain();
    }
    test_join(x);
    test_join(y);
    greenlet_drain();
}

/* The same in slow motion: on x86 the last reference is dropped one instruction
 * at a time (the trap flag), with a moment for the home between any two;
 * elsewhere a timer makes everybody pause somewhere. */
#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>

static bool stepping;

static void a_moment(int signal) {
    (void)signal;
    struct timespec shortest = {0, 1};
    nanosleep(&shortest, NULL);
}

static void slow_motion(bool on) {
    const unsigned trap_flag = 0x100;
    if (stepping)
        __writeeflags(on ? __readeflags() | trap_flag
                         : __readeflags() & ~trap_flag);
}

static void prepare_slow_motion(void) {
    struct sigaction act = {.sa_handler = a_moment, .sa_flags = SA_RESTART};
    sigaction(SIGTRAP, &act, NULL);
    stepping = !test_has_tsan(); /* which puts off signals */
    if (!stepping)
        pause_often();
}
#else
static void slow_motion(bool on) { (void)on; }
static void prepare_slow_motion(void) { pause_often(); }
#endif

static void *drops_slowly(void *arg) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = boss;
    for (unsigned i = test_amount(40, 600); i--;) {
        greenlet *g = greenlet_new(entry_echo, &o);
        slow_motion(true);
        greenlet_unref(g);
        slow_motion(false);
    }
    atomic_fetch_add(&done, 1);
    return arg;
}

TEST(contract_16_dropped_elsewhere_while_home_looks) {
    boss = greenlet_current();
    prepare_slow_motion();
    pthread_t x = test_thread(drops_slowly, NULL),
              y = test_thread(drops_slowly, NULL);
    while (atomic_load(&done) < 2) {
        CHECK_EQ(greenlet_thread_shutdown(), 0);
        greenlet_drain();
        sched_yield();
    }
    pause_no_more();
    test_join(x);
    test_join(y);
    greenlet_drain();
}

/* The maker exits and finds out then that nobody refers to some. */
static void *makes_and_exits(void *unused) {
    (void)unused;
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = boss;
    for (int i = 0; i < 20; i++)
        many[i] = greenlet_new(entry_echo, &o);
    atomic_store(&done, 1);
    while (atomic_load(&done) == 1)
        sched_yield();
    return NULL;
}

static void *shows_its_end(void *thread) {
    test_join(*(pthread_t *)thread);
    atomic_store(&done, 3);
    return NULL;
}

TEST(contract_18_maker_exits_while_home_looks) {
    static pthread_t x;
    boss = greenlet_current();
    for (int round = 0; round < 10; round++) {
        atomic_store(&done, 0);
        x = test_thread(makes_and_exits, NULL);
        pthread_t y = test_thread(shows_its_end, &x);
        while (atomic_load(&done) == 0)
            sched_yield();
        for (int i = 0; i < 20; i++)
            greenlet_unref(many[i]); /* left to the maker to add up */
        atomic_store(&pause_ns, 1000000);
        atomic_store(&done, 2);
        while (atomic_load(&done) != 3)
            CHECK_EQ(greenlet_thread_shutdown(), 0);
        atomic_store(&pause_ns, 0);
        test_join(y);
        greenlet_drain();
    }
}

/* ---- A new one that moves ------------------------------------------------- */

static greenlet_message entry_large(void *value) {
    volatile char bytes[300 << 10];
    for (size_t i = 0; i < sizeof bytes; i += 4096)
        bytes[i] = 1;
    return val(I(value) + bytes[0]);
}

static void *has_small_stacks(void *unused) {
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lanes = 2;
    t.lane_bytes = 64 << 10;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
    boss = greenlet_ref(greenlet_current());
    atomic_store(&done, 1);
    while (atomic_load(&done) == 1)
        sched_yield();
    if (!test_is_copy())
        CHECK_MSG(go(a, 1), 2, 0);
    atomic_store(&done, 3);
    return unused;
}

/* What it was promised when it was made has to hold there, or it stays. */
TEST(contract_12_large_one_refuses_a_thread_with_small_lanes) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lane_bytes = 1 << 20;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
    pthread_t thread = test_thread(has_small_stacks, NULL);
    while (atomic_load(&done) == 0)
        sched_yield();
    o.stack_bytes = 512 << 10;
    CHECK((a = greenlet_new(entry_large, &o)) != NULL);
    CHECK_EQ(greenlet_set_parent(a, boss), test_is_copy() ? -E2BIG : 0);
    if (test_is_copy()) {
        CHECK_PTR(greenlet_parent(a), greenlet_current());
        CHECK_MSG(go(a, 1), 2, 0);
    }
    atomic_store(&done, 2);
    test_join(thread);
    greenlet_unref(a);
    greenlet_unref(boss);
}
