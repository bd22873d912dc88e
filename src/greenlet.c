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
#include "slab.h"
#include "trace.h"

_Static_assert(sizeof(struct greenlet) <= 112 + ANNOTATE_STATE_BYTES,
               "the header's limit");
_Static_assert(offsetof(struct greenlet, b) == 0, "the backend's state first");

/* ---- References ------------------------------------------------------- */

static int32_t count_of(int32_t shared) { return shared >> 2; }

static inline greenlet *ref(struct greenlet_thread *t, greenlet *g) {
    if (likely(slab_maker(g) == t && g->refs))
        g->refs++;
    else
        atomic_fetch_add_explicit(&g->shared, SHARED_ONE, memory_order_relaxed);
    return g;
}

greenlet *greenlet_ref(greenlet *g) { return g ? ref(core_self, g) : NULL; }

bool core_hand_over(struct greenlet_thread *t, greenlet *g) {
    struct greenlet_thread *home = core_home(g);
    if (core_enqueue(t, g) == 0)
        return false;
    /* That was its maker, and has exited: the references are merged now. */
    if (home != t && home != core_self && core_enqueue(home, g) == 0)
        return false;
    /* Or a fork took the thread away: then nobody can tell the count. */
    int32_t s = atomic_fetch_and(&g->shared, ~SHARED_QUEUED);
    return s & SHARED_MERGED && count_of(s) == 0;
}

/* What a change of the count leaves. */
enum rest {
    REFERENCED, /* somebody refers to it                                   */
    UNKNOWN,    /* the maker has it in its queue, and will add up          */
    ENDING,     /* nobody: its home has it in its queue, and will end it   */
    LAST        /* nobody, and the end is the caller's to arrange: it is at
                 * home here, or its home has exited                        */
};

/* Adds `n` to the shared references, and flags. Below zero the maker has to
 * look at `g`; at zero, with all references counted here, its home has: which
 * can still find it without a reference (a shutdown lists all that live) and
 * end it. So the mark is set in the same step, and `g` stays alive until it
 * has come to the queue and out of it. */
static enum rest change(greenlet *g, int32_t n, int32_t flags) {
    struct greenlet_thread *maker = slab_maker(g), *home = core_home(g);
    int32_t s = atomic_load_explicit(&g->shared, memory_order_relaxed), next;
    bool below, none, last;
    do {
        next = (s + n * SHARED_ONE) | flags;
        below = !(next & SHARED_MERGED) && count_of(next) < 0;
        none = next & SHARED_MERGED && count_of(next) == 0;
        last = none && !(next & SHARED_QUEUED);
        if (below || (last && home != core_self))
            next |= SHARED_QUEUED;
    } while (!atomic_compare_exchange_weak(&g->shared, &s, next));
    if (below)
        return !(s & SHARED_QUEUED) && core_hand_over(maker, g) ? LAST
                                                                : UNKNOWN;
    if (last)
        return home == core_self || core_hand_over(home, g) ? LAST : ENDING;
    return none ? ENDING : REFERENCED;
}

bool core_merge(greenlet *g) { return change(g, 0, SHARED_MERGED) == LAST; }

static enum rest drop(greenlet *g) {
    if (slab_maker(g) != core_self || !g->refs)
        return change(g, -1, 0);
    if (--g->refs)
        return REFERENCED;
    if (atomic_load_explicit(&g->shared, memory_order_acquire) == 0 &&
        core_home(g) == core_self) {
        /* Nobody else has ever touched it, so nobody can now. */
        atomic_store_explicit(&g->shared, SHARED_MERGED, memory_order_relaxed);
        return LAST;
    }
    return change(g, 0, SHARED_MERGED);
}

static __attribute__((noinline)) void unref(greenlet *g) {
    if (g && drop(g) == LAST)
        core_last_reference(core_self, g);
}

/* The ordinary end, here: the maker's last reference, nobody else ever had
 * one, nobody is looking, and its parent has others. (What is OVER died where
 * it was made: another thread's would have a side record.) */
