/* The core's own view of greenlets and threads, and the services that it
 * gives to the backends. Nothing here is installed.
 *
 * src/greenlet.h <- core (this) <- backend.h <- backends/ <- arch/
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_CORE_H
#define GREENLET_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "annotate.h"
#include "greenlet.h"
#include "harden.h"
#include "names.h"
#include "probes.h"

/* From the one folder of backends/ that this build has. */
#include "backend_state.h"

struct greenlet_thread;

/* ---- A greenlet ------------------------------------------------------- */

/* Values of `state` beyond those of greenlet_state. */
enum { CORE_FREED = 0 };

/* Bits of `flags`. The low ones are the options' flags. */
enum {
    CORE_SPECIAL = GREENLET_FPU | GREENLET_STATS, /* always the slow path  */
    CORE_MERGED = 0x08,  /* all references are counted in `shared`         */
    CORE_FOREIGN = 0x10, /* lives in another thread's slab                 */
    CORE_MAIN = 0x20,
    CORE_CANARY = 0x40, /* the word at its base is check.c's              */
    CORE_VISITED = 0x80 /* greenlet_thread_shutdown has tried it           */
};

/* Tags in the low bits of `home`, all for ordinary greenlets, about which
 * nothing is special. None: near. REFILL: away, active, and not the current
 * one: a plain switch to it is backend_refill(). READY: new, with an entry and
 * no wish for a lane, child of one that is not new. OVER: it died as READY ones
 * do that nobody watches. AWAY: anything else. */
#define CORE_AWAY ((uintptr_t)1)
#define CORE_READY ((uintptr_t)2)
#define CORE_REFILL ((uintptr_t)3)
#define CORE_OVER ((uintptr_t)4)
#define CORE_TAGS ((uintptr_t)7)

/* Counts of `shared`, above its two flag bits. */
enum { SHARED_ONE = 4, SHARED_MERGED = 1, SHARED_QUEUED = 2 };

/* At most 112 bytes, asserted. Written by the owner thread only, but for
 * `shared`, `queue_next` (under the owner's lock) and a new one's home. */
struct greenlet {
    struct backend_greenlet b;
    _Atomic uintptr_t home;     /* struct greenlet_thread * | a tag       */
    _Atomic(greenlet *) parent; /* a reference; NULL for main             */
    greenlet_entry *entry;
    struct greenlet_side *side; /* NULL until something of it is used     */
    void *user_data;
    greenlet *queue_next;   /* in its owner's queue                   */
    uint32_t refs;          /* held by the owner thread (biased)      */
    _Atomic int32_t shared; /* held by others; SHARED_ bits           */
    uint32_t serial;        /* order of start in the thread; new: any */
    _Atomic uint8_t state;  /* greenlet_state or CORE_FREED           */
    uint8_t flags;
    uint16_t reserved;
    HARDEN_STATE;
    ANNOTATE_STATE(greenlet);
};

/* Of the bytes [sp, sp + bytes), at its last suspension; sp 0: none. */
struct core_seal {
    uintptr_t sp, bytes;
    uint32_t epoch, crc; /* struct greenlet_thread's epoch at that time */
};

/* What few greenlets have. */
struct greenlet_side {
    char name[48];
    struct core_local *locals;      /* GREENLET_KEYS_MAX of them, or NULL     */
    greenlet *foreign_next;         /* the home thread's list, under its lock */
    greenlet **foreign_link;        /* what leads to it there               */
    bool foreign_linked;            /* is it? Neighbours do not write this  */
    uint32_t fpu[2];                /* GREENLET_FPU: control words          */
    struct core_counters *counters; /* GREENLET_STATS                   */
    struct core_seal seal;          /* check level 1                    */
};

/* ---- Counters --------------------------------------------------------- */

/* Written by one thread, read by any: relaxed. */
#if UINTPTR_MAX >= UINT64_MAX

typedef _Atomic uint64_t core_counter;

static inline uint64_t counter_get(const core_counter *c) {
    return atomic_load_explicit((core_counter *)c, memory_order_relaxed);
}

static inline void counter_set(core_counter *c, uint64_t n) {
#if defined(__riscv) && !defined(__clang__) && __GNUC__ < 14
    /* gcc before 14 makes an exchange of the line below (amoswap). An aligned
     * word that is volatile is written by one store, too. */
    *(volatile uint64_t *)(void *)c = n;
#else
    atomic_store_explicit(c, n, memory_order_relaxed);
#endif
}

static inline void counter_add(core_counter *c, uint64_t n) {
    counter_set(c, counter_get(c) + n);
}

#else

