/* Giving control away: switch, throw, kill, death.
 *
 * A switch has two phases. Deciding: who really receives the message, may it
 * be, is there memory for it; every way out is a status and nothing has
 * changed. Then core_commit(), and from there on nothing fails.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "check.h"
#include "fpu.h"
#include "say.h"
#include "slab.h"
#include "trace.h"

static greenlet_message failed(int status) {
    return (greenlet_message){NULL, status};
}

/* The thread that a greenlet belongs to: a new one goes where its nearest
 * started ancestor is. That is its home, unless an ancestor was given another
 * one after it was made, which hardly any program does. */
struct greenlet_thread *core_thread_of(const greenlet *g) {
    if (unlikely(atomic_load_explicit(&core_moved, memory_order_relaxed)))
        while (core_state(g) == GREENLET_NEW)
            g = core_parent(g);
    return core_home(g);
}

/* 0 if `g` may be switched to from `t`. */
static int refused(struct greenlet_thread *t, const greenlet *g) {
    struct greenlet_thread *home = core_thread_of(g);
    if (likely(home == t))
        return 0;
    return atomic_load(&home->exited) ? -EOWNERDEAD : -EPERM;
}

/* The end of core_hold(). 0, or what the call answers: who may be gone lives
 * elsewhere, and that is said without another look. */
static int let_go(struct greenlet_thread *t, greenlet *g, bool held) {
    int refusal = held ? refused(t, g) : 0;
    int lost = core_let_go(g, held);
    if (lost > 0)
        return refusal ? refusal : -EINVAL;
    return lost;
}

/* Walks from *to up to the greenlet that will really receive *m: dead ones
 * pass it on, new ones die of an error; GREENLET_EXIT becomes a value behind
 * the first of them. Changes nothing else. */
static int route(struct greenlet_thread *t, greenlet **to,
                 greenlet_message *m) {
    for (greenlet *g = *to;; g = core_parent(g)) {
        if (unlikely((int)core_state(g) == CORE_FREED))
            return -EINVAL;
        int status = refused(t, g);
        if (unlikely(status))
            return status;
        greenlet_state state = core_state(g);
        if (state == GREENLET_ACTIVE ||
            (state == GREENLET_NEW && m->status == 0)) {
            *to = g;
            return 0;
        }
        if (m->status == GREENLET_EXIT)
            m->status = 0;
    }
}

/* Supplies a new greenlet's entry. 1: the hook ran, look again. */
static int resolve(struct greenlet_thread *t, greenlet *g) {
    greenlet_entry *entry = g->entry;
    greenlet_ref(g);
    int status = t->hooks.resolve_entry(g, &entry, t->hooks_data);
    if (status == 0 && core_state(g) == GREENLET_NEW) {
        g->entry = entry;
        if (!entry && core_home(g) == t)
            core_set_away(t, g); /* not ready any more */
    }
    greenlet_unref(g);
    return status < 0 ? status : 1;
}

/* Notes what core_after() will want to know. */
static unsigned prepare(struct greenlet_thread *t, greenlet *from, greenlet *to,
                        greenlet_event event, bool died, unsigned how) {
    t->fresh = core_state(to) == GREENLET_NEW;
    if (t->fresh) {
        to->serial = ++t->serial;
        core_set_away(t, to);
    }
    if (likely(!t->slow && !(to->flags & CORE_SPECIAL)))
        return how;
    t->origin = from;
    t->event = event;
    t->died = died;
    return how | HOW_AFTER;
}

greenlet_message core_transfer(struct greenlet_thread *t, greenlet *to,
                               greenlet_message m, unsigned how) {
    greenlet *from = t->current, *target, *resolved = NULL;
    greenlet_message last;
    int status;

    if (unlikely(t->slow & SLOW_FORBID))
        return failed(-EBUSY);
    for (;;) {
        target = to;
        last = m;
        status = route(t, &target, &last);
        if (unlikely(status))
            return failed(status);
        if (likely(core_state(target) != GREENLET_NEW))
            break;
        if (t->hooks.resolve_entry && target != resolved) {
            resolved = target;
            bool held = core_hold(to);
            status = resolve(t, target);
            int lost = let_go(t, to, held);
            if (lost || status < 0)
                return failed(lost ? lost : status);
            continue;
        }
        if (!target->entry)
            return failed(-EINVAL);
        if (core_home(target) != t &&
            (status = core_link_foreign(t, target)) != 0)
            return failed(status);
        break;
    }
    if (unlikely(t->check >= 0) &&
        (status = check_switch(t, from, target)) != 0)
        return failed(status);

    greenlet_event event =
        last.status ? GREENLET_EVENT_THROW : GREENLET_EVENT_SWITCH;
    t->victim = to != target ? to : NULL;
    how = prepare(t, from, target, event, false, how);
    if (unlikely(target == from)) {
        core_commit(t, from, from, how & HOW_AFTER);
        return how & HOW_AFTER ? core_after(last) : last;
    }
    return backend_switch(t, from, target, last, how);
}

