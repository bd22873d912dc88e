/* Out of memory, at every single request. Contract 26.
 *
 * A case is done again and again in fresh threads, the n-th request failing,
 * until no request fails any more. Each time the call must either answer
 * -ENOMEM, with nothing moved, and succeed when it is done again, or have
 * found another way. Afterwards nothing may be left over.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

#include <signal.h>
#include <sys/wait.h>

static greenlet *a, *b, *c, *of_process;
static greenlet_key key;
static int lanes; /* of the thread of the case; -1: default */

struct oom_case {
    void (*prepare)(void);
    intptr_t (*act)(void); /* 0, or the status */
    void (*unmoved)(void); /* may be NULL: checks after a failure */
    void (*finish)(void);
    const char *name;
};

#define CASE(prepare, act, unmoved, finish)                                    \
    { prepare, act, unmoved, finish, #act }

/* What has run, in the greenlets of a case. */
static int started, resumed;

enum { DEEP = 9000 };

static unsigned char byte_of(intptr_t who, size_t i) {
    return (unsigned char)((size_t)who * 37 + i * 11 + (i >> 7));
}

/* In place a greenlet's way back may be the one that there is no memory for:
 * then nothing has moved, and with memory again it succeeds. */
static greenlet_message back_insisting(intptr_t who) {
    greenlet_message m = back(who);
    if (m.status == -ENOMEM) {
        faults_disarm();
        m = back(who);
    }
    return m;
}

/* Waits in a frame full of a pattern, which it checks. */
__attribute__((noinline)) static greenlet_message wait_deep(intptr_t who) {
    volatile unsigned char bytes[DEEP];
    for (size_t i = 0; i < DEEP; i++)
        bytes[i] = byte_of(who, i);
    greenlet_message m = back_insisting(who);
    for (size_t i = 0; i < DEEP; i++)
        if (bytes[i] != byte_of(who, i))
            FAIL("greenlet %d: byte %zu of its stack", (int)who, i);
    return m;
}

static greenlet_message entry_deep(void *value) {
    started++;
    greenlet_message m = wait_deep(I(value));
    while (m.status == 0) {
        resumed++;
        m = wait_deep(I(value));
    }
    resumed++;
    return m;
}

static greenlet_message entry_shallow(void *value) {
    started++;
    greenlet_message m = back_insisting(I(value));
    while (m.status == 0) {
        resumed++;
        m = back_insisting(I(value));
    }
    resumed++;
    return m;
}

static greenlet_statistics of_thread(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    return s;
}

struct snapshot {
    greenlet_state states[3];
    greenlet *parents[3];
    greenlet_stack stacks[3];
    greenlet *current;
    greenlet_statistics s;
    int started, resumed;
};

static void take_snapshot(struct snapshot *x) {
    greenlet *const all[3] = {a, b, c};
    memset(x, 0, sizeof *x);
    for (int i = 0; i < 3; i++) {
        if (!all[i])
            continue;
        x->states[i] = greenlet_get_state(all[i]);
        x->parents[i] = greenlet_parent(all[i]);
        greenlet_get_stack(all[i], &x->stacks[i]);
    }
    x->current = greenlet_current();
    greenlet_statistics s = of_thread();
    x->s.switches = s.switches;
    x->s.hits = s.hits;
    x->s.misses = s.misses;
    x->s.evictions = s.evictions;
    x->s.fills = s.fills;
    x->s.saved_bytes = s.saved_bytes;
    x->s.filled_bytes = s.filled_bytes;
    x->started = started;
    x->resumed = resumed;
}

static struct snapshot before, after;

/* Whether the thread had its main before the act. */
static bool first_use;
static const struct oom_case *current_case;
static unsigned long nth;
static enum faults_kind kind;
static unsigned long fired;

static void *attempt(void *unused) {
    const struct oom_case *o = current_case;
    volatile unsigned char locals[3000]; /* main's bytes */
    (void)unused;
    a = b = c = NULL;
    started = resumed = 0;
    for (size_t i = 0; i < sizeof locals; i++)
        locals[i] = byte_of(77, i);
    if (lanes >= 0) {
        greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
        t.lanes = lanes;
        CHECK_EQ(greenlet_thread_configure(&t), 0);
    }
    if (o->prepare)
        o->prepare();
    if (!first_use)
        take_snapshot(&before);
    errno = 4711;
    test_say("case %s, lanes %d, request %lu, %s", o->name, lanes, nth,
             kind == FAULTS_ONCE ? "once" : "and on");
    errno = 4711;
    if (nth)
        faults_arm(nth, kind);
    intptr_t status = o->act();
    fired = faults_disarm();
    if (status != 0) {
        if (!fired || status != -ENOMEM)
            FAIL("case %s, lanes %d: status %jd, %lu requests of the %lu-th "
                 "on failed",
                 o->name, lanes, (intmax_t)status, fired, nth);
        if (!first_use) {
            take_snapshot(&after);
            CHECK(memcmp(&before, &after, sizeof before) == 0);
        }
        if (o->unmoved)
            o->unmoved();
        status = o->act();
        CHECK_EQ(status, 0);
    }
    if (o->finish)
        o->finish();
    for (size_t i = 0; i < sizeof locals; i++)
        CHECK_EQ(locals[i], byte_of(77, i));
    return NULL;
}

static void run_case(const struct oom_case *o) {
    static const enum faults_kind kinds[] = {FAULTS_ONCE, FAULTS_FOREVER};
    static long blocks, mapped;
    static int k;
    current_case = o;
    of_process = greenlet_main();
    for (nth = 0, k = 0; k < 3; k++) { /* nothing fails: what is left then */
        test_join(test_thread(attempt, NULL));
        greenlet_drain();
        blocks = faults_blocks();
        mapped = faults_mapped();
    }
    for (k = 0; k < 2; k++) {
        kind = kinds[k];
        for (nth = 1;; nth++) {
            test_join(test_thread(attempt, NULL));
            greenlet_drain();
            if (faults_blocks() != blocks || faults_mapped() != mapped)
                FAIL("case %s, lanes %d, request %lu failing %s leaves "
                     "%ld blocks, %ld mapped",
                     o->name, lanes, nth, k ? "and on" : "once",
                     faults_blocks() - blocks, faults_mapped() - mapped);
            if (!fired)
                break;
            CHECK(nth < 1000);
        }
    }
}

/* On each kind of lanes that the backend knows; others ignore the number. */
static void run_case_everywhere(const struct oom_case *o) {
    for (lanes = -1; lanes <= 2; lanes++)
        if (test_is_copy() || lanes < 0)
            run_case(o);
}

/* ---- The acts -------------------------------------------------------------
 */

static intptr_t act_new(void) {
    a = greenlet_new(entry_deep, NULL);
    return a ? 0 : -errno;
}

static intptr_t act_new_with_all(void) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.name = "named";
    o.flags = GREENLET_STATS | GREENLET_FPU;
    a = greenlet_new(entry_deep, &o);
    return a ? 0 : -errno;
}