/* 32-bit CPUs: without atomic accesses to 64 bits, which some do not have at
 * all and others only by detours. A carry, which is rare, is written from
 * right to left; who reads from left to right and finds both upper halves
 * equal has the lower one that belongs to them. */
typedef struct core_counter {
    _Atomic uint32_t high, low, high_too;
} core_counter;

static inline uint64_t counter_get(const core_counter *counter) {
    core_counter *c = (core_counter *)counter;
    uint32_t high, low;
    do {
        high = atomic_load_explicit(&c->high, memory_order_acquire);
        low = atomic_load_explicit(&c->low, memory_order_acquire);
    } while (high != atomic_load_explicit(&c->high_too, memory_order_relaxed));
    return (uint64_t)high << 32 | low;
}

static inline void counter_set(core_counter *c, uint64_t n) {
    uint32_t high = (uint32_t)(n >> 32), low = (uint32_t)n;
    if (high == atomic_load_explicit(&c->high, memory_order_relaxed)) {
        atomic_store_explicit(&c->low, low, memory_order_relaxed);
        return;
    }
    atomic_store_explicit(&c->high_too, high, memory_order_relaxed);
    atomic_store_explicit(&c->low, low, memory_order_release);
    atomic_store_explicit(&c->high, high, memory_order_release);
}

/* The writer reads what it has written: in any order. */
static inline void counter_add(core_counter *c, uint64_t n) {
    uint32_t low = atomic_load_explicit(&c->low, memory_order_relaxed);
    if (likely(n <= UINT32_MAX - low))
        atomic_store_explicit(&c->low, low + (uint32_t)n, memory_order_relaxed);
    else
        counter_set(c, counter_get(c) + n);
}

#endif

/* A refill is a switch, a miss, an eviction and a fill in one: it counts
 * itself once, and whoever reads adds it to the four. */
struct core_counters {
    core_counter switches, refills, saved_bytes, filled_bytes, stack_high;
    core_counter starts; /* refills that filled nothing                    */
    core_counter misses, evictions, fills, allocations;
};

static inline void counter_max(core_counter *c, uint64_t n) {
    if (n > counter_get(c))
        counter_set(c, n);
}

/* ---- A thread --------------------------------------------------------- */

/* Reasons for all of a thread's switches to take the slow path. */
enum {
    SLOW_TRACER = 1,
    SLOW_HOOKS = 2,
    SLOW_CHECK = 4,
    SLOW_DROPPED = 8,  /* the current greenlet has lost its last reference */
    SLOW_SPECIAL = 16, /* the current greenlet is CORE_SPECIAL             */
    SLOW_FORBID = 32,  /* inside a hook that must not switch               */
    SLOW_TRACE = 64,   /* t->trace records                                 */
    SLOW_WATCHED = 128 /* by a tool or by seals: annotate.h, harden.h      */
};

struct greenlet_slab;

struct greenlet_thread {
    /* The hot line: == (uintptr_t)this, or CORE_AWAY when `slow` or `queue`
     * ask for the slow path. */
    _Atomic uintptr_t fast;
    greenlet *current;
    struct core_counters counters;

    greenlet *main;
    unsigned slow;
    int check;                 /* level; -1: none                           */
    uint32_t epoch;            /* seals of other ones are not looked at     */
    bool strict;               /* close the stacks of all but the current   */
    struct check_pages *pages; /* backend.h: known to be readable; or NULL */

    /* The slow switch under way, from its decision to core_after(). */
    greenlet *origin;
    greenlet *victim; /* first of the greenlets that die unstarted    */
    greenlet_event event;
    bool fresh;            /* the target enters its entry                  */
    bool died;             /* origin has died                              */
    bool dropped;          /* origin had lost its last reference           */
    greenlet_message mail; /* for backends without an arch/                */
    bool mail_after;

    greenlet_tracer *tracer;
    void *tracer_data;
    greenlet_hooks hooks;
    void *hooks_data;
    uint32_t fpu[2]; /* control words of all without GREENLET_FPU */
    uint32_t serial;
    int lanes; /* settings, resolved */
    size_t lane_bytes, stack_bytes;

    /* Slabs of greenlets that this thread has made. */
    struct greenlet_slab *slabs; /* those with a free slot first      */
    struct greenlet_slab *slabs_last;
    size_t slabs_empty, population;

    pthread_mutex_t lock; /* guards what follows */
    _Atomic(greenlet *) queue;
    greenlet *queue_last;
    size_t queue_length;
    greenlet *foreign;  /* homed here, in others' slabs                  */
    greenlet *returned; /* freed by others: by queue_next                */
    _Atomic bool exited;
    void *overflow_stack; /* the alternate signal stack that we made       */
    uintptr_t own_low, own_high; /* the thread's own stack, if known       */

