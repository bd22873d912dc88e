/* The contract in the plainest way: every greenlet has a stack of its own and
 * swapcontext() switches between them; nothing is fast, nothing is shared,
 * nothing fails. Numbers are those of docs/contract.md.
 *
 * The program's threads pass a baton, so that only one of them runs at any
 * time: there is no lock here.
 *
 * SPDX-License-Identifier: MIT */
#include "model_names.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "fuzz.h"

enum { STACK_BYTES = 512 * 1024, ROUNDS = 4 };

struct thread {
    greenlet *current, *main;
    bool exited;
    bool forbid;  /* 28: inside a hook that must not switch                */
    bool dropped; /* 15: the current greenlet has lost its last reference  */
    uint32_t serial;
    greenlet *queue, **queue_end; /* 16 */
    greenlet_tracer *tracer;
    void *tracer_data;
    greenlet_hooks hooks;
    void *hooks_data;
    /* The switch under way. */
    greenlet *origin;
    greenlet_event event;
    greenlet_message mail;
    bool fresh, died, was_dropped;
    void *corpse; /* the stack of the one that has just died */
    struct thread *next;
};

struct greenlet {
    /* 16: the thread that made it counts its references in `mine`, others in
     * `others`, which may go below zero; after the maker's last one, or its
     * exit, all are counted in `others`. The sum is the count, and when it
     * is found to be zero shows: whoever takes one of the maker's away
     * leaves the rest to the maker's next drain. */
    int mine, others;
    bool merged, queued;
    greenlet *queue_next;
    struct thread *maker, *home;
    greenlet_state state;
    greenlet *parent;
    greenlet_entry *entry;
    void *user_data, *local, *stack;
    char name[48];
    uint32_t serial;
    bool is_main, visited;
    ucontext_t context;
    greenlet *next, *prev; /* all there are */
};

static __thread struct thread *self;
static struct thread *threads;
static greenlet *all;
static void *stacks; /* free ones, by first word */
static unsigned leaks;
static bool open_order, left_open; /* see fuzz.h */
static void (*destructor)(void *value);
static pthread_key_t exit_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static greenlet_message failed(int status) {
    return (greenlet_message){NULL, status};
}

/* ---- Stacks ------------------------------------------------------------- */

static void *take_stack(void) {
    void *stack = stacks;
    if (stack) {
        memcpy(&stacks, stack, sizeof stacks);
        return stack;
    }
    if (!(stack = malloc(STACK_BYTES)))
        abort();
    return stack;
}

static void give_stack(void *stack) {
    if (!stack)
        return;
    memcpy(stack, &stacks, sizeof stacks);
    stacks = stack;
}

/* ---- References --------------------------------------------------------- */

static void last_reference(greenlet *g);
static greenlet_message throw_exit(greenlet *g);

greenlet *greenlet_ref(greenlet *g) {
    if (!g)
        return NULL;
    g->maker == self && g->mine ? g->mine++ : g->others++;
    return g;
}

static bool enqueue(struct thread *t, greenlet *g) {
    g->queued = !t->exited;
    if (t->exited)
        return false;
    g->queue_next = NULL;
    *t->queue_end = g;
    t->queue_end = &g->queue_next;
    return true;
}

static void release(greenlet *g) {
    greenlet *parent = g->parent;
    *(g->prev ? &g->prev->next : &all) = g->next;
    if (g->next)
        g->next->prev = g->prev;
    give_stack(g->stack);
    free(g);
    greenlet_unref(parent); /* a child holds its parent */
}

/* True if it was the last. */
static bool drop(greenlet *g) {
    if (g->maker == self && g->mine) {
        if (--g->mine)
            return false;
        g->merged = true;
        return g->others == 0 && !g->queued;
    }
    g->others--;
    if (!g->merged && !g->queued && g->others < 0) {
        enqueue(g->maker, g);
        return false;
    }
    return g->merged && !g->queued && g->others == 0;
}

void greenlet_unref(greenlet *g) {
    if (g && drop(g))
        last_reference(g);
}

