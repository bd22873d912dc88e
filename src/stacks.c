/* See stacks.h. Memory goes back in steps: the STACKS_HOT most recently given
 * stacks of a size are kept as they are; an older one keeps its topmost part;
 * when COLD_KEPT of these are kept, further ones keep nothing ("bare"). Of
 * the chunks with bare slots only, IDLE_KEPT stay mapped.
 *
 * SPDX-License-Identifier: MIT */
#include "stacks.h"

#include <errno.h>

#include "backend.h"

enum {
    CLASS_LEAST = 14, /* log2: 16 KiB */
    TOP_KEPT = 16384,
    COLD_KEPT = 64,
    IDLE_KEPT = 1,
    STAGGER = 32, /* tops at so many different cache lines of a page */
    NOTE_BYTES = 64,
    CHUNK_SLOTS = 64 /* bits of a mask */
};
static const size_t CHUNK_BYTES_MOST = (size_t)1 << 26;

_Static_assert(sizeof(struct stack_slot) <= NOTE_BYTES, "the note's room");
_Static_assert(NOTE_BYTES + (STAGGER - 1) * 64 < 4096, "within a page");

struct stack_chunk {
    struct stack_chunk *next, *prev;
    char *memory;
    size_t bytes, slot_bytes; /* of the whole; of a slot without its guard */
    unsigned class, n, n_bare;
    uint64_t bare, guarded; /* of each slot: nothing on it; its guard is made */
};

static char *low_of(const struct stack_chunk *k, unsigned i) {
    return k->memory + i * (k->slot_bytes + STACK_GUARD_BYTES) +
           STACK_GUARD_BYTES;
}

static inline bool slot_sound(const struct greenlet_thread *t,
                              const struct stack_slot *slot) {
    const struct stack_chunk *k;
    return !((uintptr_t)slot % _Alignof(struct stack_slot)) &&
           check_known(t, slot, sizeof(*slot)) &&
           (const char *)slot > slot->low && slot->index < CHUNK_SLOTS &&
           !slot->fresh && (k = slot->chunk) != NULL &&
           !((uintptr_t)k % _Alignof(struct stack_chunk)) &&
           check_known(t, k, sizeof(*k)) && slot->index < k->n &&
           slot->low == low_of(k, slot->index) &&
           (const char *)slot < slot->low + k->slot_bytes;
}

const char *stack_sound(const struct greenlet_thread *t,
                        const struct stack_slot *slot, const char *low) {
    return slot_sound(t, slot) && slot->low == low
               ? NULL
               : "its stack is none of the pool's";
}

void stack_bounds(struct stack s, uintptr_t *low, uintptr_t *high,
                  size_t *guard) {
    bool known = s.high && s.high != STACK_MAIN_BASE;
    *low = known ? (uintptr_t)s.low : 0;
    *high = known ? (uintptr_t)s.high : UINTPTR_MAX;
    *guard = known ? STACK_GUARD_BYTES : 0;
}

const char *stack_holds(const struct greenlet_thread *t, struct stack s,
                        bool is_main, const void *at, size_t n) {
    uintptr_t first = (uintptr_t)at;
    uintptr_t low = (uintptr_t)s.low, high = (uintptr_t)s.high;
    if (is_main) {
        if (s.high != STACK_MAIN_BASE)
            return "main has a stack of the pool";
        low = t->own_low;
        high = t->own_high ? t->own_high : UINTPTR_MAX;
    } else {
        const char *what = stack_sound(t, s.slot, s.low);
        if (what || (char *)s.slot != s.high)
            return what ? what : "its stack is none of the pool's";
    }
    if (first % sizeof(void *) || first < low || first > high ||
        high - first < n || !check_known(t, at, n))
        return "where it goes on is not on its stack";
    return NULL;
}

static unsigned class_of(size_t bytes) {
    unsigned class = 0;
    while (class < STACK_CLASSES &&
           ((size_t)1 << (class + CLASS_LEAST)) < bytes)
        class ++;
    return class;
}

/* ---- Chunks ----------------------------------------------------------- */

static void unlink_chunk(struct stack_class *c, struct stack_chunk *k) {
    *(k->prev ? &k->prev->next : &c->chunks) = k->next;
    *(k->next ? &k->next->prev : &c->chunks_last) = k->prev;
    k->next = k->prev = NULL;
}

static void link_first(struct stack_class *c, struct stack_chunk *k) {
    k->next = c->chunks;
    *(k->next ? &k->next->prev : &c->chunks_last) = k;
    c->chunks = k;
}

static void link_last(struct stack_class *c, struct stack_chunk *k) {
    k->prev = c->chunks_last;
    *(k->prev ? &k->prev->next : &c->chunks) = k;
    c->chunks_last = k;
}

/* Writes the note of a bare slot, which thereby is in memory. */
static struct stack_slot *note(struct stack_chunk *k, unsigned i, bool apart) {
    char *low = low_of(k, i), *end = low + k->slot_bytes;
    struct stack_slot *slot =
        (struct stack_slot *)(void *)(apart ? end - memory_page()
                                            : end - NOTE_BYTES -
                                                  i % STAGGER * 64);
    *slot = (struct stack_slot){NULL, k, low, (unsigned char)i, 1};
    return slot;
}

