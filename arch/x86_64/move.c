/* Copies for the sizes where the width of a move decides, on x86-64: with the
 * vectors that this CPU has. See ../arch.h for the contracts.
 *
 * Measured (Zen 5, both ways per switch, L1): 1 KiB 24 ns with SSE2, 12 with
 * AVX2, 9 with AVX-512; 16 KiB 393, 190, 132, memcpy 266; from 64 KiB on all
 * three and memcpy alike, and an exchange in one pass 0.55 of two copies.
 *
 * Blocks are aligned with the ranges' ends, where the stack and its slice are
 * both aligned; the rest is at the low end.
 *
 * SPDX-License-Identifier: MIT */
#include <immintrin.h>
#include <string.h>

#include "annotate.h"
#include "arch.h"

#define PLAIN(isa)                                                             \
    __attribute__((target(isa), no_sanitize("address"),                        \
                   no_sanitize("undefined"), no_sanitize("thread")))

/* From there on memcpy is as good or better. AddressSanitizer's and
 * ThreadSanitizer's would look at bytes that are none of theirs. */
#if ANNOTATE_ASAN || ANNOTATE_TSAN
#define BEYOND_CACHE SIZE_MAX
#define BEYOND_SMALL SIZE_MAX
#else
#define BEYOND_CACHE 49152
#define BEYOND_SMALL 4096
#endif

/* AVX-512 is taken where its first, slow generation is excluded. */
static inline bool have_512(void) {
    return __builtin_cpu_supports("avx512vbmi2");
}

static inline bool have_256(void) { return __builtin_cpu_supports("avx2"); }

/* Moves the low n % 128 bytes, a multiple of 16; returns how many. */
PLAIN("sse2") static inline size_t move_rest(char *d, const char *s, size_t n) {
    size_t at = 0;
    for (; at < (n & 127); at += 16)
        _mm_storeu_si128(
            (__m128i *)(void *)(d + at),
            _mm_loadu_si128((const __m128i *)(const void *)(s + at)));
    return at;
}

PLAIN("avx512f") static void move_512(char *d, const char *s, size_t n) {
    size_t at = 0;
    if (n & 16) {
        _mm_storeu_si128((__m128i *)(void *)d,
                         _mm_loadu_si128((const __m128i *)(const void *)s));
        at = 16;
    }
    if (n & 32) {
        _mm256_storeu_si256(
            (__m256i *)(void *)(d + at),
            _mm256_loadu_si256((const __m256i *)(const void *)(s + at)));
        at += 32;
    }
    if (n & 64) {
        _mm512_storeu_si512(d + at, _mm512_loadu_si512(s + at));
        at += 64;
    }
    for (; at < n; at += 128) {
        __m512i a = _mm512_loadu_si512(s + at);
        __m512i b = _mm512_loadu_si512(s + at + 64);
        _mm512_storeu_si512(d + at, a);
        _mm512_storeu_si512(d + at + 64, b);
    }
    _mm256_zeroupper();
}

PLAIN("avx2") static void move_256(char *d, const char *s, size_t n) {
    size_t at = move_rest(d, s, n);
    for (; at < n; at += 128) {
        const __m256i *from = (const __m256i *)(const void *)(s + at);
        __m256i *to = (__m256i *)(void *)(d + at);
        __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
        __m256i e = _mm256_loadu_si256(from + 2),
                f = _mm256_loadu_si256(from + 3);
        _mm256_storeu_si256(to, a);
        _mm256_storeu_si256(to + 1, b);
        _mm256_storeu_si256(to + 2, e);
        _mm256_storeu_si256(to + 3, f);
    }
    _mm256_zeroupper();
}

PLAIN("sse2") static void move_128(char *d, const char *s, size_t n) {
    size_t at = move_rest(d, s, n);
    for (; at < n; at += 64) {
        const __m128i *from = (const __m128i *)(const void *)(s + at);
        __m128i *to = (__m128i *)(void *)(d + at);
        __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1);
        __m128i e = _mm_loadu_si128(from + 2), f = _mm_loadu_si128(from + 3);
        _mm_storeu_si128(to, a);
        _mm_storeu_si128(to + 1, b);
        _mm_storeu_si128(to + 2, e);
        _mm_storeu_si128(to + 3, f);
    }
}

void arch_move(void *dst, const void *src, size_t n) {
    if (n > BEYOND_CACHE)
        memcpy(dst, src, n);
    else if (have_512())
        move_512(dst, src, n);
    else if (have_256())
        move_256(dst, src, n);
    else if (n > BEYOND_SMALL)
        memcpy(dst, src, n);
    else
        move_128(dst, src, n);
}

PLAIN("avx512f") static void exchange_512(char *x, char *y, size_t n) {
    for (size_t at = 0; at < n; at += 128) {
        __m512i a = _mm512_loadu_si512(x + at);
        __m512i b = _mm512_loadu_si512(x + at + 64);
        __m512i c = _mm512_loadu_si512(y + at);
        __m512i d = _mm512_loadu_si512(y + at + 64);
        _mm512_storeu_si512(x + at, c);
        _mm512_storeu_si512(x + at + 64, d);
        _mm512_storeu_si512(y + at, a);
        _mm512_storeu_si512(y + at + 64, b);
    }
    _mm256_zeroupper();
}

PLAIN("avx2") static void exchange_256(char *x, char *y, size_t n) {
    for (size_t at = 0; at < n; at += 64) {
        __m256i *p = (__m256i *)(void *)(x + at);
        __m256i *q = (__m256i *)(void *)(y + at);
        __m256i a = _mm256_loadu_si256(p), b = _mm256_loadu_si256(p + 1);
        __m256i c = _mm256_loadu_si256(q), d = _mm256_loadu_si256(q + 1);
        _mm256_storeu_si256(p, c);
        _mm256_storeu_si256(p + 1, d);
        _mm256_storeu_si256(q, a);
        _mm256_storeu_si256(q + 1, b);
    }
    _mm256_zeroupper();
}

PLAIN("sse2") static void exchange_128(char *x, char *y, size_t n) {
    for (size_t at = 0; at < n; at += 16) {
        __m128i *p = (__m128i *)(void *)(x + at);
        __m128i *q = (__m128i *)(void *)(y + at);
        __m128i a = _mm_loadu_si128(p), c = _mm_loadu_si128(q);
        _mm_storeu_si128(p, c);
        _mm_storeu_si128(q, a);
    }
}

void arch_exchange(void *x, void *y, size_t n) {
    size_t rest = n & 127;
    exchange_128(x, y, rest);
    x = (char *)x + rest;
    y = (char *)y + rest;
    n -= rest;
    if (have_512())
        exchange_512(x, y, n);
    else if (have_256())
        exchange_256(x, y, n);
    else
        exchange_128(x, y, n);
}

bool arch_exchange_pays(size_t n) { return n >= 32768 && have_256(); }
