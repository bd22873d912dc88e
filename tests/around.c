/* What stays with the thread; unusual ends. Contract 35 and 36.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <locale.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static greenlet *a, *b;
static greenlet_key key;

/* ---- errno ------------------------------------------------------------------
 */

/* Each call, with errno set before: it is what it was. */
#define KEEPS(call)                                                            \
    do {                                                                       \
        errno = 4711;                                                          \
        (void)(call);                                                          \
        int errno_after = errno;                                               \
        if (errno_after != 4711)                                               \
            FAIL("%s: errno is %d", #call, errno_after);                       \
    } while (0)
#define KEEPS_VOID(call) KEEPS(((call), 0))

static int visit(greenlet *g, void *data) {
    (void)g;
    (void)data;
    return 0;
}

static void call_all(void) {
    greenlet_stack stack;
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    char byte;
    KEEPS(greenlet_current());
    KEEPS(greenlet_main());
    KEEPS(a = greenlet_new(entry_pump, NULL));
    KEEPS(greenlet_set_name(a, "name"));
    KEEPS(greenlet_name(a));
    KEEPS(go(a, 1));
    KEEPS(go(a, 1));
    KEEPS(go(NULL, 1));
    KEEPS(greenlet_throw(a, -1, NULL));
    KEEPS(greenlet_throw(NULL, 5, NULL));
    KEEPS(greenlet_get_stack(a, &stack));
    KEEPS(greenlet_read_stack(a, stack.sp, &byte, 1));
    KEEPS(greenlet_read_stack(a, NULL, &byte, 1));
    KEEPS(greenlet_walk(visit, NULL));
    KEEPS(greenlet_parent(a));
    KEEPS(greenlet_set_parent(a, greenlet_main()));
    KEEPS(greenlet_set_parent(a, a));
    KEEPS(greenlet_get_state(a));
    KEEPS(greenlet_is_main(a));
    KEEPS(greenlet_user_data(a));
    KEEPS_VOID(greenlet_set_user_data(a, NULL));
    KEEPS(greenlet_ref(a));
    KEEPS_VOID(greenlet_unref(a));
    KEEPS(greenlet_kill(a));
    KEEPS_VOID(greenlet_unref(a));
    KEEPS(greenlet_drain());
    KEEPS(greenlet_thread_configure(&t));
    KEEPS(greenlet_thread_statistics(&s));
    KEEPS(greenlet_process_statistics(&s));
    KEEPS(greenlet_local_set(key, &key));
    KEEPS(greenlet_local_get(key));
    KEEPS(greenlet_local_set(4711, NULL));
    KEEPS(greenlet_set_tracer(NULL, NULL, NULL, NULL));
    KEEPS(greenlet_set_hooks(&h, NULL));
    KEEPS(greenlet_set_hooks(NULL, NULL));
    KEEPS(greenlet_set_check_level(0));
    KEEPS(greenlet_set_check_level(-1));
    KEEPS(greenlet_strerror(-ENOMEM));
    KEEPS(greenlet_backend());
    a = spawn(entry_pump);
    KEEPS(go(a, 1));
    KEEPS_VOID(greenlet_unref(a)); /* kills */
    a = spawn(entry_echo);
    KEEPS(greenlet_throw(a, 5, NULL)); /* dies unstarted */
    KEEPS(go(a, 1));                   /* dead */
    KEEPS_VOID(greenlet_unref(a));
}

static void *calls_all(void *unused) {
    (void)unused;
    call_all(); /* the first use, too */
    a = spawn(entry_pump);
    go(a, 1);
    KEEPS(greenlet_thread_shutdown());
    return NULL;
}

TEST(contract_35_errno_is_kept_by_every_call) {
    greenlet_key other;
    KEEPS(greenlet_key_create(&key, NULL));
    KEEPS(greenlet_key_create(&other, NULL));
    KEEPS(greenlet_key_delete(other));
    call_all();
    test_join(test_thread(calls_all, NULL));
    KEEPS(greenlet_install_overflow_handler());
}

TEST(contract_35_errno_is_kept_over_many_starts) {
    static greenlet *all[100];
    static int i;
    for (i = 0; i < 100; i++) {
        all[i] = spawn(entry_pump);
        KEEPS(go(all[i], 1));
    }
    for (i = 0; i < 100; i++)
        KEEPS(go(all[i], 1));
    for (i = 0; i < 100; i++)
        KEEPS_VOID(greenlet_unref(all[i]));
}

/* The thread's, not the greenlet's: what one sets the next one sees. */
static greenlet_message entry_sets_errno(void *value) {
    intptr_t mine = I(value);
    for (;;) {
        errno = (int)mine;
        greenlet_message m = back(errno);
        if (m.status)
            return m;
        mine = errno + 1;
    }
}

TEST(contract_35_errno_is_the_threads) {
    a = spawn(entry_sets_errno);
    go(a, 5);
    CHECK_EQ(errno, 5);
    errno = 10;
    go(a, 0);
    CHECK_EQ(errno, 11);
    greenlet_unref(a);
}

/* ---- locale, mask, cancellation state
 * ---------------------------------------- */

static greenlet_message entry_changes_the_thread(void *value) {
    int old;
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    CHECK(c_locale != (locale_t)0);
    uselocale(c_locale);
    CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old), 0);
    CHECK_EQ(old, PTHREAD_CANCEL_ENABLE);
    back((intptr_t)c_locale);
    CHECK(uselocale((locale_t)0) == LC_GLOBAL_LOCALE);
    freelocale(c_locale);
    return val(I(value));
}

