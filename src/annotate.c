/* See annotate.h. A build without a tool has nothing of this.
 *
 * SPDX-License-Identifier: MIT */
#include "backend.h"

#if ANNOTATE_SANITIZER || ANNOTATE_VALGRIND

#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#if ANNOTATE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
/* In no installed header. */
void __asan_get_shadow_mapping(size_t *scale, size_t *offset);
#endif
#if ANNOTATE_LSAN
#include <sanitizer/lsan_interface.h>
#endif
#if ANNOTATE_MSAN
#include <sanitizer/msan_interface.h>
#endif
#if ANNOTATE_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if ANNOTATE_ASAN || ANNOTATE_TSAN
#include <dlfcn.h>
#endif
#if ANNOTATE_VALGRIND
#include <signal.h>
#include <valgrind/helgrind.h>
#include <valgrind/memcheck.h>
#endif

#if ANNOTATE_LSAN || ANNOTATE_VALGRIND

/* Guards all that follows, and LeakSanitizer's list of regions: a fork's child
 * would not get that back from another thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void fork_prepare(void) { pthread_mutex_lock(&lock); }
static void fork_done(void) { pthread_mutex_unlock(&lock); }

/* Before the core's handlers are registered: its locks are taken first. */
static __attribute__((constructor(1000))) void loaded(void) {
    pthread_atfork(fork_prepare, fork_done, fork_done);
}

#endif

/* ---- Memory of our own ------------------------------------------------- */

#if ANNOTATE_ASAN || ANNOTATE_VALGRIND

enum {
    BLOCK_LEAST = 6,
    BLOCK_CLASSES = 6, /* larger than 2 KiB: a mapping each */
    CHUNK_BYTES = 1 << 18
};

struct block {
    struct block *next;
};

static struct block *blocks[BLOCK_CLASSES]; /* free ones, by log2 - LEAST */
static char *chunk, *chunk_end;

/* Straight from the kernel: seen by no tool and by no test that lets
 * allocations fail. */
static void *map(size_t bytes) {
    enum { MAY = PROT_READ | PROT_WRITE, OWN = MAP_PRIVATE | MAP_ANONYMOUS };
#if defined(SYS_mmap2) /* its elder, where there is one, takes a block */
    long p = syscall(SYS_mmap2, NULL, bytes, MAY, OWN, -1, 0);
#elif defined(__s390x__) /* a block of arguments: mmap(2) */
    unsigned long arguments[] = {0, bytes, MAY, OWN, (unsigned long)-1, 0};
    long p = syscall(SYS_mmap, arguments);
#else
    long p = syscall(SYS_mmap, NULL, bytes, MAY, OWN, -1, 0);
#endif
    return p == -1 ? NULL : (void *)p;
}

static unsigned block_class(size_t bytes) {
    unsigned class = 0;
    while ((size_t)1 << (class + BLOCK_LEAST) < bytes)
        class ++;
    return class;
}

/* At least *bytes, which becomes what it really has; NULL: no memory. Under
 * the lock. */
static void *take_block(size_t *bytes) {
    unsigned class = block_class(*bytes);
    size_t n = (size_t)1 << (class + BLOCK_LEAST);
    *bytes = n;
    if (class >= BLOCK_CLASSES)
        return map(n);
    struct block *b = blocks[class];
    if (b) {
        blocks[class] = b->next;
        return b;
    }
    if ((size_t)(chunk_end - chunk) < n) {
        if (!(chunk = map(CHUNK_BYTES))) {
            chunk_end = NULL;
            return NULL;
        }
        chunk_end = chunk + CHUNK_BYTES;
    }
    chunk += n;
    return chunk - n;
}

static void give_block(void *p, size_t bytes) {
    struct block *b = p;
    unsigned class = block_class(bytes);
    if (class >= BLOCK_CLASSES) {
        syscall(SYS_munmap, p, bytes);
        return;
    }
    b->next = blocks[class];
    blocks[class] = b;
}

