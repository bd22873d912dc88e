/* The private backend: a stack for each started greenlet, switched by arch/.
 *
 *     high  +--------------------+
 *           | canary, 0, primed  |  arch_prime: what the start needs
 *           | entry's frames     |
 *           | ...                |
 *           | register frame     |  <- b.sp, while suspended
 *           |  (unused)          |
 *     low   +--------------------+
 *           | guard              |
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>

#include "arch.h"
#include "backend.h"

int backend_adopt(struct greenlet_thread *t) {
    t->b.pool.notes_apart = t->strict;
    return stack_take(&t->b.pool, t->stack_bytes, &t->b.reserve, NULL);
}

void backend_abandon(struct greenlet_thread *t) {
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

static size_t size_of(struct stack s) { return (size_t)(s.high - s.low); }

/* Gives a new greenlet its stack. */
static int start(struct greenlet_thread *t, greenlet *from, greenlet *to,
                 unsigned how) {
    struct backend_greenlet *b = &to->b;
    size_t bytes = b->stack_bytes ? b->stack_bytes : t->stack_bytes;
    struct stack s;
    int status = stack_take(&t->b.pool, bytes, &s, NULL);
    if (unlikely(status)) {
        if (!(how & HOW_MUST))
            return status;
        if (size_of(t->b.reserve) < bytes)
            core_fatal("no memory for a stack at a death", to, from);
        s = t->b.reserve;
        t->b.reserve = (struct stack){0};
    }
    b->slot = s.slot;
    b->low = s.low;
    annotate_open(s.high - ARCH_PRIMED_BYTES, ARCH_PRIMED_BYTES);
    b->sp = arch_prime(s.high, annotate_entry(to->entry));
    return 0;
}

/* All that a switch and an exit share; returns the image to resume. */
static void *commit(struct greenlet_thread *t, greenlet *from, greenlet *to,
                    unsigned how) {
    bool after = how & HOW_AFTER;
    core_commit(t, from, to, after);
    core_set_near(t, to);
    return after ? arch_push_after(to->b.sp) : to->b.sp;
}

greenlet_message backend_switch(struct greenlet_thread *t, greenlet *from,
                                greenlet *to, greenlet_message m,
                                unsigned how) {
    if (core_state(to) == GREENLET_NEW) {
        int status = start(t, from, to, how);
        if (unlikely(status))
            return (greenlet_message){NULL, status};
    }
    void *image = commit(t, from, to, how);
    annotate_leave(t, from, false);
    return arch_switch(m, &from->b.sp, image);
}

_Noreturn ANNOTATE_BARE void backend_exit(struct greenlet_thread *t,
                                          greenlet *dying, greenlet *to,
                                          greenlet_message m, unsigned how) {
    if (core_state(to) == GREENLET_NEW)
        start(t, dying, to, how);
    void *image = commit(t, dying, to, how);
    annotate_leave(t, dying, true); /* while its stack is known */
    struct stack s = stack_of(dying->b.slot);
    dying->b.slot = NULL;
    /* One of the default size, which is a power of two or so. */
    if (unlikely(!t->b.reserve.high && size_of(s) >= t->stack_bytes &&
                 size_of(s) / 4 < t->stack_bytes))
        t->b.reserve = s;
    else
        stack_give(&t->b.pool, s);
    arch_switch(m, &t->b.nowhere, image);
    __builtin_unreachable();
}

void backend_release(struct greenlet_thread *t, greenlet *g) {
    stack_give(&t->b.pool, stack_of(g->b.slot));
    g->b.slot = NULL;
}

void backend_describe(const greenlet *g, greenlet_stack *out,
                      const void **saved) {
    out->sp = g->b.sp;
    out->base = g->flags & CORE_MAIN ? (void *)(UINTPTR_MAX & ~(uintptr_t)63)
                                     : (void *)g->b.slot;
    out->saved_bytes = 0;
    *saved = NULL;
}

#ifdef GREENLET_HARDEN
void backend_trust(const greenlet *g, struct harden_trust *out) {
    out->words[0] = (uintptr_t)g->b.sp;
    out->words[1] = (uintptr_t)g->b.slot;
    out->image = g->b.sp;
    out->bytes = sizeof(uintptr_t);
}
#endif

void backend_bounds(const struct greenlet_thread *t, const greenlet *g,
                    uintptr_t *low, uintptr_t *high, size_t *guard) {
    (void)t;
    bool own = core_state(g) == GREENLET_ACTIVE && g->b.slot;
    *low = own ? (uintptr_t)g->b.low : 0;
    *high = own ? (uintptr_t)g->b.slot : UINTPTR_MAX;
    *guard = own ? STACK_GUARD_BYTES : 0;
}

int backend_lane(const greenlet *g) {
    (void)g;
    return -1;
}

const char *backend_sound(struct greenlet_thread *t, const greenlet *g) {
    if (g->flags & CORE_MAIN)
        return g->b.slot ? "main has a stack of the pool" : NULL;
    return stack_sound(t, g->b.slot, g->b.low);
}

void backend_point(struct greenlet_thread *t, const greenlet *g,
                   struct backend_point_info *out) {
    (void)t;
    out->trampoline = arch_start;
    out->end_high = (uintptr_t)g->b.slot;
    out->end_low = out->end_high - ARCH_PRIMED_BYTES;
    out->owned_high = (uintptr_t)g->b.sp + ARCH_FRAME_BYTES;
}
