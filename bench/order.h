/* In which order many greenlets are visited: numbers that are the same in
 * every run, on every machine, for every contestant.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_ORDER_H
#define BENCH_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift
 * generators, scrambled", 2016. */
static inline uint64_t bench_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* 0 .. count-1, each once, in order or shuffled. NULL: no memory. The caller
 * frees it. */
static inline uint32_t *bench_order(size_t count, bool shuffled) {
    uint32_t *order = (uint32_t *)calloc(count, sizeof *order);
    if (!order)
        return NULL;
    uint64_t state = 42;
    for (size_t i = 0; i < count; i++) {
        size_t j = shuffled ? (size_t)(bench_random(&state) % (i + 1)) : i;
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    return order;
}

/* `length` visits to `population`, of whom number k comes in proportion to
 * 1 / (k + 1), as words in a text and connections of a server do (Zipf's law,
 * exponent 1). NULL: no memory. The caller frees it. */
static inline uint32_t *bench_zipf(size_t length, size_t population) {
    uint32_t *visits = (uint32_t *)calloc(length, sizeof *visits);
    double *sums = (double *)calloc(population, sizeof *sums);
    if (!visits || !sums) {
        free(visits);
        free(sums);
        return NULL;
    }
    double sum = 0;
    for (size_t k = 0; k < population; k++)
        sums[k] = sum += 1 / (double)(k + 1);
    uint64_t state = 42;
    for (size_t i = 0; i < length; i++) {
        double at = sum * ((double)(bench_random(&state) >> 11) / 0x1p53);
        size_t low = 0, high = population - 1; /* the first above `at` */
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (sums[middle] > at)
                high = middle;
            else
                low = middle + 1;
        }
        visits[i] = (uint32_t)low;
    }
    free(sums);
    return visits;
}

#endif
