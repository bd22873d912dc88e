/* Making, referring to, naming and freeing greenlets.
 *
 * References are counted with a bias to the thread that made the greenlet:
 * that one counts in `refs` without atomics, all others in `shared`, which
 * may go below zero when a reference that the maker took is dropped
 * elsewhere. The sum is the count. When the maker's part reaches zero it is
 * merged: from then on everybody uses `shared`, and who takes that to zero
 * has the last reference. A part below zero is queued for the maker to add
 * up. (Biased reference counting: Choi, Shull, Torrellas, PACT 2018.)
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend.h"

_Static_assert(sizeof(struct greenlet) <= 112 + ANNOTATE_STATE_BYTES,
               "the header's limit");
_Static_assert(offsetof(struct greenlet, b) == 0, "the backend's state first");

/* ---- References ------------------------------------------------------- */

static int32_t count_of(int32_t shared) { return shared >> 2; }

greenlet *greenlet_ref(greenlet *g) {
    if (!g)
        return g;
    if (slab_maker(g) == core_self && g->refs)
        g->refs++;
    else
        atomic_fetch_add_explicit(&g->shared, SHARED_ONE, memory_order_relaxed);
    return g;
}

/* Hands `g`, whose SHARED_QUEUED the caller has just set, to a queue. */
static void enqueue(struct greenlet_thread *t, greenlet *g) {
    if (core_enqueue(t, g) == 0)
        return;
    /* The thread has exited. Its references were merged then, and `g` was
     * left to us; unless a fork took the thread away: then nobody can tell
     * the count. */
    int32_t s = atomic_fetch_and(&g->shared, ~SHARED_QUEUED);
    if (s & SHARED_MERGED && count_of(s) == 0)
        core_free(g);
}

/* Nobody refers to `g` any more: another thread's is queued there, once. */
static void queue_at(struct greenlet_thread *t, greenlet *g) {
    if (!(atomic_fetch_or(&g->shared, SHARED_QUEUED) & SHARED_QUEUED))
        enqueue(t, g);
}

/* Drops a reference. True if it was the last and its end is the caller's to
 * arrange. */
static bool drop(greenlet *g) {
    struct greenlet_thread *maker = slab_maker(g);
    if (maker == core_self && g->refs) {
        if (--g->refs)
            return false;
        int32_t s = atomic_load_explicit(&g->shared, memory_order_acquire);
        if (s == 0 && core_home(g) == core_self)
            /* Nobody else has ever touched it, so nobody can now. (A home
             * elsewhere can: it may find it on its list.) */
            atomic_store_explicit(&g->shared, SHARED_MERGED,
                                  memory_order_relaxed);
        else
            s = atomic_fetch_or(&g->shared, SHARED_MERGED);
        return count_of(s) == 0 && !(s & SHARED_QUEUED);
    }
    /* Below zero and the mark in one step: who sees the one sees the other,
     * so that `g` stays alive until the maker has looked at it. */
    int32_t s = atomic_load_explicit(&g->shared, memory_order_relaxed), next;
    bool below;
    do {
        next = s - SHARED_ONE;
        below = !(s & (SHARED_MERGED | SHARED_QUEUED)) && count_of(next) < 0;
        if (below)
            next |= SHARED_QUEUED;
    } while (!atomic_compare_exchange_weak(&g->shared, &s, next));
    if (below)
        enqueue(maker, g);
    return s & SHARED_MERGED && !(s & SHARED_QUEUED) && count_of(next) == 0;
}

void greenlet_unref(greenlet *g) {
    if (g && drop(g))
        core_last_reference(core_self, g);
}

bool core_unreferenced(greenlet *g) {
    return g->refs == 0 && count_of(atomic_load(&g->shared)) == 0;
}

void core_unref_quietly(greenlet *g) {
    if (slab_maker(g) == core_self && g->refs)
        g->refs--;
    else
        atomic_fetch_sub(&g->shared, SHARED_ONE);
}

static void unraisable(struct greenlet_thread *t, greenlet *g,
                       greenlet_message m) {
    if (t->hooks.unraisable) {
        t->hooks.unraisable(g, m, t->hooks_data);
        return;
    }
    int saved = errno;
    if (m.status < 0)
        fprintf(stderr,
                "greenlet: '%s' (%p) lost its last reference and did not "
                "die; it is leaked\n",
                core_label(g), (void *)g);
    else
        fprintf(stderr,
                "greenlet: '%s' (%p) lost its last reference and died of "
                "status %ld\n",
                core_label(g), (void *)g, (long)m.status);
    errno = saved;
}

