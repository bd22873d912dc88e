/* Threads: adopting one at its first use, its settings, its queue of what
 * other threads leave to it, its exit, and fork.
 *
 * Locks: core_threads_lock, then one thread's `lock`; no user code and no
 * switch happens under either.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend.h"
#include "check.h"
#include "layout.h"
#include "slab.h"
#include "trace.h"

struct greenlet_thread core_nobody = {.fast = ~(uintptr_t)0};
__thread struct greenlet_thread *core_self
    __attribute__((tls_model("initial-exec"))) = &core_nobody;
__thread greenlet *core_before __attribute__((tls_model("initial-exec")));

#if GREENLET_INLINE_ABI
/* The same for greenlet_inline.h, by a name that tells version, backend and
 * layout. */
GREENLET_API extern __thread struct greenlet_thread *GREENLET_INLINE_SELF
    __attribute__((alias("greenlet_core_self"), tls_model("initial-exec")));
#endif

pthread_mutex_t core_threads_lock = PTHREAD_MUTEX_INITIALIZER;
struct greenlet_thread *core_threads;
_Atomic bool core_moved;
static struct core_counters retired; /* of exited threads, under the lock */

static pthread_key_t exit_key; /* made at the first use */

/* ---- Settings --------------------------------------------------------- */

int64_t config_number(const char *name, int64_t fallback, int64_t least,
                      int64_t most) {
    const char *text = getenv(name);
    if (!text || !*text)
        return fallback;
    int saved = errno;
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    int64_t unit = *end == 'k' || *end == 'K'   ? 1 << 10
                   : *end == 'm' || *end == 'M' ? 1 << 20
                                                : 1;
    bool good = end != text && errno == 0 && end[unit > 1] == 0 &&
                n <= most / unit && n * unit >= least;
    if (!good)
        fprintf(stderr,
                "greenlet: %s=%s is not a number from %lld to %lld; "
                "using %lld\n",
                name, text, (long long)least, (long long)most,
                (long long)fallback);
    errno = saved;
    return good ? n * unit : fallback;
}

enum {
    CACHE_LINE = 64,
    DEFAULT_LANES = 8,
    DEFAULT_BYTES = 256 * 1024,
    STRICT_LANES = 8192
};
static const int64_t BYTES_MAX = 1 << 30;

static size_t whole_pages(size_t bytes) {
    size_t page = memory_page();
    return (bytes + page - 1) & ~(page - 1);
}

static int settle_bytes(size_t *out, size_t given, const char *name) {
    if (given &&
        (given < GREENLET_STACK_BYTES_MIN || given > (size_t)BYTES_MAX))
        return -EINVAL;
    *out = whole_pages(given ? given
                             : (size_t)config_number(name, DEFAULT_BYTES,
                                                     GREENLET_STACK_BYTES_MIN,
                                                     BYTES_MAX));
    return 0;
}

/* Unwinding needs some stack of the greenlet that does it. */
static void settle_checks(struct greenlet_thread *t) {
    if (t->strict)
        t->lanes = STRICT_LANES; /* of its own for everyone, for long */
    if (t->check < 2 && !t->strict)
        return;
    if (t->lane_bytes < CHECK_STACK_BYTES)
        t->lane_bytes = CHECK_STACK_BYTES;
    if (t->stack_bytes < CHECK_STACK_BYTES)
        t->stack_bytes = CHECK_STACK_BYTES;
}

static int settle_options(struct greenlet_thread *t,
                          const greenlet_thread_options *o) {
    if (o->lanes < -1 || o->lanes > GREENLET_LANES_MAX)
        return -EINVAL;
    t->lanes = o->lanes >= 0
                   ? o->lanes
                   : (int)config_number("GREENLET_LANES", DEFAULT_LANES, 0,
                                        GREENLET_LANES_MAX);
    if (settle_bytes(&t->lane_bytes, o->lane_bytes, "GREENLET_LANE_BYTES") ||
        settle_bytes(&t->stack_bytes, o->stack_bytes, "GREENLET_STACK_BYTES"))
        return -EINVAL;
    settle_checks(t);
    return 0;
}

