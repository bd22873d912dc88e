/* fork(). Contract 29.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include "faults.h"

#include <sys/wait.h>
#include <unistd.h>

static greenlet *a, *b, *others, *others_main;
static struct test_gate gate;

static void wait_well(pid_t child) {
    int status = 0;
    CHECK(child > 0);
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    CHECK_EQ(status, 0);
}

static void go_on(void) {
    static intptr_t i;
    for (i = 0; i < 10; i++) {
        CHECK_MSG(go(a, i), i, 0);
        CHECK_MSG(go(b, -i), -i, 0);
    }
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 5), 5, 0);
    greenlet_unref(g);
    CHECK_MSG(greenlet_throw(a, 4, V(2)), 2, 4);
    CHECK_MSG(greenlet_kill(b), 0, 0);
    greenlet_unref(a);
    greenlet_unref(b);
}

TEST(contract_29_child_keeps_its_greenlets) {
    a = spawn(entry_pump);
    b = spawn(entry_pump);
    go(a, 1);
    go(b, 1);
    pid_t child = fork();
    if (child == 0) {
        go_on();
        _exit(0);
    }
    wait_well(child);
    go_on();
}

static greenlet_message entry_forks(void *value) {
    static pid_t child;
    child = fork();
    if (child == 0) {
        CHECK_MSG(go(b, 3), 3, 0);
        CHECK_MSG(back(100), 7, 0); /* in the child's main */
        return val(101);
    }
    wait_well(child);
    return val(I(value));
}

TEST(contract_29_fork_in_a_greenlet) {
    if (test_has_tsan()) /* to which greenlets are threads */
        SKIP("TSan has no threads in the child of a process with threads");
    static pid_t parent;
    parent = getpid();
    b = spawn(entry_pump);
    go(b, 1);
    CHECK_EQ(greenlet_set_parent(b, greenlet_main()), 0);
    a = spawn(entry_forks);
    CHECK_EQ(greenlet_set_parent(b, a), 0);
    greenlet_message m = go(a, 55);
    if (getpid() != parent) {
        CHECK_MSG(m, 100, 0);
        CHECK_MSG(go(a, 7), 101, 0);
        _exit(0);
    }
    CHECK_MSG(m, 55, 0);
    greenlet_unref(a);
}

/* In the innermost of nested calls, with others displaced: all frames of all
 * are whole in both processes. */
enum { NESTED = 6, BESIDE = 12, FRAME = 6000 };

static greenlet *nested[NESTED], *beside[BESIDE];
static pid_t forked;

static greenlet_message entry_nests(void *value) {
    volatile unsigned char bytes[FRAME];
    intptr_t depth = I(value);
    greenlet_message m = {NULL, 0};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)((intptr_t)i * 3 + depth);
    if (depth + 1 < NESTED) {
        nested[depth + 1] = spawn(entry_nests);
        m = go(nested[depth + 1], depth + 1);
        greenlet_unref(nested[depth + 1]);
    } else {
        forked = fork();
    }
    for (int i = 0; i < BESIDE; i += 3) {
        CHECK_EQ(greenlet_set_parent(beside[i], greenlet_current()), 0);
        CHECK_MSG(go(beside[i], depth), depth, 0);
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQ(bytes[i], (unsigned char)((intptr_t)i * 3 + depth));
    return val(I(m.value) + depth);
}

TEST(contract_29_fork_in_nested_greenlets) {
    if (test_has_tsan())
        SKIP("TSan has no threads in the child of a process with threads");
    for (int i = 0; i < BESIDE; i++) {
        beside[i] = spawn(entry_pump);
        CHECK_MSG(go(beside[i], i), i, 0);
    }
    nested[0] = spawn(entry_nests);
    CHECK_MSG(go(nested[0], 0), NESTED * (NESTED - 1) / 2, 0);
    greenlet_unref(nested[0]);
    for (int i = 0; i < BESIDE; i++) {
        CHECK_EQ(greenlet_set_parent(beside[i], greenlet_main()), 0);
        CHECK_MSG(greenlet_throw(beside[i], 4, V(i)), i, 4);
        greenlet_unref(beside[i]);
    }
    if (forked == 0)
        _exit(0);
    wait_well(forked);
}

static void *other_thread(void *unused) {
    (void)unused;
    others_main = greenlet_ref(greenlet_main());
    others = spawn(entry_pump);
    go(others, 1);
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_MSG(go(others, 2), 2, 0);
    greenlet_unref(others);
    greenlet_unref(others_main);
    return NULL;
}

static void check_others_dead(void) {
    CHECK_EQ(greenlet_get_state(others), GREENLET_DEAD);
    CHECK_EQ(greenlet_get_state(others_main), GREENLET_DEAD);
    CHECK_MSG(go(others, 1), 0, -EOWNERDEAD);
    CHECK_MSG(go(others_main, 1), 0, -EOWNERDEAD);
    greenlet_unref(others);
    greenlet_unref(others_main);
}

