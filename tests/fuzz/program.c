/* What a program does. Compiled twice: for the library and for the model.
 *
 * Whoever runs, in an entry or in a hook, takes the next operation and does
 * it; so the order of all operations is fixed, in whichever greenlet and
 * thread they land. An operation is four bytes {code, a, b, c}; every
 * sequence of bytes is a program. The program's threads pass a baton: one runs
 * at any time, so that its trace is always the same.
 *
 * What greenlets share is static or on the heap: in place, the stack of a
 * suspended one may be elsewhere. Each frame that belongs to a program is full
 * of a pattern with a key of its own, and every byte of all frames of a
 * greenlet is looked at whenever it is resumed.
 *
 * SPDX-License-Identifier: MIT */
#include "model_names.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#ifndef FUZZ_MODEL
#include "../faults.h"
#endif

enum {
    RECORDS = 256,
    HANDLES = 24,
    THREADS = 4,
    NEST = 12,
    FRAME_TOTAL = 100 * 1024, /* bytes of frames of one greenlet */
    MARK = 4711,              /* errno, whenever the library is called */
    CODES = 64
};

/* Codes are spread by weight over the values of a byte. */
enum code {
    OP_NEW,
    OP_SWITCH,
    OP_UP,
    OP_THROW,
    OP_KILL,
    OP_REF,
    OP_UNREF,
    OP_PARENT,
    OP_DRAIN,
    OP_RECURSE,
    OP_CLIMB,
    OP_FINISH,
    OP_TRACER,
    OP_HOOKS,
    OP_THREAD,
    OP_EXIT,
    OP_OOM,
    OP_PEEK,
    OP_REWRITE,
    OP_LOCAL,
    OP_SHUTDOWN,
    OP_WALK,
    OP_CHECK,
    OP_NAME,
    OP_MISUSE
};

static const uint8_t codes[CODES] = {
    OP_NEW,     OP_NEW,     OP_NEW,      OP_NEW,    OP_NEW,     OP_NEW,
    OP_NEW,     OP_NEW,     OP_SWITCH,   OP_SWITCH, OP_SWITCH,  OP_SWITCH,
    OP_SWITCH,  OP_SWITCH,  OP_SWITCH,   OP_SWITCH, OP_SWITCH,  OP_SWITCH,
    OP_SWITCH,  OP_SWITCH,  OP_UP,       OP_UP,     OP_UP,      OP_UP,
    OP_THROW,   OP_THROW,   OP_KILL,     OP_KILL,   OP_REF,     OP_REF,
    OP_UNREF,   OP_UNREF,   OP_UNREF,    OP_UNREF,  OP_UNREF,   OP_PARENT,
    OP_PARENT,  OP_PARENT,  OP_DRAIN,    OP_FINISH, OP_RECURSE, OP_RECURSE,
    OP_RECURSE, OP_RECURSE, OP_CLIMB,    OP_CLIMB,  OP_FINISH,  OP_FINISH,
    OP_TRACER,  OP_HOOKS,   OP_HOOKS,    OP_THREAD, OP_THREAD,  OP_EXIT,
    OP_OOM,     OP_OOM,     OP_PEEK,     OP_PEEK,   OP_REWRITE, OP_LOCAL,
    OP_WALK,    OP_CHECK,   OP_SHUTDOWN, OP_MISUSE,
};

struct operation {
    unsigned code, a, b, c;
};

struct frame {
    unsigned char *at; /* in the greenlet's own stack */
    size_t bytes;
    uint64_t key;
};

/* A greenlet that the program has made, or a main one. Its user data. */
struct record {
    greenlet *g;
    int id, held; /* references of the program */
    int depth;    /* frames and hooks that are under way */
    int frames_n;
    size_t frames_bytes;
    struct frame frames[NEST];
};

struct worker {
    pthread_t thread;
    sem_t baton;
    bool started, exiting, gone;
    struct record *main;
    bool busy_tracer; /* the tracer does operations */
    unsigned hooks, resolve, resolved;
    int shutting; /* main is in greenlet_thread_shutdown */
};

static struct {
    const uint8_t *at, *end;
    struct setting setting;
    struct trace *trace;
    struct record records[RECORDS];
    struct record *handles[HANDLES + THREADS]; /* those with held > 0 */
    int records_n, handles_n;
    struct worker workers[THREADS];
    int to_join; /* a worker that is about to exit, or -1 */
    uint64_t exit_sum;
    int64_t value;
    unsigned oom; /* the next call's n-th request fails; 0: none */
    bool oom_forever;
} run;

