/* The one primitive through which every byte of a stack moves.
 *
 * All ranges are multiples of 8 bytes (of 16 where sp is always one) and
 * 8-aligned. Runs on any stack; must not be instrumented: it reads and writes
 * whole stacks, redzones included.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_COPY_MOVE_H
#define GREENLET_COPY_MOVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "annotate.h"
#include "arch.h"

#define MOVE_PLAIN                                                             \
    __attribute__((no_sanitize("address", "undefined", "thread")))

typedef uint64_t move_words
    __attribute__((vector_size(16), aligned(8), may_alias));
typedef uint64_t move_word __attribute__((may_alias));

MOVE_PLAIN static inline void move_16(char *d, const char *s) {
    *(move_words *)d = *(const move_words *)s;
}

MOVE_PLAIN static inline void move_64(char *d, const char *s) {
    move_words a = ((const move_words *)s)[0], b = ((const move_words *)s)[1],
               c = ((const move_words *)s)[2], e = ((const move_words *)s)[3];
    ((move_words *)d)[0] = a;
    ((move_words *)d)[1] = b;
    ((move_words *)d)[2] = c;
    ((move_words *)d)[3] = e;
}

/* dst and src do not overlap. For some hundred bytes: whole 64s at the far
 * end, which is where both are aligned. */
MOVE_PLAIN static inline void move_small(void *dst, const void *src, size_t n) {
    char *d = (char *)dst + n;
    const char *s = (const char *)src + n;
    intptr_t i = -(intptr_t)n;
    if (ARCH_STACK_ALIGN < 16 && n & 8) {
        *(move_word *)(d + i) = *(const move_word *)(s + i);
        i += 8;
    }
    if (n & 16) {
        move_16(d + i, s + i);
        i += 16;
    }
    if (n & 32) {
        move_16(d + i, s + i);
        move_16(d + i + 16, s + i + 16);
        i += 32;
    }
    for (; i; i += 64)
        move_64(d + i, s + i);
}

#if ARCH_MOVE

/* For any size. */
static inline void move_bytes(void *dst, const void *src, size_t n) {
    arch_move(dst, src, n);
}

static inline void move_exchange(void *x, void *y, size_t n) {
    arch_exchange(x, y, n);
}

/* Is one pass that exchanges two ranges better than two copies? */
static inline bool move_exchange_pays(size_t n) {
    return arch_exchange_pays(n);
}

#else

MOVE_PLAIN static inline void move_bytes(void *dst, const void *src, size_t n) {
    if (n > 4096 && !ANNOTATE_ASAN && !ANNOTATE_TSAN)
        memcpy(dst, src, n);
    else
        move_small(dst, src, n);
}

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

static inline bool move_exchange_pays(size_t n) {
    (void)n;
    return false;
}

#endif
#endif
