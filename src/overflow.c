/* Reporting stack overflows: an opt-in handler of SIGSEGV and SIGBUS on an
 * alternate stack. Everything in the handler is async-signal-safe, but for
 * backtrace(), which is called once beforehand so that it has what it needs.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if __has_include(<execinfo.h>)
#include <execinfo.h>
#define HAVE_BACKTRACE 1
#endif

#include "backend.h"

enum {
    HANDLER_STACK_BYTES = 131072,
    FRAMES = 48,
    OWN_GUARD_BYTES = 1 << 20 /* the kernel's gap below a growing stack */
};

static _Atomic bool installed;
static struct sigaction previous_segv, previous_bus;

static void say(const char *text) {
    size_t n = strlen(text);
    while (n) {
        ssize_t done = write(STDERR_FILENO, text, n);
        if (done <= 0)
            return;
        text += done;
        n -= (size_t)done;
    }
}

/* snprintf is not promised to be safe in a handler; this is. */
static char *put_number(char *end, uintptr_t n, unsigned radix) {
    *--end = 0;
    do {
        *--end = "0123456789abcdef"[n % radix];
        n /= radix;
    } while (n);
    return end;
}

static void say_number(const char *before, uintptr_t n, unsigned radix) {
    char text[24];
    say(before);
    say(radix == 16 ? "0x" : "");
    say(put_number(text + sizeof(text), n, radix));
}

static bool overflowed(const struct greenlet_thread *t, uintptr_t at,
                       uintptr_t *low, uintptr_t *high) {
    size_t guard;
    backend_bounds(t, t->current, low, high, &guard);
    if (guard)
        return at < *low && at >= *low - guard;
    *low = t->own_low;
    *high = t->own_high;
    return *low && at < *low + memory_page() && at >= *low - OWN_GUARD_BYTES;
}

static void report(const struct greenlet_thread *t, uintptr_t at, uintptr_t low,
                   uintptr_t high) {
    const greenlet *g = t->current;
    say("greenlet: stack overflow in '");
    say(core_label(g));
    say_number("' (", (uintptr_t)g, 16);
    say_number("): access to ", at, 16);
    say_number(" below its stack of ", high - low, 10);
    say_number(" bytes, [", low, 16);
    say_number(", ", high, 16);
    say(").\nLess recursion, smaller frames, or more stack:"
        " greenlet_options.stack_bytes, GREENLET_STACK_BYTES,\n"
        "GREENLET_LANE_BYTES; in place (GREENLET_LANES=0) and for main,"
        " ulimit -s or pthread_attr_setstacksize.\nbacktrace:\n");
#ifdef HAVE_BACKTRACE
    void *frames[FRAMES];
    int n = backtrace(frames, FRAMES);
    backtrace_symbols_fd(frames, n, STDERR_FILENO);
    if (n == FRAMES)
        say("... and more\n");
#else
    say("(this C library has no backtrace)\n");
#endif
}

static void handler(int signal, siginfo_t *info, void *context) {
    int saved = errno;
    struct greenlet_thread *t = core_self;
    struct sigaction *previous =
        signal == SIGSEGV ? &previous_segv : &previous_bus;
    uintptr_t low, high;

    if (t != &core_nobody && t->current && info->si_code > 0 &&
        overflowed(t, (uintptr_t)info->si_addr, &low, &high))
        report(t, (uintptr_t)info->si_addr, low, high);
    errno = saved;
    if (previous->sa_flags & SA_SIGINFO)
        previous->sa_sigaction(signal, info, context);
    else if (previous->sa_handler == SIG_DFL || previous->sa_handler == SIG_IGN)
        sigaction(signal, previous, NULL); /* the access is tried again */
    else
        previous->sa_handler(signal);
}

bool overflow_wanted(void) {
    return atomic_load(&installed) ||
           config_number("GREENLET_OVERFLOW_HANDLER", 0, 0, 1) == 1;
}

static int install(void) {
    struct sigaction action;
    int status = 0;
    pthread_mutex_lock(&core_threads_lock); /* a fork waits for it */
    if (!atomic_load(&installed)) {
#ifdef HAVE_BACKTRACE
        void *frame;
        backtrace(&frame, 1);
#endif
        memset(&action, 0, sizeof(action));
        action.sa_sigaction = handler;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        if (sigaction(SIGSEGV, &action, &previous_segv) ||
            sigaction(SIGBUS, &action, &previous_bus))
            status = -ENOMEM;
        else
            atomic_store(&installed, true);
    }
    pthread_mutex_unlock(&core_threads_lock);
    return status;
}

/* For the calling thread: where its own stack is, and an alternate one. */
int overflow_thread(struct greenlet_thread *t) {
    int saved = errno, status = install();
    stack_t stack;

    if (status == 0)
        core_find_own_stack(t);
    if (status == 0 && sigaltstack(NULL, &stack) == 0 &&
        stack.ss_flags & SS_DISABLE) {
        t->overflow_stack = memory_map(HANDLER_STACK_BYTES, 0);
        stack.ss_sp = t->overflow_stack;
        stack.ss_size = HANDLER_STACK_BYTES;
        stack.ss_flags = 0;
        if (!t->overflow_stack || sigaltstack(&stack, NULL) != 0) {
            overflow_thread_exit(t);
            status = -ENOMEM;
        }
    }
    errno = saved;
    return status;
}

void overflow_thread_exit(struct greenlet_thread *t) {
    stack_t stack;
    if (!t->overflow_stack)
        return;
    if (sigaltstack(NULL, &stack) == 0 && stack.ss_sp == t->overflow_stack) {
        stack.ss_flags = SS_DISABLE;
        sigaltstack(&stack, NULL);
    }
    memory_unmap(t->overflow_stack, HANDLER_STACK_BYTES);
    t->overflow_stack = NULL;
}

int greenlet_install_overflow_handler(void) {
    int status = install();
    struct greenlet_thread *t = core_thread();
    if (!t)
        return core_no_thread();
    return status ? status : overflow_thread(t);
}
