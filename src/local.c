/* Greenlet-local storage: one pointer per key and greenlet.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>

#include "core.h"

enum { ROUNDS = 4 }; /* as PTHREAD_DESTRUCTOR_ITERATIONS */

/* A value belongs to one life of its key. */
struct core_local {
    void *value;
    unsigned life;
};

static void no_destructor(void *value) { (void)value; }

static struct {
    _Atomic(void (*)(void *)) destructor; /* NULL: the key is free */
    _Atomic unsigned life;
} keys[GREENLET_KEYS_MAX];

static unsigned life_of(greenlet_key key) {
    return atomic_load_explicit(&keys[key].life, memory_order_relaxed);
}

int greenlet_key_create(greenlet_key *key, void (*destructor)(void *)) {
    if (!key)
        return -EINVAL;
    for (unsigned i = 0; i < GREENLET_KEYS_MAX; i++) {
        void (*none)(void *) = NULL;
        if (atomic_compare_exchange_strong(&keys[i].destructor, &none,
                                           destructor ? destructor
                                                      : no_destructor)) {
            *key = i;
            return 0;
        }
    }
    return -EAGAIN;
}

int greenlet_key_delete(greenlet_key key) {
    if (key >= GREENLET_KEYS_MAX || !atomic_load(&keys[key].destructor))
        return -EINVAL;
    atomic_fetch_add(&keys[key].life, 1);
    return atomic_exchange(&keys[key].destructor, NULL) ? 0 : -EINVAL;
}

void *greenlet_local_get(greenlet_key key) {
    greenlet *g = core_self->current;
    struct greenlet_side *side = g ? g->side : NULL;
    if (key >= GREENLET_KEYS_MAX || !side || !side->locals ||
        side->locals[key].life != life_of(key))
        return NULL;
    return side->locals[key].value;
}

int greenlet_local_set(greenlet_key key, void *value) {
    struct greenlet_thread *t = core_thread();
    if (!t)
        return core_no_thread();
    if (key >= GREENLET_KEYS_MAX || !atomic_load(&keys[key].destructor))
        return -EINVAL;
    struct greenlet_side *side = core_side(t->current);
    if (!side)
        return -ENOMEM;
    if (!side->locals) {
        if (!value)
            return 0;
        side->locals =
            memory_alloc(GREENLET_KEYS_MAX * sizeof(struct core_local));
        if (!side->locals)
            return -ENOMEM;
    }
    side->locals[key] = (struct core_local){value, life_of(key)};
    return 0;
}

void core_run_destructors(struct greenlet_thread *t, greenlet *g) {
    (void)t;
    struct greenlet_side *side = g->side;
    bool again = true;
    for (int round = 0; again && round < ROUNDS; round++) {
        again = false;
        for (unsigned i = 0; i < GREENLET_KEYS_MAX; i++) {
            struct core_local local = side->locals[i];
            void (*destroy)(void *) = atomic_load(&keys[i].destructor);
            side->locals[i].value = NULL;
            if (local.value && destroy && local.life == life_of(i)) {
                again = true;
                destroy(local.value);
            }
        }
    }
    memory_free(side->locals);
    side->locals = NULL;
}