    struct core_trace *trace; /* the recorder's; NULL: off */
    int tid; /* the kernel's number of it: for debuggers                   */
    bool exiting, settled;
    void *block;                          /* what to free */
    struct greenlet_thread *next, **link; /* all threads; core_threads_lock */
    struct backend_thread b;
    ANNOTATE_STATE(thread);
};

/* The calling thread's, or core_nobody. */
extern __thread struct greenlet_thread *core_self
    __attribute__((tls_model("initial-exec")));
extern struct greenlet_thread core_nobody;

/* Who gave control to the current greenlet, as a guess: see greenlet_switch().
 * Beside core_self, not behind it: one load less. */
extern __thread greenlet *core_before
    __attribute__((tls_model("initial-exec")));

/* thread.c */
struct greenlet_thread *core_adopt(void);     /* NULL: core_no_thread() */
int core_no_thread(void);                     /* -ENOMEM, -ENOTSUP         */
void core_refresh(struct greenlet_thread *t); /* recompute `fast` */
void core_drain(struct greenlet_thread *t);
int core_enqueue(struct greenlet_thread *t, greenlet *g);
/* Unlocks t->lock. If the thread has exited and nothing refers to its block
 * any more, which is found exactly once, the block goes. */
void core_unlock(struct greenlet_thread *t);
extern pthread_mutex_t core_threads_lock;
extern struct greenlet_thread *core_threads;
extern _Atomic bool core_moved; /* a new greenlet has ever changed its home */

static inline struct greenlet_thread *core_thread(void) {
    struct greenlet_thread *t = core_self;
    return likely(t != &core_nobody) ? t : core_adopt();
}

static inline struct greenlet_thread *core_home(const greenlet *g) {
    return (
        struct greenlet_thread *)(atomic_load_explicit(&((greenlet *)g)->home,
                                                       memory_order_relaxed) &
                                  ~CORE_TAGS);
}

static inline greenlet_state core_state(const greenlet *g) {
    return (greenlet_state)atomic_load_explicit(&((greenlet *)g)->state,
                                                memory_order_relaxed);
}

static inline void core_set_state(greenlet *g, greenlet_state state) {
    atomic_store_explicit(&g->state, (uint8_t)state, memory_order_relaxed);
}

static inline greenlet *core_parent(const greenlet *g) {
    return atomic_load_explicit(&((greenlet *)g)->parent, memory_order_relaxed);
}

/* A greenlet that a plain switch can reach with registers alone is "near":
 * started, all bytes in place, nothing special about it. */
static inline void core_set_near(struct greenlet_thread *t, greenlet *g) {
    atomic_store_explicit(
        &g->home, (uintptr_t)t | ((g->flags & CORE_SPECIAL) ? CORE_AWAY : 0),
        memory_order_relaxed);
}

static inline bool core_is_near(const struct greenlet_thread *t,
                                const greenlet *g) {
    return atomic_load_explicit(&((greenlet *)g)->home, memory_order_relaxed) ==
           (uintptr_t)t;
}

static inline void core_set_tag(struct greenlet_thread *t, greenlet *g,
                                uintptr_t tag) {
    atomic_store_explicit(&g->home, (uintptr_t)t + tag, memory_order_relaxed);
}

static inline void core_set_away(struct greenlet_thread *t, greenlet *g) {
    core_set_tag(t, g, CORE_AWAY);
}

static inline void core_slow_on(struct greenlet_thread *t, unsigned reason) {
    t->slow |= reason;
    core_refresh(t);
}

static inline void core_slow_off(struct greenlet_thread *t, unsigned reason) {
    t->slow &= ~reason;
    core_refresh(t);
}

/* ---- For the backends ------------------------------------------------- */

/* greenlet.c: what a report calls it. Async-signal-safe. */
const char *core_label(const greenlet *g);

/* switch.c: what a slow switch owes before it can no longer fail. */
void core_commit_slow(struct greenlet_thread *t, greenlet *from, greenlet *to,
                      bool after);

/* The point of no return of a switch. The backend calls it once, on `from`'s
 * stack, when nothing can fail any more and before it moves anything. It may
 * run hooks: those neither switch nor allocate. A new `to` is active, and
 * away until the backend calls core_set_near. */
static inline void core_commit(struct greenlet_thread *t, greenlet *from,
                               greenlet *to, bool after) {
    if (unlikely(after || t->victim))
        core_commit_slow(t, from, to, after);
    PROBE_START(to);
    PROBE_SWITCH(from, to);
    core_set_state(to, GREENLET_ACTIVE);
    t->current = to;
    counter_add(&t->counters.switches, 1);
}