static bool unreferenced(const greenlet *g) {
    return g->merged && g->others == 0;
}

static void unraisable(greenlet *g, greenlet_message m) {
    leaks += m.status < 0;
    if (self->hooks.unraisable)
        self->hooks.unraisable(g, m, self->hooks_data);
}

/* 15, 16, 17 */
static void last_reference(greenlet *g) {
    if (g->home->exited) {
        release(g);
    } else if (g->home != self || self->forbid) {
        if (!g->queued)
            enqueue(g->home, g);
    } else if (g->is_main) {
        greenlet_ref(g);
    } else if (g->state != GREENLET_ACTIVE) {
        release(g);
    } else if (g == self->current) {
        self->dropped = true;
    } else {
        greenlet_ref(g);
        greenlet_message m = throw_exit(g);
        if (g->state == GREENLET_DEAD) {
            if (m.status != 0)
                unraisable(g, m);
            greenlet_unref(g);
            return;
        }
        if (--g->others == 0)
            unraisable(g, (greenlet_message){m.value, -EBUSY});
    }
}

/* 16: what was there at the beginning. */
static size_t drain(void) {
    size_t n = 0, most = 0;
    for (greenlet *g = self->queue; g; g = g->queue_next)
        most++;
    for (; n < most && self->queue; n++) {
        greenlet *g = self->queue;
        self->queue = g->queue_next;
        if (!self->queue)
            self->queue_end = &self->queue;
        g->queued = false;
        if (g->maker == self && !g->merged) {
            g->mine += g->others;
            g->others = 0;
            if (g->mine)
                continue;
            g->merged = true;
        }
        if (g->others == 0)
            last_reference(g);
    }
    return n;
}

/* ---- Threads ------------------------------------------------------------ */

static greenlet *make(struct thread *home, greenlet_entry *entry) {
    greenlet *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->maker = self;
    g->home = home;
    g->entry = entry;
    g->mine = 1;
    g->state = GREENLET_NEW;
    g->next = all;
    if (all)
        all->prev = g;
    all = g;
    return g;
}

static void run_destructors(greenlet *g) {
    for (int i = 0; i < ROUNDS && g->local; i++) {
        void *value = g->local;
        g->local = NULL;
        destructor(value);
    }
    g->local = NULL;
}

/* 14: a new one is where its nearest started ancestor is. */
static struct thread *thread_of(const greenlet *g) {
    while (g->state == GREENLET_NEW)
        g = g->parent;
    return g->home;
}

/* 18 */
static void thread_exit(void *arg) {
    struct thread *t = arg;
    greenlet *gone = NULL;
    t->forbid = true;
    t->current = t->main;
    for (greenlet *g = all; g; g = g->next)
        if (g->home == t && g->state == GREENLET_ACTIVE && g->local) {
            t->current = g;
            run_destructors(g);
            t->current = t->main;
        }
    t->exited = true;
    for (greenlet *g = all; g; g = g->next)
        if (g->home == t && thread_of(g) == t) {
            g->state = GREENLET_DEAD;
            give_stack(g->stack);
            g->stack = NULL;
        }
    for (greenlet *g = t->queue, *next; g; g = next) {
        next = g->queue_next;
        g->queued = false;
        if (g->merged && g->others == 0) {
            g->queue_next = gone;
            gone = g;
        }
    }
    for (greenlet *g = all; g; g = g->next)
        if (g->maker == t && !g->merged) {
            g->others += g->mine;
            g->mine = 0;
            g->merged = true;
            if (g->others == 0 && !g->queued) {
                g->queue_next = gone;
                gone = g;
            }
        }
    self = NULL;
    /* 16 gives those whose last references are found then no order. */
    for (greenlet *next; gone; gone = next) {
        next = gone->queue_next;
        left_open |= next && !gone->home->exited;
        last_reference(gone);
    }
    greenlet_unref(t->main);
}

static void make_key(void) {
    if (pthread_key_create(&exit_key, thread_exit) != 0)
        abort();
}

