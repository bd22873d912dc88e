/* Check levels: what is looked at when a greenlet is about to be resumed.
 *
 * 0   its record, stack pointer, resume address and canary;
 * 1   and a checksum of its bytes, taken when it was suspended;
 * 2   and every frame, by libgreenlet-debug.
 *
 * A check must not crash on what it looks for. Whether the record can be
 * followed is found out first (backend_sound()); only then are the stack's
 * bounds known, and nothing outside of them and the slice is read.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "crc32c.h"

/* ---- Readable memory --------------------------------------------------- */

/* The kernel's own opinion: rt_sigprocmask reads the mask before it refuses
 * the unknown `how`, and says EFAULT if it cannot (as Abseil's
 * AddressIsReadable does it; sigprocmask(2)). */
static bool page_readable(uintptr_t at) {
    int saved = errno;
    at &= ~(uintptr_t)7;
    annotate_looking();
    bool faults =
        syscall(SYS_rt_sigprocmask, ~0, at, NULL, 8) == -1 && errno == EFAULT;
    annotate_looked(&faults, sizeof(faults));
    errno = saved;
    return !faults;
}

size_t check_extent(const void *p, size_t most) {
    uintptr_t page = memory_page(), at = (uintptr_t)p, end = at + most;
    if (end < at)
        end = UINTPTR_MAX & ~(page - 1);
    for (uintptr_t next = at; next < end; next = (next | (page - 1)) + 1)
        if (!page_readable(next))
            return next > at ? next - at : 0;
    return end - at;
}

bool check_readable(const void *p, size_t n) {
    return (uintptr_t)p + n >= (uintptr_t)p && check_extent(p, n) == n;
}

bool check_ask(const struct greenlet_thread *t, const void *p, size_t n) {
    struct check_pages *c = t->pages;
    uintptr_t page = memory_page(), at = (uintptr_t)p;
    if (at + n < at || at < page)
        return false;
    if (!c)
        return check_readable(p, n);
    unsigned long unmaps = unmaps_so_far();
    if (unlikely(c->unmaps != unmaps)) {
        memset(c->known, 0xff, sizeof(c->known)); /* no page's number */
        c->unmaps = unmaps;
    }
    uintptr_t last = (at + (n ? n - 1 : 0)) >> c->shift;
    for (uintptr_t number = at >> c->shift; number <= last; number++) {
        uintptr_t *slot = &c->known[number % CHECK_PAGES];
        if (likely(*slot == number))
            continue;
        if (!page_readable(number * page))
            return false;
        *slot = number;
    }
    return true;
}

/* ---- Settings ---------------------------------------------------------- */

static uintptr_t secret; /* of the canaries */

static void make_secret(void) {
    uintptr_t word = 0;
    const void *random = (const void *)getauxval(AT_RANDOM);
    if (random)
        memcpy(&word, random, sizeof(word));
    word ^= (uintptr_t)&word;
    __atomic_store_n(&secret, word | 1, __ATOMIC_RELAXED);
}

/* Not in strict mode, where stacks close and open all the time. */
static bool have_pages(struct greenlet_thread *t) {
    if (t->pages || t->strict)
        return true;
    struct check_pages *c = memory_alloc(sizeof(*c));
    if (c) {
        memset(c->known, 0xff, sizeof(c->known));
        c->unmaps = unmaps_so_far();
        c->shift = (unsigned)__builtin_ctzl((unsigned long)memory_page());
    }
    t->pages = c;
    return c != NULL;
}

void check_configure(struct greenlet_thread *t) {
    const char *text = getenv("GREENLET_CHECK");
    t->check = -1;
    if (!text || !*text)
        return;
    if (strcmp(text, "strict") == 0) {
        t->strict = true;
        t->check = 0;
        debug_get(false); /* does without names and frames if it must */
    } else {
        t->check = (int)config_number("GREENLET_CHECK", -1, -1, 2);
    }
    if (t->check >= 2 && !debug_get(false)) {
        static _Atomic bool told; /* by one thread for all */
        if (!atomic_exchange(&told, true)) {
            struct say out = SAY_TO(STDERR_FILENO);
            say_text(&out,
                     "greenlet: GREENLET_CHECK=2 needs libgreenlet-debug: ");
            say_text(&out, greenlet_debug_why());
            say_text(&out, "; checking at level 1\n");
            say_flush(&out);
        }
        t->check = 1;
    }
    if (t->check >= 0) {
        if (!secret)
            make_secret();
        have_pages(t); /* works without, slowly */
    }
}