TEST(contract_35_locale_and_cancel_state_are_the_threads) {
    int old;
    a = spawn(entry_changes_the_thread);
    greenlet_message m = go(a, 1);
    CHECK(uselocale((locale_t)0) == (locale_t)m.value);
    uselocale(LC_GLOBAL_LOCALE);
    CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old), 0);
    CHECK_EQ(old, PTHREAD_CANCEL_DISABLE);
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
}

/* Thread-locals are the thread's. */
static __thread int of_the_thread;

static greenlet_message entry_counts_tls(void *value) {
    for (int i = 0; i < 10; i++) {
        of_the_thread++;
        back(I(value));
    }
    return val(I(value));
}

TEST(contract_35_thread_locals_are_the_threads) {
    a = spawn(entry_counts_tls);
    b = spawn(entry_counts_tls);
    for (int i = 0; i < 10; i++) {
        go(a, 1);
        go(b, 1);
        CHECK_EQ(of_the_thread, 2 * (i + 1));
    }
    greenlet_unref(a);
    greenlet_unref(b);
}

/* Signals are handled on whatever runs, with the library untouched. */
static volatile sig_atomic_t handled;

static void count_signal(int sig) {
    char some[200];
    memset(some, sig, sizeof some);
    handled = handled + (some[100] == (char)sig);
}

static greenlet_message entry_raises(void *value) {
    for (int i = 0; i < 10; i++) {
        raise(SIGUSR1);
        back(I(value));
    }
    return val(I(value));
}

TEST(contract_35_signals_in_greenlets) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    a = spawn(entry_raises);
    b = spawn(entry_raises);
    for (int i = 0; i < 10; i++) {
        go(a, 1);
        go(b, 1);
        raise(SIGUSR1);
    }
    CHECK_EQ(handled, 30);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* ---- 36
 * ------------------------------------------------------------------------ */

static int cleaned_main, cleaned_greenlet;

static void clean_main(void *unused) {
    (void)unused;
    cleaned_main++;
}

static void skip_without_pthread_exit(void) {
    if (test_has_tsan())
        SKIP("ThreadSanitizer's pthread_exit does not work in a fiber");
}

static greenlet_message entry_pthread_exits(void *value) {
    pthread_exit(value);
    return val(0);
}

static void *exits_inside(void *deep) {
    pthread_t self = pthread_self();
    (void)self;
    for (int i = 0; i < 5; i++) {
        greenlet *g = spawn(entry_pump);
        go(g, 1);
    }
    a = greenlet_ref(spawn(entry_pthread_exits));
    if (deep)
        CHECK_MSG(go(spawn(entry_pump), 1), 1, 0);
    go(a, 4711);
    FAIL("main has gone on");
}

TEST(contract_36_pthread_exit_in_a_greenlet) {
    skip_without_pthread_exit();
    CHECK_PTR(test_join(test_thread(exits_inside, NULL)), V(4711));
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    CHECK_MSG(go(a, 1), 0, -EOWNERDEAD);
    greenlet_unref(a);
    CHECK_PTR(test_join(test_thread(exits_inside, V(1))), V(4711));
    greenlet_unref(a);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
}

static void *exits_on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    return exits_inside(V(1));
}

TEST(contract_36_pthread_exit_on_every_kind_of_lanes) {
    skip_without_pthread_exit();
    for (int lanes = 0; lanes <= 2; lanes++) {
        CHECK_PTR(test_join(test_thread(exits_on_lanes, V(lanes))), V(4711));
        greenlet_unref(a);
    }
}

