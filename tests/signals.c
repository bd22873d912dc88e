/* Signals at any instruction of a switch: a timer fires many thousand times a
 * second while stacks are copied and switched, and its handler runs on the
 * greenlet's stack or on the alternate one, or unwinds the stack that it came
 * upon. Nothing may be torn: each greenlet looks at every byte of its frames
 * at each resume.
 * SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "test.h"

#include <dlfcn.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include "context.h"

enum { GREENLETS = 12, HANDLED = 20000, INTERVAL_NS = 20000, DEEPEST = 5 };

static greenlet *all[GREENLETS];
static uint64_t seed = 1;
static volatile sig_atomic_t handled, wanted, torn;
static volatile sig_atomic_t unwound, frames_seen, deepest_seen;
static volatile sig_atomic_t over; /* so that all go home to main */

static void (*in_handler)(void);
static timer_t timer;
static long interval_ns = INTERVAL_NS;

/* Once: there is always time for some instructions until the next one, however
 * long a handler takes. ThreadSanitizer keeps a signal until the greenlet that
 * it met calls the C library (see `let_in`), and loses it if that dies. */
static void arm(void) {
    struct itimerspec once = {{0, test_has_tsan() ? 20 * INTERVAL_NS : 0},
                              {0, interval_ns}};
    int saved = errno;
    timer_settime(timer, 0, &once, NULL);
    errno = saved;
}

static void on_timer(int sig) {
    volatile unsigned char bytes[700];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7);
    if (in_handler)
        in_handler();
    for (size_t i = 0; i < sizeof bytes; i++)
        if (bytes[i] != (unsigned char)(i * 7))
            torn = 1;
    handled = handled + 1;
    over = handled >= wanted;
    if (!over)
        arm();
    (void)sig;
}

/* glibc's functions have no CFI where they load sp. (The suite's own have no
 * names in dladdr()'s eyes.) */
static bool in_glibcs_switch(const ucontext_t *interrupted) {
    Dl_info found, own;
    void *ip = (void *)context_ip(interrupted);
    if (!ip || !dladdr(ip, &found))
        return true;
    if (dladdr(&all, &own) && found.dli_fbase == own.dli_fbase)
        return false;
    return !found.dli_sname || strcmp(found.dli_sname, "swapcontext") == 0 ||
           strcmp(found.dli_sname, "setcontext") == 0;
}

static void on_timer_elsewhere(int sig, siginfo_t *info, void *interrupted) {
    void (*const in_this)(void) = in_handler;
    (void)info;
    if (in_glibcs_switch(interrupted))
        in_handler = NULL;
    on_timer(sig);
    in_handler = in_this;
}

static void let_in(void) {
    if (test_has_tsan())
        usleep(0);
}

/* Frames of one greenlet: sizes from some bytes to some pages. */
__attribute__((noinline)) static void dwell(intptr_t me, int deep) {
    size_t size = 16 + (size_t)(test_random(&seed) % (deep ? 900 : 9000));
    volatile unsigned char *bytes = __builtin_alloca(size);
    unsigned char key = (unsigned char)test_random(&seed);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(key + i);
    int hops = (int)(test_random(&seed) % 20);
    for (int n = 0; n < hops && !over; n++) {
        unsigned r = (unsigned)test_random(&seed);
        let_in();
        if (deep < DEEPEST && r % 4 == 0) {
            dwell(me, deep + 1);
            continue;
        }
        greenlet *to = over ? greenlet_main() : all[r / 4 % GREENLETS];
        greenlet_message m = greenlet_switch(to, NULL);
        if (m.status != 0)
            FAIL("greenlet %d: status %ld", (int)me, (long)m.status);
    }
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (unsigned char)(key + i))
            FAIL("greenlet %d: byte %zu of %zu at depth %d", (int)me, i, size,
                 deep);
}

/* It dies after a while, so that there are starts and deaths too. */
static greenlet_message entry_dwells(void *value) {
    for (int n = 0; n < 2 && !over; n++)
        dwell(I(value), 0);
    return val(0);
}

