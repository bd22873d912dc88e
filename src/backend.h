/* The interface between the core and a backend: how a stack is kept.
 *
 * A backend is a folder of backends/ with
 *   backend_state.h  struct backend_greenlet (embedded first in every
 *                    greenlet, zero at first), struct backend_thread
 *                    (embedded in every thread, zero at first),
 *                    BACKEND_GREENLET_INIT (what backend_init makes of the
 *                    default options), BACKEND_NAME, BACKEND_FRAME_BYTES (at a
 *                    suspended sp, a resume address first; 0: there is no such
 *                    frame), BACKEND_SP_ALIGN; and
 *                    BACKEND_SWITCHES_SHADOW_STACKS, if it does;
 *   backend_resume.h the inline backend_resume(); those that switch with
 *                    arch/ share the one there;
 *   *.c              the functions below.
 * It is linked, not called through a table. All functions run on the thread
 * `t` that owns the greenlets, keep errno, and say nothing to the user.
 *
 * Shared duties of backend_switch and backend_exit, in this order:
 *   1. find out what is needed and reserve it;
 *   2. if that fails, give all of it back and return {NULL, -errno}: nothing
 *      has moved. With HOW_MUST use reserves; if those fail, core_fatal;
 *   3. core_commit(t, from, to, how & HOW_AFTER);
 *   4. move; mark who is near and who is away (core_set_near, core_set_away):
 *      near means that backend_resume() may be used;
 *   5. if `to` is new (its base is unset), run core_finish(to->entry(value))
 *      on its stack; else resume it. With HOW_AFTER, the message first goes
 *      through core_after() on the target's stack.
 * What is not promised: floating-point control words (the core switches them
 * for GREENLET_FPU), the signal mask, errno (the core keeps it).
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_BACKEND_H
#define GREENLET_BACKEND_H

#include "core.h"

/* Asking the kernel takes longer than all of a check. What was readable stays
 * so until something is unmapped: the pages of which that is known. */
enum { CHECK_PAGES = 1024 };

struct check_pages {
    unsigned long unmaps; /* memory_unmaps when they were asked for */
    unsigned shift;       /* log2 of a page's bytes: a division is slow */
    uintptr_t known[CHECK_PAGES];
};

static inline unsigned long unmaps_so_far(void) {
    return atomic_load_explicit(&memory_unmaps, memory_order_relaxed);
}

/* check.c: asks for what is not known. */
bool check_ask(const struct greenlet_thread *t, const void *p, size_t n);

/* Is [p, p + n) in memory? */
static inline bool check_known(const struct greenlet_thread *t, const void *p,
                               size_t n) {
    const struct check_pages *c = t->pages;
    uintptr_t at = (uintptr_t)p, last = at + (n ? n - 1 : 0);
    if (likely(c && last >= at && c->unmaps == unmaps_so_far())) {
        uintptr_t number = at >> c->shift;
        if (likely(number == last >> c->shift &&
                   c->known[number % CHECK_PAGES] == number))
            return true;
    }
    return check_ask(t, p, n);
}

/* The thread's first use: t->main (active, current) runs on the thread's own
 * stack; t->lanes, lane_bytes and stack_bytes are set. 0 or -ENOMEM: then
 * backend_abandon() follows. */
int backend_adopt(struct greenlet_thread *t);

/* The thread exits, on its own stack, no greenlet of it runs again and each
 * suspended one has been released: give back everything. */
void backend_abandon(struct greenlet_thread *t);

/* A new greenlet: take from `o` what the backend wants to know. Allocates
 * nothing. 0, -EINVAL (no such lane), -E2BIG (no stack of that size; the core
 * has refused more than 1 GiB). */
int backend_init(struct greenlet_thread *t, greenlet *g,
                 const greenlet_options *o);

/* A new greenlet, which another thread's parent was given, would belong to `t`
 * from now on: 0, or -E2BIG as backend_init would have said there. */
int backend_welcome(struct greenlet_thread *t, const greenlet *g);

/* backend_resume.h:
 *
 *   static inline greenlet_message
 *   backend_resume(greenlet_message m, greenlet *from, greenlet *to);
 *
 * Inline and last in its caller: suspends `from`, resumes the near `to` with
 * m. t->current is `to` already. Returns when somebody resumes `from`.
 *
 *   #define BACKEND_SHORT_WAYS 1 (or 0), and then, for what is ordinary:
 *   backend_refill(t, m, to)         a plain switch to a CORE_REFILL one;
 *   backend_start(t, m, to)          the same to a CORE_READY one, else it
 *                                    leaves it to core_switch(to, m);
 *   backend_leave(t, m, dying, to)   the death of one that is CORE_OVER, whose
 *                                    parent `to` is near.
 *
 * The first two do the core's part, too. */

/* Suspends `from`, resumes or starts `to`, which is another greenlet of the
 * thread. Returns when somebody resumes `from`, or at once (duty 2). */
greenlet_message backend_switch(struct greenlet_thread *t, greenlet *from,
                                greenlet *to, greenlet_message m, unsigned how);

/* Leaves the stack of `dying` for ever, without saving it; resumes or starts
 * `to`. HOW_MUST is understood. core_set_away(dying) is the core's. */
_Noreturn void backend_exit(struct greenlet_thread *t, greenlet *dying,
                            greenlet *to, greenlet_message m, unsigned how);

/* Forgets the bytes of a suspended greenlet that will never run again. */
void backend_release(struct greenlet_thread *t, greenlet *g);

/* Describes the bytes of a suspended greenlet: fills out->sp, base and
 * saved_bytes; `*saved` is where the saved ones are. */
void backend_describe(const greenlet *g, greenlet_stack *out,
                      const void **saved);

/* The lane of a greenlet; -1: it has none. */
int backend_lane(const greenlet *g);

/* Before anything else is asked about a suspended greenlet that may be
 * corrupt: can its record be followed? NULL, or what is wrong with it. Reads
 * only what it knows to be readable. */
const char *backend_sound(struct greenlet_thread *t, const greenlet *g);

/* How a suspended greenlet goes on: what unwinders start from, and end at. */
struct backend_point_info {
    uintptr_t ip, fp;       /* 0: not known; with BACKEND_FRAME_BYTES, ip is the
                             * word at sp                                    */
    const void *context;    /* a ucontext_t instead; or NULL                 */
    bool after_call;        /* ip is a return address                        */
    const void *trampoline; /* in the function at the base            */
    uintptr_t end_low, end_high; /* where its stack pointer may be         */
    uintptr_t owned_high; /* main: bytes from sp to here are its alone     */
};

void backend_point(struct greenlet_thread *t, const greenlet *g,
                   struct backend_point_info *out);

/* Where `g` may run: [*low, *high), 0 and -1 if not known, as of one whose
 * record cannot be followed. Below *low is a guard of *guard bytes.
 * Async-signal-safe. */
void backend_bounds(const struct greenlet_thread *t, const greenlet *g,
                    uintptr_t *low, uintptr_t *high, size_t *guard);

#include "backend_resume.h"

#endif