TEST(contract_29_other_threads_greenlets_read_as_dead) {
    pthread_t thread = test_thread(other_thread, NULL);
    gate_wait(&gate, 1);
    a = spawn(entry_pump);
    b = spawn(entry_pump);
    go(a, 1);
    go(b, 1);
    pid_t child = fork();
    if (child == 0) {
        check_others_dead();
        go_on();
        greenlet_statistics s = GREENLET_STATISTICS_INIT;
        CHECK_EQ(greenlet_process_statistics(&s), 0);
        _exit(0);
    }
    wait_well(child);
    CHECK_EQ(greenlet_get_state(others), GREENLET_ACTIVE);
    go_on();
    gate_reach(&gate, 2);
    test_join(thread);
}

static void *later_thread(void *unused) {
    (void)unused;
    greenlet *g = spawn(entry_pump);
    CHECK_MSG(go(g, 5), 5, 0);
    greenlet_unref(g);
    return NULL;
}

TEST(contract_29_new_threads_in_the_child) {
#ifndef __clang__
    if (test_tool("lsan"))
        SKIP("gcc's LeakSanitizer joins the parent's threads in the child");
#endif
    if (test_has_tsan())
        SKIP("TSan has no threads in the child of a process with threads");
    if (test_is_emulated())
        SKIP("qemu-user aborts at a thread's start in the child of a process "
             "with threads");
    pthread_t thread = test_thread(other_thread, NULL);
    gate_wait(&gate, 1);
    pid_t child = fork();
    if (child == 0) {
        check_others_dead();
        test_join(test_thread(later_thread, NULL));
        test_join(test_thread(later_thread, NULL));
        _exit(0);
    }
    wait_well(child);
    gate_reach(&gate, 2);
    test_join(thread);
}

static void *forks_elsewhere(void *unused) {
    (void)unused;
    a = spawn(entry_pump);
    b = spawn(entry_pump);
    go(a, 1);
    go(b, 1);
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(greenlet_get_state(others), GREENLET_DEAD);
        CHECK_EQ(greenlet_get_state(others_main), GREENLET_DEAD);
        go_on();
        _exit(0);
    }
    wait_well(child);
    go_on();
    return NULL;
}

/* The survivor is not the process's first thread. */
TEST(contract_29_fork_in_another_thread) {
    others_main = greenlet_ref(greenlet_main());
    others = spawn(entry_pump);
    go(others, 1);
    test_join(test_thread(forks_elsewhere, NULL));
    CHECK_MSG(go(others, 2), 2, 0);
    greenlet_unref(others);
}

/* AddressSanitizer's allocator has locks that a fork does not wait for (gcc 12;
 * LLVM since its pull request 75290 does): a child whose parent's other threads
 * allocate may wait for ever, with and without this library. */
static void need_fork_of_busy_threads(void) {
    if (test_has_tsan())
        SKIP("TSan cannot follow a fork of a busy process");
    if (test_has_asan() || test_tool("msan"))
        SKIP("the sanitizer's allocator may hang in the child of a busy "
             "process");
}

/* Forks while other threads are busy in the library: no lock stays held. */
static volatile int stop;

static void *busy(void *unused) {
    (void)unused;
    for (int i = 1; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i++) {
        greenlet *g = spawn_named(entry_pump, "busy");
        go(g, 1);
        greenlet_unref(g);
        greenlet_unref(spawn_under(entry_echo, others_main));
        if (i % 64 == 0)
            usleep(1000); /* or they drop faster than one thread can drain */
    }
    return NULL;
}

TEST(contract_29_fork_with_busy_threads) {
    enum { THREADS = 3 };
    static pthread_t threads[THREADS];
    static int i;
    need_fork_of_busy_threads();
    others_main = greenlet_main();
    for (i = 0; i < THREADS; i++)
        threads[i] = test_thread(busy, NULL);
    for (i = 0; i < (int)test_amount(20, 200); i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(30);
            a = spawn(entry_pump);
            b = spawn(entry_pump);
            go_on();
            greenlet_drain();
            _exit(0);
        }
        wait_well(child);
        greenlet_drain(); /* what the others have dropped */
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (i = 0; i < THREADS; i++)
        test_join(threads[i]);
    greenlet_drain();
}

/* A child without any greenlet of its own makes its main. */
TEST(contract_29_fork_before_first_use) {
    pid_t child = fork();
    if (child == 0) {
        CHECK(greenlet_current() != NULL);
        a = spawn(entry_pump);
        b = spawn(entry_pump);
        go_on();
        _exit(0);
    }
    wait_well(child);
}

/* Threads that use the library for the first time while others fork. */
static int n_forks;

