/* The heap buffers that evicted stack bytes are in: size classes per thread,
 * the most recently given slice of a class is taken first.
 *
 * Classes: every 16 bytes up to 512, then four per doubling. Slices of up to
 * SLICE_PAGED bytes come from pages of one class, larger ones are mappings of
 * their own. Slices above 512 bytes are 64-aligned, smaller ones 16-aligned.
 *
 * Retention: per class two empty pages at the most (the first, and a spare),
 * and SLICE_CACHED bytes of mappings.
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SLICES_H
#define GREENLET_SLICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

enum {
    SLICE_FINE = 512, /* up to here in steps of 16 */
    SLICE_PAGED = 16384,
    SLICE_PAGE_BYTES = 65536,
    SLICE_CLASSES = 32 + 4 * 23, /* up to 4 GiB */
    SLICE_CACHED = 4 << 20
};

struct slice_page;

struct slice_pool {
    struct slice_page *pages[SLICE_CLASSES]; /* those put last are full     */
    struct slice_page *pages_last[SLICE_CLASSES];
    struct slice_page *spare[SLICE_CLASSES]; /* an empty one, or NULL      */
    void *cached[SLICE_CLASSES];             /* mappings, by first word    */
    size_t cached_bytes;
};

static inline unsigned slice_class(size_t bytes) {
    if (bytes <= SLICE_FINE)
        return bytes ? (unsigned)((bytes - 1) / 16) : 0;
    unsigned log = 63 - (unsigned)__builtin_clzll((bytes - 1) >> 9);
    return 32 + 4 * log + (unsigned)(((bytes - 1) >> (log + 7)) & 3);
}

static inline size_t slice_bytes(unsigned class) {
    if (class < 32)
        return (class + 1) * (size_t)16;
    return (size_t)(5 + ((class - 32) & 3)) << (7 + (class - 32) / 4);
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

/* The class's first page has a free slice; else NULL. */
static inline void *slice_take_fast(struct slice_pool *pool, unsigned class) {
    struct slice_page *p = pool->pages[class];
    void *slice;
    if (unlikely(!p || !(slice = p->free)))
        return NULL;
    p->free = *(void **)slice;
    p->used++;
    return slice;
}

static inline void *slice_take(struct slice_pool *pool, unsigned class) {
    void *slice = slice_take_fast(pool, class);
    return likely(slice) ? slice : slice_take_slow(pool, class);
}

/* Here: the page is the class's first. */
static inline void slice_give(struct slice_pool *pool, void *slice,
                              unsigned class) {
    struct slice_page *p = slice_page_of(slice);
    if (likely(pool->pages[class] == p)) {
        *(void **)slice = p->free;
        p->free = slice;
        p->used--;
        return;
    }
    slice_give_slow(pool, slice, class);
}

void slice_pool_destroy(struct slice_pool *pool);

#endif