static intptr_t act_new_foreign(void) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = of_process;
    a = greenlet_new(entry_deep, &o);
    return a ? 0 : -errno;
}

static void adopt(void) { CHECK(greenlet_main() != NULL); }
static void make_a(void) { a = spawn(entry_deep); }

static void finish_a(void) {
    if (greenlet_get_state(a) == GREENLET_NEW &&
        greenlet_parent(a) == greenlet_main()) {
        CHECK_MSG(go(a, 1), 1, 0);
        CHECK_MSG(greenlet_throw(a, 3, V(5)), 5, 3);
        CHECK_EQ(resumed, 1);
    }
    greenlet_unref(a);
}

TEST(contract_26_new) {
    static const struct oom_case plain = CASE(adopt, act_new, NULL, finish_a);
    static const struct oom_case full =
        CASE(adopt, act_new_with_all, NULL, finish_a);
    run_case_everywhere(&plain);
    run_case_everywhere(&full);
}

TEST(contract_26_new_for_another_thread) {
    static const struct oom_case o =
        CASE(adopt, act_new_foreign, NULL, finish_a);
    run_case(&o);
}

static intptr_t act_switch(void) {
    greenlet_message m = go(a, 1);
    return m.status;
}

static intptr_t act_throw(void) {
    greenlet_message m = greenlet_throw(a, 3, V(5));
    if (m.status < 0)
        return m.status;
    CHECK_MSG(m, 5, 3);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    return 0;
}

static intptr_t act_kill(void) {
    greenlet_message m = greenlet_kill(a);
    if (m.status < 0)
        return m.status;
    CHECK_MSG(m, 0, 0);
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    return 0;
}

static void end_all(void) {
    greenlet **const all[3] = {&a, &b, &c};
    for (int i = 0; i < 3; i++) {
        if (!*all[i])
            continue;
        if (greenlet_get_state(*all[i]) == GREENLET_ACTIVE)
            CHECK_MSG(greenlet_throw(*all[i], 3, V(5)), 5, 3);
        greenlet_unref(*all[i]);
    }
}

