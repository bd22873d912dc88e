/* See stacks.h. Memory goes back in steps: the STACKS_HOT most recently given
 * stacks of a size are kept as they are; an older one keeps its topmost part;
 * when COLD_KEPT of these are kept, further ones keep nothing ("bare"). Of
 * the chunks with bare slots only, IDLE_KEPT stay mapped.
 *
 * SPDX-License-Identifier: MIT */
#include "stacks.h"

#include <errno.h>

#include "core.h"

enum {
    CLASS_LEAST = 14, /* log2: 16 KiB */
    GUARD_BYTES = 65536,
    TOP_KEPT = 16384,
    COLD_KEPT = 64,
    IDLE_KEPT = 1,
    STAGGER = 32, /* tops at so many different cache lines of a page */
    CHUNK_SLOTS = 64
};
static const size_t CHUNK_BYTES_MOST = (size_t)1 << 26;

struct stack_slot {
    struct stack_slot *next;
    struct stack_chunk *chunk;
    char *low, *high;
    unsigned char guarded, fresh;
};

struct stack_chunk {
    struct stack_chunk *next, *prev;
    char *memory;
    size_t bytes, slot_bytes; /* of the whole; of a slot without its guard */
    unsigned class, n, n_bare;
    struct stack_slot *bare;
    struct stack_slot slots[];
};

size_t stack_guard_bytes(void) { return GUARD_BYTES; }

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

static void push_bare(struct stack_slot *slot) {
    slot->fresh = 1;
    slot->next = slot->chunk->bare;
    slot->chunk->bare = slot;
    slot->chunk->n_bare++;
}

/* Guards are made when a slot is first taken. */
static int add_chunk(struct stack_class *c, unsigned class) {
    size_t slot_bytes =
        ((size_t)1 << (class + CLASS_LEAST)) + memory_page(); /* + stagger */
    size_t stride = slot_bytes + GUARD_BYTES;
    unsigned n = CHUNK_SLOTS;
    while (n > 1 && stride * n > CHUNK_BYTES_MOST)
        n /= 2;
    struct stack_chunk *k =
        memory_alloc(sizeof(*k) + n * sizeof(struct stack_slot));
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
    for (unsigned i = n; i-- > 0;) {
        struct stack_slot *slot = &k->slots[i];
        slot->chunk = k;
        slot->low = k->memory + i * stride + GUARD_BYTES;
        slot->high = slot->low + slot_bytes - i % STAGGER * 64;
        push_bare(slot);
    }
    link_first(c, k);
    c->n_idle++;
    return 0;
}

static void remove_chunk(struct stack_class *c, struct stack_chunk *k) {
    unlink_chunk(c, k);
    memory_unmap(k->memory, k->bytes);
    memory_free(k);
}

static struct stack_slot *take_bare(struct stack_class *c, unsigned class) {
    struct stack_chunk *k = c->chunks;
    if (!k || !k->bare) {
        if (add_chunk(c, class) != 0)
            return NULL;
        k = c->chunks;
    }
    struct stack_slot *slot = k->bare;
    if (!slot->guarded &&
        memory_guard(slot->low - GUARD_BYTES, GUARD_BYTES) != 0)
        return NULL;
    if (!slot->guarded)
        annotate_stack(slot->low, slot->low + k->slot_bytes);
    slot->guarded = 1;
    k->bare = slot->next;
    if (k->n_bare-- == k->n)
        c->n_idle--;
    if (k->n_bare == 0) {
        unlink_chunk(c, k);
        link_last(c, k);
    }
    return slot;
}

static void give_bare(struct stack_class *c, struct stack_slot *slot) {
    struct stack_chunk *k = slot->chunk;
    memory_discard(slot->low, k->slot_bytes);
    push_bare(slot);
    if (k->n_bare == 1) {
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
    } else if (!(slot = take_bare(c, class))) {
        return -ENOMEM;
    }
    *out = (struct stack){slot->low, slot->high, slot};
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