static struct thread *adopt(void) {
    if (self)
        return self;
    pthread_once(&once, make_key);
    if (!(self = calloc(1, sizeof *self)))
        abort();
    self->queue_end = &self->queue;
    self->next = threads;
    threads = self;
    self->main = self->current = make(self, NULL);
    self->main->state = GREENLET_ACTIVE;
    self->main->is_main = true;
    if (pthread_setspecific(exit_key, self) != 0)
        abort();
    return self;
}

int greenlet_thread_configure(const greenlet_thread_options *o) {
    (void)o;
    adopt();
    return 0;
}

void model_look(void) { left_open |= open_order; }

bool model_left_open(void) { return left_open; }

unsigned model_reset(void) {
    unsigned n = leaks;
    leaks = 0;
    open_order = left_open = false;
    for (greenlet *g = all, *next; g; g = next) {
        next = g->next;
        give_stack(g->stack);
        free(g);
        n++;
    }
    all = NULL;
    for (struct thread *t = threads, *next; t; t = next) {
        next = t->next;
        free(t);
    }
    threads = NULL;
    return n;
}

/* ---- Switching ---------------------------------------------------------- */

static int refused(const greenlet *g) {
    struct thread *home = thread_of(g);
    return home == self ? 0 : home->exited ? -EOWNERDEAD : -EPERM;
}

/* 5, 6, 7, 9: who receives it, and what. */
static int route(greenlet **to, greenlet_message *m) {
    for (greenlet *g = *to;; g = g->parent) {
        int status = refused(g);
        if (status)
            return status;
        if (g->state == GREENLET_ACTIVE ||
            (g->state == GREENLET_NEW && m->status == 0)) {
            *to = g;
            return 0;
        }
        if (m->status == GREENLET_EXIT)
            m->status = 0;
    }
}

/* 22. 1: the hook ran, look again. */
static int resolve(greenlet *g) {
    greenlet_entry *entry = g->entry;
    greenlet_ref(g);
    int status = self->hooks.resolve_entry(g, &entry, self->hooks_data);
    if (status == 0 && g->state == GREENLET_NEW)
        g->entry = entry;
    greenlet_unref(g);
    return status < 0 ? status : 1;
}

/* While others run, the caller's reference may go: then it is -EINVAL. */
static bool hold(greenlet *g) {
    return g && !unreferenced(g) && greenlet_ref(g);
}

static int let_go(greenlet *g, bool held) {
    if (!held)
        return 0;
    if (drop(g)) {
        last_reference(g);
        return -EINVAL;
    }
    if (unreferenced(g)) /* it waits in its home's queue */
        return -EINVAL;
    return 0; /* or only the maker can tell */
}

/* In the target: 21, 22, 15. */
static greenlet_message arrive(void) {
    struct thread *t = self;
    greenlet *origin = t->origin, *to = t->current;
    greenlet_message m = t->mail;
    greenlet_event event = t->event;
    bool fresh = t->fresh;
    bool leaked =
        !t->died && !t->was_dropped && unreferenced(origin) && !origin->queued;
    greenlet_ref(origin);
    if (t->died) {
        give_stack(t->corpse);
        t->corpse = NULL;
        if (t->hooks.on_release)
            t->hooks.on_release(origin, t->hooks_data);
    }
    if (t->hooks.post_switch)
        t->hooks.post_switch(origin, to, t->hooks_data);
    if (fresh && t->hooks.first_entry)
        t->hooks.first_entry(to, t->hooks_data);
    if (t->tracer)
        t->tracer(event, origin, to, t->tracer_data);
    if (leaked)
        origin->others--;
    else
        greenlet_unref(origin);
    return m;
}

static _Noreturn void finish(greenlet_message last);

static void begin(void) {
    greenlet_message m = arrive();
    finish(self->current->entry(m.value));
}

/* `first` is who the message was meant for; the new ones from there on up to
 * `to` die of it. */
