/* What greenlet_inline.h has compiled into programs must be what the library
 * was compiled with. The thread's pointer under its versioned name is in
 * thread.c, beside core_self.
 *
 * SPDX-License-Identifier: MIT */
#include "core.h"

#include "greenlet_inline.h"

#if GREENLET_INLINE
_Static_assert(offsetof(struct greenlet, home) == GREENLET_INLINE_HOME,
               "struct greenlet has changed: configure anew");
_Static_assert(offsetof(struct greenlet, b.sp) == GREENLET_INLINE_SP,
               "greenlet_inline.h");
_Static_assert(offsetof(struct greenlet_thread, fast) == GREENLET_INLINE_FAST,
               "greenlet_inline.h");
_Static_assert(offsetof(struct greenlet_thread, current) ==
                   GREENLET_INLINE_CURRENT,
               "greenlet_inline.h");
_Static_assert(offsetof(struct greenlet_thread, counters.switches) ==
                   GREENLET_INLINE_SWITCHES,
               "greenlet_inline.h");
#endif