static __thread int worker_id;
static __thread bool armed;

/* What became of an operation. */
enum fate { GO_ON, CLIMB, END };

static struct worker *worker(void) { return &run.workers[worker_id]; }

/* ---- The trace ---------------------------------------------------------- */

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static void note(const char *what, int who, int other, int64_t value) {
    struct trace *t = run.trace;
    struct event e = {what, who, other, value};
#ifdef FUZZ_MODEL
    model_look();
#endif
    if (t->n < TRACE_EVENTS)
        t->events[t->n] = e;
    t->n++;
    uint64_t word;
    memcpy(&word, what, sizeof word);
    t->hash = mix(t->hash ^ word) + (uint32_t)who;
    t->hash = mix(t->hash) + (uint32_t)other;
    t->hash = mix(t->hash) + (uint64_t)value;
}

/* At least eight bytes, for note(). */
#define NOTE(what, who, other, value)                                          \
    note(what "\0\0\0\0\0\0\0", (int)(who), (int)(other), (int64_t)(value))

static struct record *record_of(const greenlet *g) {
    return greenlet_user_data(g);
}

static int id_of(const greenlet *g) { return g ? record_of(g)->id : -1; }

static intptr_t number(const void *value) { return (intptr_t)value; }

/* ---- Patterns ----------------------------------------------------------- */

static uint64_t word_at(uint64_t key, size_t i) {
    return key + i * UINT64_C(0x9e3779b97f4a7c15);
}

static __attribute__((noinline)) void paint(const struct frame *f) {
    for (size_t i = 0; i < f->bytes / 8; i++) {
        uint64_t word = word_at(f->key, i);
        memcpy(f->at + 8 * i, &word, 8);
    }
}

static __attribute__((noinline)) bool same(const struct frame *f,
                                           const unsigned char *bytes) {
    uint64_t wrong = 0;
    for (size_t i = 0; i < f->bytes / 8; i++) {
        uint64_t word;
        memcpy(&word, bytes + 8 * i, 8);
        wrong |= word ^ word_at(f->key, i);
    }
    return wrong == 0;
}

static void look_at_frames(const struct record *me) {
    for (int i = 0; i < me->frames_n; i++)
        if (!same(&me->frames[i], me->frames[i].at))
            NOTE("BROKEN frame", me->id, i, 0);
}

/* ---- Memory that fails -------------------------------------------------- */

/* Everybody who may be the first to run after a call of the library. */
static void disarm(void) {
#ifndef FUZZ_MODEL
    if (armed)
        faults_disarm();
#endif
    armed = false;
}

static void arm(const struct record *me) {
    if (!run.oom || worker()->shutting)
        return;
#ifndef FUZZ_MODEL
    /* When the current greenlet has lost its last reference, a switch kills
     * it, which cannot fail and has one reserve, not many. */
    faults_arm(run.oom,
               run.oom_forever && me->held > 0 ? FAULTS_FOREVER : FAULTS_ONCE);
    armed = true;
#else
    (void)me;
#endif
    run.oom = 0;
}

/* Before what cannot fail: a death, a last reference. */
static void arm_once(void) {
    run.oom_forever = false;
    arm(NULL);
}

/* What must not have changed when a call answers -ENOMEM. */
struct snapshot {
    size_t trace_n;
    uint64_t switches, states;
};

static uint64_t states(void) {
    uint64_t sum = 0;
    for (int i = 0; i < run.handles_n; i++) {
        const struct record *r = run.handles[i];
        sum = mix(sum + (uint64_t)r->id);
        sum = mix(sum + (uint64_t)greenlet_get_state(r->g));
        sum = mix(sum + (uint64_t)(unsigned)id_of(greenlet_parent(r->g)));
        sum = mix(sum + (uint64_t)greenlet_name(r->g)[0]);
    }
    return sum;
}

static uint64_t switches(void) {
#ifndef FUZZ_MODEL
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    if (greenlet_thread_statistics(&s) == 0)
        return s.switches;
#endif
    return 0;
}

static struct snapshot look(void) {
    if (!run.oom)
        return (struct snapshot){0};
    return (struct snapshot){run.trace->n, switches(), states()};
}