static greenlet_message pass(greenlet *first, greenlet *to, greenlet_message m,
                             bool died) {
    struct thread *t = self;
    greenlet *from = t->current;
    for (greenlet *g = first; g != to; g = g->parent)
        g->state = GREENLET_DEAD;
    t->origin = from;
    t->event = m.status ? GREENLET_EVENT_THROW : GREENLET_EVENT_SWITCH;
    t->mail = m;
    t->died = died;
    t->fresh = to->state == GREENLET_NEW;
    if (t->fresh) { /* also if an ancestor took it here, 14 */
        to->serial = ++t->serial;
        to->home = t;
    }
    if (t->hooks.pre_switch) {
        t->forbid = true;
        t->hooks.pre_switch(from, to, t->hooks_data);
        t->forbid = false;
    }
    t->was_dropped = t->dropped || (died && unreferenced(from));
    t->dropped = false;
    to->state = GREENLET_ACTIVE;
    t->current = to;
    if (to == from)
        return arrive();
    if (t->fresh) {
        to->stack = take_stack();
        getcontext(&to->context);
        to->context.uc_stack.ss_sp = to->stack;
        to->context.uc_stack.ss_size = STACK_BYTES;
        makecontext(&to->context, begin, 0);
    }
    if (died) {
        t->corpse = from->stack;
        from->stack = NULL;
        setcontext(&to->context);
    }
    swapcontext(&from->context, &to->context);
    return arrive();
}

static greenlet_message transfer(greenlet *to, greenlet_message m) {
    greenlet *resolved = NULL;
    if (self->forbid)
        return failed(-EBUSY);
    for (;;) {
        greenlet *target = to;
        greenlet_message last = m;
        int status = route(&target, &last);
        if (status)
            return failed(status);
        if (target->state == GREENLET_NEW) {
            if (self->hooks.resolve_entry && target != resolved) {
                resolved = target;
                bool held = hold(to);
                status = resolve(target);
                int lost = let_go(to, held);
                if (lost || status < 0)
                    return failed(lost ? lost : status);
                continue;
            }
            if (!target->entry)
                return failed(-EINVAL);
        }
        return pass(to, target, last, false);
    }
}

static greenlet_message drain_and_transfer(greenlet *to, greenlet_message m) {
    adopt();
    if (!to)
        return failed(-EINVAL);
    if (!self->forbid && self->queue) {
        bool held = hold(to);
        drain();
        int lost = let_go(to, held);
        if (lost)
            return failed(lost);
    }
    return transfer(to, m);
}

greenlet_message greenlet_switch(greenlet *to, void *value) {
    return drain_and_transfer(to, (greenlet_message){value, 0});
}

greenlet_message greenlet_throw(greenlet *to, intptr_t status, void *value) {
    if (status <= 0)
        return failed(-EINVAL);
    return drain_and_transfer(to, (greenlet_message){value, status});
}

/* 5, 6: who gets what a dying greenlet leaves; in the end the thread's main. */
static greenlet *heir(greenlet *g, greenlet **first, greenlet_message *m) {
    greenlet *resolved = NULL;
    for (;;) {
        greenlet_message last = *m;
        greenlet *to = g->parent;
        int status = route(&to, &last);
        if (status) {
            *m = last;
            return *first = self->main;
        }
        if (to->state == GREENLET_NEW) {
            if (self->hooks.resolve_entry && to != resolved) {
                resolved = to;
                status = resolve(to);
                if (status >= 0)
                    continue;
            } else {
                status = to->entry ? 0 : -EINVAL;
            }
            if (status < 0) {
                *m = (greenlet_message){NULL, -status};
                continue;
            }
        }
        *m = last;
        *first = g->parent;
        return to;
    }
}

static _Noreturn void finish(greenlet_message last) {
    greenlet *g = self->current, *first;
    if (self->hooks.on_finish)
        self->hooks.on_finish(g, last, self->hooks_data);
    run_destructors(g);
    if (last.status == GREENLET_EXIT)
        last.status = 0;
    else if (last.status < 0)
        last.status = -EINVAL;
    greenlet *to = heir(g, &first, &last);
    g->state = GREENLET_DEAD;
    pass(first, to, last, true);
    abort();
}

