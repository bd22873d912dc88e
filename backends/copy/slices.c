/* See slices.h.
 *
 * SPDX-License-Identifier: MIT */
#include "slices.h"

#include "core.h"

struct slice_page {
    struct slice_page *next, *prev;
    void *free; /* by first word */
    uint32_t used, unused_at; /* slices in use; offset of the never used */
    char pad[32];
    char slices[];
};

_Static_assert(sizeof(struct slice_page) == 64, "slices stay 64-aligned");

static struct slice_page *page_of(void *slice) {
    return (struct slice_page *)((uintptr_t)slice &
                                 ~(uintptr_t)(SLICE_PAGE_BYTES - 1));
}

static void unlink_page(struct slice_pool *pool, struct slice_page *p,
                        unsigned class) {
    *(p->prev ? &p->prev->next : &pool->pages[class]) = p->next;
    *(p->next ? &p->next->prev : &pool->pages_last[class]) = p->prev;
    p->next = p->prev = NULL;
}

static void link_first(struct slice_pool *pool, struct slice_page *p,
                       unsigned class) {
    p->next = pool->pages[class];
    *(p->next ? &p->next->prev : &pool->pages_last[class]) = p;
    pool->pages[class] = p;
}

static void link_last(struct slice_pool *pool, struct slice_page *p,
                      unsigned class) {
    p->prev = pool->pages_last[class];
    *(p->prev ? &p->prev->next : &pool->pages[class]) = p;
    pool->pages_last[class] = p;
}

static bool full(const struct slice_page *p, size_t bytes) {
    return !p->free && p->unused_at + bytes > SLICE_PAGE_BYTES;
}

static void *take_large(struct slice_pool *pool, unsigned class) {
    void *slice = pool->cached[class];
    if (!slice)
        return memory_map(slice_bytes(class), 0);
    pool->cached[class] = *(void **)slice;
    pool->cached_bytes -= slice_bytes(class);
    return slice;
}

static void give_large(struct slice_pool *pool, void *slice, unsigned class) {
    if (pool->cached_bytes + slice_bytes(class) > SLICE_CACHED) {
        memory_unmap(slice, slice_bytes(class));
        return;
    }
    *(void **)slice = pool->cached[class];
    pool->cached[class] = slice;
    pool->cached_bytes += slice_bytes(class);
}

void *slice_take(struct slice_pool *pool, unsigned class) {
    size_t bytes = slice_bytes(class);
    if (unlikely(bytes > SLICE_PAGED))
        return take_large(pool, class);
    struct slice_page *p = pool->pages[class];
    if (unlikely(!p || full(p, bytes))) {
        p = memory_map(SLICE_PAGE_BYTES, SLICE_PAGE_BYTES);
        if (!p)
            return NULL;
        p->unused_at = sizeof(*p);
        link_first(pool, p, class);
        pool->n_empty[class]++;
    }
    void *slice = p->free;
    if (likely(slice)) {
        p->free = *(void **)slice;
    } else {
        slice = (char *)p + p->unused_at;
        p->unused_at += (uint32_t)bytes;
    }
    if (p->used++ == 0)
        pool->n_empty[class]--;
    if (unlikely(full(p, bytes)) && p->next) {
        unlink_page(pool, p, class);
        link_last(pool, p, class);
    }
    return slice;
}

void slice_give(struct slice_pool *pool, void *slice, unsigned class) {
    if (unlikely(slice_bytes(class) > SLICE_PAGED)) {
        give_large(pool, slice, class);
        return;
    }
    struct slice_page *p = page_of(slice);
    *(void **)slice = p->free;
    p->free = slice;
    if (unlikely(--p->used == 0) && pool->n_empty[class]++ != 0) {
        pool->n_empty[class]--;
        unlink_page(pool, p, class);
        memory_unmap(p, SLICE_PAGE_BYTES);
    } else if (pool->pages[class] != p) {
        unlink_page(pool, p, class);
        link_first(pool, p, class);
    }
}

void slice_pool_destroy(struct slice_pool *pool) {
    for (unsigned class = 0; class < SLICE_CLASSES; class++) {
        while (pool->pages[class]) {
            struct slice_page *p = pool->pages[class];
            unlink_page(pool, p, class);
            memory_unmap(p, SLICE_PAGE_BYTES);
        }
        while (pool->cached[class]) {
            void *slice = pool->cached[class];
            pool->cached[class] = *(void **)slice;
            memory_unmap(slice, slice_bytes(class));
        }
    }
    pool->cached_bytes = 0;
}
