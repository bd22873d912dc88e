/* Backtraces and dumps, and the loading of libgreenlet-debug, which does the
 * unwinding.
 *
 * SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"
#include "context.h"

/* ---- Loading ----------------------------------------------------------- */

/* A program that is linked statically as a whole has none of these, and gets
 * no warning from its linker for it. */
extern __typeof__(dlopen) dlopen __attribute__((weak));
extern __typeof__(dlsym) dlsym __attribute__((weak));
extern __typeof__(dlerror) dlerror __attribute__((weak));
extern __typeof__(dladdr) dladdr __attribute__((weak));

#define FILE_NAME "libgreenlet-debug.so.0"

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(const struct debug_library *) library;
static char why[512];

static const struct debug_library *try_file(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(why, sizeof(why), "%s", dlerror());
        return NULL;
    }
    __typeof__(greenlet_debug_library) *get;
    void *symbol = dlsym(handle, "greenlet_debug_library");
    memcpy(&get, &symbol, sizeof(get));
    const struct debug_library *found = get ? get(DEBUG_VERSION) : NULL;
    if (!found)
        snprintf(why, sizeof(why), "%s is of another version", path);
    return found;
}

/* Beside the file that this code is in. */
static const struct debug_library *try_beside(void) {
    char path[4096];
    Dl_info info;
    if (!dladdr || !dladdr((void *)&library, &info) || !info.dli_fname)
        return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    int length = slash ? (int)(slash - info.dli_fname) : 0;
    if (!slash || snprintf(path, sizeof(path), "%.*s/" FILE_NAME, length,
                           info.dli_fname) >= (int)sizeof(path))
        return NULL;
    return access(path, R_OK) == 0 ? try_file(path) : NULL;
}

static const struct debug_library *find_library(void) {
    const struct debug_library *found;
#if ANNOTATE_MSAN
    snprintf(why, sizeof(why), "MemorySanitizer cannot follow libunwind");
    return NULL;
#endif
    if (!dlopen || !dlsym || !dlerror) {
        snprintf(why, sizeof(why),
                 "a program that is linked statically cannot load it");
        return NULL;
    }
    const char *named = secure_getenv("GREENLET_DEBUG_LIBRARY");
    if (named && *named)
        return try_file(named);
    if ((found = try_beside()) != NULL)
        return found;
#ifdef GREENLET_LIBDIR
    if (access(GREENLET_LIBDIR "/" FILE_NAME, R_OK) == 0 &&
        (found = try_file(GREENLET_LIBDIR "/" FILE_NAME)) != NULL)
        return found;
#endif
    return try_file(FILE_NAME);
}

const struct debug_library *debug_get(bool loaded_only) {
    const struct debug_library *found = atomic_load(&library);
    if (found || loaded_only)
        return found;
    int saved = errno;
    pthread_mutex_lock(&load_lock);
    found = atomic_load(&library);
    if (!found) {
        found = find_library();
        if (found)
            why[0] = 0;
        atomic_store(&library, found);
    }
    pthread_mutex_unlock(&load_lock);
    errno = saved;
    return found;
}

void debug_forking(enum debug_fork phase) {
    const struct debug_library *lib;
    if (phase == DEBUG_FORK_PREPARE)
        pthread_mutex_lock(&load_lock);
    if ((lib = debug_get(true)) != NULL)
        lib->forking(phase);
    if (phase != DEBUG_FORK_PREPARE)
        pthread_mutex_unlock(&load_lock);
}

int greenlet_debug_load(void) { return debug_get(false) ? 0 : -ENOSYS; }

const char *greenlet_debug_why(void) { return why; }

/* ---- Images ------------------------------------------------------------ */

enum {
    OWN_GUARD_BYTES = 1 << 20, /* the kernel's gap below a growing stack */
    MAIN_BYTES = 1 << 23, /* of a stack whose end is not known, at the most */
};