/* ---- Kill --------------------------------------------------------------- */

/* Is g on the way up from `from`? For its time a kill can make a ring. */
static bool reaches(const greenlet *from, const greenlet *g) {
    for (unsigned steps = 0; from && steps < 100000; steps++) {
        if (from == g)
            return true;
        from = from->parent;
    }
    return false;
}

static greenlet_message throw_exit(greenlet *g) {
    greenlet *me = self->current, *old;
    int status = refused(g);
    if (status)
        return failed(status);
    if (g->is_main)
        return failed(-EINVAL);
    if (g->state == GREENLET_DEAD)
        return failed(0);
    if (g == me || self->forbid)
        return failed(-EBUSY);
    greenlet_ref(g);
    old = g->parent;
    g->parent = greenlet_ref(me);
    greenlet_message m = transfer(g, (greenlet_message){NULL, GREENLET_EXIT});
    if (g->parent == me) {
        greenlet *parent = old;
        if (reaches(old, g)) {
            parent = reaches(me->parent, g) ? self->main : me;
            greenlet_ref(parent);
            greenlet_unref(old);
        }
        g->parent = parent;
        greenlet_unref(me);
    } else {
        greenlet_unref(old);
    }
    if (g->state != GREENLET_DEAD && m.status <= 0)
        m.status = -EBUSY;
    greenlet_unref(g);
    return m;
}

greenlet_message greenlet_kill(greenlet *g) {
    adopt();
    return g ? throw_exit(g) : failed(-EINVAL);
}

int greenlet_thread_shutdown(void) {
    int status = 0;
    if (!self)
        return 0;
    if (self->current != self->main || self->forbid)
        return -EINVAL;
    drain();
    for (;;) {
        greenlet *list[1024];
        size_t n = 0;
        for (greenlet *g = all; g && n < 1024; g = g->next)
            if (g->home == self && g->state != GREENLET_DEAD && !g->is_main &&
                !g->visited)
                list[n++] = greenlet_ref(g);
        if (n == 0)
            break;
        for (size_t i = 1; i < n; i++) /* the latest started first */
            for (size_t k = i; k && list[k - 1]->serial < list[k]->serial;
                 k--) {
                greenlet *g = list[k];
                list[k] = list[k - 1];
                list[k - 1] = g;
            }
        size_t started = 0;
        while (started < n && list[started]->serial)
            started++;
        for (size_t i = 0; i < n; i++) {
            /* 18 gives those that had not started no order. */
            open_order |= i == started && n - i > 1;
            if (list[i]->home == self) { /* or it has moved meanwhile */
                list[i]->visited = true;
                throw_exit(list[i]);
                if (list[i]->state != GREENLET_DEAD)
                    status = -EBUSY;
            }
            greenlet_unref(list[i]);
        }
        open_order = false;
    }
    for (greenlet *g = all; g; g = g->next)
        if (g->home == self)
            g->visited = false;
    return status;
}

/* ---- The rest ----------------------------------------------------------- */

greenlet *greenlet_new(greenlet_entry *entry, const greenlet_options *o) {
    greenlet_options given = GREENLET_OPTIONS_INIT;
    adopt();
    if (o)
        given = *o;
    if (!entry && !self->hooks.resolve_entry) {
        errno = EINVAL;
        return NULL;
    }
    bool held = false;
    if (!self->forbid && self->queue) {
        held = hold(given.parent);
        drain();
        if (held && given.parent->home == self) {
            int lost = let_go(given.parent, true);
            if (lost) {
                errno = -lost;
                return NULL;
            }
            held = false;
        }
    }
    greenlet *parent = given.parent ? given.parent : self->current;
    if (thread_of(parent)->exited) {
        (void)let_go(given.parent, held);
        errno = EOWNERDEAD;
        return NULL;
    }
    greenlet *g = make(thread_of(parent), entry);
    g->parent = greenlet_ref(parent);
    (void)let_go(given.parent, held);
    g->user_data = given.user_data;
    greenlet_set_name(g, given.name);
    return g;
}

