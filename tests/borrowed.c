/* A stack may be entered once through a signal that belongs to others (the
 * sigaltstack backend): nobody must notice. The other backends run all of it
 * as well. Contract 37, and 13 for the creation in many threads.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <signal.h>
#include <stdatomic.h>

#ifndef NSIG
#define NSIG 65
#endif

static atomic_int stop;
static atomic_long received[NSIG], sent[NSIG], sent_in_all;

static void receive(int sig) { atomic_fetch_add(&received[sig], 1); }

/* Those that a library may borrow: any that can be caught, but for faults,
 * job control and the harness's own. */
static int borrowable[] = {SIGUSR1, SIGUSR2, SIGURG,    SIGWINCH, SIGIO,
                           SIGHUP,  SIGPROF, SIGVTALRM, 0};
enum { N_BORROWABLE = sizeof borrowable / sizeof *borrowable };

/* The one that the sigaltstack backend borrows unless it is told otherwise. */
__attribute__((constructor)) static void complete_borrowable(void) {
    borrowable[N_BORROWABLE - 1] = SIGRTMAX - 4;
}

static void handle_all(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = receive;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < N_BORROWABLE; i++)
        CHECK_EQ(sigaction(borrowable[i], &action, NULL), 0);
}

static pthread_t first_thread;
static struct test_gate gate;

static void *pester(void *unused) {
    uint64_t seed = 7;
    (void)unused;
    gate_reach(&gate, 1);
    while (!atomic_load(&stop)) {
        int sig = borrowable[test_random(&seed) % N_BORROWABLE];
        /* One at a time: pending signals of a kind are merged. */
        if (atomic_load(&sent[sig]) == atomic_load(&received[sig])) {
            atomic_fetch_add(&sent[sig], 1);
            atomic_fetch_add(&sent_in_all, 1);
            CHECK_EQ(pthread_kill(first_thread, sig), 0);
        }
    }
    return NULL;
}

/* Every signal sent by somebody else during creation reaches its handler. */
TEST(contract_37_signals_during_creation_reach_their_handler) {
    if (test_has_tsan())
        SKIP("ThreadSanitizer delivers signals only now and then");
    handle_all();
    first_thread = pthread_self();
    pthread_t thread = test_thread(pester, NULL);
    gate_wait(&gate, 1);
    unsigned least = test_amount(1000, 100000);
    for (unsigned n = 0; n < least || atomic_load(&sent_in_all) < 100; n++) {
        greenlet *g = spawn(entry_pump);
        CHECK_MSG(go(g, 1), 1, 0);
        CHECK_MSG(greenlet_throw(g, 3, V(2)), 2, 3);
        greenlet_unref(g);
    }
    static greenlet *all[200];
    for (int i = 0; i < 200; i++) { /* and without reuse */
        all[i] = spawn(entry_pump);
        CHECK_MSG(go(all[i], 1), 1, 0);
    }
    for (int i = 0; i < 200; i++)
        greenlet_unref(all[i]);
    atomic_store(&stop, 1);
    test_join(thread);
    long total = 0;
    for (int i = 0; i < N_BORROWABLE; i++) {
        long n = atomic_load(&sent[borrowable[i]]);
        /* Delivered at the latest when this thread enters the kernel. */
        sigset_t none;
        pthread_sigmask(SIG_BLOCK, NULL, &none);
        CHECK_EQ(atomic_load(&received[borrowable[i]]), n);
        total += n;
    }
    CHECK(total >= 100);
}

/* Before the first use of the library. */
static void borrow_a_standard_one(void) {
    char number[8];
    snprintf(number, sizeof number, "%d", SIGUSR2);
    CHECK_EQ(setenv("GREENLET_SIGNAL", number, 1), 0);
}

/* Signals that are blocked stay blocked and pending. */
static void pending_signals_stay_pending(void) {
    sigset_t all, old, pending;
    handle_all();
    sigemptyset(&all);
    for (int i = 0; i < N_BORROWABLE; i++)
        sigaddset(&all, borrowable[i]);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &all, &old), 0);
    for (int i = 0; i < N_BORROWABLE; i++)
        raise(borrowable[i]);
    for (int n = 0; n < 50; n++) {
        greenlet *g = spawn(entry_pump);
        CHECK_MSG(go(g, 1), 1, 0);
    }
    CHECK_EQ(sigpending(&pending), 0);
    for (int i = 0; i < N_BORROWABLE; i++) {
        CHECK_EQ(atomic_load(&received[borrowable[i]]), 0);
        CHECK(sigismember(&pending, borrowable[i]));
    }
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
    for (int i = 0; i < N_BORROWABLE; i++)
        CHECK_EQ(atomic_load(&received[borrowable[i]]), 1);
}

TEST(contract_37_pending_signals_stay_pending) {
    pending_signals_stay_pending();
}

