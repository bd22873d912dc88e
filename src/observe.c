/* Looking at greenlets: tracing, hooks, stacks, statistics.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "check.h"

int greenlet_set_tracer(greenlet_tracer *tracer, void *data,
                        greenlet_tracer **old_tracer, void **old_data) {
    struct greenlet_thread *t = core_thread();
    if (!t)
        return core_no_thread();
    if (old_tracer)
        *old_tracer = t->tracer;
    if (old_data)
        *old_data = t->tracer_data;
    t->tracer = tracer;
    t->tracer_data = data;
    tracer ? core_slow_on(t, SLOW_TRACER) : core_slow_off(t, SLOW_TRACER);
    return 0;
}

int greenlet_set_hooks(const greenlet_hooks *hooks, void *data) {
    static const greenlet_hooks none = GREENLET_HOOKS_INIT;
    struct greenlet_thread *t = core_thread();
    if (!t)
        return core_no_thread();
    if (hooks && (hooks->size < sizeof(size_t) || hooks->size > sizeof(none)))
        return -EINVAL;
    t->hooks = none;
    if (hooks)
        memcpy(&t->hooks, hooks, hooks->size);
    t->hooks_data = data;
    hooks ? core_slow_on(t, SLOW_HOOKS) : core_slow_off(t, SLOW_HOOKS);
    return 0;
}

/* ---- Stacks ----------------------------------------------------------- */

static int describe(const greenlet *g, greenlet_stack *out,
                    const void **saved) {
    memset(out, 0, sizeof(*out));
    *saved = NULL;
    if (!g || (int)core_state(g) == CORE_FREED)
        return -EINVAL;
    if (greenlet_get_state(g) != GREENLET_ACTIVE)
        return 0;
    if (core_home(g) != core_self)
        return -EPERM;
    strict_peek(core_self, g);
    backend_describe(g, out, saved);
    strict_unpeek(core_self, g);
    if (g == core_self->current)
        out->sp = __builtin_frame_address(0);
    return 0;
}

int greenlet_get_stack(const greenlet *g, greenlet_stack *out) {
    const void *saved;
    return out ? describe(g, out, &saved) : -EINVAL;
}

int greenlet_read_stack(const greenlet *g, const void *address, void *dst,
                        size_t n) {
    greenlet_stack s;
    const char *saved;
    int status = describe(g, &s, (const void **)&saved);
    if (status)
        return status;
    if (!dst && n)
        return -EINVAL;
    uintptr_t at = (uintptr_t)address, sp = (uintptr_t)s.sp;
    if (at < sp || at > (uintptr_t)s.base || n > (uintptr_t)s.base - at)
        return -EFAULT;
    size_t in_slice = 0;
    if (at - sp < s.saved_bytes) {
        in_slice = s.saved_bytes - (at - sp);
        if (in_slice > n)
            in_slice = n;
        annotate_copy(dst, saved + (at - sp), in_slice);
    }
    strict_peek(core_self, g);
    annotate_copy((char *)dst + in_slice, (const char *)address + in_slice,
                  n - in_slice);
    strict_unpeek(core_self, g);
    return 0;
}

struct walk {
    struct greenlet_thread *t;
    int (*visit)(greenlet *g, void *data);
    void *data;
    int result;
};

static bool walk_one(greenlet *g, void *arg) {
    struct walk *w = arg;
    if (core_home(g) == w->t && core_state(g) == GREENLET_ACTIVE &&
        g != w->t->current)
        w->result = w->visit(g, w->data);
    return w->result != 0;
}

/* Others may add to the list meanwhile, at its front. */
static greenlet *foreign_after(struct greenlet_thread *t, const greenlet *g) {
    pthread_mutex_lock(&t->lock);
    greenlet *next = g ? g->side->foreign_next : t->foreign;
    pthread_mutex_unlock(&t->lock);
    return next;
}

int greenlet_walk(int (*visit)(greenlet *g, void *data), void *data) {
    struct greenlet_thread *t = core_self;
    if (!visit)
        return -EINVAL;
    if (t == &core_nobody)
        return 0;
    struct walk w = {t, visit, data, 0};
    unsigned forbidden = t->slow & SLOW_FORBID;
    core_slow_on(t, SLOW_FORBID);
    if (!slab_visit(t, walk_one, &w))
        for (greenlet *g = NULL; (g = foreign_after(t, g)) && !walk_one(g, &w);)
            ;
    if (!forbidden)
        core_slow_off(t, SLOW_FORBID);
    return w.result;
}

/* ---- Statistics ------------------------------------------------------- */

static int report(greenlet_statistics *out, struct core_counters *c) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    if (!out || out->size < 2 * sizeof(size_t) || out->size > sizeof(s))
        return -EINVAL;
    s.size = out->size;
    /* Another thread's may go on meanwhile. */
    uint64_t refills = counter_get(&c->refills);
    s.misses = counter_get(&c->misses) + refills;
    s.switches = core_switches(c);
    s.hits = s.switches > s.misses ? s.switches - s.misses : 0;
    s.evictions = counter_get(&c->evictions) + refills;
    s.fills = counter_get(&c->fills) + refills - counter_get(&c->starts);
    s.saved_bytes = counter_get(&c->saved_bytes);
    s.filled_bytes = counter_get(&c->filled_bytes);
    s.allocations = counter_get(&c->allocations);
    s.stack_high = counter_get(&c->stack_high);
    memcpy(out, &s, out->size);
    return 0;
}

int greenlet_thread_statistics(greenlet_statistics *out) {
    struct greenlet_thread *t = core_thread();
    return t ? report(out, &t->counters) : core_no_thread();
}

int greenlet_process_statistics(greenlet_statistics *out) {
    struct core_counters sum = {0};
    core_all_counters(&sum);
    return report(out, &sum);
}

int greenlet_get_statistics(const greenlet *g, greenlet_statistics *out) {
    if (!g || (int)core_state(g) == CORE_FREED)
        return -EINVAL;
    if (!(g->flags & GREENLET_STATS))
        return -ENOTSUP;
    if (core_thread_of(g) != core_self && core_state(g) != GREENLET_DEAD)
        return -EPERM;
    return report(out, g->side->counters);
}
