/* What assembly and C must agree on, for every port.
 *
 * SPDX-License-Identifier: MIT */
#include "arch.h"
#include "backend.h"

#include <errno.h>

_Static_assert(offsetof(struct arch_copy, frame) == ARCH_COPY_FRAME,
               "switch.S");
_Static_assert(offsetof(struct arch_copy, run_sp) == ARCH_COPY_RUN_SP,
               "switch.S");
_Static_assert(ENOMEM == 12, "switch.S");
_Static_assert(sizeof(greenlet_message) == 2 * sizeof(void *), "switch.S");