int greenlet_set_check_level(int level) {
    struct greenlet_thread *t = core_thread();
    if (!t)
        return core_no_thread();
    if (level < -1 || level > 2)
        return -EINVAL;
    if (level >= 0 && !have_pages(t))
        return -ENOMEM;
    if (level == 2 && !debug_get(false))
        return -ENOSYS;
    if (level >= 0) {
        if (!secret)
            make_secret();
        core_find_own_stack(t);
    }
    t->check = level;
    t->epoch++; /* who was suspended unchecked has an old checksum */
    level >= 0 || t->strict ? core_slow_on(t, SLOW_CHECK)
                            : core_slow_off(t, SLOW_CHECK);
    return 0;
}

/* ---- Findings ---------------------------------------------------------- */

static pthread_mutex_t hook_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(greenlet_finding_hook *) finding_hook;
static void *_Atomic finding_data;

int greenlet_set_finding_hook(greenlet_finding_hook *hook, void *data) {
    pthread_mutex_lock(&hook_lock);
    atomic_store(&finding_hook, NULL); /* never with the other one's data */
    atomic_store(&finding_data, data);
    atomic_store(&finding_hook, hook);
    pthread_mutex_unlock(&hook_lock);
    return 0;
}

const char *greenlet_finding_name(greenlet_finding_kind kind) {
    static const char *const names[] = {
        [GREENLET_FOUND_HEADER] = "header",
        [GREENLET_FOUND_SP] = "stack pointer",
        [GREENLET_FOUND_SAVED] = "saved bytes",
        [GREENLET_FOUND_RESUME] = "resume address",
        [GREENLET_FOUND_CANARY] = "canary",
        [GREENLET_FOUND_CHECKSUM] = "checksum",
        [GREENLET_FOUND_RETURN] = "return address",
        [GREENLET_FOUND_FRAME] = "frame",
        [GREENLET_FOUND_END] = "end of the frames",
        [GREENLET_FOUND_ACCESS] = "access to an absent stack",
        [GREENLET_FOUND_OVERFLOW] = "stack overflow",
    };
    unsigned i = (unsigned)kind;
    return i < sizeof(names) / sizeof(*names) && names[i] ? names[i]
                                                          : "unknown";
}

bool check_hook(const greenlet_finding *f) {
    struct greenlet_thread *t = core_self;
    greenlet_finding_hook *hook = atomic_load(&finding_hook);
    if (!hook)
        return false;
    unsigned forbidden = t->slow & SLOW_FORBID;
    core_slow_on(t, SLOW_FORBID);
    hook(f, atomic_load(&finding_data));
    if (!forbidden)
        core_slow_off(t, SLOW_FORBID);
    return true;
}

void check_report(struct greenlet_thread *t, const greenlet_finding *given) {
    greenlet_finding f = *given;
    char name[128];
    uintptr_t sp;
    f.size = sizeof(f);
    f.by = t->current;
    if (f.frame < 0 && f.g && f.kind == GREENLET_FOUND_CANARY)
        f.frame =
            debug_locate(t, f.g, (uintptr_t)f.address, &sp, name, sizeof(name));
    if (f.frame >= 0 && !f.function && f.g &&
        f.frame == debug_locate(t, f.g, (uintptr_t)f.address, &sp, name,
                                sizeof(name)) &&
        *name)
        f.function = name;
    if (check_hook(&f))
        return;
    greenlet_print_finding(&f, STDERR_FILENO);
    abort();
}

/* ---- One greenlet ------------------------------------------------------ */

/* What was found wrong; `kind` 0: nothing. */
static __attribute__((cold, noinline)) bool
found(greenlet_finding *f, const greenlet *g, greenlet_finding_kind kind,
      int level, uintptr_t address, uintptr_t expected, uintptr_t value,
      const char *what) {
    *f = (greenlet_finding){.size = sizeof(*f),
                            .kind = kind,
                            .level = level,
                            .g = (greenlet *)g,
                            .address = (const void *)address,
                            .frame = -1,
                            .expected = expected,
                            .found = value,
                            .what = what};
    return true;
}

/* A suspended stack: [sp, base), its first `saved` bytes at `slice`. */
struct stack_image {
    uintptr_t low, high; /* where it may be; high: of main, if it is known */
    uintptr_t sp, base, saved;
    const char *slice;
};

static inline const void *bytes_at(const struct stack_image *s, uintptr_t at) {
    return at - s->sp < s->saved ? s->slice + (at - s->sp) : (const void *)at;
}