void greenlet_unref(greenlet *g) {
    struct greenlet_thread *t = core_self;
    if (likely(g &&
               atomic_load_explicit(&g->home, memory_order_relaxed) ==
                   ((uintptr_t)t | CORE_OVER) &&
               g->refs == 1 &&
               atomic_load_explicit(&t->fast, memory_order_relaxed) ==
                   (uintptr_t)t &&
               !g->side &&
               atomic_load_explicit(&g->shared, memory_order_acquire) == 0)) {
        greenlet *parent = core_parent(g);
        if (likely(slab_maker(parent) == t && parent->refs > 1 &&
                   slab_give_plain(t, g))) {
            parent->refs--;
            return;
        }
    }
    unref(g);
}

bool core_unreferenced(greenlet *g) {
    int32_t s = atomic_load(&g->shared);
    return s & SHARED_MERGED && count_of(s) == 0;
}

bool core_unref_quietly(greenlet *g) {
    return count_of(atomic_fetch_sub(&g->shared, SHARED_ONE)) == 1;
}

/* In the middle of a call others may run, and drop the very reference by
 * which the caller knows `g`: hold it meanwhile. False if nobody has one. */
bool core_hold(greenlet *g) {
    if (!g || core_unreferenced(g))
        return false;
    greenlet_ref(g);
    return true;
}

/* The end of that, if it was held. -EINVAL if there is no other reference any
 * more: then that was the last one. If only the maker can tell, `g` stays
 * until this thread's next drain where it is at home; elsewhere, 1, it may go
 * at any time unless the caller has a reference. */
int core_let_go(greenlet *g, bool held) {
    if (!held)
        return 0;
    bool here = core_home(g) == core_self;
    enum rest rest = drop(g);
    if (rest == LAST)
        core_last_reference(core_self, g);
    if (rest == UNKNOWN)
        return here ? 0 : 1;
    return rest == REFERENCED ? 0 : -EINVAL;
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
    if (core_unref_quietly(g))
        unraisable(t, g, (greenlet_message){m.value, -EBUSY});
}