#endif

/* ---- Valgrind ---------------------------------------------------------- */

#if ANNOTATE_VALGRIND

/* Its stacks, to be forgotten when their memory is given back. */
struct watched {
    struct watched *next;
    const char *low;
    unsigned id;
};

bool annotate_watching;
static struct watched *stacks;

static __attribute__((constructor)) void look_for_valgrind(void) {
    annotate_watching = RUNNING_ON_VALGRIND != 0;
}

static void watch(const char *low, const char *high) {
    (void)high; /* where Valgrind's requests are nothing */
    size_t bytes = sizeof(struct watched);
    pthread_mutex_lock(&lock);
    struct watched *w = take_block(&bytes);
    if (w) {
        w->low = low;
        w->id = (unsigned)VALGRIND_STACK_REGISTER(low, high - 1);
        w->next = stacks;
        stacks = w;
    }
    pthread_mutex_unlock(&lock);
}

static void forget(const char *low, const char *high) {
    pthread_mutex_lock(&lock);
    for (struct watched **link = &stacks, *w; (w = *link) != NULL;) {
        if (w->low < low || w->low >= high) {
            link = &w->next;
            continue;
        }
        VALGRIND_STACK_DEREGISTER(w->id);
        *link = w->next;
        give_block(w, sizeof(*w));
    }
    pthread_mutex_unlock(&lock);
}

#endif

/* ---- AddressSanitizer -------------------------------------------------- */

#if ANNOTATE_ASAN

static unsigned char *shadow_of(const void *p) {
    size_t scale, offset;
    __asan_get_shadow_mapping(&scale, &offset);
    return (unsigned char *)(((uintptr_t)p >> scale) + offset);
}

static size_t shadow_bytes(size_t n) {
    size_t scale, offset;
    __asan_get_shadow_mapping(&scale, &offset);
    return n >> scale;
}

/* Room for n bytes in g's copy; what is there stays. */
static bool make_room(greenlet *g, size_t n) {
    struct annotate_greenlet *note = &g->note;
    if (n <= note->room)
        return true;
    pthread_mutex_lock(&lock);
    unsigned char *more = take_block(&n);
    if (more && note->room) {
        memcpy(more, note->shadow, note->room);
        give_block(note->shadow, note->room);
    }
    pthread_mutex_unlock(&lock);
    if (more) {
        note->shadow = more;
        note->room = n;
    }
    return more != NULL;
}

#endif

#if ANNOTATE_ASAN

/* Where g may run: in place, and for main, on the thread's own stack. */
static void range_of(struct greenlet_thread *t, const greenlet *g,
                     uintptr_t *low, uintptr_t *high) {
    size_t guard;
    greenlet_stack s;
    const void *saved;
    backend_bounds(t, g, low, high, &guard);
    if (guard)
        return;
    *low = t->own_high ? t->own_low : (uintptr_t)t->note.low;
    *high = t->own_high ? t->own_high : *low + t->note.bytes;
    if (!(g->flags & CORE_MAIN)) {
        backend_describe(g, &s, &saved);
        *high = (uintptr_t)s.base;
    }
}

/* With detect_stack_use_after_return, locals are in fake frames: 11 kinds of
 * them, for stacks of at most 1 MiB, and as many flags as frames. */
static void note_root(greenlet *g, bool there, uintptr_t stack_bytes) {
    size_t most = (size_t)1 << 20;
    size_t one = stack_bytes < most ? stack_bytes : most;
    void *root = there ? g->note.fiber : NULL;
    if (root == g->note.root)
        return;
    pthread_mutex_lock(&lock);
    if (g->note.root)
        __lsan_unregister_root_region(g->note.root, g->note.root_bytes);
    g->note.root = root;
    g->note.root_bytes = 12 * one;
    if (root)
        __lsan_register_root_region(root, g->note.root_bytes);
    pthread_mutex_unlock(&lock);
}

