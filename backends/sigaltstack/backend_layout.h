/* Where a debugger finds the stacks of the sigaltstack backend. A jmp_buf
 * mangles what unwinding needs, so each point has it once more in plain.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SIGALTSTACK_LAYOUT_H
#define GREENLET_SIGALTSTACK_LAYOUT_H

#include "core.h"
#include "layout.h"

#define BACKEND_LAYOUT_STACK                                                   \
    {                                                                          \
        .sp = LAYOUT_NONE, .context = offsetof(greenlet, b.point),             \
        .base = offsetof(greenlet, b.stack.high), .slice = LAYOUT_NONE,        \
        .saved = LAYOUT_NONE,                                                  \
    }

#define BACKEND_LAYOUT_REGISTERS                                               \
    {                                                                          \
        {LAYOUT_PC, offsetof(struct point, ip)},                               \
            {LAYOUT_SP, offsetof(struct point, sp)},                           \
            {LAYOUT_FP, offsetof(struct point, fp)}, {                         \
            LAYOUT_END, 0                                                      \
        }                                                                      \
    }

#endif
