/* A pool of stacks with guards, for the backends that give each greenlet its
 * own. One pool belongs to one thread; no lock.
 *
 *      slot                                                  next slot
 *      | guard | low .... committed as touched .... high | note | stagger |
 *
 * Tops are staggered by cache lines so that they do not collide in the cache.
 * The pool's note of a stack is in the page that the stack touches anyway: one
 * that waits costs that page and nothing else. In strict mode (strict.c) stacks
 * are closed by pages while the notes are read: there a note has a page of its
 * own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_STACKS_H
#define GREENLET_STACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

struct greenlet_thread;
struct stack_chunk;

/* The note; stands at high. */
struct stack_slot {
    struct stack_slot *next;
    struct stack_chunk *chunk;
    char *low;
    unsigned char index, fresh;
};

struct stack {
    char *low, *high; /* [low, high); high is 64-aligned; guard below low */
    struct stack_slot *slot;
};

enum {
    STACK_CLASSES = 17,
    STACKS_HOT = 8,
    STACK_GUARD_BYTES = 65536 /* below each stack */
};

struct stack_class {
    struct stack_slot *hot[STACKS_HOT]; /* the last one was given last */
    unsigned n_hot;
    struct stack_slot *cold; /* shrunk to their topmost part */
    size_t n_cold;
    struct stack_chunk *chunks, *chunks_last; /* with bare slots first */
    size_t n_idle;                            /* chunks of bare slots only */
};

struct stack_pool {
    struct stack_class classes[STACK_CLASSES];
    bool notes_apart; /* set before the first stack is taken */
};

static inline struct stack stack_of(struct stack_slot *slot) {
    return (struct stack){slot->low, (char *)slot, slot};
}

/* Takes a stack of at least `bytes` (<= 1 GiB). *fresh (may be NULL): nothing
 * that was on it before is left; else its topmost 16 KiB, the 64 bytes below
 * high among them, are as the last user left them. 0 or -ENOMEM. */
int stack_take(struct stack_pool *pool, size_t bytes, struct stack *out,
               bool *fresh);

/* Gives it back. May be called while running on it, as the last thing before
 * leaving it for ever: its memory stays usable until the pool's next call. */
void stack_give(struct stack_pool *pool, struct stack s);

/* Unmaps all stacks, also those not given back. */
void stack_pool_destroy(struct stack_pool *pool);

/* NULL, or why that cannot be a stack in use; checked as backend_sound() is. */
const char *stack_sound(const struct greenlet_thread *t,
                        const struct stack_slot *slot, const char *low);

/* ---- For backends that keep where a greenlet goes on upon its stack ---- */

/* Main's high end: that of a thread's own stack is not known. */
#define STACK_MAIN_BASE ((char *)(UINTPTR_MAX & ~(uintptr_t)63))

/* backend_bounds() of a greenlet with the stack `s`. */
void stack_bounds(struct stack s, uintptr_t *low, uintptr_t *high,
                  size_t *guard);

/* backend_sound() of a suspended one that goes on with what is in
 * [at, at + n). */
const char *stack_holds(const struct greenlet_thread *t, struct stack s,
                        bool is_main, const void *at, size_t n);

#endif
