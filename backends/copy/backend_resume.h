/* backend_resume() (src/backend.h) of the copy backend, and backend_refill().
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_BACKEND_RESUME_H
#define GREENLET_BACKEND_RESUME_H

#include "arch.h"

#define BACKEND_REFILLS

static inline greenlet_message backend_resume(greenlet_message m,
                                              greenlet *from, greenlet *to) {
    return arch_switch(m, &from->b.sp, to->b.sp);
}

static inline greenlet_message
backend_refill(struct greenlet_thread *t, greenlet_message m, greenlet *to) {
    t->b.plan.region = &t->b.lanes[to->b.lane];
    return arch_switch_copy(m, (uintptr_t)to);
}

#endif