static inline ANNOTATE_BARE ANNOTATE_READER uintptr_t
word_at(const struct stack_image *s, uintptr_t at) {
    uintptr_t word;
    __builtin_memcpy(&word, bytes_at(s, at), sizeof(word)); /* no call */
    return word;
}

static uintptr_t canary_of(const greenlet *g, uintptr_t base) {
    return secret ^ base ^ g->serial * (uintptr_t)0x9e3779b1u;
}

static bool is_resume_point(uintptr_t ip) {
    for (const intptr_t *p = first_resume_point; p < last_resume_point; p++)
        if ((uintptr_t)p + (uintptr_t)*p == ip)
            return true;
    return false;
}

static inline __attribute__((always_inline)) bool
check_canary(const greenlet *g, const struct stack_image *s,
             greenlet_finding *f) {
    if (!(g->flags & CORE_CANARY))
        return false;
    uintptr_t at = s->base - sizeof(uintptr_t);
    uintptr_t should = canary_of(g, s->base), is = word_at(s, at);
    return should != is &&
           found(f, g, GREENLET_FOUND_CANARY, 0, at, should, is,
                 "the word at the base of the stack was overwritten");
}

/* Level 0, which is to cost a switch 20 ns at the most: inline. Fills `s`:
 * nothing of it may be used if the record is bad. */
static inline __attribute__((always_inline)) bool
check_pointers(struct greenlet_thread *t, const greenlet *g,
               struct stack_image *s, greenlet_finding *f) {
    greenlet_stack d;
    const void *slice;
    size_t guard;
    const char *what = backend_sound(t, g);
    if (unlikely(what))
        return found(f, g, GREENLET_FOUND_HEADER, 0, (uintptr_t)g, 0, 0, what);
    backend_describe(g, &d, &slice);
    backend_bounds(t, g, &s->low, &s->high, &guard);
    if (guard == 0 && t->own_high) {
        s->low = t->own_low;
        s->high = t->own_high;
    }
    s->sp = (uintptr_t)d.sp;
    s->base = (uintptr_t)d.base;
    s->saved = d.saved_bytes;
    s->slice = slice;
    uintptr_t most = s->base < s->high ? s->base : s->high;
    if (unlikely(s->sp < s->low || s->sp >= most))
        return found(f, g, GREENLET_FOUND_SP, 0, s->sp, s->low, s->sp,
                     "the stack pointer is not on its stack");
    if (unlikely(s->sp & (BACKEND_SP_ALIGN - 1)))
        return found(f, g, GREENLET_FOUND_SP, 0, s->sp,
                     s->sp & ~(uintptr_t)(BACKEND_SP_ALIGN - 1), s->sp,
                     "the stack pointer is misaligned");
    if (unlikely(most - s->sp + 1 <= BACKEND_FRAME_BYTES))
        return found(f, g, GREENLET_FOUND_SP, 0, s->sp,
                     most - BACKEND_FRAME_BYTES, s->sp,
                     "the stack pointer leaves no room for a frame");
    if (unlikely(s->saved > s->base - s->sp))
        return found(f, g, GREENLET_FOUND_SAVED, 0, s->sp, s->base - s->sp,
                     s->saved, "more bytes are saved than are live");
    if (s->saved && unlikely(s->saved + 1 <= BACKEND_FRAME_BYTES))
        return found(f, g, GREENLET_FOUND_SAVED, 0, s->sp, s->base - s->sp,
                     s->saved, "a register frame is not saved as a whole");
    if (s->saved && unlikely(!check_known(t, slice, s->saved)))
        return found(f, g, GREENLET_FOUND_HEADER, 0, s->sp, 0, (uintptr_t)slice,
                     "its slice is not in memory");
    /* Of main without known bounds. */
    if (s->high == UINTPTR_MAX &&
        unlikely(!check_known(t, (const void *)s->sp, BACKEND_FRAME_BYTES)))
        return found(f, g, GREENLET_FOUND_SP, 0, s->sp, 0, s->sp,
                     "the stack pointer is not on a stack");
    if (BACKEND_FRAME_BYTES) {
        uintptr_t ip = word_at(s, s->sp);
        if (unlikely(!is_resume_point(ip)))
            return found(f, g, GREENLET_FOUND_RESUME, 0, s->sp, 0, ip,
                         "not an address that a switch goes on at");
    }
    return unlikely(g->flags & CORE_CANARY) && check_canary(g, s, f);
}

/* How many bytes from sp on nobody else may write to. A pointer to main's
 * locals is valid at any time, but for the part that moves in place. */
