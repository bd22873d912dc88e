/* The inline part of the ucontext backend. Included by backend.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_UCONTEXT_RESUME_H
#define GREENLET_UCONTEXT_RESUME_H

/* ucontext.c: the switch itself, when nothing can fail any more. `after` asks
 * for core_after() on the other side. Returns when `from` is resumed. */
greenlet_message backend_hop(greenlet_message m, greenlet *from, greenlet *to,
                             bool after);

#define BACKEND_SHORT_WAYS 0

static inline greenlet_message backend_resume(greenlet_message m,
                                              greenlet *from, greenlet *to) {
    return backend_hop(m, from, to, false);
}

#endif
