/* The one primitive through which every byte of a stack moves.
 *
 * All ranges are multiples of 8 bytes and 8-aligned. Runs on any stack; must
 * not be instrumented: it reads and writes whole stacks, redzones included.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_COPY_MOVE_H
#define GREENLET_COPY_MOVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "annotate.h"

#define MOVE_PLAIN                                                             \
    __attribute__((no_sanitize("address", "undefined", "thread")))

typedef uint64_t move_words
    __attribute__((vector_size(16), aligned(8), may_alias));
typedef uint64_t move_word __attribute__((may_alias));

/* dst and src do not overlap. For some KiB. */
MOVE_PLAIN static inline void move_small(void *dst, const void *src, size_t n) {
    char *d = dst;
    const char *s = src;
    for (; n >= 64; n -= 64, d += 64, s += 64) {
        move_words a = ((const move_words *)s)[0],
                   b = ((const move_words *)s)[1],
                   c = ((const move_words *)s)[2],
                   e = ((const move_words *)s)[3];
        ((move_words *)d)[0] = a;
        ((move_words *)d)[1] = b;
        ((move_words *)d)[2] = c;
        ((move_words *)d)[3] = e;
    }
    for (; n >= 16; n -= 16, d += 16, s += 16)
        *(move_words *)d = *(const move_words *)s;
    if (n)
        *(move_word *)d = *(const move_word *)s;
}

/* For any size. */
MOVE_PLAIN static inline void move_bytes(void *dst, const void *src, size_t n) {
    if (n > 4096 && !ANNOTATE_ASAN && !ANNOTATE_TSAN)
        memcpy(dst, src, n);
    else
        move_small(dst, src, n);
}

/* Exchanges two ranges in one pass. */
MOVE_PLAIN static inline void move_exchange(void *x, void *y, size_t n) {
    char *p = x, *q = y;
    for (; n >= 32; n -= 32, p += 32, q += 32) {
        move_words a = ((move_words *)p)[0], b = ((move_words *)p)[1],
                   c = ((move_words *)q)[0], d = ((move_words *)q)[1];
        ((move_words *)p)[0] = c;
        ((move_words *)p)[1] = d;
        ((move_words *)q)[0] = a;
        ((move_words *)q)[1] = b;
    }
    for (; n >= 8; n -= 8, p += 8, q += 8) {
        move_word w = *(move_word *)p;
        *(move_word *)p = *(move_word *)q;
        *(move_word *)q = w;
    }
}

#endif