static int thread_id(void) {
#ifdef SYS_gettid
    return (int)syscall(SYS_gettid);
#else
    return 0; /* not known */
#endif
}

/* Of a process's first stack glibc finds one mapping, from `low` to `high`. An
 * madvise() or mprotect() of a part makes two of it, and Valgrind does where
 * it grows. Otherwise nothing is mapped right below: there is the kernel's
 * gap. */
static uintptr_t whole_stack(uintptr_t low, uintptr_t high) {
    struct rlimit limit;
    if (thread_id() != (int)getpid() ||
        !memory_mapped((void *)(low - memory_page())) ||
        getrlimit(RLIMIT_STACK, &limit) || limit.rlim_cur >= high)
        return low;
    uintptr_t lowest = high - (uintptr_t)limit.rlim_cur;
    return lowest < low ? lowest : low;
}

/* The bounds that the C library gives, if the caller really is within: a host
 * may have adopted the thread on a stack of its own. */
void core_find_own_stack(struct greenlet_thread *t) {
    pthread_attr_t attr;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    void *start;
    size_t bytes;
    int saved = errno;
    if (!t->own_high && t->current == t->main &&
        pthread_getattr_np(pthread_self(), &attr) == 0) {
        if (pthread_attr_getstack(&attr, &start, &bytes) == 0) {
            uintptr_t high = (uintptr_t)start + bytes;
            uintptr_t low = whole_stack((uintptr_t)start, high);
            if (here - low < high - low) {
                t->own_low = low;
                t->own_high = high;
            }
        }
        pthread_attr_destroy(&attr);
    }
    errno = saved;
}

/* ---- Adopting --------------------------------------------------------- */

static void thread_exit(void *arg);

static void lock_all(void) {
    debug_forking(DEBUG_FORK_PREPARE);
    pthread_mutex_lock(&core_threads_lock);
    for (struct greenlet_thread *t = core_threads; t; t = t->next)
        pthread_mutex_lock(&t->lock);
}

static void unlock_all(enum debug_fork phase) {
    for (struct greenlet_thread *t = core_threads; t; t = t->next)
        pthread_mutex_unlock(&t->lock);
    pthread_mutex_unlock(&core_threads_lock);
    debug_forking(phase);
}

/* In a fork's child only this thread goes on; the others' greenlets read as
 * dead, and what they hold stays as it was at that moment. */
static void forked(void) {
    for (struct greenlet_thread *t = core_threads; t; t = t->next)
        if (t != core_self)
            atomic_store(&t->exited, true);
    if (core_self != &core_nobody)
        core_self->tid = thread_id();
    trace_forked();
    unlock_all(DEBUG_FORK_CHILD);
}

static void forked_parent(void) { unlock_all(DEBUG_FORK_PARENT); }

/* What all threads share. */
static int set_up(void) {
    static bool have_key, have_handlers;
    int status = 0;
    if (!have_key) {
        status = pthread_key_create(&exit_key, thread_exit);
        have_key = status == 0;
    }
    if (status == 0 && !have_handlers) {
        status = pthread_atfork(lock_all, forked_parent, forked);
        have_handlers = status == 0;
    }
    return status ? -ENOMEM : 0;
}

/* When the library is loaded. Nobody else can use it yet, but another thread
 * may fork meanwhile, without our handlers: so no lock is held, which nobody
 * would give back in the child. */
static __attribute__((constructor)) void loaded(void) { set_up(); }

/* Should that have failed, it is tried again. */
static int first_use(void) {
    pthread_mutex_lock(&core_threads_lock);
    int status = set_up();
    pthread_mutex_unlock(&core_threads_lock);
    return status;
}

static void discard(struct greenlet_thread *t) {
    slab_destroy(t);
    memory_free(t->pages);
    pthread_mutex_destroy(&t->lock);
    memory_free(t->block);
}

/* A stack that the CPU keeps a second copy of cannot be switched alone. */
static bool refused(void) {
#ifdef BACKEND_SWITCHES_SHADOW_STACKS
    return false;
#else
    return unlikely(core_shadow_stack());
#endif
}

