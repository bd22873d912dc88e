/* Greenlet-local storage: one pointer per key and greenlet.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>

#include "core.h"

enum { ROUNDS = 4 }; /* as PTHREAD_DESTRUCTOR_ITERATIONS */

static void no_destructor(void *value) { (void)value; }

/* NULL: the key is free. */
static _Atomic(void (*)(void *)) destructors[GREENLET_KEYS_MAX];

int greenlet_key_create(greenlet_key *key, void (*destructor)(void *)) {
    if (!key)
        return -EINVAL;
    for (unsigned i = 0; i < GREENLET_KEYS_MAX; i++) {
        void (*none)(void *) = NULL;
        if (atomic_compare_exchange_strong(
                &destructors[i], &none,
                destructor ? destructor : no_destructor)) {
            *key = i;
            return 0;
        }
    }
    return -EAGAIN;
}

int greenlet_key_delete(greenlet_key key) {
    if (key >= GREENLET_KEYS_MAX ||
        !atomic_exchange(&destructors[key], NULL))
        return -EINVAL;
    return 0;
}

void *greenlet_local_get(greenlet_key key) {
    struct greenlet_side *side =
        core_self->current ? core_self->current->side : NULL;
    if (key >= GREENLET_KEYS_MAX || !side || !side->locals)
        return NULL;
    return side->locals[key];
}

int greenlet_local_set(greenlet_key key, void *value) {
    struct greenlet_thread *t = core_thread();
    if (!t)
        return -ENOMEM;
    if (key >= GREENLET_KEYS_MAX || !atomic_load(&destructors[key]))
        return -EINVAL;
    struct greenlet_side *side = core_side(t->current);
    if (!side)
        return -ENOMEM;
    if (!side->locals) {
        if (!value)
            return 0;
        side->locals = memory_alloc(GREENLET_KEYS_MAX * sizeof(void *));
        if (!side->locals)
            return -ENOMEM;
    }
    side->locals[key] = value;
    return 0;
}

void core_run_destructors(struct greenlet_thread *t, greenlet *g) {
    (void)t;
    struct greenlet_side *side = g->side;
    bool again = true;
    for (int round = 0; again && round < ROUNDS; round++) {
        again = false;
        for (unsigned i = 0; i < GREENLET_KEYS_MAX; i++) {
            void *value = side->locals[i];
            void (*destroy)(void *) = atomic_load(&destructors[i]);
            side->locals[i] = NULL;
            if (value && destroy) {
                again = true;
                destroy(value);
            }
        }
    }
    memory_free(side->locals);
    side->locals = NULL;
}