static void *forks(void *unused) {
    (void)unused;
    for (int i = 0; i < (int)test_amount(40, 400); i++) {
        __atomic_add_fetch(&n_forks, 1, __ATOMIC_RELEASE);
        pid_t child = fork();
        if (child == 0) {
            alarm(30);
            a = spawn(entry_pump);
            CHECK_MSG(go(a, 1), 1, 0);
            _exit(0);
        }
        wait_well(child);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *uses_once(void *unused) {
    (void)unused;
    CHECK(greenlet_current() != NULL);
    return NULL;
}

TEST(contract_29_fork_during_the_first_use_of_threads) {
    need_fork_of_busy_threads();
    pthread_t forking = test_thread(forks, NULL);
    /* qemu-user 7.2 keeps some memory of each thread that has ended, and takes
     * the longer to fork: not too many of them, then. */
    bool paced = test_is_emulated();
    for (int n = 0; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE);)
        if (paced && n > 4 * __atomic_load_n(&n_forks, __ATOMIC_ACQUIRE))
            sched_yield();
        else
            test_join(test_thread(uses_once, NULL)), n++;
    test_join(forking);
}

/* ---- A fork while the library is loaded -----------------------------------
 */

/* The library registers its handlers when it is loaded; another thread may fork
 * right then. Here the constructor itself does, in the middle. */
static int loading_child = -1;

/* GREENLET_TEST_ATFORK=N: the N-th request for handlers of this process fails;
 * N-: it and all that follow. */
static unsigned long atfork_requests;
static bool atfork_answers; /* whatever the environment says */

/* clang's ThreadSanitizer asks before the library does, and cannot fork yet. */
#if defined(__clang__) && defined(__has_feature)
#define TSAN_COMES_FIRST __has_feature(thread_sanitizer)
#else
#define TSAN_COMES_FIRST 0
#endif

int __real_pthread_atfork(void (*)(void), void (*)(void), void (*)(void));
int __wrap_pthread_atfork(void (*)(void), void (*)(void), void (*)(void));

FAULTS_BARE static bool atfork_fails(void) {
    const char *text = getenv("GREENLET_TEST_ATFORK");
    char *end;
    unsigned long n;
    atfork_requests++;
    if (!text || !*text || atfork_answers)
        return false;
    n = strtoul(text, &end, 10);
    return atfork_requests == n || (*end == '-' && atfork_requests > n);
}

/* ThreadSanitizer comes through here before it is ready. */
FAULTS_BARE int __wrap_pthread_atfork(void (*prepare)(void),
                                      void (*parent)(void),
                                      void (*child)(void)) {
    if (atfork_fails())
        return ENOMEM;
    if (loading_child == -1 && !TSAN_COMES_FIRST) {
        loading_child = -2; /* the child's own comes here, too */
        pid_t pid = fork();
        if (pid == 0) {
            alarm(10);
            _exit(greenlet_current() ? 0 : 1);
        }
        waitpid(pid, &loading_child, 0);
    }
    return __real_pthread_atfork(prepare, parent, child);
}

TEST(contract_29_fork_while_loading) {
    if (TSAN_COMES_FIRST)
        SKIP("clang's ThreadSanitizer cannot fork while it is loaded");
    CHECK_EQ(loading_child, 0);
}

/* ---- No memory for the handlers -------------------------------------------
 */

/* In a process in which some have not been had at load: they are asked for
 * again at the first use, which refuses if that fails too. */
static void use_without_handlers(void) {
    greenlet *m = greenlet_current();
    if (!m) {
        greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
        CHECK(strchr(getenv("GREENLET_TEST_ATFORK"), '-') != NULL);
        errno = 0;
        CHECK(greenlet_new(entry_echo, NULL) == NULL);
        CHECK_EQ(errno, ENOMEM);
        CHECK_EQ(greenlet_thread_configure(&t), -ENOMEM);
        test_say("refused");
        atfork_answers = true;
        m = greenlet_current();
    }
    CHECK(m != NULL);
    a = spawn(entry_pump);
    b = spawn(entry_pump);
    go(a, 1);
    go(b, 1);
    pid_t child = fork();
    if (child == 0) {
        go_on();
        _exit(0);
    }
    wait_well(child);
    go_on();
}

static void execute_again(void *value) {
    static char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    CHECK_EQ(setenv("GREENLET_TEST_ATFORK", (const char *)value, 1), 0);
    execl(self, self, "--nofork", "contract_26_fork_handlers_that_fail",
          (char *)NULL);
    FAIL("%s: %s", self, strerror(errno));
}

TEST(contract_26_fork_handlers_that_fail) {
    static struct test_death death;
    int refusals = 0, most = 2 * ((int)atfork_requests + 1);
    if (getenv("GREENLET_TEST_ATFORK")) {
        use_without_handlers();
        return;
    }
    if (test_is_emulated())
        SKIP("an emulated program cannot execute itself");
    for (int i = 0; i < most; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d%s", i / 2 + 1, i % 2 ? "-" : "");
        test_die(execute_again, value, &death);
        if (death.status)
            FAIL("%s: wait status %#x: %s", value, death.status, death.text);
        refusals += strstr(death.text, "refused") != NULL;
    }
    CHECK(refusals > 0);
}