/* After a call that answered `status`: shall it be done once more? */
static bool retry(const struct record *me, struct snapshot *before,
                  intptr_t status) {
    bool was_armed = armed;
    disarm();
    if (status != -ENOMEM)
        return false;
    if (before->trace_n == 0 && !was_armed)
        NOTE("BROKEN: out of memory", me->id, 0, 0);
    if (before->trace_n == run.trace->n &&
        (before->switches != switches() || before->states != states()))
        NOTE("BROKEN: something moved", me->id, 0, 0);
    /* Or somebody else's call was to fail, and led back to this one. */
    bool again = was_armed || before->trace_n != 0;
    before->trace_n = 0;
    return again;
}

static void look_at_errno(const struct record *me) {
    if (errno != MARK)
        NOTE("BROKEN errno", me->id, 0, errno);
    errno = MARK;
}

/* ---- References of the program ------------------------------------------ */

static struct record *pick(unsigned n) {
    return run.handles[n % (unsigned)run.handles_n];
}

static bool add_handle(struct record *r) {
    if (r->held == 0) {
        if (run.handles_n >= HANDLES)
            return false;
        run.handles[run.handles_n++] = r;
    }
    r->held++;
    return true;
}

/* Before the call: others may use the handles meanwhile. */
static void remove_handle(struct record *r) {
    if (--r->held)
        return;
    for (int i = 0; i < run.handles_n; i++)
        if (run.handles[i] == r)
            run.handles[i] = run.handles[--run.handles_n];
}

static struct record *new_record(void) {
    struct record *r = &run.records[run.records_n];
    *r = (struct record){.id = run.records_n++};
    return r;
}

static bool keeps_a_reference(const struct record *r) {
    return r->held == 1 && greenlet_is_main(r->g);
}

/* ---- Running ------------------------------------------------------------ */

static bool fetch(struct operation *op) {
#ifdef FUZZ_MODEL
    model_look();
#endif
    if (run.end - run.at < OP_BYTES)
        return false;
    *op = (struct operation){codes[run.at[0] % CODES], run.at[1], run.at[2],
                             run.at[3]};
    run.at += OP_BYTES;
    return true;
}

static void *next_value(void) { return (void *)(intptr_t)++run.value; }

/* After each call that may have switched, in the one that made it. */
static void resumed(struct record *me, greenlet_message m) {
    disarm();
    look_at_errno(me);
    NOTE("resumed", me->id, (int)m.status, number(m.value));
    look_at_frames(me);
}

static enum fate perform(struct record *me, const struct operation *op,
                         bool inner, greenlet_message *last);

/* A hook does an operation. */
static void interlude(struct record *me) {
    struct operation op;
    greenlet_message unused = {NULL, 0};
    disarm();
    if (me->depth >= NEST || !fetch(&op))
        return;
    me->depth++;
    perform(me, &op, true, &unused);
    me->depth--;
}

/* Passes the baton, and waits until it comes back. */
static void hand_over(int to) {
    int me = worker_id;
    sem_post(&run.workers[to].baton);
    while (sem_wait(&run.workers[me].baton) != 0)
        continue;
    if (run.to_join >= 0) {
        pthread_join(run.workers[run.to_join].thread, NULL);
        NOTE("joined", worker_id, run.to_join, run.exit_sum);
        run.workers[run.to_join].gone = true;
        run.exit_sum = 0;
        run.to_join = -1;
    }
    errno = MARK;
}

static void *work(void *arg);

static void pass_baton_to(int to) {
    struct worker *w = &run.workers[to];
    if (w->gone || to == worker_id)
        return;
    if (!w->started) {
        w->started = true;
        if (pthread_create(&w->thread, NULL, work, w) != 0)
            abort();
    }
    hand_over(to);
}

