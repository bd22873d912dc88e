/* The sigaltstack backend's part of a greenlet and of a thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SIGALTSTACK_STATE_H
#define GREENLET_SIGALTSTACK_STATE_H

#include <stddef.h>

#include "stacks.h"

#define BACKEND_NAME "sigaltstack"

struct point;
struct request;

struct backend_greenlet {
    struct point *point; /* where to go on; NULL while running               */
    struct stack stack;  /* .high is NULL while it is new and when it is dead */
    size_t stack_bytes;  /* wished; 0: the thread's default                  */
};

struct backend_thread {
    struct stack_pool pool;
    struct stack reserve; /* for a start that cannot be refused; see backend.h:
                           * HOW_MUST. .high is NULL while it is in use      */
    struct request *request; /* what our signal is for, while it is awaited  */
};

#endif
