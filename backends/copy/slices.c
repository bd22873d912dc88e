/* See slices.h.
 *
 * SPDX-License-Identifier: MIT */
#include "slices.h"

#include "core.h"

_Static_assert(sizeof(struct slice_page) == 64, "slices stay 64-aligned");

static bool paged(unsigned class) { return class < SLICE_PAGED_CLASSES; }

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

static struct slice_page *new_page(struct slice_pool *pool, unsigned class) {
    struct slice_page *p = pool->spare[class];
    if (p) {
        pool->spare[class] = NULL;
    } else {
        p = memory_map(SLICE_PAGE_BYTES, SLICE_PAGE_BYTES);
        if (!p)
            return NULL;
        p->unused_at = sizeof(*p);
    }
    link_first(pool, p, class);
    return p;
}

void *slice_take_slow(struct slice_pool *pool, unsigned class) {
    size_t bytes = slice_bytes(class);
    if (unlikely(!paged(class)))
        return take_large(pool, class);
    struct slice_page *p;
    while ((p = pool->pages[class]) && full(p, bytes) && !p->put_last) {
        unlink_page(pool, p, class);
        link_last(pool, p, class);
        p->put_last = true;
    }
    if ((!p || full(p, bytes)) && !(p = new_page(pool, class)))
        return NULL;
    void *slice = p->free;
    if (slice) {
        p->free = *(void **)slice;
    } else {
        slice = (char *)p + p->unused_at;
        p->unused_at += (uint32_t)bytes;
    }
    p->used++;
    return slice;
}

void slice_give_slow(struct slice_pool *pool, void *slice, unsigned class) {
    if (unlikely(!paged(class))) {
        give_large(pool, slice, class);
        return;
    }
    struct slice_page *p = slice_page_of(slice);
    *(void **)slice = p->free;
    p->free = slice;
    p->used--;
    struct slice_page *front = pool->pages[class];
    if (front == p)
        return;
    if (front->used == 0) {
        unlink_page(pool, front, class);
        if (pool->spare[class])
            memory_unmap(front, SLICE_PAGE_BYTES);
        else
            pool->spare[class] = front;
    }
    unlink_page(pool, p, class);
    link_first(pool, p, class);
    p->put_last = false;
}

void slice_pool_destroy(struct slice_pool *pool) {
    for (unsigned class = 0; class < SLICE_PAGED_CLASSES; class ++)
        pool->warm[class] = NULL; /* it is on a page */
    for (unsigned class = 0; class < SLICE_CLASSES; class ++) {
        while (pool->pages[class]) {
            struct slice_page *p = pool->pages[class];
            unlink_page(pool, p, class);
            memory_unmap(p, SLICE_PAGE_BYTES);
        }
        if (pool->spare[class])
            memory_unmap(pool->spare[class], SLICE_PAGE_BYTES);
        pool->spare[class] = NULL;
        while (pool->cached[class]) {
            void *slice = pool->cached[class];
            pool->cached[class] = *(void **)slice;
            memory_unmap(slice, slice_bytes(class));
        }
    }
    pool->cached_bytes = 0;
}
