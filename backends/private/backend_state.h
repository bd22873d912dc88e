/* State of the private backend: each started greenlet has its own stack.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_PRIVATE_STATE_H
#define GREENLET_PRIVATE_STATE_H

#include "stacks.h"

#define BACKEND_NAME "private"

struct backend_greenlet {
    void *sp; /* suspended: where the register frame stands */
    union {
        size_t stack_bytes;      /* new: wished; 0: the thread's default */
        struct stack_slot *slot; /* started: its stack; main: NULL       */
    };
};

#define BACKEND_GREENLET_INIT                                                  \
    {                                                                          \
        NULL, { 0 }                                                            \
    }

struct backend_thread {
    struct stack_pool pool;
    struct stack reserve; /* for a start that cannot fail */
    void *nowhere;        /* a dying greenlet's sp goes here */
};

#endif