TEST(contract_26_start) {
    static const struct oom_case o = CASE(make_a, act_switch, NULL, end_all);
    run_case_everywhere(&o);
}

static void make_three(void) {
    a = spawn(entry_deep);
    b = spawn(entry_deep);
    c = spawn(entry_deep);
    CHECK_MSG(go(b, 2), 2, 0);
    CHECK_MSG(go(c, 3), 3, 0);
}

/* A start that displaces another. */
TEST(contract_26_start_that_evicts) {
    static const struct oom_case o =
        CASE(make_three, act_switch, NULL, end_all);
    run_case_everywhere(&o);
}

static void suspend_three(void) {
    a = spawn(entry_shallow);
    b = spawn(entry_deep);
    c = spawn(entry_deep);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(go(b, 2), 2, 0);
    CHECK_MSG(go(c, 3), 3, 0);
}

TEST(contract_26_switch_that_copies) {
    static const struct oom_case o =
        CASE(suspend_three, act_switch, NULL, end_all);
    run_case_everywhere(&o);
}

TEST(contract_26_throw_that_copies) {
    static const struct oom_case o =
        CASE(suspend_three, act_throw, NULL, end_all);
    run_case_everywhere(&o);
}

TEST(contract_26_kill) {
    static const struct oom_case o =
        CASE(suspend_three, act_kill, NULL, end_all);
    run_case_everywhere(&o);
}

TEST(contract_26_throw_to_new) {
    static const struct oom_case o = CASE(make_three, act_throw, NULL, end_all);
    run_case_everywhere(&o);
}

/* From within a greenlet, sideways. */
static intptr_t sideways_status;

static greenlet_message entry_sideways(void *value) {
    (void)value;
    volatile unsigned char bytes[DEEP / 2];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = byte_of(55, i);
    greenlet_message m = val(0);
    do {
        if (nth)
            faults_arm(nth, kind);
        m = go(a, 1); /* a's parent is main */
        fired = faults_disarm();
        sideways_status = m.status;
        if (m.status < 0) {
            CHECK_EQ(m.status, -ENOMEM);
            CHECK_PTR(greenlet_current(), c);
            m = go(a, 1);
            CHECK(m.status >= 0);
        }
    } while (m.status == 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQ(bytes[i], byte_of(55, i));
    return m;
}

static intptr_t act_sideways(void) {
    faults_disarm();
    c = spawn(entry_sideways);
    CHECK_MSG(go(c, 0), 1, 0); /* c -> a -> main */
    fired = faults_disarm();
    return 0;
}

static void suspend_two(void) {
    a = spawn(entry_shallow);
    b = spawn(entry_deep);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(go(b, 2), 2, 0);
}

TEST(contract_26_switch_between_greenlets) {
    static const struct oom_case o =
        CASE(suspend_two, act_sideways, NULL, end_all);
    run_case_everywhere(&o);
}

/* ---- The small calls --------------------------------------------------------
 */

static intptr_t act_set_name(void) {
    int status = greenlet_set_name(a, "a name");
    if (status == 0)
        CHECK_STR(greenlet_name(a), "a name");
    return status;
}

static void unnamed(void) { CHECK_STR(greenlet_name(a), ""); }

TEST(contract_26_set_name) {
    static const struct oom_case o =
        CASE(make_a, act_set_name, unnamed, finish_a);
    run_case(&o);
}

static intptr_t act_local_set(void) {
    int status = greenlet_local_set(key, &key);
    if (status == 0)
        CHECK_PTR(greenlet_local_get(key), &key);
    return status;
}

static void no_local(void) { CHECK_PTR(greenlet_local_get(key), NULL); }

TEST(contract_26_local_set) {
    static const struct oom_case o = CASE(adopt, act_local_set, no_local, NULL);
    CHECK_EQ(greenlet_key_create(&key, NULL), 0);
    run_case(&o);
}

static void post_switch(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)to;
    ++*(int *)data;
}

static int hooked;

static intptr_t act_set_hooks(void) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.post_switch = post_switch;
    hooked = 0;
    int status = greenlet_set_hooks(&h, &hooked);
    go(greenlet_main(), 1);
    if (status != 0)
        CHECK_EQ(hooked, 0);
    return status;
}

TEST(contract_26_set_hooks) {
    static const struct oom_case o =
        CASE(make_a, act_set_hooks, NULL, finish_a);
    run_case(&o);
}

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    (void)event;
    (void)origin;
    (void)target;
    (void)data;
}

