/* Strict mode: the stack of every greenlet that does not run is closed to all
 * accesses, so that the use of a pointer into it faults at once, in the
 * culprit. With the copy backend each greenlet gets a lane of its own, as long
 * as there are some (backends/copy/copy.c); the program cannot tell.
 *
 * Open is the current greenlet's stack alone. That of `to` is opened before
 * anything is written to it, that of `from` closed when it has been left:
 *
 *     core_commit_slow  strict_open(to)     on the stack of `from`
 *     core_after        strict_close(from)  on the stack of `to`
 *
 * A thread's own stack, main's, is never closed: pointers to main's locals
 * are good at any time (contract 31), and the system keeps things there.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "context.h"

/* Whole pages between the guard and the high end. False: not one to close. */
static bool range_of(const struct greenlet_thread *t, const greenlet *g,
                     uintptr_t *low, size_t *bytes) {
    uintptr_t high, page = memory_page() - 1;
    size_t guard;
    backend_bounds(t, g, low, &high, &guard);
    if (guard == 0 || high <= *low)
        return false;
    *bytes = ((high + page) & ~page) - *low;
    return true;
}

static bool protect(const struct greenlet_thread *t, const greenlet *g,
                    int how) {
    uintptr_t low;
    size_t bytes;
    int saved = errno;
    bool done =
        !range_of(t, g, &low, &bytes) || mprotect((void *)low, bytes, how) == 0;
    errno = saved;
    return done;
}

void strict_open(struct greenlet_thread *t, const greenlet *to) {
    if (!protect(t, to, PROT_READ | PROT_WRITE))
        core_fatal("strict: the kernel refuses to open a stack", to,
                   t->current);
}

/* Not if the current one has the same place. */
static bool beside_current(const struct greenlet_thread *t, const greenlet *g) {
    uintptr_t a, b;
    size_t n;
    return range_of(t, g, &a, &n) &&
           !(range_of(t, t->current, &b, &n) && a == b);
}

void strict_close(struct greenlet_thread *t, const greenlet *origin) {
    static _Atomic bool told;
    if (core_state(origin) != GREENLET_ACTIVE || !beside_current(t, origin) ||
        protect(t, origin, PROT_NONE) || atomic_exchange(&told, true))
        return;
    struct say out = SAY_TO(STDERR_FILENO);
    say_text(&out, "greenlet: strict: the kernel refuses to close more "
                   "stacks (vm.max_map_count?); some stay open\n");
    say_flush(&out);
}

/* ---- The fault ---------------------------------------------------------- */

struct search {
    struct greenlet_thread *t;
    uintptr_t at;
    greenlet *found;
};

static bool has_address(greenlet *g, void *arg) {
    struct search *s = arg;
    uintptr_t low;
    size_t bytes;
    if (core_home(g) == s->t && core_state(g) == GREENLET_ACTIVE &&
        g != s->t->current && range_of(s->t, g, &low, &bytes) &&
        s->at - low < bytes)
        s->found = g;
    return s->found != NULL;
}

/* Among those that live with s->t: made there or elsewhere. */
static bool lives_with(struct greenlet_thread *self, struct search *s) {
    struct greenlet_thread *t = s->t;
    bool locked = t != self && pthread_mutex_trylock(&t->lock) == 0;
    if (!slab_visit(t, has_address, s) && (locked || t == self))
        for (greenlet *g = t->foreign; g && !s->found;
             g = g->side->foreign_next)
            has_address(g, s);
    if (locked)
        pthread_mutex_unlock(&t->lock);
    return s->found != NULL;
}

/* Whose stack is it? Other threads are looked at without their leave: what is
 * closed belongs to somebody who does not run. */
static greenlet *owner_of(struct greenlet_thread *self, uintptr_t at,
                          struct greenlet_thread **home) {
    struct search s = {self, at, NULL};
    *home = self;
    if (lives_with(self, &s) || pthread_mutex_trylock(&core_threads_lock) != 0)
        return s.found;
    for (struct greenlet_thread *t = core_threads; t && !s.found; t = t->next)
        if (t != self && t->strict) {
            s.t = *home = t;
            lives_with(self, &s);
        }
    pthread_mutex_unlock(&core_threads_lock);
    return s.found;
}

static void say_who(struct say *out, const greenlet *g) {
    say_text(out, "'");
    say_text(out, core_label(g));
    say_text(out, "' (");
    say_hex(out, (uintptr_t)g);
    say_text(out, ")");
}

