/* The ucontext backend: each greenlet has a stack of its own, and the C
 * library's getcontext, makecontext and swapcontext switch the registers.
 *
 * The signal mask is per greenlet here: swapcontext exchanges it (that is the
 * system call in every switch). A greenlet starts with its starter's mask.
 *
 * A greenlet's stack. The two contexts on it count towards its size:
 *
 *             fresh            suspended            running
 *   high  +------------+     +------------+     +------------+
 *         | first      |<-+  | (unused)   |     | (unused)   |
 *         | ucontext_t |  |  |            |     |            |
 *         +------------+  |  +------------+     +------------+
 *         | makecon-   |  |  | enter()    |     | enter()    |
 *    sp ->| text's     |  |  | entry ...  |     | entry ...  |
 *         +------------+  |  | backend_   |     |            |<- sp
 *         |            |  |  | hop():     |     +------------+
 *         | context    |--+  |  ucontext_t|<-+  |            |
 *         | in the     |     | swapcon-   |  |  | context in |
 *         | header     |sp ->| text()     |  |  | the header |
 *         |            |     +------------+  |  | is NULL    |
 *         |            |     | context    |--+  |            |
 *   low   +------------+     +------------+     +------------+
 *           guard              guard              guard
 *
 * `first` is written by begin(), on the starter's stack, and read once, by
 * the switch that starts the greenlet; the other ucontext_t by the switch
 * that suspends it, and read by the one that resumes it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* the names of registers in a ucontext_t */
#endif

#include <errno.h>
#include <ucontext.h>

#include "backend.h"
#include "context.h"
#include "fpu.h"

enum { CANARY_BYTES = sizeof(uintptr_t) }; /* check.c's, at a stack's top */

static size_t size_of(struct stack s) { return (size_t)(s.high - s.low); }

/* ---- Switching -------------------------------------------------------- */

/* The C library's switch brings back the floating-point environment that was
 * there at the suspension. Its control words are the core's business, so they
 * go on as they were just before the switch. */
static void leave(struct greenlet_thread *t, greenlet_message m, bool after) {
    t->mail = m;
    t->mail_after = after;
    fpu_get(t->b.fpu);
}

/* Takes the message, on the stack of the greenlet that it is for. */
static greenlet_message arrive(void) {
    const struct greenlet_thread *t = core_self;
    greenlet_message m = t->mail;
    fpu_set(t->b.fpu);
    return t->mail_after ? core_after(m) : m;
}

ANNOTATE_BARE greenlet_message backend_hop(greenlet_message m, greenlet *from,
                                           greenlet *to, bool after) {
    struct greenlet_thread *t = core_self;
    ucontext_t here;
    leave(t, m, after);
    from->b.context = &here;
    annotate_leave(t, from, false);
    if (unlikely(annotate_swapcontext(&here, to->b.context) != 0))
        core_fatal("swapcontext failed", from, to);
    from->b.context = NULL; /* it ends with this frame */
    return arrive();
}

/* Where a greenlet's stack begins. The C library ends the way of unwinders
 * in makecontext's frame above. */
static void enter(void) {
    greenlet_message m = arrive();
    core_finish(annotate_entry(core_self->current->entry)(m.value));
}

/* Makes the first context of `g` on its stack. noinline: getcontext returns
 * where it was called, so nothing else may live in that frame. */
static __attribute__((noinline)) void begin(greenlet *g) {
    struct stack s = g->b.stack;
    ucontext_t *first =
        (ucontext_t *)(((uintptr_t)s.high - CANARY_BYTES - sizeof(*first)) &
                       ~(uintptr_t)63);
    annotate_open(s.low, (size_t)(s.high - s.low));
    if (getcontext(first) != 0)
        core_fatal("getcontext failed", g, NULL);
    first->uc_stack.ss_sp = s.low;
    first->uc_stack.ss_size = (size_t)((char *)first - s.low);
    first->uc_stack.ss_flags = 0;
    first->uc_link = NULL;
    makecontext(first, enter, 0);
    g->b.context = first;
}

/* ---- Stacks ----------------------------------------------------------- */

/* How large a stack `g` is to have; main's is the reserve's size. */
static size_t bytes_for(const struct greenlet_thread *t, const greenlet *g) {
    return g->b.stack_bytes ? g->b.stack_bytes : t->stack_bytes;
}

/* Finds a stack for the new `to`: 0 or -ENOMEM. */
static int find_stack(struct greenlet_thread *t, const greenlet *from,
                      greenlet *to, unsigned how) {
    struct stack *reserve = &t->b.reserve;
    int status = stack_take(&t->b.pool, bytes_for(t, to), &to->b.stack, NULL);
    if (likely(status == 0))
        return 0;
    to->b.stack = (struct stack){0};
    if (!(how & HOW_MUST))
        return status;
    if (!reserve->high || size_of(*reserve) < bytes_for(t, to))
        core_fatal("no memory for a stack that cannot be refused", from, to);
    to->b.stack = *reserve;
    *reserve = (struct stack){0};
    return 0;
}