static intptr_t act_set_tracer(void) {
    return greenlet_set_tracer(tracer, NULL, NULL, NULL);
}

TEST(contract_26_set_tracer) {
    static const struct oom_case o =
        CASE(make_a, act_set_tracer, NULL, finish_a);
    run_case(&o);
}

static intptr_t act_check_level(void) { return greenlet_set_check_level(0); }

TEST(contract_26_set_check_level) {
    static const struct oom_case o =
        CASE(make_a, act_check_level, NULL, finish_a);
    run_case(&o);
}

static intptr_t act_set_parent(void) {
    return greenlet_set_parent(a, of_process);
}

TEST(contract_26_set_parent_of_another_thread) {
    static const struct oom_case o =
        CASE(make_a, act_set_parent, NULL, finish_a);
    run_case(&o);
}

static intptr_t act_shutdown(void) { return greenlet_thread_shutdown(); }

static void all_dead(void) {
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(c), GREENLET_DEAD);
    end_all();
}

/* Once begun it may stop in between; done again, it ends. */
static void partly(void) {}

TEST(contract_26_shutdown) {
    static const struct oom_case o = CASE(adopt, act_shutdown, partly, NULL);
    run_case_everywhere(&o);
}

static void *shuts_down(void *unused) {
    (void)unused;
    if (lanes >= 0) {
        greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
        t.lanes = lanes;
        CHECK_EQ(greenlet_thread_configure(&t), 0);
    }
    started = resumed = 0;
    suspend_three();
    faults_arm(nth, FAULTS_ONCE);
    int status = greenlet_thread_shutdown();
    fired = faults_disarm();
    if (status != 0) {
        CHECK_EQ(status, -ENOMEM);
        CHECK(fired);
        CHECK_EQ(greenlet_thread_shutdown(), 0);
    }
    CHECK_EQ(resumed, 3);
    all_dead();
    return NULL;
}

TEST(contract_26_shutdown_with_greenlets) {
    for (lanes = -1; lanes <= 2; lanes++)
        for (nth = 1;; nth++) {
            test_join(test_thread(shuts_down, NULL));
            if (!fired)
                break;
        }
}

/* ---- The first use of a thread, by each call that may be it -----------------
 */

static intptr_t first_current(void) { return greenlet_current() ? 0 : -ENOMEM; }

static intptr_t first_main(void) { return greenlet_main() ? 0 : -ENOMEM; }

static intptr_t first_configure(void) {
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lanes = 2;
    return greenlet_thread_configure(&t);
}

static intptr_t first_new(void) {
    errno = 0;
    a = greenlet_new(entry_shallow, NULL);
    if (!a)
        return -errno;
    greenlet_unref(a);
    return 0;
}

static intptr_t first_hooks(void) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    return greenlet_set_hooks(&h, NULL);
}

static intptr_t first_local(void) { return greenlet_local_set(key, &key); }

static intptr_t first_statistics(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    int status = greenlet_thread_statistics(&s);
    /* "Return 0, -EINVAL, -ENOTSUP": it may answer zeros, too. */
    return status;
}

static intptr_t first_switch(void) {
    greenlet_message m = go(of_process, 1);
    return m.status == -EPERM ? 0 : m.status;
}

static void finish_first(void) {
    CHECK(greenlet_current() != NULL);
    CHECK_PTR(greenlet_current(), greenlet_main());
    a = spawn(entry_shallow);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
    a = NULL;
}

TEST(contract_26_first_use_of_a_thread) {
    static const struct oom_case all[] = {
        CASE(NULL, first_current, NULL, finish_first),
        CASE(NULL, first_main, NULL, finish_first),
        CASE(NULL, first_configure, NULL, finish_first),
        CASE(NULL, first_new, NULL, finish_first),
        CASE(NULL, first_hooks, NULL, finish_first),
        CASE(NULL, act_set_tracer, NULL, finish_first),
        CASE(NULL, first_local, NULL, finish_first),
        CASE(NULL, first_statistics, NULL, finish_first),
        CASE(NULL, first_switch, NULL, finish_first),
        CASE(NULL, act_check_level, NULL, finish_first),
    };
    CHECK_EQ(greenlet_key_create(&key, NULL), 0);
    first_use = true;
    lanes = -1;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        run_case(&all[i]);
}

/* The first use of all in a process has requests of its own. */
static void first_of_all(void *unused) {
    (void)unused;
    faults_arm(nth, kind);
    greenlet *m = greenlet_current();
    fired = faults_disarm();
    if (!m) {
        CHECK(fired);
        m = greenlet_current();
        CHECK(m != NULL);
    }
    a = spawn(entry_shallow);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
    if (!fired)
        test_say("no request failed");
}