static int refuse(void) {
    static _Atomic bool said;
    if (!atomic_exchange(&said, true))
        fputs("greenlet: a shadow stack is active in this thread, which the "
              "backend " BACKEND_NAME " cannot switch; run without it"
#if defined(__x86_64__)
              " (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)"
#elif defined(__aarch64__)
              " (GLIBC_TUNABLES=glibc.cpu.aarch64_gcs=0)"
#endif
              ", or build with the backend ucontext\n",
              stderr);
    return -ENOTSUP;
}

static int adopt(const greenlet_thread_options *o) {
    if (refused())
        return refuse();
    int saved = errno, status = first_use();
    if (status)
        return status;
    char *block = memory_alloc(sizeof(struct greenlet_thread) + CACHE_LINE);
    if (!block)
        return -ENOMEM;
    struct greenlet_thread *t = (void *)(((uintptr_t)block + CACHE_LINE - 1) &
                                         ~(uintptr_t)(CACHE_LINE - 1));
    t->block = block;
    t->tid = thread_id();
    __asm__ volatile("" ::"r"(&greenlet_anchor)); /* linked in, and kept */
    atomic_store(&t->fast, CORE_AWAY);
    pthread_mutex_init(&t->lock, NULL);
    check_configure(t);
    if ((status = settle_options(t, o)) != 0)
        goto fail;
    status = -ENOMEM;
    greenlet *g = slab_take(t);
    if (!g)
        goto fail;
    t->main = t->current = g;
    g->refs = 1;
    g->flags = CORE_MAIN;
    core_set_state(g, GREENLET_ACTIVE);
    core_set_near(t, g);
    core_self = t; /* the backend may ask the core for memory */
    if (backend_adopt(t) != 0)
        goto fail_backend;
    if (overflow_wanted() && overflow_thread(t) != 0)
        goto fail_backend;
    if (pthread_setspecific(exit_key, t) != 0)
        goto fail_overflow;
    if (t->check >= 0) {
        if (t->check >= 1)
            core_side(t->main); /* for its checksums; else it has none */
        t->slow |= SLOW_CHECK;
        core_find_own_stack(t);
    }
    pthread_mutex_lock(&core_threads_lock);
    t->next = core_threads;
    t->link = &core_threads;
    if (t->next)
        t->next->link = &t->next;
    core_threads = t;
    pthread_mutex_unlock(&core_threads_lock);
    if (annotate_adopt(t) || HARDEN_ALL)
        t->slow |= SLOW_WATCHED;
    core_refresh(t);
    trace_adopt(t);
    errno = saved;
    return 0;

fail_overflow:
    overflow_thread_exit(t);
fail_backend:
    backend_abandon(t);
    core_self = &core_nobody;
fail:
    discard(t);
    errno = saved;
    return status;
}

struct greenlet_thread *core_adopt(void) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    return adopt(&o) == 0 ? core_self : NULL;
}

int core_no_thread(void) { return refused() ? -ENOTSUP : -ENOMEM; }

int greenlet_thread_configure(const greenlet_thread_options *o) {
    greenlet_thread_options options = GREENLET_THREAD_OPTIONS_INIT;
    if (!o || o->size < sizeof(size_t) + sizeof(int) ||
        o->size > sizeof(options))
        return -EINVAL;
    memcpy(&options, o, o->size);
    return core_self != &core_nobody ? -EBUSY : adopt(&options);
}

greenlet *greenlet_current(void) {
    struct greenlet_thread *t = core_thread();
    if (!t)
        return NULL;
    if (unlikely(atomic_load_explicit(&t->queue, memory_order_relaxed) &&
                 !(t->slow & SLOW_FORBID)))
        core_drain(t);
    return t->current;
}

greenlet *greenlet_main(void) {
    struct greenlet_thread *t = core_thread();
    return t ? t->main : NULL;
}

/* ---- The queue -------------------------------------------------------- */

/* The pairing with core_enqueue: each side writes its word, fences, and then
 * touches the other's, so one of them sees the other. */
