/* Checks of suspended stacks, strict mode, and what they have in common with
 * dumps. All of it is off the hot path: a thread that is checked takes the
 * slow path at every switch (SLOW_CHECK).
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_CHECK_H
#define GREENLET_CHECK_H

#include "backend.h"
#include "debug/interface.h"
#include "say.h"

/* ---- check.c ---------------------------------------------------------- */

/* The linker's names for the ends of the section that resume points are
 * listed in (arch/arch.h). Weak: backends without arch/ have none. */
extern const intptr_t first_resume_point[] __asm__("__start_greenlet_resume")
    __attribute__((weak, visibility("hidden")));
extern const intptr_t last_resume_point[] __asm__("__stop_greenlet_resume")
    __attribute__((weak, visibility("hidden")));

/* From GREENLET_CHECK; before the thread's other settings. */
void check_configure(struct greenlet_thread *t);

/* Of a switch to `to`, when nothing has moved: 0 or -EFAULT. */
int check_switch(struct greenlet_thread *t, greenlet *from, greenlet *to);

/* On the new current greenlet's stack: `origin` is suspended now, `fresh`:
 * the current one has just begun. */
void check_arrived(struct greenlet_thread *t, greenlet *origin, bool died,
                   bool fresh);

/* Is every page of [p, p + n) readable? Async-signal-safe. */
bool check_readable(const void *p, size_t n);

/* How far from `p` on memory is readable, `most` bytes at the most. */
size_t check_extent(const void *p, size_t most);

/* Calls the hook, if there is one: whether it did. */
bool check_hook(const greenlet_finding *f);

/* Fills in what is missing and calls the hook; without one, does not
 * return. */
void check_report(struct greenlet_thread *t, const greenlet_finding *f);

/* ---- debug.c ---------------------------------------------------------- */

/* libgreenlet-debug, or NULL. Loads it unless `loaded_only`. */
const struct debug_library *debug_get(bool loaded_only);

/* A fork waits for a library that is being loaded. */
void debug_forking(enum debug_fork phase);

/* Prepares a walk of a suspended greenlet whose record is sound, and of the
 * interrupted frames of a signal handler. */
bool debug_image(struct greenlet_thread *t, const greenlet *g,
                 struct debug_walk *w); /* false: sp is not on its stack */
void debug_context(struct greenlet_thread *t, const void *context,
                   struct debug_walk *w);

/* Writes what the walk finds. `indent`: before each line. */
void debug_say_frames(struct debug_walk *w, struct say *out,
                      const char *indent);

/* The same, but of many frames only the first and the last ones, `most` in
 * all. */
void debug_say_some_frames(struct debug_walk *w, struct say *out,
                           const char *indent, int most);

/* Finds the frame of a suspended greenlet that `address` is in: number,
 * address of its lowest byte, and function (in `name`); -1: not found. */
int debug_locate(struct greenlet_thread *t, const greenlet *g,
                 uintptr_t address, uintptr_t *sp, char *name, size_t n);

/* ---- strict.c --------------------------------------------------------- */

/* Opens the stack of `to` before it is written to, and closes those that
 * nobody runs on. */
void strict_open(struct greenlet_thread *t, const greenlet *to);
void strict_close(struct greenlet_thread *t, const greenlet *origin);

/* A look at a suspended greenlet's stack. Nothing if the thread is not
 * strict. */
static inline void strict_peek(struct greenlet_thread *t, const greenlet *g) {
    if (unlikely(t->strict))
        strict_open(t, g);
}

static inline void strict_unpeek(struct greenlet_thread *t, const greenlet *g) {
    if (unlikely(t->strict))
        strict_close(t, g);
}

/* Of the SIGSEGV handler. True: the access may be tried again. */
bool strict_fault(struct greenlet_thread *t, uintptr_t at, const void *context);

#endif