TEST(contract_26_first_use_of_the_process) {
    static struct test_death death;
    for (nth = 1; nth < 1000; nth++) {
        kind = nth % 2 ? FAULTS_ONCE : FAULTS_FOREVER;
        test_die(first_of_all, NULL, &death);
        if (death.status != 0)
            FAIL("request %lu: %s", nth, death.text);
        if (strstr(death.text, "no request failed"))
            return;
    }
    FAIL("requests without end");
}

static void install_overflow(void *unused) {
    (void)unused;
    greenlet_main();
    faults_arm(nth, FAULTS_ONCE);
    int status = greenlet_install_overflow_handler();
    fired = faults_disarm();
    if (status != 0) {
        CHECK(fired);
        CHECK_EQ(status, -ENOMEM);
        CHECK_EQ(greenlet_install_overflow_handler(), 0);
    }
    a = spawn(entry_shallow);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
    if (!fired)
        test_say("no request failed");
}

TEST(contract_26_install_overflow_handler) {
    static struct test_death death;
    for (nth = 1; nth < 1000; nth++) {
        test_die(install_overflow, NULL, &death);
        if (death.status != 0)
            FAIL("request %lu: %s", nth, death.text);
        if (strstr(death.text, "no request failed"))
            return;
    }
    FAIL("requests without end");
}

/* ---- What cannot answer a status
 * --------------------------------------------- */

/* Each of these runs in a child of its own: it ends well, with every message
 * delivered, or with an abort that names both greenlets. */
static int reserve_lanes;

static void configure_reserve(void) {
    if (reserve_lanes < 0)
        return;
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lanes = reserve_lanes;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
}

static void check_reserve(void (*run)(void *)) {
    static struct test_death death;
    for (reserve_lanes = -1; reserve_lanes <= 3; reserve_lanes++) {
        test_die(run, NULL, &death);
        if (WIFEXITED(death.status) && WEXITSTATUS(death.status) == 0)
            continue;
        if (WIFSIGNALED(death.status) && WTERMSIG(death.status) == SIGABRT &&
            strstr(death.text, "dying") && strstr(death.text, "target"))
            continue;
        FAIL("lanes %d, wait status %#x: %s", reserve_lanes, death.status,
             death.text);
    }
}

static greenlet_message entry_dies_without_memory(void *value) {
    faults_arm(1, FAULTS_FOREVER);
    return val(I(value) + 1);
}

static greenlet_message entry_target(void *value) {
    greenlet_message m = wait_deep(I(value));
    faults_disarm();
    CHECK_MSG(m, 42, 0);
    resumed++;
    return val(43);
}

static void death_to_a_suspended_parent(void *unused) {
    (void)unused;
    configure_reserve();
    b = spawn_named(entry_target, "target");
    CHECK_MSG(go(b, 2), 2, 0);
    a = spawn_named(entry_dies_without_memory, "dying");
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    CHECK_MSG(go(a, 41), 43, 0);
    CHECK_EQ(resumed, 1);
    greenlet_unref(a);
    greenlet_unref(b);
}

static greenlet_message entry_new_target(void *value) {
    faults_disarm();
    CHECK_EQ(I(value), 42);
    return val(43);
}

static void death_to_a_new_parent(void *unused) {
    (void)unused;
    configure_reserve();
    b = spawn_named(entry_new_target, "target");
    a = spawn_named(entry_dies_without_memory, "dying");
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    CHECK_MSG(go(a, 41), 43, 0);
    greenlet_unref(a);
    greenlet_unref(b);
}

static void death_to_main(void *unused) {
    (void)unused;
    configure_reserve();
    CHECK_EQ(greenlet_set_name(greenlet_main(), "target"), 0);
    for (int i = 0; i < 5; i++) {
        a = spawn_named(entry_dies_without_memory, "dying");
        greenlet_message m = go(a, i);
        faults_disarm();
        CHECK_MSG(m, i + 1, 0);
        greenlet_unref(a);
    }
}

TEST(contract_26_death_without_memory) {
    check_reserve(death_to_a_suspended_parent);
    check_reserve(death_to_a_new_parent);
    check_reserve(death_to_main);
}