/* Nobody refers to a suspended greenlet of this thread any more. */
static void kill_unreferenced(struct greenlet_thread *t, greenlet *g) {
    greenlet_ref(g); /* resurrected for the moment */
    greenlet_message m = core_kill(t, g, HOW_MUST);
    if (core_state(g) == GREENLET_DEAD) {
        if (m.status != 0)
            unraisable(t, g, m);
        greenlet_unref(g);
        return;
    }
    core_unref_quietly(g);
    if (core_unreferenced(g))
        unraisable(t, g, (greenlet_message){m.value, -EBUSY});
}

void core_last_reference(struct greenlet_thread *t, greenlet *g) {
    struct greenlet_thread *home = core_home(g);
    if (home != t ||
        atomic_load_explicit(&home->exited, memory_order_relaxed)) {
        queue_at(home, g);
    } else if (g->flags & CORE_MAIN) {
        greenlet_ref(g); /* the library's own comes back */
    } else if (t->slow & SLOW_FORBID) {
        queue_at(t, g); /* somebody may be looking at it */
    } else if (core_state(g) != GREENLET_ACTIVE) {
        core_free(g);
    } else if (g == t->current) {
        core_slow_on(t, SLOW_DROPPED);
    } else {
        kill_unreferenced(t, g);
    }
}

/* ---- Making and freeing ----------------------------------------------- */

struct greenlet_side *core_side(greenlet *g) {
    if (!g->side)
        g->side = memory_alloc(sizeof(*g->side));
    return g->side;
}

static void unlink_foreign(struct greenlet_side *side) {
    *side->foreign_link = side->foreign_next;
    if (side->foreign_next)
        side->foreign_next->side->foreign_link = side->foreign_link;
    side->foreign_link = NULL;
}

void core_unlink_foreign(struct greenlet_thread *home, greenlet *g) {
    if (!g->side || !g->side->foreign_link)
        return;
    pthread_mutex_lock(&home->lock);
    unlink_foreign(g->side);
    core_unlock(home);
}

/* Homes `g` at another thread than the one that made it, or than before:
 * 0, -ENOMEM, -EOWNERDEAD. */
int core_link_foreign(struct greenlet_thread *home, greenlet *g) {
    struct greenlet_side *side = core_side(g);
    int status = 0;
    if (!side)
        return -ENOMEM;
    core_unlink_foreign(core_home(g), g);
    pthread_mutex_lock(&home->lock);
    if (atomic_load(&home->exited)) {
        status = -EOWNERDEAD;
    } else {
        core_set_away(home, g);
        if (slab_maker(g) != home) {
            side->foreign_next = home->foreign;
            side->foreign_link = &home->foreign;
            if (home->foreign)
                home->foreign->side->foreign_link = &side->foreign_next;
            home->foreign = g;
        }
    }
    pthread_mutex_unlock(&home->lock);
    return status;
}

static void free_side(greenlet *g) {
    struct greenlet_side *side = g->side;
    if (!side)
        return;
    g->side = NULL;
    memory_free(side->locals);
    memory_free(side->counters);
    memory_free(side);
}

/* Frees a greenlet that nobody refers to: new, dead, or its thread gone. A
 * chain of parents that only this one held goes with it, without recursion. */
void core_free(greenlet *g) {
    for (;;) {
        greenlet *parent = core_parent(g);
        core_unlink_foreign(core_home(g), g);
        free_side(g);
        slab_give(g);
        if (!parent || !drop(parent))
            return;
        g = parent;
        struct greenlet_thread *home = core_home(g);
        if (!atomic_load(&home->exited) &&
            (home != core_self || core_state(g) == GREENLET_ACTIVE ||
             home->slow & SLOW_FORBID)) {
            core_last_reference(core_self, g);
            return;
        }
    }
}

static const size_t STACK_BYTES_MAX = (size_t)1 << 30;

/* What the caller knows of `o`, the rest at defaults. */
static int read_options(greenlet_options *out, const greenlet_options *o) {
    *out = (greenlet_options)GREENLET_OPTIONS_INIT;
    if (!o)
        return 0;
    if (o->size < sizeof(size_t) + sizeof(void *) || o->size > sizeof(*out))
        return -EINVAL;
    memcpy(out, o, o->size);
    if (out->stack_bytes > STACK_BYTES_MAX)
        return -E2BIG;
    return out->flags & ~(unsigned)CORE_SPECIAL ? -EINVAL : 0;
}