static __attribute__((noinline)) greenlet_message
switch_slow(greenlet *to, greenlet_message m) {
    struct greenlet_thread *t = core_thread();
    if (unlikely(!t))
        return failed(core_no_thread());
    if (unlikely(!to))
        return failed(-EINVAL);
    if (unlikely(atomic_load_explicit(&t->queue, memory_order_relaxed) &&
                 !(t->slow & SLOW_FORBID))) {
        bool held = core_hold(to);
        core_drain(t);
        int lost = let_go(t, to, held);
        if (lost)
            return failed(lost);
    }
    return core_transfer(t, to, m, 0);
}

/* At check level 0, when nothing else asks for the slow path: looks at `to`,
 * and then goes the way of an unchecked switch. It leaves by tail calls alone:
 * each frame that returns on another stack than it was called on costs a
 * mispredicted return. */
static __attribute__((noinline, aligned(64))) greenlet_message
switch_checked(greenlet *to, greenlet_message m) {
    struct greenlet_thread *t = core_self;
    greenlet *from = t->current;
    int status = check_switch(t, from, to);
    if (unlikely(status))
        return failed(status);
    if (likely(atomic_load_explicit(&to->home, memory_order_relaxed) ==
               (uintptr_t)t)) {
        t->current = to;
        counter_add(&t->counters.switches, 1);
        return backend_resume(m, from, to);
    }
#if BACKEND_SHORT_WAYS
    if (m.status == 0 &&
        atomic_load_explicit(&to->home, memory_order_relaxed) ==
            ((uintptr_t)t | CORE_REFILL))
        return backend_refill(t, m, to);
#endif
    t->victim = NULL;
    return backend_switch(t, from, to, m, 0);
}

static bool only_checked(const struct greenlet_thread *t, const greenlet *to) {
    return t->slow == SLOW_CHECK && t->check == 0 && !t->strict && to &&
           core_home(to) == t && core_state(to) == GREENLET_ACTIVE &&
           !(to->flags & CORE_SPECIAL) && to != t->current &&
           !atomic_load_explicit(&t->queue, memory_order_relaxed);
}

/* What is left of the ordinary: a suspended greenlet whose bytes are away, and
 * a new one. Only tail calls, so that no frame of ours is among the bytes to
 * copy. */
greenlet_message core_switch(greenlet *to, greenlet_message m) {
    struct greenlet_thread *t = core_self;
    uintptr_t fast = atomic_load_explicit(&t->fast, memory_order_relaxed);
    if (unlikely(!to))
        return switch_slow(to, m);
    uintptr_t home = atomic_load_explicit(&to->home, memory_order_relaxed);
    if (likely(fast == (uintptr_t)t)) {
        if (home == (fast | CORE_READY) && m.status == 0) {
            to->serial = ++t->serial;
            core_set_away(t, to);
            t->victim = NULL;
            return backend_switch(t, t->current, to, m, 0);
        }
        if (home == (fast | CORE_AWAY) && !(to->flags & CORE_SPECIAL) &&
            core_state(to) == GREENLET_ACTIVE && to != t->current) {
            t->victim = NULL;
            return backend_switch(t, t->current, to, m, 0);
        }
    }
    if (only_checked(t, to))
        return switch_checked(to, m);
    return switch_slow(to, m);
}

/* `to`, which often comes from a stack that is cold, and is often who gave
 * control to the one that runs. The CPU compares them later and goes on with
 * that one; with `to` itself it would have to wait for the next stack pointer
 * until the cold line is there. Compilers are kept from seeing that the
 * two are the same, and from choosing without a branch.
 *
 * 32-bit CPUs, where it is more to do and there are fewer stacks, do without.
 */