/* A start that cannot be refused goes without the lane that it wished. */
static void *death_to_a_parent_with_a_lane(void *unused) {
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    greenlet_options o = GREENLET_OPTIONS_INIT;
    (void)unused;
    t.lanes = 2;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
    o.lane = 1;
    b = greenlet_new(entry_new_target, &o);
    CHECK(b != NULL);
    o.parent = b;
    o.lane = 0;
    a = greenlet_new(entry_dies_without_memory, &o);
    CHECK(a != NULL);
    CHECK_MSG(go(a, 41), 43, 0);
    greenlet_unref(a);
    greenlet_unref(b);
    return NULL;
}

TEST(contract_26_death_to_a_new_parent_with_a_lane) {
    test_join(test_thread(death_to_a_parent_with_a_lane, NULL));
}

/* A death that has to save a third: the owner of the target's lane. */
static greenlet_message entry_third(void *value) {
    greenlet_message m = wait_deep(I(value));
    resumed += 10;
    return m;
}

static greenlet_message entry_starts_c_and_dies(void *value) {
    c = spawn(entry_third);
    CHECK_EQ(greenlet_set_parent(c, greenlet_current()), 0);
    CHECK_MSG(go(c, 3), 3, 0);
    faults_arm(1, FAULTS_FOREVER);
    return val(I(value) + 1);
}

static void death_that_saves_a_third(void *unused) {
    (void)unused;
    configure_reserve();
    b = spawn_named(entry_target, "target");
    CHECK_MSG(go(b, 2), 2, 0);
    a = spawn_named(entry_starts_c_and_dies, "dying");
    CHECK_EQ(greenlet_set_parent(a, b), 0);
    CHECK_MSG(go(a, 41), 43, 0);
    CHECK_EQ(resumed, 1);
    CHECK_EQ(greenlet_set_parent(c, greenlet_main()), 0);
    CHECK_MSG(greenlet_throw(c, 3, V(5)), 5, 3);
    CHECK_EQ(resumed, 11);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
}

TEST(contract_26_death_that_saves_a_third) {
    check_reserve(death_that_saves_a_third);
}

/* Last references, in main and in a greenlet. */
static void unref_in_main(void *unused) {
    (void)unused;
    configure_reserve();
    CHECK_EQ(greenlet_set_name(greenlet_main(), "target"), 0);
    a = spawn_named(entry_deep, "dying");
    b = spawn_named(entry_deep, "dying as well");
    go(a, 1);
    go(b, 2);
    faults_arm(1, FAULTS_FOREVER);
    greenlet_unref(a);
    greenlet_unref(b);
    faults_disarm();
    CHECK_EQ(resumed, 2);
}

static greenlet_message entry_unrefs(void *value) {
    volatile unsigned char bytes[DEEP / 3];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = byte_of(66, i);
    faults_arm(1, FAULTS_FOREVER);
    greenlet_unref(a);
    greenlet_unref(b);
    faults_disarm();
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQ(bytes[i], byte_of(66, i));
    return val(I(value));
}

static void unref_in_a_greenlet(void *unused) {
    (void)unused;
    configure_reserve();
    a = spawn_named(entry_deep, "dying");
    b = spawn_named(entry_deep, "dying as well");
    go(a, 1);
    go(b, 2);
    c = spawn_named(entry_unrefs, "target");
    CHECK_MSG(go(c, 9), 9, 0);
    CHECK_EQ(resumed, 2);
    greenlet_unref(c);
}

TEST(contract_26_last_unref_without_memory) {
    check_reserve(unref_in_main);
    check_reserve(unref_in_a_greenlet);
}

static void *drops_both(void *unused) {
    (void)unused;
    greenlet_unref(a);
    greenlet_unref(b);
    return NULL;
}

static void drain_without_memory(void *unused) {
    (void)unused;
    configure_reserve();
    CHECK_EQ(greenlet_set_name(greenlet_main(), "target"), 0);
    a = spawn_named(entry_deep, "dying");
    b = spawn_named(entry_deep, "dying as well");
    go(a, 1);
    go(b, 2);
    test_join(test_thread(drops_both, NULL));
    faults_arm(1, FAULTS_FOREVER);
    CHECK_EQ(greenlet_drain(), 2);
    faults_disarm();
    CHECK_EQ(resumed, 2);
}

TEST(contract_26_drain_without_memory) { check_reserve(drain_without_memory); }

/* ---- Who stays in the reserve for long ------------------------------------
 */

enum { HELD = 24, FIRST_DEPTH = 40000 };
static greenlet *held[HELD], *others[HELD], *shallow[HELD];
static size_t depth;

/* All on one lane, if there are any. */
static greenlet *spawn_here(greenlet_entry *entry) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    if (reserve_lanes > 0)
        o.lane = 0;
    greenlet *g = greenlet_new(entry, &o);
    CHECK(g != NULL);
    return g;
}

