/* The sigaltstack backend's part of a greenlet and of a thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SIGALTSTACK_STATE_H
#define GREENLET_SIGALTSTACK_STATE_H

#include <setjmp.h>
#include <stddef.h>

#include "stacks.h"

#define BACKEND_NAME "sigaltstack"
#define BACKEND_FRAME_BYTES 0
#define BACKEND_SP_ALIGN sizeof(void *)

struct request;

/* Where a greenlet goes on. */
struct point {
    sigjmp_buf env; /* has no signal mask */
    /* For unwinders, as env is not readable: where and with which stack and
     * frame pointers backend_hop() goes on. */
    void *sp, *fp, *ip;
};

struct backend_greenlet {
    struct point *point; /* where to go on; NULL while running               */
    struct stack stack;  /* .high is NULL while it is new and when it is dead */
    size_t stack_bytes;  /* wished; 0: the thread's default                  */
};

#define BACKEND_GREENLET_INIT {0}

struct backend_thread {
    struct stack_pool pool;
    struct stack reserve; /* for a start that cannot be refused; see backend.h:
                           * HOW_MUST. .high is NULL while it is in use      */
    struct request *request; /* what our signal is for, while it is awaited  */
};

#endif