static inline greenlet *foresee(greenlet *to, greenlet *from) {
#if UINTPTR_MAX > UINT32_MAX
    greenlet *before = core_before, *same = before;
    __asm__("" : "+r"(same));
    if (likely(to == before)) {
        __asm__ volatile("");
        to = same;
    }
    if (likely(to && to != from))
        core_before = from;
#else
    (void)from;
#endif
    return to;
}

/* Where a message is returned in memory, a stack protector would guard it. */
#if __has_attribute(no_stack_protector)
#define HOT __attribute__((aligned(64), no_stack_protector))
#else
#define HOT __attribute__((aligned(64)))
#endif

/* The hot path. One comparison finds everything out of the ordinary: `home`
 * is tagged when `to` is not near, `fast` when the thread wants the slow
 * path, and they differ for another thread's greenlet. */
HOT greenlet_message greenlet_switch(greenlet *to, void *value) {
    struct greenlet_thread *t = core_self;
    greenlet_message m = {value, 0};
    greenlet *from = t->current;
    to = foresee(to, from);
    if (likely(to && to != from)) {
        uintptr_t fast = atomic_load_explicit(&t->fast, memory_order_relaxed);
        uintptr_t home = atomic_load_explicit(&to->home, memory_order_relaxed);
        if (likely(home == fast)) {
            t->current = to;
            counter_add(&t->counters.switches, 1);
            PROBE_SWITCH(from, to);
            return backend_resume(m, from, to);
        }
#if BACKEND_SHORT_WAYS
        if (home == (fast | CORE_REFILL))
            return backend_refill(t, m, to);
        if (home == (fast | CORE_READY))
            return backend_start(t, m, to);
#endif
    }
    return core_switch(to, m);
}

greenlet_message greenlet_throw(greenlet *to, intptr_t status, void *value) {
    if (unlikely(status <= 0))
        return failed(-EINVAL);
    return core_switch(to, (greenlet_message){value, status});
}

/* The unstarted greenlets that an error passes through, from the one it was
 * thrown into up to the one that receives it, are dead now. */
static void bury(struct greenlet_thread *t, greenlet *to) {
    for (greenlet *g = t->victim; g != to; g = core_parent(g))
        if (core_state(g) == GREENLET_NEW) {
            core_set_state(g, GREENLET_DEAD);
            core_set_away(core_home(g), g); /* not ready any more */
        }
    t->victim = NULL;
}

/* What GREENLET_STATS adds: the switches to `to`, the depth of `from`. */
static void count(struct greenlet_thread *t, greenlet *from, greenlet *to) {
    if (to->flags & GREENLET_STATS)
        counter_add(&to->side->counters->switches, 1);
    if (!(from->flags & GREENLET_STATS))
        return;
    greenlet_stack s;
    const void *saved;
    backend_describe(from, &s, &saved);
    uint64_t depth = (uintptr_t)s.base - (uintptr_t)__builtin_frame_address(0);
    counter_max(&from->side->counters->stack_high, depth);
    counter_max(&t->counters.stack_high, depth);
}

void core_commit_slow(struct greenlet_thread *t, greenlet *from, greenlet *to,
                      bool after) {
    if (t->victim)
        bury(t, to);
    if (!after)
        return;
    if (t->trace)
        trace_switch(t, from, to);
    if (t->hooks.pre_switch) {
        t->slow |= SLOW_FORBID;
        t->hooks.pre_switch(from, to, t->hooks_data);
        t->slow &= ~(unsigned)SLOW_FORBID;
    }
    if ((from->flags | to->flags) & GREENLET_FPU) {
        fpu_get(from->flags & GREENLET_FPU ? from->side->fpu : t->fpu);
        if (to->flags & GREENLET_FPU && core_state(to) == GREENLET_NEW)
            fpu_get(to->side->fpu); /* starts with its starter's */
        fpu_set(to->flags & GREENLET_FPU ? to->side->fpu : t->fpu);
    }
    count(t, from, to);
    if (t->strict)
        strict_open(t, to);
    if (core_state(to) == GREENLET_ACTIVE && to != from)
        harden_check(to, from);
    t->dropped = t->slow & SLOW_DROPPED;
    t->slow &= ~(unsigned)(SLOW_DROPPED | SLOW_SPECIAL);
    if (to->flags & CORE_SPECIAL)
        t->slow |= SLOW_SPECIAL;
    core_refresh(t);
}