/* Its pattern is there from entering to leaving. */
static __attribute__((noinline)) enum fate
operate(struct record *me, size_t bytes, greenlet_message *last) {
    unsigned char *room = __builtin_alloca(bytes);
    int index = me->frames_n++;
    enum fate fate = GO_ON;
    me->frames[index] = (struct frame){room, bytes, (uint64_t)++run.value};
    me->frames_bytes += bytes;
    me->depth++;
    paint(&me->frames[index]);
    while (fate == GO_ON) {
        struct operation op;
        if (fetch(&op)) {
            fate = perform(me, &op, false, last);
        } else if (me == worker()->main) {
            fate = END;
        } else { /* the end of the program: all threads' mains meet */
            greenlet_message m;
            struct snapshot before = {0};
            do {
                m = greenlet_switch(greenlet_main(), NULL);
            } while (retry(me, &before, m.status));
            resumed(me, m);
            if (m.status != 0) {
                *last = m;
                fate = END;
            }
        }
    }
    look_at_frames(me);
    me->frames_n = index;
    me->frames_bytes -= bytes;
    me->depth--;
    return fate;
}

static greenlet_message entry(void *value) {
    disarm();
    struct record *me = record_of(greenlet_current());
    greenlet_message last = {NULL, 0};
    NOTE("enters", me->id, 0, number(value));
    while (operate(me, 64 + 8 * (size_t)(me->id % 32), &last) != END)
        continue;
    NOTE("returns", me->id, (int)last.status, number(last.value));
    arm_once();
    return last;
}

/* ---- What the library calls --------------------------------------------- */

static void do_unref(struct record *me, struct record *r);

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    disarm();
    NOTE("traced", id_of(origin), id_of(target), event);
    if (data != worker())
        NOTE("BROKEN tracer's data", 0, 0, 0);
    if (worker()->busy_tracer)
        interlude(record_of(target));
}

enum {
    HOOK_PRE = 1,
    HOOK_POST = 2,
    HOOK_FIRST = 4,
    HOOK_FINISH = 8,
    HOOK_RELEASE = 16,
    HOOK_RESOLVE = 32,
    HOOK_UNRAISABLE = 64,
    HOOK_BUSY = 128 /* they do operations */
};

static void hook_pre(greenlet *from, greenlet *to, void *data) {
    (void)data;
    NOTE("pre_switch", id_of(from), id_of(to), greenlet_get_state(to));
    greenlet_message m = greenlet_switch(greenlet_main(), NULL);
    if (m.status != -EBUSY)
        NOTE("BROKEN pre_switch", id_of(from), 0, m.status);
    struct operation op;
    if (worker()->hooks & HOOK_BUSY && fetch(&op)) /* only this is allowed */
        do_unref(record_of(from), pick(op.a));
}

static void hook_post(greenlet *from, greenlet *to, void *data) {
    (void)data;
    disarm();
    NOTE("post_switch", id_of(from), id_of(to), 0);
    if (worker()->hooks & HOOK_BUSY)
        interlude(record_of(to));
}

static void hook_first(greenlet *g, void *data) {
    (void)data;
    disarm();
    NOTE("first_entry", id_of(g), 0, 0);
    if (worker()->hooks & HOOK_BUSY)
        interlude(record_of(g));
}

static void hook_finish(greenlet *g, greenlet_message last, void *data) {
    (void)data;
    disarm();
    NOTE("on_finish", id_of(g), (int)last.status, number(last.value));
    if (worker()->hooks & HOOK_BUSY)
        interlude(record_of(g));
}

static void hook_release(greenlet *g, void *data) {
    (void)data;
    disarm();
    NOTE("on_release", id_of(g), 0, greenlet_get_state(g));
    if (worker()->hooks & HOOK_BUSY)
        interlude(record_of(greenlet_current()));
}

static int hook_resolve(greenlet *g, greenlet_entry **run_this, void *data) {
    (void)data;
    disarm();
    struct worker *w = worker();
    NOTE("resolve_entry", id_of(g), *run_this != NULL, 0);
    if (w->resolve & 1)
        interlude(record_of(greenlet_current()));
    if (w->resolve & 2 && ++w->resolved % 2)
        return -EIO;
    *run_this = w->resolve & 4 && w->resolved % 3 == 0 ? NULL : entry;
    return 0;
}

static void hook_unraisable(greenlet *g, greenlet_message last, void *data) {
    (void)data;
    disarm();
    NOTE("unraisable", id_of(g), (int)last.status, number(last.value));
    if (worker()->hooks & HOOK_BUSY)
        interlude(record_of(greenlet_current()));
}

/* Of a greenlet-local value: the record whose it was. At the exit of a thread
 * in any order. */
