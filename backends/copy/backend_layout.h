/* Where a debugger finds the stacks of the copy backend.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_COPY_LAYOUT_H
#define GREENLET_COPY_LAYOUT_H

#include "core.h"
#include "layout.h"

_Static_assert(sizeof(((greenlet *)0)->b.saved) == 4, "read as 4 bytes");

#define BACKEND_LAYOUT_STACK                                                   \
    {                                                                          \
        .sp = offsetof(greenlet, b.sp), .context = LAYOUT_NONE,                \
        .base = offsetof(greenlet, b.base),                                    \
        .slice = offsetof(greenlet, b.slice),                                  \
        .saved = offsetof(greenlet, b.saved),                                  \
    }
#define BACKEND_LAYOUT_REGISTERS LAYOUT_NO_REGISTERS

#endif