/* 12 */
int greenlet_set_parent(greenlet *g, greenlet *parent) {
    int status;
    adopt();
    if (!g || !parent || g->is_main)
        return -EINVAL;
    if ((status = refused(g)) != 0)
        return status;
    if (reaches(parent, g))
        return -ELOOP;
    struct thread *home = thread_of(parent);
    if (home->exited)
        return -EOWNERDEAD;
    if (home != self && g->state != GREENLET_NEW)
        return -EPERM;
    if (home != self)
        g->home = home;
    greenlet *old = g->parent;
    g->parent = greenlet_ref(parent);
    greenlet_unref(old);
    return 0;
}

size_t greenlet_drain(void) { return self && !self->forbid ? drain() : 0; }

greenlet *greenlet_current(void) {
    adopt();
    if (!self->forbid)
        drain();
    return self->current;
}

greenlet *greenlet_main(void) { return adopt()->main; }

greenlet *greenlet_parent(const greenlet *g) { return g ? g->parent : NULL; }

int greenlet_is_main(const greenlet *g) { return g && g->is_main; }

greenlet_state greenlet_get_state(const greenlet *g) {
    if (!g)
        return (greenlet_state)0;
    return thread_of(g)->exited ? GREENLET_DEAD : g->state;
}

void *greenlet_user_data(const greenlet *g) { return g ? g->user_data : NULL; }

void greenlet_set_user_data(greenlet *g, void *data) {
    if (g)
        g->user_data = data;
}

const char *greenlet_name(const greenlet *g) { return g ? g->name : ""; }

int greenlet_set_name(greenlet *g, const char *name) {
    if (!g)
        return -EINVAL;
    memset(g->name, 0, sizeof g->name);
    if (name)
        memcpy(g->name, name, strnlen(name, sizeof g->name - 1));
    return 0;
}

/* 23: here every byte is always in its place. */
int greenlet_read_stack(const greenlet *g, const void *address, void *dst,
                        size_t n) {
    if (!g)
        return -EINVAL;
    if (greenlet_get_state(g) == GREENLET_ACTIVE && g->home != self)
        return -EPERM;
    memcpy(dst, address, n);
    return 0;
}

int greenlet_walk(int (*visit)(greenlet *g, void *data), void *data) {
    int result = 0;
    adopt();
    bool forbidden = self->forbid;
    self->forbid = true;
    for (greenlet *g = all; g && !result; g = g->next)
        if (g->home == self && g->state == GREENLET_ACTIVE &&
            g != self->current)
            result = visit(g, data);
    self->forbid = forbidden;
    return result;
}

int greenlet_key_create(greenlet_key *key, void (*destroy)(void *value)) {
    *key = 0;
    destructor = destroy;
    return 0;
}

void *greenlet_local_get(greenlet_key key) {
    (void)key;
    return self ? self->current->local : NULL;
}

int greenlet_local_set(greenlet_key key, void *value) {
    (void)key;
    adopt()->current->local = value;
    return 0;
}

int greenlet_set_tracer(greenlet_tracer *tracer, void *data,
                        greenlet_tracer **old_tracer, void **old_data) {
    adopt();
    if (old_tracer)
        *old_tracer = self->tracer;
    if (old_data)
        *old_data = self->tracer_data;
    self->tracer = tracer;
    self->tracer_data = data;
    return 0;
}

int greenlet_set_hooks(const greenlet_hooks *hooks, void *data) {
    static const greenlet_hooks none = GREENLET_HOOKS_INIT;
    adopt()->hooks = hooks ? *hooks : none;
    self->hooks_data = data;
    return 0;
}

int greenlet_set_check_level(int level) {
    adopt();
    return level < -1 || level > 0 ? -EINVAL : 0;
}
