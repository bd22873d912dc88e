/* backend_resume() (src/backend.h) of the copy backend, and its own short ways
 * to greenlets that are away.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_BACKEND_RESUME_H
#define GREENLET_BACKEND_RESUME_H

#include "arch.h"

#define BACKEND_SHORT_WAYS 1

/* A plain switch to a new greenlet: one that is CORE_READY. */
greenlet_message backend_start(struct greenlet_thread *t, greenlet_message m,
                               greenlet *to);

static inline greenlet_message backend_resume(greenlet_message m,
                                              greenlet *from, greenlet *to) {
    return arch_switch(m, &from->b.sp, to->b.sp);
}

/* The death of one that died so that it is CORE_OVER; `to` is near. */
_Noreturn void backend_leave(struct greenlet_thread *t, greenlet_message m,
                             greenlet *dying, greenlet *to);

/* A plain switch to one that is CORE_REFILL. */
static inline greenlet_message
backend_refill(struct greenlet_thread *t, greenlet_message m, greenlet *to) {
    t->b.plan.region = &t->b.lanes[to->b.lane];
    return arch_switch_copy(m, (uintptr_t)to);
}

#endif