void core_last_reference(struct greenlet_thread *t, greenlet *g) {
    if (atomic_load_explicit(&core_home(g)->exited, memory_order_relaxed)) {
        core_free(g);
    } else if (g->flags & CORE_MAIN) {
        greenlet_ref(g); /* the library's own comes back */
    } else if (t->slow & SLOW_FORBID) {
        /* Somebody may be looking at it. */
        atomic_fetch_or(&g->shared, SHARED_QUEUED);
        core_enqueue(t, g);
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
    side->foreign_linked = false;
}

void core_unlink_foreign(struct greenlet_thread *home, greenlet *g) {
    if (!g->side || !g->side->foreign_linked)
        return;
    pthread_mutex_lock(&home->lock);
    unlink_foreign(g->side);
    core_unlock(home);
}

/* Homes `g` at another thread than the one that made it, or than before:
 * 0, -ENOMEM, -EOWNERDEAD, -E2BIG. */
int core_link_foreign(struct greenlet_thread *home, greenlet *g) {
    struct greenlet_side *side = core_side(g);
    int status = backend_welcome(home, g);
    if (!side || status)
        return side ? status : -ENOMEM;
    core_unlink_foreign(core_home(g), g);
    pthread_mutex_lock(&home->lock);
    if (atomic_load(&home->exited)) {
        status = -EOWNERDEAD;
    } else {
        core_set_away(home, g);
        g->flags &= (uint8_t)~CORE_VISITED; /* a mark of the thread it left */
        if (slab_maker(g) != home) {
            side->foreign_next = home->foreign;
            side->foreign_link = &home->foreign;
            side->foreign_linked = true;
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
        if (!parent || drop(parent) != LAST)
            return;
        g = parent;
        struct greenlet_thread *home = core_home(g);
        if (!atomic_load(&home->exited) &&
            (core_state(g) == GREENLET_ACTIVE || home->slow & SLOW_FORBID)) {
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
    greenlet_options more = *o;
    if (unlikely(home->check >= 2 || home->strict) && o->stack_bytes &&
        o->stack_bytes < CHECK_STACK_BYTES)
        more.stack_bytes = CHECK_STACK_BYTES;
    if ((status = backend_init(home, g, &more)) != 0)
        return status;
    bool ready = entry && !o->flags && o->lane == GREENLET_ANY_LANE &&
                 core_state(parent) != GREENLET_NEW;
    core_set_tag(t, g, ready ? CORE_READY : CORE_AWAY);
    atomic_store_explicit(&g->parent, greenlet_ref(parent),
                          memory_order_relaxed);
    core_set_state(g, GREENLET_NEW);
    /* Last: from here on the other thread sees it. */
    if (home != t && (status = core_link_foreign(home, g)) != 0)
        greenlet_unref(parent);
    return status;
}

static __attribute__((noinline)) greenlet *new_with(greenlet_entry *entry,
                                                    const greenlet_options *o) {
    greenlet_options options;
    greenlet *g = NULL;
    bool held = false;
    struct greenlet_thread *t = core_thread();
    int status = t ? read_options(&options, o) : core_no_thread();
    if (status == 0 && !entry && !t->hooks.resolve_entry)
        status = -EINVAL;
    if (status == 0 &&
        unlikely(atomic_load_explicit(&t->queue, memory_order_relaxed) &&
                 !(t->slow & SLOW_FORBID))) {
        held = core_hold(options.parent);
        core_drain(t);
        /* One that lives elsewhere is held until the new one refers to it. */
        if (held && core_home(options.parent) == t) {
            status = core_let_go(options.parent, true);
            held = false;
        }
    }
    if (status == 0) {
        g = slab_take(t);
        status = g ? make(t, g, entry, &options) : -ENOMEM;
        if (status && g) {
            free_side(g);
            slab_give(g);
        }
    }
    (void)core_let_go(options.parent, held);
    if (status == 0)
        return g;
    errno = -status;
    return NULL;
}

/* The ordinary: all defaults. */
greenlet *greenlet_new(greenlet_entry *entry, const greenlet_options *o) {
    struct greenlet_thread *t = core_self;
    greenlet *g;
    if (unlikely(o || !entry ||
                 atomic_load_explicit(&t->fast, memory_order_relaxed) !=
                     (uintptr_t)t ||
                 !(g = slab_take_plain(t))))
        return new_with(entry, o);
    /* One by one: compilers clear a whole struct with slower means. */
    g->b = (struct backend_greenlet)BACKEND_GREENLET_INIT;
    core_set_tag(t, g, CORE_READY);
    atomic_store_explicit(&g->parent, ref(t, t->current), memory_order_relaxed);
    g->entry = entry;
    g->side = NULL;
    g->user_data = NULL;
    g->queue_next = NULL;
    g->refs = 1;
    atomic_store_explicit(&g->shared, 0, memory_order_relaxed);
    core_set_state(g, GREENLET_NEW);
    g->flags = 0;
    return g;
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
    if (core_self->trace && core_home(g) == core_self &&
        core_state(g) == GREENLET_ACTIVE)
        trace_name(core_self, g);
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
        return "not on that greenlet's stack, or it is corrupt";
    case -ELOOP:
        return "a greenlet cannot be its own ancestor";
    case -E2BIG:
        return "no stack is that large";
    case -EAGAIN:
        return "no key is left";
    case -ENOSYS:
        return "libgreenlet-debug is not there";
    case -ENOTSUP:
        return "not supported by this backend or greenlet";
    default:
        return status > 0 ? "an error that a greenlet threw" : "unknown status";
    }
}

const char *greenlet_version(void) { return "0.1.0"; }

const char *greenlet_backend(void) { return BACKEND_NAME; }
