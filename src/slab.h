/* Slabs of greenlets: aligned blocks that one thread makes greenlets in, so
 * that a greenlet's maker is found by masking its address and a walk over all
 * greenlets needs no links.
 *
 *     +--------+------+------+------+-----
 *     | header | slot | slot | slot | ...     SLAB_BYTES, aligned to that
 *     +--------+------+------+------+-----
 *
 * Slots up to `used_high` have been used; a free one has state CORE_FREED and
 * is linked by queue_next. Slabs with a free slot stand before the full ones.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SLAB_H
#define GREENLET_SLAB_H

#include "core.h"

enum { SLAB_BYTES = 65536 };

struct greenlet_slab {
    struct greenlet_thread *maker;
    struct greenlet_slab *next, *prev;
    greenlet *free, *free_last;
    uint32_t used, used_high;
    greenlet slots[];
};

enum {
    SLAB_SLOTS =
        (SLAB_BYTES - sizeof(struct greenlet_slab)) / sizeof(struct greenlet)
};

static inline struct greenlet_slab *slab_of(const greenlet *g) {
    return (struct greenlet_slab *)((uintptr_t)g &
                                    ~(uintptr_t)(SLAB_BYTES - 1));
}

static inline struct greenlet_thread *slab_maker(const greenlet *g) {
    return slab_of(g)->maker;
}

/* slab_take() and slab_give() where neither the order of the slabs nor the
 * number of empty ones changes; else NULL, false. The slot that is taken is
 * not cleared. For a thread that checks nothing. */
static inline greenlet *slab_take_plain(struct greenlet_thread *t) {
    struct greenlet_slab *s = t->slabs;
    if (unlikely(s->used - 1 >= SLAB_SLOTS - 2))
        return NULL;
    greenlet *g = s->free;
    if (g)
        s->free = g->queue_next;
    else
        g = &s->slots[s->used_high++];
    s->used++;
    t->population++;
    return g;
}

static inline bool slab_give_plain(struct greenlet_thread *t, greenlet *g) {
    struct greenlet_slab *s = slab_of(g);
    if (unlikely(s->used - 2 >= SLAB_SLOTS - 2))
        return false;
    atomic_store_explicit(&g->home, 0, memory_order_relaxed);
    atomic_store_explicit(&g->state, CORE_FREED, memory_order_relaxed);
    g->queue_next = s->free;
    if (!s->free)
        s->free_last = g;
    s->free = g;
    s->used--;
    t->population--;
    return true;
}

#endif