static void local_gone(void *value) {
    struct record *owner = value;
    greenlet *g = greenlet_current();
    disarm();
    if (worker()->exiting) {
        run.exit_sum += mix((uint64_t)owner->id + 1);
        if (record_of(g) != owner ||
            greenlet_switch(greenlet_main(), NULL).status != -EBUSY)
            run.exit_sum = ~UINT64_C(0);
        return;
    }
    NOTE("local gone", owner->id, id_of(g), 0);
    interlude(record_of(g));
}

static greenlet_key key;

static void make_key(void) {
    if (greenlet_key_create(&key, local_gone) != 0)
        abort();
}

static int visit(greenlet *g, void *data) {
    uint64_t *sum = data;
    greenlet_message m = greenlet_switch(greenlet_main(), NULL);
    *sum += mix((uint64_t)id_of(g) + 1) + (m.status != -EBUSY);
    return 0;
}

/* ---- The operations ----------------------------------------------------- */

static void do_new(struct record *me, const struct operation *op) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    struct worker *w = worker();
    if (run.records_n >= RECORDS - THREADS || run.handles_n >= HANDLES)
        return;
    struct record *r = new_record();
    if ((op->b & 3) == 1)
        o.parent = greenlet_current();
    else if ((op->b & 3) == 2)
        o.parent = pick(op->a)->g;
    o.user_data = r;
    o.name = op->b & 4 ? "named" : NULL;
    o.flags = (op->c & 7) == 7 ? op->c >> 3 & 3 : 0;
    o.stack_bytes = op->b & 8 ? 200 * 1024 : 0;
    if (op->b & 16)
        o.lane = run.setting.lanes > 0 ? (int)op->a % run.setting.lanes : 7;
    bool later = op->b & 32 && w->hooks & HOOK_RESOLVE;
    int parent = o.parent ? id_of(o.parent) : -2; /* it may go meanwhile */
    struct snapshot before = look();
    do {
        arm(me);
        r->g = greenlet_new(later ? NULL : entry, &o);
    } while (retry(me, &before, r->g ? 0 : -errno));
    NOTE("new", r->id, parent, r->g ? 0 : errno);
    if (r->g)
        add_handle(r);
    errno = MARK;
}

/* To a target. Others may drop it while the call is under way. */
static greenlet_message send(struct record *me, struct record *to,
                             unsigned code, intptr_t status) {
    greenlet_message m;
    void *value = next_value();
    struct snapshot before = look();
    do {
        arm(me);
        m = code == OP_KILL    ? greenlet_kill(to->g)
            : code == OP_THROW ? greenlet_throw(to->g, status, value)
                               : greenlet_switch(to->g, value);
    } while (retry(me, &before, m.status));
    resumed(me, m);
    return m;
}

static void do_unref(struct record *me, struct record *r) {
    if (keeps_a_reference(r))
        return;
    remove_handle(r);
    NOTE("unref", r->id, r->held, 0);
    arm_once();
    greenlet_unref(r->g);
    disarm();
    look_at_errno(me);
    look_at_frames(me);
}

static void do_set_parent(struct record *me, struct record *r,
                          struct record *parent) {
    int status;
    struct snapshot before = look();
    do {
        arm(me);
        status = greenlet_set_parent(r->g, parent->g);
    } while (retry(me, &before, status));
    NOTE("set_parent", r->id, parent->id, status);
    look_at_errno(me);
    look_at_frames(me);
}

static enum fate do_recurse(struct record *me, const struct operation *op,
                            greenlet_message *last) {
    size_t bytes = 8 * (size_t)op->b + 8;
    if (op->c >= 250)
        bytes = 1024 * ((size_t)op->b % 40 + 1);
    else if (op->c >= 200)
        bytes = 24 * ((size_t)op->b + 1);
    if (me->depth >= NEST || me->frames_n >= NEST ||
        me->frames_bytes + bytes > FRAME_TOTAL)
        return GO_ON;
    return operate(me, bytes, last) == END ? END : GO_ON;
}

static void do_hooks(const struct operation *op) {
    struct worker *w = worker();
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    w->hooks = op->a & 1 ? op->b : 0;
    w->resolve = op->c;
    w->resolved = 0;
    if (w->hooks & HOOK_PRE)
        h.pre_switch = hook_pre;
    if (w->hooks & HOOK_POST)
        h.post_switch = hook_post;
    if (w->hooks & HOOK_FIRST)
        h.first_entry = hook_first;
    if (w->hooks & HOOK_FINISH)
        h.on_finish = hook_finish;
    if (w->hooks & HOOK_RELEASE)
        h.on_release = hook_release;
    if (w->hooks & HOOK_RESOLVE)
        h.resolve_entry = hook_resolve;
    if (w->hooks & HOOK_UNRAISABLE)
        h.unraisable = hook_unraisable;
    greenlet_set_hooks(w->hooks ? &h : NULL, w);
}