/* Called on the target's stack after a switch that was asked to: hooks,
 * tracing, the end of a dead origin. Returns the message to resume with. */
greenlet_message core_after(greenlet_message m);

/* Called on a greenlet's stack with what its entry returned. */
_Noreturn void core_finish(greenlet_message last);

/* Ends the process with a message that names both greenlets (may be NULL). */
_Noreturn void core_fatal(const char *what, const greenlet *a,
                          const greenlet *b);

/* memory.c: the system's memory. All zero at first. Keeps errno; counts into
 * the calling thread's `allocations`. Returns NULL if there is none. */
void *memory_map(size_t bytes, size_t align); /* lazily committed     */
int memory_guard(void *p, size_t bytes);      /* every access faults  */
void memory_unmap(void *p, size_t bytes);
void memory_discard(void *p, size_t bytes);    /* content goes, range stays   */
size_t memory_resident(void *p, size_t bytes); /* bytes in memory, pages   */
bool memory_mapped(void *page);                /* whatever may be done there */
size_t memory_page(void);
extern _Atomic unsigned long memory_unmaps; /* memory_unmap() calls so far */
void *memory_alloc(size_t bytes);           /* calloc */
void memory_free(void *p);

/* Check level 2 and strict mode: no stack is smaller. */
enum { CHECK_STACK_BYTES = 65536 };

/* ---- Within the core -------------------------------------------------- */

/* How a transfer is made. */
enum {
    HOW_AFTER = 1, /* call core_after in the target                        */
    HOW_MUST = 2,  /* cannot be told of -ENOMEM: use the reserves          */
    HOW_ALL = HOW_AFTER | HOW_MUST
};

/* switch.c */
greenlet_message core_switch(greenlet *to, greenlet_message m);
greenlet_message core_transfer(struct greenlet_thread *t, greenlet *to,
                               greenlet_message m, unsigned how);
greenlet_message core_kill(struct greenlet_thread *t, greenlet *g,
                           unsigned how);
struct greenlet_thread *core_thread_of(const greenlet *g);

/* greenlet.c */
bool core_hold(greenlet *g);
int core_let_go(greenlet *g, bool held); /* 0; -EINVAL: gone; 1: who knows */
/* Its last reference is gone; it is at home here, or its home has exited. */
void core_last_reference(struct greenlet_thread *t, greenlet *g);
/* Gives `g`, marked SHARED_QUEUED by the caller, to the queue of `t`. True if
 * that and its home have exited, and nobody refers to it. */
bool core_hand_over(struct greenlet_thread *t, greenlet *g);
/* Its maker has no references any more. True: nobody has; see above. */
bool core_merge(greenlet *g);
void core_free(greenlet *g);
bool core_unreferenced(greenlet *g);
/* Of one that was found unreferenced, and referred to for the moment: it does
 * not end again. True: nobody took a reference meanwhile. */
bool core_unref_quietly(greenlet *g);
struct greenlet_side *core_side(greenlet *g); /* NULL: no memory */
void core_unlink_foreign(struct greenlet_thread *home, greenlet *g);
int core_link_foreign(struct greenlet_thread *home, greenlet *g);

/* slab.c */
greenlet *slab_take(struct greenlet_thread *t); /* zeroed; NULL: no memory */
void slab_give(greenlet *g);
bool slab_visit(struct greenlet_thread *t, bool (*visit)(greenlet *, void *),
                void *data);
void slab_collect(struct greenlet_thread *t);
void slab_destroy(struct greenlet_thread *t);

/* local.c */
void core_run_destructors(struct greenlet_thread *t, greenlet *g);

/* shadow.c: is a shadow stack active in this thread? */
bool core_shadow_stack(void);

/* overflow.c */
int overflow_thread(struct greenlet_thread *t);
void overflow_thread_exit(struct greenlet_thread *t);
bool overflow_wanted(void);

/* thread.c: finds t->own_low and own_high, if it can, for the caller. */
void core_find_own_stack(struct greenlet_thread *t);

/* thread.c */
int64_t config_number(const char *name, int64_t fallback, int64_t least,
                      int64_t most); /* from the environment, checked */
void core_add_counters(struct core_counters *to,
                       const struct core_counters *from);
void core_all_counters(struct core_counters *sum);

static inline uint64_t core_switches(const struct core_counters *c) {
    return counter_get(&c->switches) + counter_get(&c->refills);
}

#endif