/* Lets go of a stack, perhaps the one that we run on: the reserve is made up
 * for first. */
static void drop_stack(struct greenlet_thread *t, struct stack s) {
    if (!t->b.reserve.high && size_of(s) >= bytes_for(t, t->main))
        t->b.reserve = s;
    else
        stack_give(&t->b.pool, s);
}

/* ---- backend.h -------------------------------------------------------- */

int backend_adopt(struct greenlet_thread *t) {
    t->main->b.stack.high = STACK_MAIN_BASE;
    t->b.pool.notes_apart = t->strict;
    return stack_take(&t->b.pool, bytes_for(t, t->main), &t->b.reserve, NULL);
}

void backend_abandon(struct greenlet_thread *t) {
    t->b.reserve = (struct stack){0};
    stack_pool_destroy(&t->b.pool);
}

int backend_init(struct greenlet_thread *t, greenlet *g,
                 const greenlet_options *o) {
    (void)t;
    g->b.stack_bytes = o->stack_bytes;
    return 0;
}

int backend_welcome(struct greenlet_thread *t, const greenlet *g) {
    (void)t, (void)g; /* whatever it wants is had at its start, or is not */
    return 0;
}

greenlet_message backend_switch(struct greenlet_thread *t, greenlet *from,
                                greenlet *to, greenlet_message m,
                                unsigned how) {
    bool after = (how & HOW_AFTER) != 0;
    if (!to->b.stack.high) {
        int status = find_stack(t, from, to, how);
        if (unlikely(status))
            return (greenlet_message){NULL, status};
        begin(to);
        core_commit(t, from, to, after);
        core_set_near(t, to);
    } else {
        core_commit(t, from, to, after);
    }
    return backend_hop(m, from, to, after);
}

/* A new `to` inherits the dying one's stack if that is large enough:
 * makecontext writes only to its top, where nothing is needed any more. */
_Noreturn ANNOTATE_BARE void backend_exit(struct greenlet_thread *t,
                                          greenlet *dying, greenlet *to,
                                          greenlet_message m, unsigned how) {
    struct stack left = dying->b.stack;
    bool after = (how & HOW_AFTER) != 0, starts = !to->b.stack.high;
    bool inherits = starts && size_of(left) >= bytes_for(t, to);
    if (inherits)
        to->b.stack = left;
    else if (starts)
        find_stack(t, dying, to, how | HOW_MUST);
    core_commit(t, dying, to, after);
    if (starts) {
        begin(to);
        core_set_near(t, to);
    }
    annotate_leave(t, dying, true);
    dying->b.stack = (struct stack){0};
    dying->b.context = NULL;
    if (!inherits)
        drop_stack(t, left);
    leave(t, m, after);
    setcontext(to->b.context);
    core_fatal("setcontext failed", dying, to);
}

void backend_release(struct greenlet_thread *t, greenlet *g) {
    drop_stack(t, g->b.stack);
    g->b.stack = (struct stack){0};
    g->b.context = NULL;
}

void backend_describe(const greenlet *g, greenlet_stack *out,
                      const void **saved) {
    out->sp =
        g->b.context ? (const void *)context_sp(g->b.context) : g->b.stack.high;
    out->base = g->b.stack.high;
    out->saved_bytes = 0;
    *saved = NULL;
}

#ifdef GREENLET_HARDEN
void backend_trust(const greenlet *g, struct harden_trust *out) {
    const ucontext_t *context = g->b.context;
    out->words[0] = (uintptr_t)context;
    out->words[1] = (uintptr_t)g->b.stack.high;
    out->image = &context->uc_mcontext;
    out->bytes = sizeof(context->uc_mcontext);
}
#endif

void backend_bounds(const struct greenlet_thread *t, const greenlet *g,
                    uintptr_t *low, uintptr_t *high, size_t *guard) {
    (void)t;
    stack_bounds(g->b.stack, low, high, guard);
}

/* ---- For checks -------------------------------------------------------- */

int backend_lane(const greenlet *g) {
    (void)g;
    return -1;
}

const char *backend_sound(struct greenlet_thread *t, const greenlet *g) {
    return stack_holds(t, g->b.stack, g->flags & CORE_MAIN, g->b.context,
                       sizeof(ucontext_t));
}

/* Where setcontext() goes on: on s390x it returns to r14, and nobody has
 * stored a psw. */
static uintptr_t suspended_ip(const ucontext_t *c) {
#ifdef __s390x__
    return (uintptr_t)c->uc_mcontext.gregs[14];
#else
    return context_ip(c);
#endif
}

void backend_point(struct greenlet_thread *t, const greenlet *g,
                   struct backend_point_info *out) {
    (void)t;
    out->context = g->b.context;
    out->ip = suspended_ip(g->b.context);
    out->after_call = true;
    out->trampoline = (const char *)(uintptr_t)enter + 1;
    out->end_high = (uintptr_t)g->b.stack.high;
    out->end_low = out->end_high - 2 * sizeof(ucontext_t);
    out->owned_high = 0;
}
