/* See slab.h.
 *
 * SPDX-License-Identifier: MIT */
#include "slab.h"

#include <string.h>

#include "layout.h"

enum { SLABS_KEPT = 4 };

struct slab_layout slab_layout = {
    .bytes = SLAB_BYTES,
    .maker = offsetof(struct greenlet_slab, maker),
    .next = offsetof(struct greenlet_slab, next),
    .used_high = offsetof(struct greenlet_slab, used_high),
    .slots = offsetof(struct greenlet_slab, slots),
};

static void unlink_slab(struct greenlet_thread *t, struct greenlet_slab *s) {
    if (s->prev)
        s->prev->next = s->next;
    else
        t->slabs = s->next;
    if (s->next)
        s->next->prev = s->prev;
    else
        t->slabs_last = s->prev;
    s->next = s->prev = NULL;
}

static void link_first(struct greenlet_thread *t, struct greenlet_slab *s) {
    s->next = t->slabs;
    if (t->slabs)
        t->slabs->prev = s;
    else
        t->slabs_last = s;
    t->slabs = s;
}

static void link_last(struct greenlet_thread *t, struct greenlet_slab *s) {
    s->prev = t->slabs_last;
    if (t->slabs_last)
        t->slabs_last->next = s;
    else
        t->slabs = s;
    t->slabs_last = s;
}

/* The slot goes back to its slab; by the maker, or by anybody under the
 * maker's lock once that has exited. */
static void give(struct greenlet_thread *t, greenlet *g) {
    struct greenlet_slab *s = slab_of(g);
    bool was_full = s->used == SLAB_SLOTS;
    atomic_store_explicit(&g->home, 0, memory_order_relaxed);
    annotate_forget(g);
    g->queue_next = NULL;
    atomic_store_explicit(&g->state, CORE_FREED, memory_order_relaxed);
    if (t->check >= 0 && s->free) { /* reuse as late as possible */
        s->free_last->queue_next = g;
        s->free_last = g;
    } else {
        g->queue_next = s->free;
        if (!s->free)
            s->free_last = g;
        s->free = g;
    }
    s->used--;
    t->population--;
    if (was_full && t->slabs != s && !t->exiting) {
        unlink_slab(t, s);
        link_first(t, s);
    }
    if (s->used == 0) {
        if (t->slabs_empty >= SLABS_KEPT &&
            !(t->slow & SLOW_FORBID)) { /* or a walk is under way */
            unlink_slab(t, s);
            memory_unmap(s, SLAB_BYTES);
        } else {
            t->slabs_empty++;
        }
    }
}

/* Takes back what other threads have freed; under the lock. */
void slab_collect(struct greenlet_thread *t) {
    while (t->returned) {
        greenlet *g = t->returned;
        t->returned = g->queue_next;
        give(t, g);
    }
}

greenlet *slab_take(struct greenlet_thread *t) {
    struct greenlet_slab *s = t->slabs;
    if (unlikely(!s || s->used == SLAB_SLOTS)) {
        pthread_mutex_lock(&t->lock);
        slab_collect(t);
        pthread_mutex_unlock(&t->lock);
        s = t->slabs;
        if (!s || s->used == SLAB_SLOTS) {
            s = memory_map(SLAB_BYTES, SLAB_BYTES);
            if (!s)
                return NULL;
            annotate_shared(s, SLAB_BYTES);
            s->maker = t;
            link_first(t, s);
            t->slabs_empty++;
        }
    }
    greenlet *g = s->free;
    if (g && (t->check < 0 || s->used_high == SLAB_SLOTS)) {
        s->free = g->queue_next;
        memset(g, 0, sizeof(*g));
    } else {
        g = &s->slots[s->used_high++];
    }
    t->population++;
    if (s->used++ == 0)
        t->slabs_empty--;
    if (unlikely(s->used == SLAB_SLOTS) && s->next) {
        unlink_slab(t, s);
        link_last(t, s);
    }
    return g;
}

void slab_give(greenlet *g) {
    struct greenlet_thread *t = slab_maker(g);
    if (t == core_self) {
        give(t, g);
        return;
    }
    pthread_mutex_lock(&t->lock);
    if (atomic_load_explicit(&t->exited, memory_order_relaxed)) {
        give(t, g);
    } else {
        atomic_store_explicit(&g->state, CORE_FREED, memory_order_relaxed);
        atomic_store_explicit(&g->home, 0, memory_order_relaxed);
        g->queue_next = t->returned;
        t->returned = g;
    }
    core_unlock(t);
}

bool slab_visit(struct greenlet_thread *t, bool (*visit)(greenlet *, void *),
                void *data) {
    for (struct greenlet_slab *s = t->slabs, *next; s; s = next) {
        next = s->next;
        for (uint32_t i = 0; i < s->used_high; i++)
            if ((int)core_state(&s->slots[i]) != CORE_FREED &&
                visit(&s->slots[i], data))
                return true;
    }
    return false;
}

void slab_destroy(struct greenlet_thread *t) {
    while (t->slabs) {
        struct greenlet_slab *s = t->slabs;
        unlink_slab(t, s);
        memory_unmap(s, SLAB_BYTES);
    }
}
