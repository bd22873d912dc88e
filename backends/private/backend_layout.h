/* Where a debugger finds the stacks of the private backend.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_PRIVATE_LAYOUT_H
#define GREENLET_PRIVATE_LAYOUT_H

#include "core.h"
#include "layout.h"

/* base is NULL for main: its stack has no end that we know. */
#define BACKEND_LAYOUT_STACK                                                   \
    {                                                                          \
        .sp = offsetof(greenlet, b.sp), .context = LAYOUT_NONE,                \
        .base = offsetof(greenlet, b.stack.high), .slice = LAYOUT_NONE,        \
        .saved = LAYOUT_NONE,                                                  \
    }
#define BACKEND_LAYOUT_REGISTERS LAYOUT_NO_REGISTERS

#endif