ANNOTATE_FROM_ASM greenlet_message core_after(greenlet_message m) {
    struct greenlet_thread *t = core_self;
    annotate_arrive(t);
    if (!t->died && t->origin != t->current)
        harden_seal(t->origin);
    greenlet *origin = t->origin, *to = t->current;
    greenlet_event event = t->event;
    bool fresh = t->fresh;
    if (t->check >= 0)
        check_arrived(t, origin, t->died, fresh);
    /* One that has no reference and is not to end now was leaked before;
     * unless its end still waits in the queue. */
    bool leaked = !t->died && !t->dropped && core_unreferenced(origin) &&
                  !(atomic_load(&origin->shared) & SHARED_QUEUED);
    greenlet_ref(origin);

    t->origin = NULL;
    if (t->died && t->hooks.on_release)
        t->hooks.on_release(origin, t->hooks_data);
    if (t->hooks.post_switch)
        t->hooks.post_switch(origin, to, t->hooks_data);
    if (fresh && t->hooks.first_entry)
        t->hooks.first_entry(to, t->hooks_data);
    if (t->tracer)
        t->tracer(event, origin, to, t->tracer_data);
    /* If its last reference was dropped before, or is now: the end of it. */
    if (leaked)
        core_unref_quietly(origin);
    else
        greenlet_unref(origin);
    annotate_call();
    return m;
}

/* Finds who receives what a dying greenlet leaves. Cannot fail: the way up
 * ends at the thread's main greenlet, which is alive; it is also the heir
 * when the way up leaves the thread. */
static greenlet *heir(struct greenlet_thread *t, greenlet *g,
                      greenlet_message *m) {
    greenlet *resolved = NULL;
    for (;;) {
        greenlet_message last = *m;
        greenlet *to = core_parent(g);
        int status = route(t, &to, &last);
        if (status) { /* an unstarted ancestor went to another thread */
            t->victim = NULL;
            *m = last;
            return t->main;
        }
        if (core_state(to) == GREENLET_NEW) {
            if (t->hooks.resolve_entry && to != resolved) {
                resolved = to;
                status = resolve(t, to);
                if (status >= 0)
                    continue;
            } else {
                status = to->entry ? 0 : -EINVAL;
            }
            if (status == 0 && core_home(to) != t)
                status = core_link_foreign(t, to);
            if (status < 0) { /* it cannot start: it dies of that */
                m->value = NULL;
                m->status = -status;
                continue;
            }
        }
        t->victim = core_parent(g) != to ? core_parent(g) : NULL;
        *m = last;
        return to;
    }
}

static __attribute__((noinline)) _Noreturn void
finish(struct greenlet_thread *t, greenlet *g, greenlet_message last) {
    PROBE_DEATH(g);
    if (t->hooks.on_finish)
        t->hooks.on_finish(g, last, t->hooks_data);
    if (g->side && g->side->locals)
        core_run_destructors(t, g);
    if (last.status == GREENLET_EXIT)
        last.status = 0;
    else if (last.status < 0)
        last.status = -EINVAL;
    greenlet *to = heir(t, g, &last);
    if (unlikely(core_unreferenced(g)))
        t->slow |= SLOW_DROPPED; /* core_after() frees it, leaked or not */
    if (t->check >= 0)
        check_switch(t, g, to); /* whatever it says: there is no way back */
    unsigned how = prepare(
        t, g, to, last.status ? GREENLET_EVENT_THROW : GREENLET_EVENT_SWITCH,
        true, HOW_MUST);
    core_set_state(g, GREENLET_DEAD);
    core_set_away(t, g);
    backend_exit(t, g, to, last, how);
}

/* The ordinary, here: nobody wants to know, and the parent is near. */
_Noreturn ANNOTATE_FROM_ASM void core_finish(greenlet_message last) {
    struct greenlet_thread *t = core_self;
    greenlet *g = t->current;
#if BACKEND_SHORT_WAYS
    greenlet *parent = core_parent(g);
    if (likely(last.status == 0 && !g->side && core_is_near(t, parent) &&
               atomic_load_explicit(&t->fast, memory_order_relaxed) ==
                   (uintptr_t)t)) {
        PROBE_DEATH(g);
        PROBE_SWITCH(g, parent);
        core_set_state(g, GREENLET_DEAD);
        core_set_tag(t, g, CORE_OVER);
        t->current = parent;
        counter_add(&t->counters.switches, 1);
        backend_leave(t, last, g, parent);
    }
#endif
    finish(t, g, last);
}