static int make(struct greenlet_thread *t, greenlet *g, greenlet_entry *entry,
                const greenlet_options *o) {
    int status;
    g->entry = entry;
    g->refs = 1;
    g->user_data = o->user_data;
    g->flags = (uint8_t)o->flags;
    if (o->name && (status = greenlet_set_name(g, o->name)) != 0)
        return status;
    if (o->flags && !core_side(g))
        return -ENOMEM;
    if (o->flags & GREENLET_STATS &&
        !(g->side->counters = memory_alloc(sizeof(*g->side->counters))))
        return -ENOMEM;
    greenlet *parent = o->parent ? o->parent : t->current;
    if ((int)core_state(parent) == CORE_FREED)
        return -EINVAL;
    struct greenlet_thread *home = core_thread_of(parent);
    if (atomic_load(&home->exited))
        return -EOWNERDEAD;
    if ((status = backend_init(home, g, o)) != 0)
        return status;
    core_set_away(t, g);
    atomic_store_explicit(&g->parent, greenlet_ref(parent),
                          memory_order_relaxed);
    core_set_state(g, GREENLET_NEW);
    /* Last: from here on the other thread sees it. */
    if (home != t && (status = core_link_foreign(home, g)) != 0)
        greenlet_unref(parent);
    return status;
}

greenlet *greenlet_new(greenlet_entry *entry, const greenlet_options *o) {
    greenlet_options options;
    struct greenlet_thread *t = core_thread();
    int status = t ? read_options(&options, o) : -ENOMEM;
    if (status == 0 && !entry && !t->hooks.resolve_entry)
        status = -EINVAL;
    if (status == 0) {
        if (atomic_load_explicit(&t->queue, memory_order_relaxed) &&
            !(t->slow & SLOW_FORBID))
            core_drain(t);
        greenlet *g = slab_take(t);
        status = g ? make(t, g, entry, &options) : -ENOMEM;
        if (status == 0)
            return g;
        if (g) {
            free_side(g);
            slab_give(g);
        }
    }
    errno = -status;
    return NULL;
}

/* ---- Asking ----------------------------------------------------------- */

greenlet *greenlet_parent(const greenlet *g) {
    return g ? core_parent(g) : NULL;
}

greenlet_state greenlet_get_state(const greenlet *g) {
    if (!g)
        return (greenlet_state)0;
    greenlet_state state = core_state(g);
    if (state == GREENLET_NEW || state == GREENLET_ACTIVE)
        if (atomic_load(&core_thread_of(g)->exited))
            return GREENLET_DEAD;
    return state;
}

int greenlet_is_main(const greenlet *g) {
    return g && g->flags & CORE_MAIN ? 1 : 0;
}

void *greenlet_user_data(const greenlet *g) { return g ? g->user_data : NULL; }

void greenlet_set_user_data(greenlet *g, void *data) {
    if (g)
        g->user_data = data;
}

const char *greenlet_name(const greenlet *g) {
    return g && g->side ? g->side->name : "";
}

const char *core_label(const greenlet *g) {
    const char *name = greenlet_name(g);
    return *name ? name : g->flags & CORE_MAIN ? "main" : "(no name)";
}

int greenlet_set_name(greenlet *g, const char *name) {
    if (!g)
        return -EINVAL;
    if (!name && !g->side)
        return 0;
    if (!core_side(g))
        return -ENOMEM;
    char *to = g->side->name;
    size_t n = name ? strnlen(name, sizeof(g->side->name) - 1) : 0;
    memcpy(to, name ? name : "", n);
    memset(to + n, 0, sizeof(g->side->name) - n);
    return 0;
}

const char *greenlet_strerror(intptr_t status) {
    switch (status) {
    case 0:
        return "a value";
    case GREENLET_EXIT:
        return "exit: unwind and die";
    case -EINVAL:
        return "invalid argument";
    case -EPERM:
        return "the greenlet belongs to another thread";
    case -EOWNERDEAD:
        return "the greenlet's thread has exited";
    case -ENOMEM:
        return "out of memory";
    case -EBUSY:
        return "not now: inside a hook, too late, or it did not die";
    case -EFAULT:
        return "not on that greenlet's stack";
    case -ELOOP:
        return "a greenlet cannot be its own ancestor";
    case -E2BIG:
        return "no stack is that large";
    case -EAGAIN:
        return "no key is left";
    case -ENOTSUP:
        return "not supported by this backend or greenlet";
    default:
        return status > 0 ? "an error that a greenlet threw" : "unknown status";
    }
}

const char *greenlet_version(void) { return "0.1.0"; }

const char *greenlet_backend(void) { return BACKEND_NAME; }
