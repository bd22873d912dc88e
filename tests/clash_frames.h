/* See clash_frames.c.
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_CLASH_FRAMES_H
#define GREENLET_CLASH_FRAMES_H

#include <stddef.h>
#include <stdint.h>

/* More than a stack of the default size and its guard together. */
enum { CLASH_FIXED_BYTES = 1 << 20 };

intptr_t clash_fixed_probed(void);
intptr_t clash_fixed_plain(void);
/* `depth` frames of n bytes and some words, one below the other. */
intptr_t clash_sized_probed(size_t n, intptr_t depth);
intptr_t clash_sized_plain(size_t n, intptr_t depth);

#endif
