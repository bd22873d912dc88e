/* The ucontext backend's part of a greenlet and of a thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_UCONTEXT_STATE_H
#define GREENLET_UCONTEXT_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "stacks.h"

#define BACKEND_NAME "ucontext"
#define BACKEND_FRAME_BYTES 0
#define BACKEND_SP_ALIGN sizeof(void *)
#define BACKEND_SWITCHES_SHADOW_STACKS /* swapcontext() does */

struct backend_greenlet {
    void *context;      /* ucontext_t: where to go on; NULL while running    */
    struct stack stack; /* .high is NULL while it is new and when it is dead */
    size_t stack_bytes; /* wished; 0: the thread's default                  */
};

#define BACKEND_GREENLET_INIT {0}

struct backend_thread {
    struct stack_pool pool;
    struct stack reserve; /* for a start that cannot be refused; see backend.h:
                           * HOW_MUST. .high is NULL while it is in use      */
    uint32_t fpu[2];      /* control words, from one side of a switch to the
                           * other                                           */
};

#endif