/* LeakSanitizer looks at the stack that a thread runs on: at main's, too, while
 * another greenlet runs, from the frames that are about to be left on. */
static void note_main(struct greenlet_thread *t, uintptr_t from,
                      uintptr_t high) {
    enum { REGISTERS = 512 }; /* are saved below */
    pthread_mutex_lock(&lock);
    if (t->note.root)
        __lsan_unregister_root_region(t->note.root, t->note.root_bytes);
    t->note.root = high > from ? (void *)(from - REGISTERS) : NULL;
    t->note.root_bytes = high - from + REGISTERS;
    if (t->note.root)
        __lsan_register_root_region(t->note.root, t->note.root_bytes);
    pthread_mutex_unlock(&lock);
}

/* The frames of a greenlet that dies are left without having ended. */
static ANNOTATE_BARE void clean(uintptr_t low, uintptr_t high) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (here >= low && here < high)
        __asan_unpoison_memory_region((void *)here, high - here);
}

#endif

/* ---- The hooks --------------------------------------------------------- */

bool annotate_adopt(struct greenlet_thread *t) {
#if ANNOTATE_VALGRIND
    if (!annotate_watching)
        return false;
    annotate_shared(t, sizeof(*t));
    core_find_own_stack(t);
    /* That of the process's first thread it knows. */
    if (t->own_high && getpid() != (pid_t)syscall(SYS_gettid))
        watch((const char *)t->own_low, (const char *)t->own_high);
    return true;
#else
    core_find_own_stack(t);
#if ANNOTATE_TSAN
    t->main->note.fiber = __tsan_get_current_fiber();
#endif
    return true;
#endif
}

#if ANNOTATE_SANITIZER

ANNOTATE_BARE void annotate_leave(struct greenlet_thread *t, greenlet *from,
                                  bool dying) {
#if ANNOTATE_ASAN
    uintptr_t low, high, from_bytes, from_high;
    range_of(t, from, &low, &high);
    from_bytes = high - low;
    from_high = high;
    if (dying) {
        clean(low, high);
        note_root(from, false, 0);
    }
    range_of(t, t->current, &low, &high);
    if (t->note.left) /* ended(), but it was not the thread's end */
        __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
    t->note.left = true;
    t->note.main = from == t->main;
    __sanitizer_start_switch_fiber(dying ? NULL : &from->note.fiber,
                                   (const void *)low, high - low);
    if (!dying)
        note_root(from, true, from_bytes);
    if (from == t->main)
        note_main(t, (uintptr_t)__builtin_frame_address(0), from_high);
#elif ANNOTATE_TSAN
    greenlet *to = t->current;
    if (!to->note.fiber)
        to->note.fiber = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(to->note.fiber, 0);
    if (dying) {
        __tsan_destroy_fiber(from->note.fiber);
        from->note.fiber = NULL;
    }
#else
    (void)t, (void)from, (void)dying;
#endif
}

ANNOTATE_BARE void annotate_arrive(struct greenlet_thread *t) {
#if ANNOTATE_ASAN
    const void *low;
    size_t bytes;
    if (!t->note.left)
        return;
    t->note.left = false;
    __sanitizer_finish_switch_fiber(t->current->note.fiber, &low, &bytes);
    if (t->note.main) {
        t->note.low = low;
        t->note.bytes = bytes;
    }
    if (t->current == t->main)
        note_main(t, 0, 0);
#else
    (void)t;
#endif
}

ANNOTATE_BARE void annotate_home(struct greenlet_thread *t, greenlet *left) {
#if ANNOTATE_ASAN
    if (t->note.left) { /* ended() */
        annotate_arrive(t);
        return;
    }
#endif
    annotate_leave(t, left, true);
    annotate_arrive(t);
}

#if ANNOTATE_ASAN

/* pthread_exit or a cancellation has unwound a greenlet; from its end the C
 * library jumps to the beginning of the thread's own stack, where frames are
 * that did not end. */