static void run_for(unsigned signals) {
    struct sigevent event;
    wanted = (sig_atomic_t)signals;
    handled = over = 0;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR1;
    for (int i = 0; i < GREENLETS; i++)
        all[i] = spawn(entry_dwells);
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    if (test_is_emulated())
        interval_ns = 5 * INTERVAL_NS;
    arm();
    uint64_t rounds = 0, deaths = 0;
    while (!over) {
        unsigned i = (unsigned)(test_random(&seed) % GREENLETS);
        let_in();
        greenlet_switch(all[i], V(i));
        rounds++;
        for (i = 0; i < GREENLETS; i++)
            if (greenlet_get_state(all[i]) == GREENLET_DEAD) {
                greenlet_unref(all[i]);
                all[i] = spawn(entry_dwells);
                deaths++;
            }
    }
    CHECK_EQ(timer_delete(timer), 0);
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    test_say("%d signals in %ju switches, %ju deaths", (int)handled,
             (uintmax_t)s.switches, (uintmax_t)deaths);
    CHECK_EQ(torn, 0);
    CHECK(rounds > 0);
}

static void handle(int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    if (flags & SA_SIGINFO)
        action.sa_sigaction = on_timer_elsewhere;
    else
        action.sa_handler = on_timer;
    action.sa_flags = SA_RESTART | flags;
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
}

TEST(contract_35_timer_on_the_own_stack) {
    handle(0);
    run_for(test_amount(HANDLED, 25 * HANDLED));
}

TEST(contract_35_timer_on_the_alternate_stack) {
    static unsigned char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK_EQ(sigaltstack(&alternate, NULL), 0);
    handle(SA_ONSTACK);
    run_for(test_amount(HANDLED, 25 * HANDLED));
}

static _Unwind_Reason_Code frame(struct _Unwind_Context *context, void *n) {
    (void)context;
    return ++*(int *)n < 200 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

/* From whichever instruction was interrupted. It ends: in the handler's own
 * frames, at the greenlet's entry, or at the thread's. */
static void unwind(void) {
    int n = 0;
    _Unwind_Backtrace(frame, &n);
    unwound = unwound + 1;
    frames_seen = frames_seen + n;
    if (n > deepest_seen)
        deepest_seen = n;
}

static void check_unwinding(int flags) {
#ifdef __ARM_EABI__ /* EHABI32 10: a table for a function as a whole */
    SKIP("EHABI's tables hold at calls, not at any instruction");
#endif
#ifdef __aarch64__
    if (test_is("sigaltstack"))
        SKIP("glibc's __longjmp() has wrong CFI in its last instructions");
#endif
#ifdef __powerpc64__
    if (test_is_emulated())
        SKIP("libgcc cannot follow qemu-user 7.2's signal frames on Power");
#endif
    Dl_info found;
    bool glibcs = test_is("ucontext");
    unwind(); /* it loads what it needs now */
    dladdr((void *)(uintptr_t)unwind, &found);
    handle(flags | (glibcs ? SA_SIGINFO : 0));
    /* And what is bound lazily is bound now: on aarch64 the CFI of glibc's
     * _dl_runtime_resolve() is 16 bytes off. */
    run_for(200);
    in_handler = unwind;
    run_for(test_amount(HANDLED, 25 * HANDLED));
    test_say("%d unwound, %d frames, %d at most", (int)unwound,
             (int)frames_seen, (int)deepest_seen);
    /* There, most come when the system call in swapcontext() returns. */
    CHECK(unwound > (glibcs ? handled / 100 : handled));
    CHECK(frames_seen > unwound); /* more than the handler itself */
    CHECK(deepest_seen < 200);
}

TEST(contract_35_timer_that_unwinds) { check_unwinding(0); }

TEST(contract_35_timer_that_unwinds_from_the_alternate_stack) {
    static unsigned char stack[131072];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK_EQ(sigaltstack(&alternate, NULL), 0);
    check_unwinding(SA_ONSTACK);
}
