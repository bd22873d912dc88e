/* Reporting stack overflows, and accesses that strict mode forbids: an opt-in
 * handler of SIGSEGV and SIGBUS on an alternate stack. Everything in it is
 * async-signal-safe, but for the unwinders: libgreenlet-debug is loaded and
 * backtrace() called once beforehand, so that they have what they need.
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
#include "check.h"
#include "context.h"

enum {
    HANDLER_STACK_BYTES = 131072,
    FRAMES = 16,               /* shown; the innermost and the outermost */
    LARGE_FRAME_BYTES = 32768, /* in use, never touched: no recursion */
    OWN_GUARD_BYTES = 1 << 20  /* the kernel's gap below a growing stack */
};

static _Atomic bool installed;
static struct sigaction previous_segv, previous_bus;

static bool overflowed(const struct greenlet_thread *t, uintptr_t at,
                       uintptr_t *low, uintptr_t *high) {
    size_t guard;
    backend_bounds(t, t->current, low, high, &guard);
    if (guard)
        return at < *low && at >= *low - guard;
    *low = t->own_low;
    *high = t->own_high;
    /* Linux lets the last page grow no further, and Valgrind the last two. */
    return *low && at < *low + 2 * memory_page() &&
           at >= *low - OWN_GUARD_BYTES;
}

/* What to change, for the kind of stack that it is. */
static const char *advice(const struct greenlet_thread *t, const greenlet *g,
                          bool own) {
    if (own && !(g->flags & CORE_MAIN))
        return "in place (GREENLET_LANES=0) a greenlet runs on the thread's "
               "stack: ulimit -s, pthread_attr_setstacksize, or lanes";
    if (own)
        return "main runs on the thread's stack: ulimit -s, "
               "pthread_attr_setstacksize";
    if (backend_lane(g) >= 0)
        return "GREENLET_LANE_BYTES, or greenlet_thread_options.lane_bytes";
    (void)t;
    return "greenlet_options.stack_bytes, GREENLET_STACK_BYTES, or "
           "greenlet_thread_options.stack_bytes";
}

/* How much of the stack was ever touched: pages in memory, from the lowest. */
static size_t high_water(uintptr_t low, uintptr_t high) {
    size_t page = memory_page();
    low &= ~(page - 1);
    while (low < high && memory_resident((void *)low, page) == 0)
        low += page;
    return low < high ? high - low : 0;
}

static void report(struct greenlet_thread *t, uintptr_t at, uintptr_t low,
                   uintptr_t high, const void *context) {
    const greenlet *g = t->current;
    size_t guard;
    uintptr_t l, h;
    backend_bounds(t, g, &l, &h, &guard);
    greenlet_finding f = {.size = sizeof(f),
                          .kind = GREENLET_FOUND_OVERFLOW,
                          .level = -1,
                          .g = t->current,
                          .by = t->current,
                          .address = (const void *)at,
                          .frame = 0,
                          .expected = low,
                          .found = at,
                          .what = "a stack overflow"};
    if (check_hook(&f))
        return;
    struct say out = SAY_TO(STDERR_FILENO);
    say_text(&out, "greenlet: stack overflow in '");
    say_text(&out, core_label(g));
    say_text(&out, "' (");
    say_hex(&out, (uintptr_t)g);
    say_text(&out, "): access to ");
    say_hex(&out, at);
    say_text(&out, ", below its stack of ");
    say_dec(&out, high - low);
    say_text(&out, " bytes, [");
    say_hex(&out, low);
    say_text(&out, ", ");
    say_hex(&out, high);
    /* A prologue may touch a new frame before sp is there: Power's stdux, the
     * probes on Arm. */
    uintptr_t sp = context_sp(context), mark = high_water(low, high);
    uintptr_t end = at < sp ? at : sp, use = end < high ? high - end : 0;
    say_text(&out, ")\n  high-water mark: ");
    say_dec(&out, mark);
    say_text(&out, " bytes; in use now: ");
    say_dec(&out, use);
    if (use > mark + LARGE_FRAME_BYTES)
        say_text(&out, "\n  one large frame, most of which was never touched "
                       "(an array? alloca?), or more stack: ");
    else
        say_text(&out, "\n  less recursion, smaller frames, or more stack: ");
    say_text(&out, advice(t, g, guard == 0));
    say_text(&out, "\n  backtrace:\n");
    if (debug_get(true)) {
        struct debug_walk w = {0};
        debug_context(t, context, &w);
        debug_say_some_frames(&w, &out, "    ", FRAMES);
        return;
    }
    say_flush(&out);
#ifdef HAVE_BACKTRACE
    void *frames[FRAMES];
    int n = backtrace(frames, FRAMES);
    backtrace_symbols_fd(frames, n, STDERR_FILENO);
    if (n == FRAMES)
        say_text(&out, "... and more\n");
#else
    say_text(&out, "(this C library has no backtrace)\n");
#endif
    say_flush(&out);
}

static void handler(int signal, siginfo_t *info, void *context) {
    int saved = errno;
    struct greenlet_thread *t = core_self;
    struct sigaction *previous =
        signal == SIGSEGV ? &previous_segv : &previous_bus;
    uintptr_t low, high;

    if (t != &core_nobody && t->current && info->si_code > 0 &&
        overflowed(t, (uintptr_t)info->si_addr, &low, &high))
        report(t, (uintptr_t)info->si_addr, low, high, context);
    else if (t->strict && info->si_code > 0 &&
             strict_fault(t, (uintptr_t)info->si_addr, context)) {
        errno = saved;
        return; /* the access is tried again */
    }
    errno = saved;
    if (previous->sa_flags & SA_SIGINFO)
        previous->sa_sigaction(signal, info, context);
    else if (previous->sa_handler == SIG_DFL || previous->sa_handler == SIG_IGN)
        sigaction(signal, previous, NULL); /* the access is tried again */
    else
        previous->sa_handler(signal);
}

bool overflow_wanted(void) {
    return atomic_load(&installed) || core_self->strict ||
           config_number("GREENLET_OVERFLOW_HANDLER", 0, 0, 1) == 1;
}

static int install(void) {
    struct sigaction action;
    int status = 0;
    debug_get(false); /* its frames have names; else backtrace()'s */
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