static ANNOTATE_BARE void ended(const bool *normally) {
    struct greenlet_thread *t = core_self;
    uintptr_t low, high;
    if (*normally || t == &core_nobody)
        return;
    range_of(t, t->main, &low, &high);
    __asan_unpoison_memory_region((void *)low, high - low);
    t->note.left = true;
    t->note.main = false;
    __sanitizer_start_switch_fiber(NULL, (const void *)low, high - low);
}

static ANNOTATE_BARE greenlet_message enter(void *value) {
    __attribute__((cleanup(ended))) bool normally = false;
    greenlet_message m = core_self->current->entry(value);
    normally = true;
    return m;
}

#endif

greenlet_entry *annotate_entry(greenlet_entry *entry) {
#if ANNOTATE_ASAN
    (void)entry;
    return enter;
#else
    return entry;
#endif
}

void annotate_call(void) {
#if ANNOTATE_MSAN
    __msan_unpoison_param(2);
#endif
}

#endif

void annotate_looking(void) {
#if ANNOTATE_VALGRIND
    if (annotate_watching)
        VALGRIND_DISABLE_ERROR_REPORTING;
#endif
}

void annotate_looked(void *p, size_t n) {
#if ANNOTATE_VALGRIND
    if (annotate_watching) {
        VALGRIND_MAKE_MEM_DEFINED(p, n);
        VALGRIND_ENABLE_ERROR_REPORTING;
    }
#elif ANNOTATE_MSAN
    __msan_unpoison(p, n);
#endif
    (void)p, (void)n; /* nor does valgrind.h use them on all CPUs */
}

ANNOTATE_BARE void annotate_saving(void) {
#if ANNOTATE_VALGRIND
    if (annotate_watching)
        VALGRIND_DISABLE_ERROR_REPORTING;
#endif
}

ANNOTATE_BARE void annotate_saved(greenlet *g, const char *p, size_t n) {
#if ANNOTATE_ASAN
    greenlet_stack s;
    const void *saved;
    backend_describe(g, &s, &saved);
    size_t at = shadow_bytes((size_t)(p - (char *)s.sp));
    if (make_room(g, at + shadow_bytes(n)))
        annotate_copy(g->note.shadow + at, shadow_of(p), shadow_bytes(n));
    __asan_unpoison_memory_region(p, n);
#else
    (void)g, (void)p, (void)n;
#endif
#if ANNOTATE_VALGRIND
    if (annotate_watching)
        VALGRIND_ENABLE_ERROR_REPORTING;
#endif
}

void annotate_open(const char *p, size_t n) {
#if ANNOTATE_VALGRIND
    /* With what arch_push_after() puts below; the copying switch itself runs
     * no higher than that. */
    enum { BELOW = 64 };
    const char *here = __builtin_frame_address(0);
    /* A stack that is inherited by whom the running one starts is in use. */
    if (annotate_watching && (here < p || here >= p + n))
        (void)VALGRIND_MAKE_MEM_UNDEFINED(p - BELOW, n + BELOW);
#else
    (void)p, (void)n;
#endif
}

#if ANNOTATE_SANITIZER

ANNOTATE_BARE void annotate_filled(greenlet *g, const char *p, size_t n) {
#if ANNOTATE_ASAN
    if (shadow_bytes(n) <= g->note.room)
        annotate_copy(shadow_of(p), g->note.shadow, shadow_bytes(n));
#else
    (void)g, (void)p, (void)n;
#endif
}

/* LeakSanitizer would take what was in them for pointers. */
void annotate_dropped(void *p, size_t n) {
#if ANNOTATE_LSAN
    memset(p, 0, n);
#else
    (void)p, (void)n;
#endif
}

void annotate_forget(greenlet *g) {
#if ANNOTATE_ASAN
    if (g->note.room) {
        pthread_mutex_lock(&lock);
        give_block(g->note.shadow, g->note.room);
        pthread_mutex_unlock(&lock);
    }
    g->note.room = 0;
    note_root(g, false, 0);
#elif ANNOTATE_TSAN
    if (g->note.fiber && !(g->flags & CORE_MAIN))
        __tsan_destroy_fiber(g->note.fiber);
    g->note.fiber = NULL;
#else
    (void)g;
#endif
}

