/* The heap buffers that evicted stack bytes are in: size classes per thread,
 * the most recently given slice of a class is taken first.
 *
 * Classes: every 16 bytes up to 512, then four per doubling. Slices of up to
 * SLICE_PAGED bytes come from pages of one class, larger ones are mappings of
 * their own. Slices above 512 bytes are 64-aligned, smaller ones 16-aligned.
 *
 * Retention: one empty page per class, and SLICE_CACHED bytes of mappings.
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SLICES_H
#define GREENLET_SLICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

enum {
    SLICE_FINE = 512,        /* up to here in steps of 16 */
    SLICE_PAGED = 16384,
    SLICE_PAGE_BYTES = 65536,
    SLICE_CLASSES = 32 + 4 * 23, /* up to 4 GiB */
    SLICE_CACHED = 4 << 20
};

struct slice_page;

struct slice_pool {
    struct slice_page *pages[SLICE_CLASSES]; /* with a free slice first    */
    struct slice_page *pages_last[SLICE_CLASSES];
    uint32_t n_empty[SLICE_CLASSES];         /* pages without used slices  */
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

/* A slice of slice_bytes(class), not cleared; NULL: no memory. */
void *slice_take(struct slice_pool *pool, unsigned class);
void slice_give(struct slice_pool *pool, void *slice, unsigned class);
void slice_pool_destroy(struct slice_pool *pool);

#endif