/* Another greenlet's frames, wherever the bytes are. */
static void do_peek(struct record *me, const struct record *r) {
    static unsigned char bytes[FRAME_TOTAL];
    int wrong = 0, status = 0;
    if (greenlet_get_state(r->g) != GREENLET_ACTIVE)
        return;
    for (int i = 0; i < r->frames_n && status == 0; i++) {
        const struct frame *f = &r->frames[i];
        status = greenlet_read_stack(r->g, f->at, bytes, f->bytes);
        wrong += status == 0 && !same(f, bytes);
    }
    NOTE("peek", me->id, r->id, status - 1000 * wrong);
}

static void do_local(struct record *me, const struct operation *op) {
    int status;
    NOTE("local", me->id, greenlet_local_get(key) == me, 0);
    struct snapshot before = look();
    do {
        arm(me);
        status = greenlet_local_set(key, op->b % 4 ? me : NULL);
    } while (retry(me, &before, status));
    NOTE("local_set", me->id, 0, status);
}

static void do_misuse(const struct operation *op) {
    greenlet *g = pick(op->a)->g;
    NOTE("misuse", greenlet_switch(NULL, NULL).status,
         greenlet_kill(NULL).status, greenlet_set_parent(g, NULL));
    NOTE("misuse", greenlet_throw(g, 0, NULL).status,
         greenlet_throw(g, -(intptr_t)op->b, NULL).status,
         greenlet_set_parent(NULL, g));
    NOTE("misuse", greenlet_set_check_level(7), greenlet_is_main(g),
         greenlet_kill(greenlet_main()).status);
}

/* Its own request for memory, which comes when others have run, shall not
 * fail. */
static void shut_down(struct record *me) {
    worker()->shutting++;
    int status = greenlet_thread_shutdown();
    worker()->shutting--;
    disarm();
    NOTE("shutdown", me->id, 0, status);
    look_at_errno(me);
    look_at_frames(me);
}

/* Leaves the thread, from its main greenlet; the first one stays. */
static bool may_exit(const struct record *me) {
    return worker_id != 0 && me == worker()->main;
}

