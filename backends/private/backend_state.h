/* State of the private backend: each started greenlet has its own stack.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_PRIVATE_STATE_H
#define GREENLET_PRIVATE_STATE_H

#include "arch_cpu.h"
#include "stacks.h"

#define BACKEND_NAME "private"
#define BACKEND_FRAME_BYTES ARCH_FRAME_BYTES
#define BACKEND_SP_ALIGN ARCH_STACK_ALIGN

struct backend_greenlet {
    void *sp; /* suspended: where the register frame stands */
    union {
        size_t stack_bytes;      /* new: wished; 0: the thread's default */
        struct stack_slot *slot; /* started: its stack; main: NULL       */
    };
    char *low; /* started: the slot's, which strict mode may have closed  */
};

#define BACKEND_GREENLET_INIT                                                  \
    { NULL, {0}, NULL }

struct backend_thread {
    struct stack_pool pool;
    struct stack reserve; /* for a start that cannot fail */
    void *nowhere;        /* a dying greenlet's sp goes here */
};

#endif