void core_refresh(struct greenlet_thread *t) {
    uintptr_t fast = t->slow ? CORE_AWAY : (uintptr_t)t;
    if (fast == atomic_load_explicit(&t->fast, memory_order_relaxed))
        return;
    atomic_store_explicit(&t->fast, fast, memory_order_relaxed);
    if (fast == CORE_AWAY)
        return;
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&t->queue, memory_order_relaxed))
        atomic_store_explicit(&t->fast, CORE_AWAY, memory_order_relaxed);
}

int core_enqueue(struct greenlet_thread *t, greenlet *g) {
    pthread_mutex_lock(&t->lock);
    if (atomic_load_explicit(&t->exited, memory_order_relaxed)) {
        pthread_mutex_unlock(&t->lock);
        return -EOWNERDEAD;
    }
    g->queue_next = NULL;
    if (atomic_load_explicit(&t->queue, memory_order_relaxed))
        t->queue_last->queue_next = g;
    else
        atomic_store_explicit(&t->queue, g, memory_order_relaxed);
    t->queue_last = g;
    t->queue_length++;
    atomic_thread_fence(memory_order_seq_cst);
    atomic_store_explicit(&t->fast, CORE_AWAY, memory_order_relaxed);
    pthread_mutex_unlock(&t->lock);
    return 0;
}

/* One entry: one that this thread made has its two counts added up; one at
 * home here that nobody refers to ends. */
static void handle(struct greenlet_thread *t, greenlet *g) {
    struct greenlet_thread *home = core_home(g);
    if (home != t && atomic_load(&g->shared) & SHARED_MERGED) {
        if (core_hand_over(home, g)) /* still marked */
            core_last_reference(t, g);
        return;
    }
    int32_t s = atomic_fetch_and(&g->shared, ~SHARED_QUEUED);
    bool last = s & SHARED_MERGED && s >> 2 == 0;
    if (slab_maker(g) == t && !(s & SHARED_MERGED)) {
        int32_t n = s >> 2;
        atomic_fetch_sub(&g->shared, n * SHARED_ONE);
        g->refs = (uint32_t)((int32_t)g->refs + n);
        last = g->refs == 0 && core_merge(g);
    }
    if (last)
        core_last_reference(t, g);
}

/* What was there at the beginning: others may add more all the time. */
static size_t drain(struct greenlet_thread *t) {
    size_t n = 0, most = SIZE_MAX;
    while (n < most) {
        pthread_mutex_lock(&t->lock);
        greenlet *g = atomic_load_explicit(&t->queue, memory_order_relaxed);
        if (most == SIZE_MAX)
            most = t->queue_length;
        if (g) {
            atomic_store_explicit(&t->queue, g->queue_next,
                                  memory_order_relaxed);
            t->queue_length--;
        }
        pthread_mutex_unlock(&t->lock);
        if (!g)
            break;
        g->queue_next = NULL;
        handle(t, g);
        n++;
    }
    core_refresh(t);
    return n;
}

void core_drain(struct greenlet_thread *t) { drain(t); }

size_t greenlet_drain(void) {
    struct greenlet_thread *t = core_self;
    if (t == &core_nobody || t->slow & SLOW_FORBID)
        return 0;
    return drain(t);
}

/* ---- The end of a thread ---------------------------------------------- */

static bool has_locals(const struct greenlet_thread *t, const greenlet *g) {
    return core_home(g) == t && core_state(g) == GREENLET_ACTIVE && g->side &&
           g->side->locals;
}

/* With `g` as the current greenlet: it is its storage that they see. */
static bool run_locals(greenlet *g, void *arg) {
    struct greenlet_thread *t = arg;
    if (has_locals(t, g)) {
        t->current = g;
        core_run_destructors(t, g);
        t->current = t->main;
    }
    return false;
}

/* A destructor may free any greenlet: look again from the start. */
static void run_foreign_locals(struct greenlet_thread *t) {
    greenlet *g;
    do {
        pthread_mutex_lock(&t->lock);
        for (g = t->foreign; g && !has_locals(t, g);)
            g = g->side->foreign_next;
        pthread_mutex_unlock(&t->lock);
        if (g)
            run_locals(g, t);
    } while (g);
}