static enum fate perform(struct record *me, const struct operation *op,
                         bool inner, greenlet_message *last) {
    greenlet_message m = {NULL, 0};
    errno = MARK;
    /* Which drains. */
    int now = op->c & 128 ? me->id : id_of(greenlet_current());
    disarm();
    look_at_errno(me);
    NOTE("operation", now, (int)op->code, states());
    switch ((enum code)op->code) {
    case OP_NEW:
        do_new(me, op);
        break;
    case OP_SWITCH:
        m = send(me, pick(op->a), OP_SWITCH, 0);
        break;
    case OP_UP: {
        greenlet *up = greenlet_parent(greenlet_current());
        disarm();
        m = send(me, record_of(up ? up : greenlet_main()), OP_SWITCH, 0);
        break;
    }
    case OP_THROW:
        m = send(me, pick(op->a), OP_THROW, (intptr_t)(op->b % 4));
        break;
    case OP_KILL:
        m = send(me, pick(op->a), OP_KILL, 0);
        break;
    case OP_REF:
        if (add_handle(pick(op->a)))
            greenlet_ref(pick(op->a)->g);
        break;
    case OP_UNREF:
        do_unref(me, pick(op->a));
        break;
    case OP_PARENT:
        do_set_parent(me, pick(op->a), pick(op->b));
        break;
    case OP_DRAIN:
        greenlet_drain();
        disarm();
        break;
    case OP_RECURSE:
        return do_recurse(me, op, last);
    case OP_CLIMB:
        return inner || me->frames_n < 2 ? GO_ON : CLIMB;
    case OP_FINISH:
        if (inner || me == worker()->main)
            break;
        last->value = next_value();
        last->status = (intptr_t)(op->b % 6) - 1;
        return END;
    case OP_TRACER:
        worker()->busy_tracer = op->b & 1;
        greenlet_set_tracer(op->a & 1 ? tracer : NULL, worker(), NULL, NULL);
        break;
    case OP_HOOKS:
        do_hooks(op);
        break;
    case OP_THREAD:
        pass_baton_to((int)(op->a % THREADS));
        if (op->b & 1) {
            greenlet_drain();
            disarm();
        }
        break;
    case OP_EXIT:
        if (inner || !may_exit(me))
            break;
        if (op->a & 1)
            shut_down(me);
        return END;
    case OP_OOM:
        run.oom = op->a % 6 + 1;
        run.oom_forever = op->b & 1;
        break;
    case OP_PEEK:
        do_peek(me, pick(op->a));
        break;
    case OP_REWRITE:
        if (me->frames_n > 0) {
            struct frame *f = &me->frames[op->a % (unsigned)me->frames_n];
            f->key = (uint64_t)++run.value;
            paint(f);
        }
        break;
    case OP_LOCAL:
        do_local(me, op);
        break;
    case OP_SHUTDOWN:
        if (op->a % 4) /* most often it is the end of most greenlets */
            break;
        shut_down(me);
        break;
    case OP_WALK: {
        static uint64_t sum;
        sum = 0;
        NOTE("walk", greenlet_walk(visit, &sum), 0, sum);
        break;
    }
    case OP_CHECK:
        NOTE("check", greenlet_set_check_level(op->a & 1 ? 0 : -1), 0, 0);
        break;
    case OP_NAME: {
        struct record *r = pick(op->a);
        greenlet_set_name(r->g, op->b & 1 ? "other" : NULL);
        break;
    }
    case OP_MISUSE:
        do_misuse(op);
        break;
    }
    /* An error was thrown: most die of it. */
    if (m.status > 0 && !inner && me != worker()->main && op->c % 8 != 7) {
        *last = m;
        if (op->c % 8 == 6)
            last->status = (intptr_t)(op->b % 6) - 1;
        return END;
    }
    return GO_ON;
}

/* ---- Threads ------------------------------------------------------------ */

/* The first one lets the others end, and drops what is left. */
static void end_of_program(struct record *me) {
    for (int i = 1; i < THREADS; i++)
        while (run.workers[i].started && !run.workers[i].gone)
            hand_over(i);
    for (int i = 0; i < run.handles_n;) {
        struct record *r = run.handles[i];
        if (keeps_a_reference(r)) {
            i++;
        } else {
            do_unref(me, r);
            i = 0;
        }
    }
}

static void *work(void *arg) {
    struct worker *w = arg;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    greenlet_message unused = {NULL, 0};
    worker_id = (int)(w - run.workers);
    while (sem_wait(&w->baton) != 0)
        continue;
    o.lanes = run.setting.lanes;
    if (greenlet_thread_configure(&o) != 0)
        abort();
    struct record *me = w->main = new_record();
    me->g = greenlet_ref(greenlet_main());
    greenlet_set_user_data(me->g, me);
    me->held = 1;
    run.handles[run.handles_n++] = me;
    errno = MARK;
    while (operate(me, 256, &unused) != END)
        continue;
    if (worker_id == 0) {
        end_of_program(me);
    } else {
        run.to_join = worker_id;
        sem_post(&run.workers[0].baton);
    }
    w->exiting = true;
    return NULL;
}

void run_program(const uint8_t *program, size_t n, const struct setting *s,
                 struct trace *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key);
    memset(&run, 0, sizeof run);
    run.at = program;
    run.end = program + (n < PROGRAM_BYTES ? n : PROGRAM_BYTES);
    run.setting = *s;
    run.trace = out;
    run.to_join = -1;
    out->n = 0;
    out->hash = 0;
    for (int i = 0; i < THREADS; i++)
        sem_init(&run.workers[i].baton, 0, 0);
    struct worker *first = &run.workers[0];
    first->started = true;
    sem_post(&first->baton);
    if (pthread_create(&first->thread, NULL, work, first) != 0)
        abort();
    pthread_join(first->thread, NULL);
    NOTE("all joined", 0, 0, run.exit_sum);
    for (int i = 0; i < run.handles_n; i++)
        while (run.handles[i]->held-- > 0)
            greenlet_unref(run.handles[i]->g);
    for (int i = 0; i < THREADS; i++)
        sem_destroy(&run.workers[i].baton);
}