#endif

void annotate_mapped(const void *p, size_t n) {
#if ANNOTATE_LSAN
    pthread_mutex_lock(&lock);
    __lsan_register_root_region(p, n);
    pthread_mutex_unlock(&lock);
#else
    (void)p, (void)n;
#endif
}

void annotate_unmapped(const void *p, size_t n) {
#if ANNOTATE_LSAN
    pthread_mutex_lock(&lock);
    __lsan_unregister_root_region(p, n);
    pthread_mutex_unlock(&lock);
#endif
#if ANNOTATE_ASAN
    __asan_unpoison_memory_region(p, n);
#elif ANNOTATE_VALGRIND
    if (annotate_watching)
        forget(p, (const char *)p + n);
#else
    (void)p, (void)n;
#endif
}

void annotate_stack(const char *low, const char *high) {
#if ANNOTATE_VALGRIND
    if (annotate_watching)
        watch(low, high);
#else
    (void)low, (void)high;
#endif
}

void annotate_shared(const void *p, size_t n) {
#if ANNOTATE_VALGRIND
    if (annotate_watching)
        VALGRIND_HG_DISABLE_CHECKING(p, n);
#else
    (void)p, (void)n;
#endif
}

/* Valgrind 3.19 takes a thread for one on its alternate stack as long as it
 * runs where that was, even when there is none any more, and then refuses to
 * set another: so the last one is where nobody runs. */
void annotate_entered(void) {
#if ANNOTATE_VALGRIND
    static char nowhere[65536];
    const stack_t stack = {.ss_sp = nowhere, .ss_size = sizeof(nowhere)};
    if (annotate_watching)
        syscall(SYS_sigaltstack, &stack, NULL);
#endif
}

#if ANNOTATE_SANITIZER
/* volatile: or it becomes a call of memcpy, which looks at its arguments. */
ANNOTATE_BARE void annotate_copy(void *dst, const void *src, size_t n) {
    volatile char *d = dst;
    const volatile char *s = src;
    while (n--)
        *d++ = *s++;
}
#endif

#if ANNOTATE_ASAN || ANNOTATE_TSAN

static void *libc_function(const char *name) {
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    void *function = libc ? dlsym(libc, name) : NULL;
    if (!function)
        core_fatal(name, NULL, NULL);
    dlclose(libc);
    return function;
}

#endif
#if ANNOTATE_ASAN

/* AddressSanitizer's cleans the target's stack and warns of itself. */
ANNOTATE_BARE int annotate_swapcontext(void *from, const void *to) {
    static _Atomic(void *) found;
    void *function = atomic_load(&found);
    if (!function)
        atomic_store(&found, function = libc_function("swapcontext"));
    return ((int (*)(void *, const void *))function)(from, to);
}

#endif
#if ANNOTATE_ASAN || ANNOTATE_TSAN

/* AddressSanitizer's cleans the whole stack that is left, ThreadSanitizer's
 * looks for the target among those that the greenlet has prepared. */
ANNOTATE_BARE void annotate_siglongjmp(void *env, int value) {
    static _Atomic(void *) found;
    void *function = atomic_load(&found);
    if (!function)
        atomic_store(&found, function = libc_function("siglongjmp"));
    ((void (*)(void *, int))function)(env, value);
}

#endif
#if ANNOTATE_TSAN

ANNOTATE_BARE int annotate_sigaction(int signal, const void *action,
                                     void *old) {
    static _Atomic(void *) found;
    void *function = atomic_load(&found);
    if (!function)
        atomic_store(&found, function = libc_function("sigaction"));
    return ((int (*)(int, const void *, void *))function)(signal, action, old);
}

#endif
#endif
