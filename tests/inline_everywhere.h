/* Included before each file of a suite: all of its switches are inline.
 *
 * SPDX-License-Identifier: MIT */
#if !defined(GREENLET_INLINE_EVERYWHERE_H) && !defined(__ASSEMBLER__)
#define GREENLET_INLINE_EVERYWHERE_H

#include "greenlet_inline.h"

#if !GREENLET_INLINE
#error "the switch is not inline here"
#endif

#define greenlet_switch(to, value) greenlet_switch_inline(to, value)

#endif
