/* Functions with large frames, for overflow.c. Compiled twice: once with
 * -fstack-clash-protection, which touches every page of a frame from above
 * (CLASH is "probed"), and once without, where the first access may be
 * anywhere in it ("plain").
 *
 * SPDX-License-Identifier: MIT */

#include "clash_frames.h"

#define JOIN(a, b) a##b
#define NAME(name, kind) JOIN(name, kind)

/* The lowest byte of the frame is written first, and nothing above it. */
intptr_t NAME(clash_fixed_, CLASH)(void) {
    volatile char frame[CLASH_FIXED_BYTES];
    __asm__ volatile("" : : "r"(frame) : "memory"); /* all of it is needed */
    frame[0] = 1;
    return frame[0];
}

intptr_t NAME(clash_sized_, CLASH)(size_t n, intptr_t depth) {
    volatile char *frame = __builtin_alloca(n);
    frame[0] = 1;
    if (depth > 1)
        return NAME(clash_sized_, CLASH)(n, depth - 1) + frame[0];
    return frame[0];
}