/* Nothing of it runs again. */
static bool end_greenlet(greenlet *g, void *arg) {
    struct greenlet_thread *t = arg;
    if (core_home(g) != t || core_thread_of(g) != t)
        return false; /* or an ancestor took it to another thread */
    if (core_state(g) == GREENLET_ACTIVE && g != t->main) {
        strict_peek(t, g);
        backend_release(t, g);
    }
    annotate_forget(g);
    core_set_state(g, GREENLET_DEAD);
    core_set_away(t, g);
    return false;
}

/* The maker's share of the references joins the others'. If the sum is zero
 * it is collected, marked: its home, if that is another thread, may look at it
 * until it is handed over. */
static bool merge(greenlet *g, void *arg) {
    greenlet **unreferenced = arg;
    int32_t s = atomic_load(&g->shared), next;
    bool last;
    if (s & SHARED_MERGED)
        return false;
    do {
        next = (s + (int32_t)g->refs * SHARED_ONE) | SHARED_MERGED;
        /* Marked, but not in the queue any more: who marked it comes too late
         * and will look at it. */
        last = next >> 2 == 0 && !(s & SHARED_QUEUED);
    } while (!atomic_compare_exchange_weak(&g->shared, &s,
                                           last ? next | SHARED_QUEUED : next));
    g->refs = 0;
    if (last) {
        g->queue_next = *unreferenced;
        *unreferenced = g;
    }
    return false;
}

/* Takes `g` out of the queue. If nobody refers to it, it stays marked. */
static bool unmark(greenlet *g) {
    int32_t s = atomic_load(&g->shared);
    do {
        if (s & SHARED_MERGED && s >> 2 == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&g->shared, &s,
                                           s & ~(int32_t)SHARED_QUEUED));
    return true;
}

void core_unlock(struct greenlet_thread *t) {
    bool over = atomic_load_explicit(&t->exited, memory_order_relaxed) &&
                t->population == 0 && !t->foreign && !t->settled;
    t->settled |= over;
    pthread_mutex_unlock(&t->lock);
    if (over)
        discard(t);
}

static void thread_exit(void *arg) {
    struct greenlet_thread *t = arg;
    int saved = errno;
    greenlet *unreferenced = NULL;

    /* User code runs for the last time, on the thread's own stack; it can
     * not switch. pthread_exit may have come from inside a greenlet. */
    core_slow_on(t, SLOW_FORBID);
    t->exiting = true;
    greenlet *left = t->current;
    t->current = t->main;
    if (left != t->main) {
        annotate_home(t, left);
        core_set_away(t, left);
    }
    slab_visit(t, run_locals, t);
    run_foreign_locals(t);

    pthread_mutex_lock(&core_threads_lock);
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    core_add_counters(&retired, &t->counters);
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->exited, true);
    slab_collect(t);
    slab_visit(t, end_greenlet, t);
    for (greenlet *g = t->foreign; g; g = g->side->foreign_next)
        end_greenlet(g, t);
    for (greenlet *g = atomic_load(&t->queue), *next; g; g = next) {
        next = g->queue_next;
        if (!unmark(g)) {
            g->queue_next = unreferenced;
            unreferenced = g;
        }
    }
    atomic_store(&t->queue, NULL);
    t->queue_length = 0;
    slab_visit(t, merge, &unreferenced);
    pthread_mutex_unlock(&t->lock);
    pthread_mutex_unlock(&core_threads_lock);

    backend_abandon(t);
    overflow_thread_exit(t);
    trace_exit(t);
    core_self = &core_nobody;
    for (greenlet *next; unreferenced; unreferenced = next) {
        next = unreferenced->queue_next;
        if (core_hand_over(core_home(unreferenced), unreferenced))
            core_last_reference(core_self, unreferenced);
    }
    greenlet_unref(t->main);
    errno = saved;
}