__attribute__((noinline)) static greenlet_message wait_at(intptr_t who) {
    size_t n = depth;
    volatile unsigned char *bytes = __builtin_alloca(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = byte_of(who, i);
    greenlet_message m = back(who);
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != byte_of(who, i))
            FAIL("greenlet %d: byte %zu of %zu", (int)who, i, n);
    return m;
}

static greenlet_message entry_at_depths(void *value) {
    greenlet_message m = {value, 0};
    intptr_t who = I(value);
    while (m.status == 0)
        m = wait_at(who);
    return m;
}

/* Its killer stays behind, and it takes a reference of its own. */
static greenlet_message entry_leaves_its_killer(void *value) {
    back(I(value));
    faults_disarm();
    greenlet_ref(greenlet_current());
    return greenlet_switch(greenlet_main(), V(6));
}

/* Has to make room for the one that it drops, and there is no memory. */
static greenlet_message entry_drops_without_memory(void *value) {
    volatile unsigned char bytes[FIRST_DEPTH];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = byte_of(I(value), i);
    faults_arm(1, FAULTS_FOREVER);
    greenlet_unref(a);
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQ(bytes[i], byte_of(I(value), i));
    return val(I(value) + 100);
}

static void hold(int i) {
    others[i] = a = spawn_here(entry_leaves_its_killer);
    CHECK_MSG(go(a, 1), 1, 0);
    held[i] = spawn_here(entry_drops_without_memory);
    CHECK_MSG(go(held[i], i), 6, 0);
}

static void let_go(int i) {
    CHECK_MSG(go(held[i], 0), i + 100, 0);
    CHECK_MSG(go(others[i], 7), 7, 0);
    greenlet_unref(held[i]);
    greenlet_unref(others[i]);
}

/* Whatever is in the reserve leaves it when there is memory. */
static void held_with_memory_between(void *unused) {
    static int i;
    (void)unused;
    configure_reserve();
    for (i = 0; i < HELD; i++)
        hold(i);
    for (i = 0; i < HELD; i++)
        let_go(i);
}

/* While there is none, what was given back is used again. */
static __attribute__((noinline)) void drop_shallow(int i) {
    volatile unsigned char bytes[FIRST_DEPTH]; /* of main: in place, they go */
    for (size_t k = 0; k < sizeof bytes; k++)
        bytes[k] = byte_of(i, k);
    greenlet_unref(shallow[i]);
    for (size_t k = 0; k < sizeof bytes; k++)
        CHECK_EQ(bytes[k], byte_of(i, k));
}

static void held_without_memory(void *unused) {
    static greenlet *deep[HELD];
    static int i;
    /* In place nobody can come back, and main itself has to go; on stacks of
     * their own none can start. */
    bool on_lane = test_is_copy() && reserve_lanes > 0;
    (void)unused;
    configure_reserve();
    depth = FIRST_DEPTH;
    for (i = 0; i < HELD; i++) {
        shallow[i] = spawn_here(entry_shallow);
        CHECK_MSG(go(shallow[i], i), i, 0);
        deep[i] = spawn_here(entry_at_depths);
    }
    hold(0); /* so that there is room for a second one like others[0] */
    hold(1);
    faults_arm(1, FAULTS_FOREVER);
    for (i = 0; i < HELD; i++) {
        if (on_lane)
            CHECK_MSG(go(deep[i], i), i, 0);
        drop_shallow(i);
        if (on_lane)
            CHECK_MSG(greenlet_throw(deep[i], 3, V(i)), i, 3);
    }
    faults_disarm();
    CHECK_EQ(resumed, HELD);
    let_go(0);
    let_go(1);
    for (i = 0; i < HELD; i++)
        greenlet_unref(deep[i]);
}

static void check_reserve_lasts(const char *what, void (*run)(void *),
                                int least_lanes) {
    static struct test_death death;
    for (reserve_lanes = least_lanes; reserve_lanes <= 3; reserve_lanes++) {
        test_die(run, NULL, &death);
        if (death.status != 0)
            FAIL("%s, lanes %d: wait status %#x: %s", what, reserve_lanes,
                 death.status, death.text);
    }
}

TEST(contract_26_reserve_outlasts_who_stays_in_it) {
    check_reserve_lasts("memory between", held_with_memory_between, 0);
    check_reserve_lasts("no memory", held_without_memory, 0);
}

/* None gives back: in the end the process ends, and tells whose death it was
 * and who had no place. */