/* Where the CPU tells no more than the page: what that holds. */
static void print_page(struct say *out, struct greenlet_thread *home,
                       const greenlet *g, uintptr_t at, uintptr_t sp) {
    uintptr_t first = at > sp ? at : sp, frame_sp;
    bool has_frames = first - at < CONTEXT_FAULT_BYTES;
    char name[128] = "";
    int frame = -1;
    if (has_frames)
        frame = debug_locate(home, g, first, &frame_sp, name, sizeof(name));
    say_text(out, " or up to ");
    say_dec(out, CONTEXT_FAULT_BYTES - 1);
    say_text(out, " bytes above: this CPU does not say where\n  there:");
    if (frame >= 0) {
        say_text(out, " frame #");
        say_dec(out, (uintptr_t)frame);
        say_text(out, " (");
        say_text(out, *name ? name : "?");
        say_text(out, "), and what is above it");
    } else if (has_frames) {
        say_text(out, " its frames");
    }
    if (at < sp)
        say_text(out, has_frames ? ", and below its frames, where calls that "
                                   "have returned were"
                                 : " nothing that is in use");
    say_text(out, "\n");
}

/* Both sides of it. The owner's stack is open. */
static void print_access(struct greenlet_thread *home, const greenlet *g,
                         const greenlet_finding *f, uintptr_t frame_sp,
                         const void *context) {
    struct say out = SAY_TO(STDERR_FILENO);
    int wrote = context_wrote(context);
    greenlet_stack d;
    const void *slice;
    backend_describe(g, &d, &slice);
    say_text(&out, "greenlet: strict: ");
    say_who(&out, f->by);
    say_text(&out, wrote > 0    ? " writes to"
                   : wrote == 0 ? " reads from"
                                : " uses");
    say_text(&out, " the stack of suspended ");
    say_who(&out, g);
    say_text(&out, "\n  at ");
    say_hex(&out, (uintptr_t)f->address);
    if (f->frame >= 0) {
        say_text(&out, ": frame #");
        say_dec(&out, (uintptr_t)f->frame);
        say_text(&out, " (");
        say_text(&out, f->function ? f->function : "?");
        say_text(&out, "), ");
        say_dec(&out, (uintptr_t)f->address - frame_sp);
        say_text(&out, " bytes above its sp\n");
    } else if (CONTEXT_FAULT_BYTES > 1) {
        print_page(&out, home, g, (uintptr_t)f->address, (uintptr_t)d.sp);
    } else if ((uintptr_t)f->address < (uintptr_t)d.sp) {
        say_text(&out, ": ");
        say_dec(&out, (uintptr_t)d.sp - (uintptr_t)f->address);
        say_text(&out, " bytes below its frames, where calls that have "
                       "returned were\n");
    } else {
        say_text(&out, ": ");
        say_dec(&out, (uintptr_t)f->address - (uintptr_t)d.sp);
        say_text(&out, " bytes above its sp\n");
    }
    say_text(&out, "  the access:\n");
    struct debug_walk w = {0};
    debug_context(core_self, context, &w);
    debug_say_frames(&w, &out, "    ");
    say_text(&out, "  the owner is suspended in:\n");
    w = (struct debug_walk){0};
    if (debug_image(home, g, &w))
        debug_say_frames(&w, &out, "    ");
    say_text(&out, "  While a greenlet is suspended its stack may be "
                   "elsewhere: share what is static or on the heap.\n");
    say_flush(&out);
}

bool strict_fault(struct greenlet_thread *t, uintptr_t at,
                  const void *context) {
    struct greenlet_thread *home;
    greenlet *g = owner_of(t, at, &home);
    char name[128] = "";
    uintptr_t frame_sp = 0;
    if (!g)
        return false;
    strict_open(home, g); /* until it is suspended again */
    greenlet_finding f = {.size = sizeof(f),
                          .kind = GREENLET_FOUND_ACCESS,
                          .level = -1,
                          .g = g,
                          .by = t->current,
                          .address = (const void *)at,
                          .frame = -1,
                          .found = context_ip(context),
                          .what = "an access to the stack of a suspended "
                                  "greenlet"};
    if (CONTEXT_FAULT_BYTES == 1)
        f.frame = debug_locate(home, g, at, &frame_sp, name, sizeof(name));
    f.function = *name ? name : NULL;
    if (check_hook(&f))
        return true;
    print_access(home, g, &f, frame_sp, context);
    strict_close(home, g); /* so that it dies where it did it */
    return false;
}