/* The stack from `sp` on, in place. */
static uintptr_t in_place(struct debug_walk *w, int i, uintptr_t sp,
                          uintptr_t high) {
    if (high == UINTPTR_MAX || high < sp)
        high = sp + check_extent((const void *)sp, MAIN_BYTES);
    w->ranges[i] = (struct debug_range){sp, high, (const char *)sp};
    return high;
}

/* Where a suspended stack may be: also of main, if that is known. */
static void bounds(const struct greenlet_thread *t, const greenlet *g,
                   uintptr_t base, uintptr_t *low, uintptr_t *high) {
    size_t guard;
    backend_bounds(t, g, low, high, &guard);
    if (guard == 0 && t->own_high) {
        *low = t->own_low;
        *high = t->own_high;
    }
    if (*high > base)
        *high = g->flags & CORE_MAIN && !t->own_high ? UINTPTR_MAX : base;
}

bool debug_image(struct greenlet_thread *t, const greenlet *g,
                 struct debug_walk *w) {
    greenlet_stack d;
    const void *slice;
    uintptr_t low, high;
    struct backend_point_info point = {0};

    backend_describe(g, &d, &slice);
    backend_point(t, g, &point);
    uintptr_t sp = (uintptr_t)d.sp, base = (uintptr_t)d.base;
    bounds(t, g, base, &low, &high);
    if (sp < low || sp >= high || d.saved_bytes > base - sp)
        return false;
    if (d.saved_bytes)
        w->ranges[0] = (struct debug_range){sp, sp + d.saved_bytes, slice};
    w->base = high;
    if (d.saved_bytes < base - sp)
        w->base = in_place(w, 1, sp + d.saved_bytes, high);
    w->sp = sp;
    w->ip = point.ip;
    w->fp = point.fp;
    w->context = point.context;
    w->after_call = point.after_call;
    w->first_resume_point = first_resume_point;
    w->last_resume_point = last_resume_point;
    if (BACKEND_FRAME_BYTES) {
        const struct debug_range *r = &w->ranges[d.saved_bytes ? 0 : 1];
        if (r->high - r->low < sizeof(w->ip))
            return false;
        memcpy(&w->ip, r->bytes, sizeof(w->ip));
    }
    if (!(g->flags & CORE_MAIN)) {
        w->trampoline = point.trampoline;
        w->end_low = point.end_low;
        w->end_high = point.end_high;
    }
    return true;
}

void debug_context(struct greenlet_thread *t, const void *context,
                   struct debug_walk *w) {
    uintptr_t low, high = UINTPTR_MAX, sp = context_sp(context);
    size_t guard = 0;
    bool inside = false;
    if (t != &core_nobody && t->current) {
        backend_bounds(t, t->current, &low, &high, &guard);
        if (guard == 0 || sp < low - guard || sp >= high) {
            low = t->own_low;
            high = t->own_high;
            guard = OWN_GUARD_BYTES;
        }
        inside = high && sp >= low - guard && sp < high;
        if (!inside)
            high = UINTPTR_MAX;
    }
    w->context = context;
    w->sp = sp;
    w->ip = context_ip(context);
    /* After an overflow sp may be in the guard. */
    uintptr_t first = inside && sp < low ? low : sp;
    w->base = in_place(w, 0, first, high);
    w->ranges[0].low = first;
    w->fresh = false;
}

/* ---- Frames ------------------------------------------------------------ */

struct frames_out {
    struct say *out;
    const char *indent;
    int skipped, next; /* so many frames before the frame `next` */
};

static int say_frame(const greenlet_frame *f, void *data) {
    const struct frames_out *o = data;
    struct say *out = o->out;
    say_text(out, o->indent);
    if (o->skipped && f->number == o->next) {
        say_text(out, "... ");
        say_dec(out, (uintptr_t)o->skipped);
        say_text(out, " more\n");
        say_text(out, o->indent);
    }
    say_text(out, "#");
    say_dec(out, (uintptr_t)f->number);
    say_text(out, f->number < 10 ? "  " : " ");
    say_hex(out, (uintptr_t)f->ip);
    if (f->function) {
        say_text(out, " ");
        say_text(out, f->function);
        say_text(out, "+");
        say_hex(out, f->offset);
    }
    if (f->is_signal)
        say_text(out, " <signal handler called>");
    if (f->module) {
        const char *slash = strrchr(f->module, '/');
        say_text(out, " (");
        say_text(out, slash ? slash + 1 : f->module);
        say_text(out, "+");
        say_hex(out, f->module_offset);
        say_text(out, ")");
    }
    say_text(out, "\n");
    return 0;
}