static void hold_until_exhausted(void *unused) {
    static greenlet *holders[HELD];
    static int i;
    (void)unused;
    configure_reserve();
    depth = FIRST_DEPTH;
    for (i = 0; i < HELD; i++) {
        shallow[i] = spawn_here(entry_shallow);
        CHECK_MSG(go(shallow[i], i), i, 0);
        CHECK_EQ(greenlet_set_name(shallow[i], "dying"), 0);
        holders[i] = spawn_here(entry_at_depths);
        CHECK_EQ(greenlet_set_name(holders[i], "holder"), 0);
    }
    CHECK_MSG(greenlet_throw(shallow[HELD - 1], 3, V(1)), 1, 3);
    faults_arm(1, FAULTS_FOREVER);
    for (i = 0; i < HELD - 1; i++) {
        CHECK_MSG(go(holders[i], i), i, 0);
        greenlet_unref(shallow[i]);
    }
}

TEST(contract_26_exhausted_reserve_names_both) {
    if (!test_is_copy())
        SKIP("only copy has a reserve for bytes");
    for (reserve_lanes = 1; reserve_lanes <= 3; reserve_lanes++)
        EXPECT_ABORT(hold_until_exhausted, NULL, "no reserve left", "'holder'",
                     "'dying'");
}

/* Who comes back by an exchange hands its slice of the reserve on, in which
 * there is room for as much as before; and he who has it then leaves it. */
static void hand_on(int i) {
    a = spawn_here(entry_shallow);
    CHECK_MSG(go(a, 1), 1, 0);
    depth = FIRST_DEPTH;
    b = spawn_here(entry_at_depths);
    CHECK_MSG(go(b, 2), 2, 0);
    held[i] = spawn_here(entry_at_depths);
    faults_arm(1, FAULTS_FOREVER);
    greenlet_unref(a); /* b makes room for it: in the reserve */
    if (!test_is_copy())
        faults_disarm(); /* a start needs a stack */
    CHECK_MSG(go(held[i], i), i, 0);
    depth += 64;
    CHECK_MSG(go(b, 2), 2, 0); /* held[i] has its slice now */
    greenlet_message m = go(held[i], i);
    if (test_is_copy())
        CHECK_MSG(m, 0, -ENOMEM); /* b has become larger */
    else
        CHECK_MSG(m, i, 0);
    CHECK_MSG(greenlet_throw(b, 3, V(8)), 8, 3);
    greenlet_unref(b);
    faults_disarm();
}

static void reserve_changes_hands(void *unused) {
    static int i;
    (void)unused;
    configure_reserve();
    for (i = 0; i < HELD; i++)
        hand_on(i);
    for (i = 0; i < HELD; i++) {
        CHECK_MSG(greenlet_throw(held[i], 3, V(i)), i, 3);
        greenlet_unref(held[i]);
    }
}

TEST(contract_26_a_slice_of_the_reserve_changes_hands) {
    bool exchanges = false; /* arch_exchange_pays() */
#ifdef __x86_64__
    exchanges = __builtin_cpu_supports("avx2");
#endif
    if (test_is_copy() && !exchanges)
        SKIP("this CPU exchanges only for deaths without memory");
    check_reserve_lasts("exchange", reserve_changes_hands, 1);
}

/* ---- Nothing leaks over many failures
 * ------------------------------------------ */

TEST(contract_26_no_leak_over_many_failures) {
    static long blocks, mapped;
    static unsigned long n;
    static int i;
    uint64_t seed = 1;
    for (i = 0; i < 400; i++) {
        n = (unsigned long)(test_random(&seed) % 6 + 1);
        faults_arm(n, i % 3 ? FAULTS_ONCE : FAULTS_FOREVER);
        a = greenlet_new(entry_deep, NULL);
        b = greenlet_new(entry_shallow, NULL);
        intptr_t first = a ? go(a, 1).status : -ENOMEM;
        intptr_t next = b ? go(b, 1).status : -ENOMEM;
        faults_disarm();
        CHECK(first == 0 || first == -ENOMEM);
        CHECK(next == 0 || next == -ENOMEM);
        if (a)
            CHECK_EQ(greenlet_get_state(a),
                     first ? GREENLET_NEW : GREENLET_ACTIVE);
        greenlet_unref(a);
        greenlet_unref(b);
        if (i == 200) {
            blocks = faults_blocks();
            mapped = faults_mapped();
        }
    }
    CHECK_EQ(faults_blocks(), blocks);
    CHECK_EQ(faults_mapped(), mapped);
}