/* Guards are made when a slot is first taken. */
static int add_chunk(struct stack_class *c, unsigned class) {
    size_t slot_bytes =
        ((size_t)1 << (class + CLASS_LEAST)) + memory_page(); /* + stagger */
    size_t stride = slot_bytes + STACK_GUARD_BYTES;
    unsigned n = CHUNK_SLOTS;
    while (n > 1 && stride * n > CHUNK_BYTES_MOST)
        n /= 2;
    struct stack_chunk *k = memory_alloc(sizeof(*k));
    if (!k)
        return -ENOMEM;
    k->memory = memory_map(stride * n, 0);
    if (!k->memory) {
        memory_free(k);
        return -ENOMEM;
    }
    k->bytes = stride * n;
    k->slot_bytes = slot_bytes;
    k->class = class;
    k->n = n;
    k->n_bare = n;
    k->bare = ~(uint64_t)0 >> (CHUNK_SLOTS - n);
    link_first(c, k);
    c->n_idle++;
    return 0;
}

static void remove_chunk(struct stack_class *c, struct stack_chunk *k) {
    unlink_chunk(c, k);
    memory_unmap(k->memory, k->bytes);
    memory_free(k);
}

static struct stack_slot *take_bare(struct stack_class *c, unsigned class,
                                    bool apart) {
    struct stack_chunk *k = c->chunks;
    if (!k || k->n_bare == 0) {
        if (add_chunk(c, class) != 0)
            return NULL;
        k = c->chunks;
    }
    unsigned i = (unsigned)__builtin_ctzll(k->bare);
    uint64_t bit = (uint64_t)1 << i;
    if (!(k->guarded & bit) &&
        memory_guard(low_of(k, i) - STACK_GUARD_BYTES, STACK_GUARD_BYTES) != 0)
        return NULL;
    if (!(k->guarded & bit))
        annotate_stack(low_of(k, i), low_of(k, i) + k->slot_bytes);
    k->guarded |= bit;
    k->bare &= ~bit;
    if (k->n_bare-- == k->n)
        c->n_idle--;
    if (k->n_bare == 0) {
        unlink_chunk(c, k);
        link_last(c, k);
    }
    return note(k, i, apart);
}

static void give_bare(struct stack_class *c, struct stack_slot *slot) {
    struct stack_chunk *k = slot->chunk;
    k->bare |= (uint64_t)1 << slot->index;
    memory_discard(slot->low, k->slot_bytes); /* the note goes, too */
    if (++k->n_bare == 1) {
        unlink_chunk(c, k);
        link_first(c, k);
    }
    if (k->n_bare < k->n)
        return;
    if (c->n_idle == IDLE_KEPT)
        remove_chunk(c, k);
    else
        c->n_idle++;
}

/* ---- Stacks ----------------------------------------------------------- */

int stack_take(struct stack_pool *pool, size_t bytes, struct stack *out,
               bool *fresh) {
    unsigned class = class_of(bytes);
    if (class >= STACK_CLASSES)
        return -ENOMEM;
    struct stack_class *c = &pool->classes[class];
    struct stack_slot *slot;
    if (likely(c->n_hot)) {
        slot = c->hot[--c->n_hot];
    } else if (c->cold) {
        slot = c->cold;
        c->cold = slot->next;
        c->n_cold--;
    } else if (!(slot = take_bare(c, class, pool->notes_apart))) {
        return -ENOMEM;
    }
    *out = stack_of(slot);
    if (fresh)
        *fresh = slot->fresh;
    slot->fresh = 0;
    return 0;
}

/* The oldest of the hot ones; nobody runs on it any more. */
static void cool(struct stack_class *c) {
    struct stack_slot *slot = c->hot[0];
    for (unsigned i = 1; i < STACKS_HOT; i++)
        c->hot[i - 1] = c->hot[i];
    c->n_hot--;
    if (c->n_cold == COLD_KEPT) {
        give_bare(c, slot);
        return;
    }
    size_t deep = slot->chunk->slot_bytes - TOP_KEPT;
    deep &= ~(memory_page() - 1);
    if (memory_resident(slot->low, deep) != 0)
        memory_discard(slot->low, deep);
    slot->next = c->cold;
    c->cold = slot;
    c->n_cold++;
}

void stack_give(struct stack_pool *pool, struct stack s) {
    struct stack_class *c = &pool->classes[s.slot->chunk->class];
    if (unlikely(c->n_hot == STACKS_HOT))
        cool(c);
    c->hot[c->n_hot++] = s.slot;
}

void stack_pool_destroy(struct stack_pool *pool) {
    for (unsigned i = 0; i < STACK_CLASSES; i++) {
        struct stack_class *c = &pool->classes[i];
        while (c->chunks)
            remove_chunk(c, c->chunks);
        *c = (struct stack_class){0};
    }
}