/* ---- Kill ------------------------------------------------------------- */

/* Is `g` on the way up from `from`? Ends also on the ring that a kill of an
 * ancestor makes for its time (Brent's cycle detection). */
static bool reaches(const greenlet *from, const greenlet *g) {
    const greenlet *mark = NULL;
    size_t steps = 0, limit = 8;
    for (; from; from = core_parent(from)) {
        if (from == g)
            return true;
        if (from == mark)
            return false;
        if (++steps == limit) {
            mark = from;
            limit *= 2;
        }
    }
    return false;
}

greenlet_message core_kill(struct greenlet_thread *t, greenlet *g,
                           unsigned how) {
    greenlet *me = t->current, *old;
    int status = refused(t, g);
    if (status)
        return failed(status);
    if (g->flags & CORE_MAIN)
        return failed(-EINVAL);
    if (core_state(g) == GREENLET_DEAD)
        return failed(0);
    if (g == me || t->slow & SLOW_FORBID)
        return failed(-EBUSY);

    greenlet_ref(g);
    old = core_parent(g); /* its reference is ours until it is put back */
    atomic_store_explicit(&g->parent, greenlet_ref(me), memory_order_relaxed);
    uint64_t before = core_switches(&t->counters);
    greenlet_message m =
        core_transfer(t, g, (greenlet_message){NULL, GREENLET_EXIT}, how);
    bool moved = before != core_switches(&t->counters);
    if (core_parent(g) == me) {
        greenlet *parent = old;
        /* `old` may have become a descendant of `g`. If nothing has moved, it
         * was one before: by another kill, which will put that right. */
        if (moved && reaches(old, g)) {
            parent = greenlet_ref(reaches(core_parent(me), g) ? t->main : me);
            greenlet_unref(old);
        }
        atomic_store_explicit(&g->parent, parent, memory_order_relaxed);
        greenlet_unref(me);
    } else {
        greenlet_unref(old);
    }
    if (moved && core_state(g) != GREENLET_DEAD && m.status <= 0)
        m.status = -EBUSY; /* an error thrown at us meanwhile stays one */
    greenlet_unref(g);
    return m;
}

greenlet_message greenlet_kill(greenlet *g) {
    struct greenlet_thread *t = core_thread();
    if (!t)
        return failed(core_no_thread());
    if (!g || (int)core_state(g) == CORE_FREED)
        return failed(-EINVAL);
    return core_kill(t, g, 0);
}

int greenlet_set_parent(greenlet *g, greenlet *parent) {
    struct greenlet_thread *t = core_thread();
    int status;
    if (!t)
        return core_no_thread();
    if (!g || !parent || g->flags & CORE_MAIN ||
        (int)core_state(g) == CORE_FREED ||
        (int)core_state(parent) == CORE_FREED)
        return -EINVAL;
    if ((status = refused(t, g)) != 0)
        return status;
    if (reaches(parent, g))
        return -ELOOP;
    struct greenlet_thread *home = core_thread_of(parent);
    if (atomic_load(&home->exited))
        return -EOWNERDEAD;
    if (home != t) {
        if (core_state(g) != GREENLET_NEW)
            return -EPERM;
        if ((status = core_link_foreign(home, g)) != 0)
            return status;
        atomic_store(&core_moved, true);
    } else if (core_state(g) == GREENLET_NEW) {
        core_set_away(core_home(g), g); /* not ready any more */
    }
    greenlet *old = core_parent(g);
    atomic_store_explicit(&g->parent, greenlet_ref(parent),
                          memory_order_relaxed);
    greenlet_unref(old);
    return 0;
}

_Noreturn void core_fatal(const char *what, const greenlet *a,
                          const greenlet *b) {
    struct say out = SAY_TO(STDERR_FILENO); /* also from a signal's handler */
    say_text(&out, "greenlet: ");
    say_text(&out, what);
    const greenlet *both[] = {a, b};
    for (int i = 0; i < 2; i++)
        if (both[i]) {
            say_text(&out, i ? " and '" : ": greenlet '");
            say_text(&out, core_label(both[i]));
            say_text(&out, "' (");
            say_hex(&out, (uintptr_t)both[i]);
            say_text(&out, ")");
        }
    say_text(&out, "\n");
    say_flush(&out);
    abort();
}