void debug_say_some_frames(struct debug_walk *w, struct say *out,
                           const char *indent, int most) {
    const struct debug_library *lib = debug_get(true);
    struct frames_out o = {out, indent, 0, 0};
    if (!lib) {
        say_text(out, indent);
        say_text(out, "(no frames: libgreenlet-debug is not loaded");
        if (*why) {
            say_text(out, ": ");
            say_text(out, why);
        }
        say_text(out, ")\n");
        return;
    }
    if (most) {
        struct debug_walk count = *w;
        lib->walk(&count);
        if (count.frames > most) {
            w->skip_from = most - most / 4;
            w->skip_to = o.next = count.frames - most / 4;
            o.skipped = w->skip_to - w->skip_from;
        }
    }
    w->names = true;
    w->visit = say_frame;
    w->data = &o;
    lib->walk(w);
    if (w->frames == 0 || w->kind || w->cut) {
        say_text(out, indent);
        say_text(out, w->kind ? "(stops: " : "(stops: no unwind information");
        say_text(out, w->kind ? w->what : "");
        say_text(out, ")\n");
    }
    say_flush(out);
}

void debug_say_frames(struct debug_walk *w, struct say *out,
                      const char *indent) {
    debug_say_some_frames(w, out, indent, 0);
}

struct locate {
    uintptr_t address, sp;
    int frame;
    char *name;
    size_t n;
};

static int locate_frame(const greenlet_frame *f, void *data) {
    struct locate *l = data;
    if (l->address < (uintptr_t)f->sp ||
        (f->end && l->address >= (uintptr_t)f->end))
        return 0;
    l->frame = f->number;
    l->sp = (uintptr_t)f->sp;
    if (f->function) {
        size_t n = strnlen(f->function, l->n - 1);
        memcpy(l->name, f->function, n);
        l->name[n] = 0;
    }
    return 1;
}

int debug_locate(struct greenlet_thread *t, const greenlet *g,
                 uintptr_t address, uintptr_t *sp, char *name, size_t n) {
    const struct debug_library *lib = debug_get(true);
    struct locate l = {address, 0, -1, name, n};
    struct debug_walk w = {0};
    *name = 0;
    if (!lib || g == t->current || core_state(g) != GREENLET_ACTIVE ||
        backend_sound(t, g) || !debug_image(t, g, &w))
        return -1;
    w.names = true;
    w.visit = locate_frame;
    w.data = &l;
    lib->walk(&w);
    *sp = l.sp;
    return l.frame;
}

/* ---- Other threads' stacks ---------------------------------------------- */

/* Another thread's greenlet may run, move or end while we look. Its bytes are
 * copied by the kernel, which cannot fault, and looked at in the copy. */
enum { COPY_BYTES = 1 << 20 };