TEST(contract_37_pending_signals_stay_pending_with_a_standard_one) {
    borrow_a_standard_one();
    pending_signals_stay_pending();
}

/* Ignored ones stay ignored. */
static void ignored_signals_stay_ignored(void) {
    struct sigaction ignore, now;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    for (int i = 0; i < N_BORROWABLE; i++)
        CHECK_EQ(sigaction(borrowable[i], &ignore, NULL), 0);
    for (int n = 0; n < 50; n++) {
        greenlet *g = spawn(entry_pump);
        CHECK_MSG(go(g, 1), 1, 0);
        for (int i = 0; i < N_BORROWABLE; i++)
            raise(borrowable[i]);
    }
    for (int i = 0; i < N_BORROWABLE; i++) {
        CHECK_EQ(sigaction(borrowable[i], NULL, &now), 0);
        CHECK(now.sa_handler == SIG_IGN);
    }
}

TEST(contract_37_ignored_signals_stay_ignored) {
    ignored_signals_stay_ignored();
}

TEST(contract_37_ignored_signals_stay_ignored_with_a_standard_one) {
    borrow_a_standard_one();
    ignored_signals_stay_ignored();
}

/* With every signal blocked. */
static void *creates_blocked(void *unused) {
    sigset_t all;
    (void)unused;
    sigfillset(&all);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &all, NULL), 0);
    for (int n = 0; n < 50; n++) {
        greenlet *g = spawn(entry_pump);
        CHECK_MSG(go(g, 1), 1, 0);
        if (n % 2)
            greenlet_unref(g);
    }
    return NULL;
}

TEST(contract_37_creation_with_all_signals_blocked) {
    test_join(test_thread(creates_blocked, NULL));
}

/* While the thread is on its alternate stack already. */
static greenlet *made_in_handler;
static volatile sig_atomic_t was_handled;

static void make_in_handler(int sig) {
    (void)sig;
    made_in_handler = greenlet_new(entry_pump, NULL);
    was_handled = 1;
}

TEST(contract_37_new_in_a_handler_on_the_alternate_stack) {
    enum { STACK = 256 * 1024 };
    struct sigaction action;
    stack_t stack, now;
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = malloc(STACK);
    stack.ss_size = STACK;
    CHECK(stack.ss_sp != NULL);
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    memset(&action, 0, sizeof action);
    action.sa_handler = make_in_handler;
    action.sa_flags = SA_ONSTACK;
    CHECK_EQ(sigaction(SIGHUP, &action, NULL), 0);
    greenlet_main();
    raise(SIGHUP); /* synchronous: no library call is interrupted */
    CHECK(was_handled);
    CHECK(made_in_handler != NULL);
    CHECK_MSG(go(made_in_handler, 5), 5, 0);
    CHECK_MSG(greenlet_throw(made_in_handler, 3, V(1)), 1, 3);
    CHECK_EQ(sigaltstack(NULL, &now), 0);
    CHECK_PTR(now.ss_sp, stack.ss_sp);
    greenlet_unref(made_in_handler);
    void *mine = stack.ss_sp;
    memset(&stack, 0, sizeof stack);
    stack.ss_flags = SS_DISABLE;
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    free(mine);
}

/* Many threads create at the same time; one handler for all. */
static void *creates(void *seed) {
    enum { KEPT = 16 };
    greenlet *kept[KEPT];
    uint64_t state = (uint64_t)I(seed);
    memset(kept, 0, sizeof kept);
    gate_wait(&gate, 2);
    for (unsigned n = test_amount(300, 20000); n; n--) {
        int i = (int)(test_random(&state) % KEPT);
        greenlet_unref(kept[i]);
        kept[i] = spawn(entry_pump);
        CHECK_MSG(go(kept[i], (intptr_t)n), (intptr_t)n, 0);
    }
    for (int i = 0; i < KEPT; i++)
        greenlet_unref(kept[i]);
    return NULL;
}

TEST(contract_13_creation_in_many_threads) {
    enum { THREADS = 8 };
    static pthread_t threads[THREADS];
    static struct sigaction before[NSIG], after;
    for (int s = 1; s < NSIG; s++)
        if (sigaction(s, NULL, &before[s]) != 0)
            before[s].sa_handler = SIG_ERR;
    for (int i = 0; i < THREADS; i++)
        threads[i] = test_thread(creates, V(i + 1));
    gate_reach(&gate, 2);
    creates(V(100));
    for (int i = 0; i < THREADS; i++)
        test_join(threads[i]);
    for (int s = 1; s < NSIG; s++)
        if (before[s].sa_handler != SIG_ERR) {
            CHECK_EQ(sigaction(s, NULL, &after), 0);
            CHECK(after.sa_handler == before[s].sa_handler);
            /* but for SA_RESTORER, which is the C library's */
            CHECK_EQ(after.sa_flags & ~0x04000000,
                     before[s].sa_flags & ~0x04000000);
        }
}