static uintptr_t sealed_bytes(struct greenlet_thread *t, const greenlet *g,
                              const struct stack_image *s) {
    uintptr_t high = s->base;
    if (g->flags & CORE_MAIN) {
        struct backend_point_info point = {0};
        backend_point(t, g, &point);
        high = point.owned_high;
    }
    return high > s->sp ? high - s->sp : 0;
}

static uint32_t checksum(const struct stack_image *s, uintptr_t n) {
    uintptr_t first = n < s->saved ? n : s->saved;
    uint32_t crc = crc32c((uint32_t)n, s->slice, first);
    return crc32c(crc, (const void *)(s->sp + first), n - first);
}

/* Level 1. */
static bool check_seal(struct greenlet_thread *t, const greenlet *g,
                       const struct stack_image *s, greenlet_finding *f) {
    const struct greenlet_side *side = g->side;
    if (!side)
        return false;
    if (unlikely(!check_known(t, side, sizeof(*side))))
        return found(f, g, GREENLET_FOUND_HEADER, 1, (uintptr_t)g, 0,
                     (uintptr_t)side, "its side record is not in memory");
    const struct core_seal *seal = &side->seal;
    if (seal->epoch != t->epoch || !seal->sp)
        return false;
    if (seal->sp != s->sp)
        return found(f, g, GREENLET_FOUND_SP, 1, s->sp, seal->sp, s->sp,
                     "the stack pointer has changed while it was suspended");
    uintptr_t n = sealed_bytes(t, g, s);
    if (n != seal->bytes)
        return found(f, g, GREENLET_FOUND_CHECKSUM, 1, s->sp, seal->bytes, n,
                     "the live bytes have become more or fewer");
    uint32_t crc = checksum(s, n);
    return crc != seal->crc &&
           found(f, g, GREENLET_FOUND_CHECKSUM, 1, s->sp, seal->crc, crc,
                 "bytes were changed while it was suspended");
}

/* Level 2. */
static bool check_frames(struct greenlet_thread *t, const greenlet *g,
                         greenlet_finding *f) {
    const struct debug_library *lib = debug_get(true);
    struct debug_walk w = {0};
    if (!lib)
        return false;
    w.fresh = true;
    if (debug_image(t, g, &w))
        lib->walk(&w);
    if (!w.kind)
        return false;
    found(f, g, (greenlet_finding_kind)w.kind, 2, w.address, w.expected,
          w.found, w.what);
    f->frame = w.at;
    return true;
}

/* Looks at a suspended greenlet; true: `f` says what is wrong. */
static __attribute__((noinline)) bool examine_all(struct greenlet_thread *t,
                                                  greenlet *g, int level,
                                                  greenlet_finding *f) {
    struct stack_image s;
    return check_pointers(t, g, &s, f) ||
           (level >= 1 && check_seal(t, g, &s, f)) ||
           (level >= 2 && check_frames(t, g, f));
}

/* The same for a tool that minds what is read. */
static __attribute__((cold, noinline)) bool
examine_watched(struct greenlet_thread *t, greenlet *g, int level,
                greenlet_finding *f) {
    annotate_looking();
    bool bad = examine_all(t, g, level, f);
    annotate_looked(f, sizeof(*f));
    return bad;
}

static inline __attribute__((always_inline)) bool
examine(struct greenlet_thread *t, greenlet *g, int level,
        greenlet_finding *f) {
    struct stack_image s; /* in registers */
    if (unlikely(annotate_reads))
        return examine_watched(t, g, level, f);
    return likely(level < 1) ? check_pointers(t, g, &s, f)
                             : examine_all(t, g, level, f);
}

/* ---- At a switch -------------------------------------------------------- */

/* Is this call on the stack that `from` has? */
static bool misplaced(struct greenlet_thread *t, const greenlet *from) {
    uintptr_t low, high, here = (uintptr_t)__builtin_frame_address(0);
    size_t guard;
    backend_bounds(t, from, &low, &high, &guard);
    if (guard == 0 && t->own_high) {
        low = t->own_low;
        high = t->own_high;
    }
    return here < low || here >= high;
}

int check_switch(struct greenlet_thread *t, greenlet *from, greenlet *to) {
    greenlet_finding f;
    int status = 0;
    if (unlikely(misplaced(t, from)))
        return -EFAULT;
    if (t->check >= 1)
        core_side(from); /* for its checksum; while it may allocate */
    if (to == from || core_state(to) != GREENLET_ACTIVE)
        return 0;
    strict_peek(t, to);
    if (unlikely(examine(t, to, t->check, &f))) {
        check_report(t, &f);
        status = -EFAULT;
    }
    strict_unpeek(t, to);
    return status;
}