/* Thread-specific destructors run, and may use the library. */
static pthread_key_t specific;

static void specific_destructor(void *value) {
    (void)value;
    cleaned_greenlet++;
    greenlet_current();
}

static void *exits_with_specifics(void *unused) {
    pthread_setspecific(specific, &specific);
    return exits_inside(unused);
}

TEST(contract_36_thread_destructors_run) {
    skip_without_pthread_exit();
    CHECK_EQ(pthread_key_create(&specific, specific_destructor), 0);
    test_join(test_thread(exits_with_specifics, NULL));
    CHECK_EQ(cleaned_greenlet, 1);
    greenlet_unref(a);
}

static void *returns_with_specifics(void *unused) {
    pthread_setspecific(specific, &specific);
    a = spawn(entry_pump);
    go(a, 1);
    return unused;
}

TEST(contract_36_use_in_thread_destructors) {
    CHECK_EQ(pthread_key_create(&specific, specific_destructor), 0);
    for (int i = 0; i < 5; i++) {
        test_join(test_thread(returns_with_specifics, NULL));
        CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
        greenlet_unref(a);
    }
    CHECK_EQ(cleaned_greenlet, 5);
}

/* Cancellation, waiting inside a greenlet. */
static struct test_gate gate;

static greenlet_message entry_waits_for_ever(void *value) {
    gate_reach(&gate, 1);
    for (;;)
        pause();
    return val(I(value));
}

static void *is_cancelled(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    b = spawn(entry_pump);
    go(b, 1);
    a = spawn(entry_waits_for_ever);
    go(a, 1);
    FAIL("main has gone on");
}

TEST(contract_36_cancellation_in_a_greenlet) {
    for (int lanes = -1; lanes <= 2; lanes++) {
        gate.step = 0;
        pthread_t thread = test_thread(is_cancelled, V(lanes));
        gate_wait(&gate, 1);
        CHECK_EQ(pthread_cancel(thread), 0);
        CHECK(test_join(thread) == PTHREAD_CANCELED);
        CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
        CHECK_EQ(greenlet_get_state(b), GREENLET_DEAD);
        greenlet_unref(a);
        greenlet_unref(b);
    }
}

/* exit: handlers run in the greenlet, the process ends with the code. */
static void at_exit(void) {
    CHECK_PTR(greenlet_current(), a);
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 5), 5, 0);
    test_say("at exit");
}

static greenlet_message entry_exits(void *value) {
    exit((int)I(value));
    return val(0);
}

static void exits_in_a_greenlet(void *unused) {
    (void)unused;
    CHECK_EQ(atexit(at_exit), 0);
    b = spawn(entry_pump);
    go(b, 1);
    a = spawn(entry_exits);
    go(a, 21);
}

TEST(contract_36_exit_in_a_greenlet) {
    static struct test_death death;
    test_die(exits_in_a_greenlet, NULL, &death);
    if (!WIFEXITED(death.status) || WEXITSTATUS(death.status) != 21)
        FAIL("wait status %#x: %s", death.status, death.text);
    CHECK(strstr(death.text, "at exit") != NULL);
}

/* Main's pthread_cleanup handlers are per thread: pthread_exit in a greenlet
 * ends the thread; whether they run is the C library's choice, a crash is
 * not. */
static void *has_cleanup(void *unused) {
    (void)unused;
    pthread_cleanup_push(clean_main, NULL);
    a = spawn(entry_pthread_exits);
    go(a, 5);
    pthread_cleanup_pop(0);
    return NULL;
}

TEST(contract_36_cleanup_handlers_of_main) {
    skip_without_pthread_exit();
    CHECK_PTR(test_join(test_thread(has_cleanup, NULL)), V(5));
    CHECK(cleaned_main <= 1);
    greenlet_unref(a);
}

/* The first thread may leave by pthread_exit from a greenlet, too. */
static void *exits_last(void *unused) {
    (void)unused;
    gate_wait(&gate, 2);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    test_say("the last thread ends");
    exit(17);
}

static void first_thread_exits(void *unused) {
    (void)unused;
    test_thread(exits_last, NULL);
    b = spawn(entry_pthread_exits);
    gate_reach(&gate, 2);
    go(b, 1);
}

TEST(contract_36_first_thread_exits_in_a_greenlet) {
    skip_without_pthread_exit();
    static struct test_death death;
    test_die(first_thread_exits, NULL, &death);
    if (!WIFEXITED(death.status) || WEXITSTATUS(death.status) != 17)
        FAIL("wait status %#x: %s", death.status, death.text);
}