static size_t copy_from(uintptr_t at, void *to, size_t n) {
    size_t done = 0, page = memory_page();
    while (done < n) { /* by pages: what is not there ends the copy */
        size_t some = page - ((at + done) & (page - 1));
        if (some > n - done)
            some = n - done;
        struct iovec here = {(char *)to + done, some};
        struct iovec there = {(void *)(at + done), some};
        ssize_t got = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return done;
}

/* Puts copies where the walk would have looked. The buffer is the caller's. */
static void copy_image(struct debug_walk *w, char *buffer, size_t room) {
    for (int i = 0; i < DEBUG_RANGES; i++) {
        struct debug_range *r = &w->ranges[i];
        if (!r->bytes)
            continue;
        size_t n = r->high - r->low;
        n = copy_from((uintptr_t)r->bytes, buffer, n < room ? n : room);
        r->high = r->low + n;
        r->bytes = buffer;
        buffer += n;
        room -= n;
    }
}

/* ---- The functions ------------------------------------------------------ */

/* A current greenlet of the calling thread: walks its caller's frames. The
 * context must be made in a frame that is still there: so this is a macro's
 * worth of code in each of the two callers, through `run`. */
struct job {
    greenlet *g;
    greenlet_frame_visitor *visit;
    void *data;
    struct say *out; /* instead of visit */
    const char *indent;
};

static int run_walk(struct debug_walk *w, const struct job *j) {
    if (j->out) {
        debug_say_frames(w, j->out, j->indent);
    } else {
        w->names = true;
        w->visit = j->visit;
        w->data = j->data;
        debug_get(true)->walk(w);
    }
    return w->frames;
}

static __attribute__((noinline)) int walk_current(const struct job *j) {
    struct debug_walk w = {0};
    ucontext_t here;
    if (getcontext(&here) != 0)
        return 0;
#ifdef __s390x__
    /* The program counter is not in it: getcontext() returns to r14. */
    here.uc_mcontext.psw.addr = here.uc_mcontext.gregs[14];
#endif
    debug_context(core_self, &here, &w);
    w.fresh = true;
    return run_walk(&w, j);
}

static int walk_other(struct greenlet_thread *home, const struct job *j) {
    struct debug_walk w = {0};
    char *buffer = memory_map(COPY_BYTES, 0);
    if (!buffer)
        return -ENOMEM;
    if (core_state(j->g) == GREENLET_ACTIVE && j->g != home->current &&
        !backend_sound(home, j->g) && debug_image(home, j->g, &w)) {
        copy_image(&w, buffer, COPY_BYTES);
        /* It may have begun to run meanwhile: then nothing is shown. */
        if (j->g != home->current)
            run_walk(&w, j);
    }
    memory_unmap(buffer, COPY_BYTES);
    return w.frames;
}

/* A record's home may be smashed. In a handler, or in a dump, the lock of the
 * list may be ours already: then it need only be in memory. */
static bool is_thread(const struct greenlet_thread *home) {
    bool is = false;
    if (pthread_mutex_trylock(&core_threads_lock) != 0)
        return check_readable(home, sizeof(*home));
    for (struct greenlet_thread *t = core_threads; t && !is; t = t->next)
        is = t == home;
    pthread_mutex_unlock(&core_threads_lock);
    return is;
}

static int walk_any(const struct job *j) {
    struct greenlet_thread *t = core_self, *home = core_home(j->g);
    if (core_state(j->g) != GREENLET_ACTIVE || (home != t && !is_thread(home)))
        return 0;
    if (home != t)
        return j->g == home->current ? -EPERM : walk_other(home, j);
    if (j->g == t->current)
        return walk_current(j);
    struct debug_walk w = {0};
    if (backend_sound(t, j->g))
        return 0;
    strict_peek(t, j->g);
    w.fresh = true;
    int frames = debug_image(t, j->g, &w) ? run_walk(&w, j) : 0;
    strict_unpeek(t, j->g);
    return frames;
}

int greenlet_debug_walk(greenlet *g, greenlet_frame_visitor *visit,
                        void *data) {
    struct job j = {g, visit, data, NULL, NULL};
    if (!g || !visit || (int)core_state(g) == CORE_FREED)
        return -EINVAL;
    return debug_get(false) ? walk_any(&j) : -ENOSYS;
}

int greenlet_debug_walk_context(const void *context,
                                greenlet_frame_visitor *visit, void *data) {
    struct debug_walk w = {0};
    struct job j = {NULL, visit, data, NULL, NULL};
    if (!context || !visit)
        return -EINVAL;
    if (!debug_get(false))
        return -ENOSYS;
    debug_context(core_self, context, &w);
    return run_walk(&w, &j);
}

int greenlet_debug_backtrace(greenlet *g, int fd) {
    struct say out = SAY_TO(fd);
    struct job j = {g, NULL, NULL, &out, ""};
    if (!g || (int)core_state(g) == CORE_FREED)
        return -EINVAL;
    int frames = debug_get(false) ? walk_any(&j) : -ENOSYS;
    say_flush(&out);
    return frames;
}

/* ---- Dumps --------------------------------------------------------------- */

struct dump {
    struct say out;
    unsigned flags;
    struct greenlet_thread *t;
    int count;
};

/* Of a greenlet whose record may be anything. */
static void say_name(struct say *out, const greenlet *g) {
    char name[sizeof(((struct greenlet_side *)0)->name)] = "";
    say_text(out, "'");
    if (!g || !check_readable(g, sizeof(*g))) {
        say_text(out, "?");
    } else if (g->side && check_readable(g->side, sizeof(*g->side)) &&
               g->side->name[0]) {
        memcpy(name, g->side->name, sizeof(name) - 1);
        say_text(out, name);
    } else {
        say_text(out, g->flags & CORE_MAIN ? "main" : "(no name)");
    }
    say_text(out, "' ");
    say_hex(out, (uintptr_t)g);
}

static bool dump_one(greenlet *g, void *arg) {
    struct dump *d = arg;
    struct say *out = &d->out;
    greenlet_state state = core_state(g);
    const char *bad = NULL;
    if (core_home(g) != d->t)
        return false;
    d->count++;
    say_text(out, "  ");
    say_name(out, g);
    bool current = g == d->t->current;
    say_text(out, state == GREENLET_NEW      ? ", new"
                  : state == GREENLET_DEAD   ? ", dead"
                  : state != GREENLET_ACTIVE ? ", of no state"
                  : current                  ? ", current"
                                             : ", suspended");
    if (core_parent(g)) {
        say_text(out, ", parent ");
        say_name(out, core_parent(g));
    }
    int lane = backend_lane(g);
    if (lane >= 0) {
        say_text(out, ", lane ");
        say_dec(out, (uintptr_t)lane);
    }
    bool suspended = state == GREENLET_ACTIVE && !current;
    if (suspended && (bad = backend_sound(d->t, g)) != NULL) {
        say_text(out, ", corrupt: ");
        say_text(out, bad);
    } else if (suspended) {
        greenlet_stack s;
        const void *slice;
        if (d->t == core_self)
            strict_peek(d->t, g);
        backend_describe(g, &s, &slice);
        if (d->t == core_self)
            strict_unpeek(d->t, g);
        uintptr_t high = (uintptr_t)s.base;
        if (g->flags & CORE_MAIN)
            high = d->t->own_high;
        if (high > (uintptr_t)s.sp) {
            say_text(out, ", ");
            say_dec(out, high - (uintptr_t)s.sp);
            say_text(out, " bytes live");
        }
        say_text(out, ", ");
        say_dec(out, s.saved_bytes);
        say_text(out, " of them in the heap");
    }
    say_text(out, "\n");
    if (state == GREENLET_ACTIVE && !bad &&
        !(d->flags & GREENLET_DUMP_NO_FRAMES)) {
        struct job j = {g, NULL, NULL, out, "    "};
        if (debug_get(true) == NULL)
            say_text(out, "    (no frames: libgreenlet-debug is not there)\n");
        else if (walk_any(&j) == -EPERM)
            say_text(out, "    (running in its thread)\n");
    }
    say_flush(out);
    return false;
}

static void dump_thread(struct dump *d, struct greenlet_thread *t, int n) {
    d->t = t;
    say_text(&d->out, "thread ");
    say_dec(&d->out, (uintptr_t)n);
    say_text(&d->out, t == core_self ? " (this one), backend " BACKEND_NAME "\n"
                                     : ", backend " BACKEND_NAME "\n");
    slab_visit(t, dump_one, d);
    /* A list in the records of others: it may be smashed. */
    greenlet *g = t->foreign;
    for (size_t i = 0; g && i < 1 << 20; i++) {
        if (!check_readable(g, sizeof(*g)))
            break;
        dump_one(g, d);
        if (!g->side || !check_readable(g->side, sizeof(*g->side)))
            break;
        g = g->side->foreign_next;
    }
}

int greenlet_debug_dump(int fd, unsigned flags) {
    struct dump d = {SAY_TO(fd), flags, NULL, 0};
    struct greenlet_thread *self = core_self;
    int n = 1;
    if (flags & ~(GREENLET_DUMP_PROCESS | GREENLET_DUMP_NO_FRAMES))
        return -EINVAL;
    if (!(flags & GREENLET_DUMP_NO_FRAMES))
        debug_get(false);
    if (!(flags & GREENLET_DUMP_PROCESS)) {
        if (self != &core_nobody)
            dump_thread(&d, self, n);
        return d.count;
    }
    /* In a handler the lock may be ours already. */
    bool locked = false;
    for (int i = 0; i < 1000 && !locked; i++)
        if (!(locked = pthread_mutex_trylock(&core_threads_lock) == 0))
            usleep(1000);
    for (struct greenlet_thread *t = core_threads; t; t = t->next)
        dump_thread(&d, t, n++);
    if (locked)
        pthread_mutex_unlock(&core_threads_lock);
    return d.count;
}

/* ---- Findings ------------------------------------------------------------ */

/* What a word that should have been an address may be: text, or two ints. */
static void say_as_data(struct say *out, uintptr_t word) {
    char text[sizeof(word) + 1] = "";
    size_t n = 0;
    memcpy(text, &word, sizeof(word));
    while (text[n] >= ' ' && text[n] <= '~')
        n++;
    if (n == sizeof(word) || (n >= 4 && !(word >> 8 * n))) {
        say_text(out, " (the text \"");
        say_text(out, text);
        say_text(out, "\")");
    } else if (sizeof(word) == 8 && (uint64_t)word >> 32 &&
               !check_readable((const void *)word, 1)) {
        int32_t halves[2];
        memcpy(halves, &word, sizeof(halves));
        say_text(out, " (the ints ");
        for (int i = 0; i < 2; i++) {
            int64_t value = halves[i];
            say_text(out, value < 0 ? "-" : "");
            say_dec(out, (uintptr_t)(value < 0 ? -value : value));
            say_text(out, i ? ")" : ", ");
        }
    }
}

void greenlet_print_finding(const greenlet_finding *f, int fd) {
    struct say out = SAY_TO(fd);
    if (!f)
        return;
    say_text(&out, "greenlet: check: ");
    say_text(&out, greenlet_finding_name(f->kind));
    say_text(&out, " of ");
    say_name(&out, f->g);
    say_text(&out, ": ");
    say_text(&out, f->what ? f->what : "");
    say_text(&out, "\n  at ");
    say_hex(&out, (uintptr_t)f->address);
    if (f->frame >= 0) {
        say_text(&out, ", frame #");
        say_dec(&out, (uintptr_t)f->frame);
        if (f->function) {
            say_text(&out, " (");
            say_text(&out, f->function);
            say_text(&out, ")");
        }
    }
    if (f->expected) {
        say_text(&out, "; expected ");
        say_hex(&out, f->expected);
    }
    say_text(&out, "; found ");
    say_hex(&out, f->found);
    if (f->kind == GREENLET_FOUND_RETURN || f->kind == GREENLET_FOUND_CANARY)
        say_as_data(&out, f->found);
    say_text(&out, "\n  found by ");
    say_name(&out, f->by);
    if (f->level >= 0) {
        say_text(&out, " at level ");
        say_dec(&out, (uintptr_t)f->level);
    }
    say_text(&out, "\n");
    bool mine = f->g && core_home(f->g) == core_self;
    struct job j = {f->g, NULL, NULL, &out, "    "};
    if (mine && core_state(f->g) == GREENLET_ACTIVE && debug_get(false) &&
        !backend_sound(core_self, f->g)) {
        say_text(&out, "  its frames:\n");
        walk_any(&j);
    }
    j.g = core_self->current;
    if (mine && j.g != f->g && debug_get(true)) {
        say_text(&out, "  the finder's frames:\n");
        walk_any(&j);
    }
    say_flush(&out);
}
