/* The heap buffers that evicted stack bytes are in: size classes per thread,
 * the most recently given slice of a class is taken first. That one is kept
 * beside the pages, where it counts as in use.
 *
 * Classes: every 16 bytes up to 512, then four per doubling. Slices of up to
 * SLICE_PAGED bytes come from pages of one class, larger ones are mappings of
 * their own. Slices above 512 bytes are 64-aligned, smaller ones 16-aligned.
 *
 * Retention: per class the warm slice, two empty pages at the most (the first,
 * and a spare), and SLICE_CACHED bytes of mappings.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SLICES_H
#define GREENLET_SLICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

enum {
    SLICE_FINE_LOG = 9,
    SLICE_FINE = 1 << SLICE_FINE_LOG, /* up to here in steps of 16 */
    SLICE_FINE_CLASSES = SLICE_FINE / 16,
    SLICE_PAGED_LOG = 14,
    SLICE_PAGED = 1 << SLICE_PAGED_LOG,
    SLICE_PAGED_CLASSES =
        SLICE_FINE_CLASSES + 4 * (SLICE_PAGED_LOG - SLICE_FINE_LOG),
    SLICE_PAGE_BYTES = 65536,
    SLICE_CLASSES = SLICE_FINE_CLASSES + 4 * (32 - SLICE_FINE_LOG), /* 4 GiB */
    SLICE_CACHED = 4 << 20
};

struct slice_page;

struct slice_pool {
    void *warm[SLICE_PAGED_CLASSES];         /* given last, or NULL         */
    struct slice_page *pages[SLICE_CLASSES]; /* those put last are full     */
    struct slice_page *pages_last[SLICE_CLASSES];
    struct slice_page *spare[SLICE_CLASSES]; /* an empty one, or NULL      */
    void *cached[SLICE_CLASSES];             /* mappings, by first word    */
    size_t cached_bytes;
};

static inline size_t slice_bytes(unsigned class) {
    if (class < SLICE_FINE_CLASSES)
        return (class + 1) * (size_t)16;
    class -= SLICE_FINE_CLASSES;
    return (size_t)(5 + (class & 3)) << (SLICE_FINE_LOG - 2 + class / 4);
}

/* The class for `bytes` (> 0), and the bytes that its slices have. */
static inline unsigned slice_fit(size_t bytes, size_t *room) {
    size_t last = bytes - 1;
    if (likely(last < SLICE_FINE)) {
        *room = (last | 15) + 1;
        return (unsigned)(last / 16);
    }
    unsigned log = 63 - (unsigned)__builtin_clzll(last / SLICE_FINE);
    unsigned step = log + SLICE_FINE_LOG - 2; /* four to a doubling */
    *room = ((last >> step) + 1) << step;
    return SLICE_FINE_CLASSES + 4 * log + ((unsigned)(last >> step) & 3);
}

static inline unsigned slice_class(size_t bytes) {
    size_t room;
    return slice_fit(bytes, &room);
}

struct slice_page {
    struct slice_page *next, *prev;
    void *free;               /* by first word */
    uint32_t used, unused_at; /* slices in use; offset of the never used */
    bool put_last;            /* was full when it was last looked at     */
    _Alignas(64) char slices[];
};

/* A slice of slice_bytes(class), not cleared; NULL: no memory. */
void *slice_take_slow(struct slice_pool *pool, unsigned class);
void slice_give_slow(struct slice_pool *pool, void *slice, unsigned class);

static inline struct slice_page *slice_page_of(void *slice) {
    return (struct slice_page *)((uintptr_t)slice &
                                 ~(uintptr_t)(SLICE_PAGE_BYTES - 1));
}

/* The one that was given last, if it is still here; else NULL. */
static inline void *slice_take_warm(struct slice_pool *pool, size_t class) {
    void *slice = pool->warm[class];
    pool->warm[class] = NULL;
    return slice;
}

static inline void *slice_take(struct slice_pool *pool, unsigned class) {
    void *slice = NULL;
    if (class < SLICE_PAGED_CLASSES)
        slice = slice_take_warm(pool, class);
    return slice ? slice : slice_take_slow(pool, class);
}

/* If there is no other; else false. */
static inline bool slice_give_warm(struct slice_pool *pool, void *slice,
                                   size_t class) {
    if (unlikely(pool->warm[class]))
        return false;
    pool->warm[class] = slice;
    return true;
}

static inline void slice_give(struct slice_pool *pool, void *slice,
                              unsigned class) {
    if (class >= SLICE_PAGED_CLASSES || !slice_give_warm(pool, slice, class))
        slice_give_slow(pool, slice, class);
}

void slice_pool_destroy(struct slice_pool *pool);

#endif