struct shutdown {
    struct greenlet_thread *t;
    greenlet **list;
    size_t n, room;
};

static bool list_living(greenlet *g, void *arg) {
    struct shutdown *s = arg;
    greenlet_state state = core_state(g);
    if (core_home(g) == s->t &&
        (state == GREENLET_NEW || state == GREENLET_ACTIVE) &&
        !(g->flags & (CORE_MAIN | CORE_VISITED))) {
        if (s->n < s->room)
            s->list[s->n] = g;
        s->n++;
    }
    return false;
}

static void visit_all(struct greenlet_thread *t,
                      bool (*visit)(greenlet *, void *), void *data) {
    slab_visit(t, visit, data);
    pthread_mutex_lock(&t->lock);
    for (greenlet *g = t->foreign; g; g = g->side->foreign_next)
        visit(g, data);
    pthread_mutex_unlock(&t->lock);
}

/* Its place in the order of starts; 0: it has not started. */
static uint32_t order_of(const greenlet *g) {
    return core_state(g) == GREENLET_NEW ? 0 : g->serial;
}

static int latest_first(const void *a, const void *b) {
    uint32_t x = order_of(*(greenlet *const *)a);
    uint32_t y = order_of(*(greenlet *const *)b);
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Only its own: another thread's are that one's to mark, even if they were
 * made here. */
static bool forget_visit(greenlet *g, void *arg) {
    if (core_home(g) == arg)
        g->flags &= (uint8_t)~CORE_VISITED;
    return false;
}

/* Kills those that live now. Returns how many there were. */
static size_t shutdown_round(struct greenlet_thread *t, int *status) {
    struct shutdown s = {t, NULL, 0, 0};
    visit_all(t, list_living, &s);
    if (s.n == 0)
        return 0;
    s.room = s.n;
    s.list = memory_alloc(s.room * sizeof(greenlet *));
    if (!s.list) {
        *status = -ENOMEM;
        return 0;
    }
    s.n = 0;
    visit_all(t, list_living, &s); /* others may have made some meanwhile */
    if (s.n > s.room)
        s.n = s.room;
    qsort(s.list, s.n, sizeof(greenlet *), latest_first);
    for (size_t i = 0; i < s.n; i++)
        greenlet_ref(s.list[i]);
    for (size_t i = 0; i < s.n; i++) {
        greenlet *g = s.list[i];
        if (core_home(g) == t) { /* or it has got another one meanwhile */
            g->flags |= CORE_VISITED;
            greenlet_message m = core_kill(t, g, 0);
            if (core_state(g) != GREENLET_DEAD)
                *status = m.status == -ENOMEM ? -ENOMEM : -EBUSY;
        }
        greenlet_unref(g);
    }
    memory_free(s.list);
    return s.n;
}

int greenlet_thread_shutdown(void) {
    struct greenlet_thread *t = core_self;
    int status = 0;
    if (t == &core_nobody)
        return 0;
    if (t->current != t->main || t->slow & SLOW_FORBID)
        return -EINVAL;
    drain(t);
    /* A dying greenlet may start others. */
    while (shutdown_round(t, &status) != 0)
        ;
    visit_all(t, forget_visit, t);
    return status;
}

/* ---- Statistics of threads -------------------------------------------- */

#define FOR_EACH_COUNTER(each)                                                 \
    each(switches) each(refills) each(starts) each(misses) each(evictions)     \
        each(fills) each(saved_bytes) each(filled_bytes) each(allocations)

void core_add_counters(struct core_counters *to,
                       const struct core_counters *from) {
#define ADD(name) counter_add(&to->name, counter_get(&from->name));
    FOR_EACH_COUNTER(ADD)
    counter_max(&to->stack_high, counter_get(&from->stack_high));
}

void core_all_counters(struct core_counters *sum) {
    pthread_mutex_lock(&core_threads_lock);
    core_add_counters(sum, &retired);
    for (struct greenlet_thread *t = core_threads; t; t = t->next)
        core_add_counters(sum, &t->counters);
    pthread_mutex_unlock(&core_threads_lock);
}