static void seal(struct greenlet_thread *t, greenlet *g) {
    struct stack_image s;
    greenlet_finding f;
    struct greenlet_side *side = g->side;
    if (!side)
        return; /* there was no memory: then without */
    side->seal.sp = 0;
    if (check_pointers(t, g, &s, &f)) {
        check_report(t, &f); /* it did that to itself */
        return;
    }
    side->seal.sp = s.sp;
    side->seal.bytes = sealed_bytes(t, g, &s);
    side->seal.epoch = t->epoch;
    annotate_looking();
    side->seal.crc = checksum(&s, side->seal.bytes);
    annotate_looked(&side->seal.crc, sizeof(side->seal.crc));
}

void check_arrived(struct greenlet_thread *t, greenlet *origin, bool died,
                   bool fresh) {
    greenlet *g = t->current;
    if (fresh && !(g->flags & CORE_MAIN)) {
        greenlet_stack d;
        const void *slice;
        backend_describe(g, &d, &slice);
        uintptr_t base = (uintptr_t)d.base, word = canary_of(g, base);
        memcpy((void *)(base - sizeof(word)), &word, sizeof(word));
        g->flags |= CORE_CANARY;
    }
    if (t->check >= 1 && !died && origin != g)
        seal(t, origin);
    if (t->strict && origin != g)
        strict_close(t, origin);
}

/* ---- On demand ---------------------------------------------------------- */

static int check_one(struct greenlet_thread *t, greenlet *g, int level) {
    greenlet_finding f;
    strict_peek(t, g);
    bool bad = examine(t, g, level, &f);
    if (bad)
        check_report(t, &f);
    strict_unpeek(t, g);
    return bad;
}

/* Whatever libgreenlet-debug needs is there? */
static int ready(int level) {
    if (level < 0 || level > 2)
        return -EINVAL;
    if (!secret)
        make_secret();
    return level == 2 && !debug_get(false) ? -ENOSYS : 0;
}

int greenlet_check(greenlet *g, int level) {
    struct greenlet_thread *t = core_self;
    int status = ready(level);
    if (status)
        return status;
    if (!g || (int)core_state(g) == CORE_FREED)
        return -EINVAL;
    if (core_state(g) != GREENLET_ACTIVE || g == t->current)
        return 0;
    if (core_home(g) != t)
        return -EPERM;
    return check_one(t, g, level);
}

struct sweep {
    struct greenlet_thread *t;
    int level, findings;
};

static bool is_thread(const struct greenlet_thread *home) {
    bool is = false;
    pthread_mutex_lock(&core_threads_lock);
    for (struct greenlet_thread *t = core_threads; t && !is; t = t->next)
        is = t == home;
    pthread_mutex_unlock(&core_threads_lock);
    return is;
}

static bool sweep_one(greenlet *g, void *arg) {
    struct sweep *s = arg;
    greenlet_state state = core_state(g);
    greenlet_finding f;
    if (state != GREENLET_NEW && state != GREENLET_ACTIVE &&
        state != GREENLET_DEAD) {
        found(&f, g, GREENLET_FOUND_HEADER, 0, (uintptr_t)g, GREENLET_ACTIVE,
              (uintptr_t)state, "its state is none");
    } else if (state == GREENLET_ACTIVE && core_home(g) == s->t) {
        if (g != s->t->current)
            s->findings += check_one(s->t, g, s->level);
        return false;
    } else if (state == GREENLET_ACTIVE && !is_thread(core_home(g))) {
        found(&f, g, GREENLET_FOUND_HEADER, 0, (uintptr_t)g, (uintptr_t)s->t,
              (uintptr_t)core_home(g), "it belongs to no thread");
    } else {
        return false;
    }
    check_report(s->t, &f);
    s->findings++;
    return false;
}

int greenlet_check_all(int level) {
    struct greenlet_thread *t = core_self;
    int status = ready(level);
    if (status || t == &core_nobody)
        return status;
    struct sweep s = {t, level, 0};
    unsigned forbidden = t->slow & SLOW_FORBID;
    core_slow_on(t, SLOW_FORBID);
    slab_visit(t, sweep_one, &s);
    for (greenlet *g = t->foreign; g; g = g->side->foreign_next)
        sweep_one(g, &s);
    if (!forbidden)
        core_slow_off(t, SLOW_FORBID);
    return s.findings;
}
