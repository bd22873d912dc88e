/* libgreenlet: greenlets for C and C++.
 *
 * A greenlet is a stackful coroutine with a parent, values, errors and death,
 * as in Python's greenlet. Control is handed over explicitly, always within
 * one thread; each thread has one main greenlet, which is the thread's own
 * stack and is made at the thread's first use of the library.
 *
 * Each function below carries a mark
 *
 *     [switches?, allocates?, statuses]        Contract: numbers
 *
 * "switches" means that other greenlets may run before the call returns. A
 * function that names statuses answers them as negative errno constants, in
 * `greenlet_message.status` or as an int; whenever it does, nothing moved and
 * nothing changed. Only greenlet_new uses errno; every call leaves it as it
 * was otherwise. No function is async-signal-safe unless its mark says so.
 * docs/contract.md is the numbered contract.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_H
#define GREENLET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GREENLET_VERSION_MAJOR 0
#define GREENLET_VERSION_MINOR 1
#define GREENLET_VERSION_PATCH 0

#if defined(__GNUC__)
#define GREENLET_API __attribute__((visibility("default")))
#else
#define GREENLET_API
#endif

typedef struct greenlet greenlet;

/* What every switch delivers.
 * value   borrowed; passed through untouched, NULL is a value like any other.
 * status  0: a value. > 0: an error somebody threw; GREENLET_EXIT means
 *         "unwind and die", users' codes start at 2. < 0: this call did not
 *         switch and nothing moved. One exception: when an entry returns a
 *         negative status, its parent is resumed with -EINVAL (contract 9). */
typedef struct greenlet_message {
    void *value;
    intptr_t status;
} greenlet_message;

#define GREENLET_EXIT 1

/* What a greenlet runs. `value` is the first switch's value. The message it
 * returns goes to the parent: {value, 0} as a value, status > 0 as thrown,
 * GREENLET_EXIT as a value again. A C++ exception must not leave it. */
typedef greenlet_message greenlet_entry(void *value);

typedef enum greenlet_state {
    GREENLET_NEW = 1, /* never switched to; owns no stack            */
    GREENLET_ACTIVE,  /* current or suspended                        */
    GREENLET_DEAD     /* finished, or its thread has exited          */
} greenlet_state;

/* ---- Life ------------------------------------------------------------- */

/* Flags of greenlet_options. */
#define GREENLET_FPU 0x1u   /* keep the floating-point control words     */
#define GREENLET_STATS 0x2u /* keep statistics of this greenlet          */

#define GREENLET_ANY_LANE (-1)

/* What a greenlet is made with. Start from GREENLET_OPTIONS_INIT: `size`
 * tells the library which fields the caller knows, so that later versions can
 * add fields without breaking compiled users. */
typedef struct greenlet_options {
    size_t size;        /* sizeof(greenlet_options)                        */
    greenlet *parent;   /* NULL: the current greenlet                      */
    const char *name;   /* copied; NULL: none                              */
    void *user_data;    /* borrowed; see greenlet_user_data                */
    size_t stack_bytes; /* at least this much stack; 0: the thread's
                         * default. In place: ignored                      */
    int lane;           /* copy on lanes: the lane's number; else ignored  */
    unsigned flags;     /* GREENLET_FPU | GREENLET_STATS                   */
} greenlet_options;

#define GREENLET_OPTIONS_INIT                                                  \
    { sizeof(greenlet_options), NULL, NULL, NULL, 0, GREENLET_ANY_LANE, 0 }

/* Makes a greenlet that will run `entry`. It belongs to its parent's thread.
 * entry    NULL only where a resolve_entry hook will supply it at the start.
 * options  borrowed for the call; NULL: the defaults.
 * Returns a reference that the caller owns; the new greenlet holds one to its
 * parent. NULL and errno: EINVAL (bad options), E2BIG (no backend stack is
 * that large), EOWNERDEAD (the parent's thread has exited), ENOMEM.
 * [runs drain, allocates, errno]                    Contract: 1, 2, 14, 16 */
GREENLET_API greenlet *greenlet_new(greenlet_entry *entry,
                                    const greenlet_options *options);

/* Gives control to `to` until somebody switches back here. A new greenlet is
 * started with `value` as its entry's argument; a dead one passes the value
 * on to its nearest live ancestor; the current one returns it at once.
 * value   borrowed, passed through untouched.
 * Returns the message that the caller is resumed with. Statuses: -EPERM
 * (another thread's), -EOWNERDEAD (its thread has exited), -EINVAL (NULL or
 * freed), -ENOMEM, -EBUSY (inside a hook that must not switch; sigaltstack
 * backend: a start from the alternate signal stack), -EFAULT (checking: not
 * on the current greenlet's stack, or `to` is corrupt).
 * [switches, may allocate, statuses]                     Contract: 4-8, 13 */
GREENLET_API greenlet_message greenlet_switch(greenlet *to, void *value);

/* Throws: like greenlet_switch, but the receiver's pending switch returns
 * {value, status}. A new greenlet dies without running and its parent
 * receives the message; so does a dead one's nearest live ancestor, to whom
 * GREENLET_EXIT arrives as a plain value.
 * status  > 0, else -EINVAL.
 * [switches, may allocate, statuses]                     Contract: 6, 7, 9 */
GREENLET_API greenlet_message greenlet_throw(greenlet *to, intptr_t status,
                                             void *value);

/* Kills: makes the current greenlet `g`'s parent for the moment, throws
 * {NULL, GREENLET_EXIT} into it and puts the old parent back.
 * Returns the greenlet's last message, {NULL, 0} if it was dead or new.
 * Statuses: -EBUSY when it did not die (value: what the caller was resumed
 * with; an error that was thrown at the caller meanwhile is returned as
 * such) and for the current greenlet; -EINVAL for NULL or a main greenlet;
 * and those of greenlet_throw.
 * [switches, may allocate, statuses]                          Contract: 15 */
GREENLET_API greenlet_message greenlet_kill(greenlet *g);

/* Adds a reference. Returns `g`. Any thread. NULL is passed through.
 * [no switch, no allocation]                              Contract: 15, 16 */
GREENLET_API greenlet *greenlet_ref(greenlet *g);

/* Drops a reference; NULL is ignored. The last one frees a new or dead
 * greenlet; it kills a suspended one, as greenlet_kill does; for the current
 * one it takes effect at the next switch away. In another thread the last
 * one is queued at the owner. A greenlet that does not die is leaked and
 * reported through the `unraisable` hook.
 * [may switch, may allocate]                          Contract: 15, 16, 17 */
GREENLET_API void greenlet_unref(greenlet *g);

/* Carries out what other threads have queued for this one; greenlet_new,
 * greenlet_switch and greenlet_current do so too. Returns how many queue
 * entries were handled. [may switch, may allocate]            Contract: 16 */
GREENLET_API size_t greenlet_drain(void);

/* The current greenlet: a borrowed reference. NULL if this thread has no
 * main greenlet yet and there is no memory to make it, or a shadow stack.
 * [runs drain, may allocate]                               Contract: 1, 16 */
GREENLET_API greenlet *greenlet_current(void);

/* The calling thread's main greenlet: borrowed, NULL as above.
 * [no switch, may allocate]                                    Contract: 1 */
GREENLET_API greenlet *greenlet_main(void);

/* The parent: a borrowed reference; NULL for a main greenlet (and for NULL).
 * [no switch, no allocation]                              Contract: 1, 2 */
GREENLET_API greenlet *greenlet_parent(const greenlet *g);

/* Makes `parent` the parent of `g`. Returns 0, or -EINVAL (NULL, `g` is a
 * main greenlet), -ELOOP (`g` is an ancestor of `parent`), -EPERM (`g` is
 * another thread's, or `parent` is and `g` has started), -EOWNERDEAD
 * (parent's thread has exited), -E2BIG (`g` wants a larger stack than a lane of
 * the parent's thread is), -ENOMEM.
 * [no switch, may allocate, statuses]                         Contract: 12 */
GREENLET_API int greenlet_set_parent(greenlet *g, greenlet *parent);

/* ---- Threads ---------------------------------------------------------- */

/* How a thread keeps its stacks; see GREENLET_THREAD_OPTIONS_INIT. Fields
 * that are left at their "default" values come from the environment
 * (GREENLET_LANES, GREENLET_LANE_BYTES, GREENLET_STACK_BYTES), then from the
 * library. */
typedef struct greenlet_thread_options {
    size_t size;        /* sizeof(greenlet_thread_options)                 */
    int lanes;          /* copy: how many lanes; 0: in place; -1: default  */
    size_t lane_bytes;  /* copy: bytes of each lane; 0: default            */
    size_t stack_bytes; /* others: bytes of a stack; 0: default            */
} greenlet_thread_options;

#define GREENLET_THREAD_OPTIONS_INIT                                           \
    { sizeof(greenlet_thread_options), -1, 0, 0 }

#define GREENLET_LANES_MAX 4096
#define GREENLET_STACK_BYTES_MIN 16384 /* of a stack and of a lane */

/* Sets how the calling thread keeps its stacks; only before its first other
 * use of the library. Returns 0, -EBUSY (too late), -EINVAL (NULL, out of
 * range), -ENOMEM, -ENOTSUP (a shadow stack is active: x86 CET, Arm GCS, RISC-V
 * Zicfiss; not the ucontext backend; every first use is refused so).
 * [no switch, allocates, statuses]                        Contract: 28, 34 */
GREENLET_API int greenlet_thread_configure(const greenlet_thread_options *o);

/* Kills every other greenlet of the thread, the latest started first; called
 * from the main greenlet before a thread ends. Returns 0, or -EBUSY if some
 * did not die, -EINVAL (not called from the main greenlet), -ENOMEM.
 * [switches, allocates, statuses]                             Contract: 18 */
GREENLET_API int greenlet_thread_shutdown(void);

/* ---- Asking ----------------------------------------------------------- */

/* The state; 0 for NULL. [no switch, no allocation]            Contract: 3 */
GREENLET_API greenlet_state greenlet_get_state(const greenlet *g);

/* 1 if `g` is some thread's main greenlet, else 0.             Contract: 1 */
GREENLET_API int greenlet_is_main(const greenlet *g);

/* The user-data pointer: borrowed, never looked at by the library.
 * [no switch, no allocation]                                  Contract: 24 */
GREENLET_API void *greenlet_user_data(const greenlet *g);
GREENLET_API void greenlet_set_user_data(greenlet *g, void *data);

/* The name: borrowed until it is set again or `g` is freed; "" if none.
 * Setting copies `name` (NULL: none) and cuts it to 47 bytes. Returns 0,
 * -EINVAL, -ENOMEM. [no switch, set allocates, statuses]      Contract: 24 */
GREENLET_API const char *greenlet_name(const greenlet *g);
GREENLET_API int greenlet_set_name(greenlet *g, const char *name);

/* Where a suspended greenlet's stack bytes are.
 * [sp, base) are the live addresses; stacks grow down. Of them, those in
 * [sp, sp + saved_bytes) are in a heap slice, the others in their place.
 * For a new or dead greenlet all fields are 0; for the current one sp is an
 * address within the call. base of an in-place main is the address space's
 * end: its stack has no base that the library knows. */
typedef struct greenlet_stack {
    const void *sp;
    const void *base;
    size_t saved_bytes;
} greenlet_stack;

/* Returns 0, -EINVAL, -EPERM (another thread's).
 * [no switch, no allocation, statuses]                        Contract: 23 */
GREENLET_API int greenlet_get_stack(const greenlet *g, greenlet_stack *out);

/* Copies `n` bytes of `g`'s stack memory, as `g` will see them at `address`,
 * to `dst`, wherever they are now. Returns 0, -EFAULT if [address, address+n)
 * is not within its live range, -EINVAL, -EPERM (another thread's).
 * [no switch, no allocation, statuses]                        Contract: 23 */
GREENLET_API int greenlet_read_stack(const greenlet *g, const void *address,
                                     void *dst, size_t n);

/* Counters, all since the start of the thread, process or greenlet. What does
 * not apply to a backend reads 0. Start from GREENLET_STATISTICS_INIT. */
typedef struct greenlet_statistics {
    size_t size;           /* sizeof(greenlet_statistics)                  */
    uint64_t switches;     /* transfers of control, starts and deaths too  */
    uint64_t hits;         /* switches for which no byte was copied        */
    uint64_t misses;       /* switches for which bytes were copied         */
    uint64_t evictions;    /* times that a stack was saved, in part or all */
    uint64_t fills;        /* times that a stack was filled                */
    uint64_t saved_bytes;  /* stack -> slice                               */
    uint64_t filled_bytes; /* slice -> stack                               */
    uint64_t allocations;  /* requests to the system's allocators          */
    uint64_t stack_high;   /* most live bytes seen at a copy, or at a
                            * switch of a GREENLET_STATS greenlet          */
} greenlet_statistics;

#define GREENLET_STATISTICS_INIT                                               \
    { sizeof(greenlet_statistics), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Fills `out` for the calling thread; for the process (all threads, also the
 * exited ones); for a greenlet made with GREENLET_STATS (others: -ENOTSUP).
 * Return 0, -EINVAL, -ENOTSUP, -EPERM (another thread's greenlet).
 * [no switch, may allocate (thread's first use), statuses]    Contract: 25 */
GREENLET_API int greenlet_thread_statistics(greenlet_statistics *out);
GREENLET_API int greenlet_process_statistics(greenlet_statistics *out);
GREENLET_API int greenlet_get_statistics(const greenlet *g,
                                         greenlet_statistics *out);

/* Calls `visit` for every suspended greenlet of the calling thread, the main
 * one included, in no particular order, until it returns non-zero, which is
 * then returned; else 0. `visit` must not switch (-EBUSY), make greenlets or
 * drop references.
 * [no switch, no allocation]                                  Contract: 22 */
GREENLET_API int greenlet_walk(int (*visit)(greenlet *g, void *data),
                               void *data);

/* ---- Greenlet-local storage ------------------------------------------- */

typedef unsigned greenlet_key;

#define GREENLET_KEYS_MAX 128

/* Makes a key for one pointer per greenlet, NULL at first. `destructor`
 * (may be NULL) is called with each non-NULL pointer when its greenlet dies,
 * on the dying greenlet's stack, and at thread exit on the thread's; it may
 * set values again, which is looked at 4 times. Returns 0, -EAGAIN (no key
 * left), -EINVAL. Any thread. [no switch, no allocation]      Contract: 24 */
GREENLET_API int greenlet_key_create(greenlet_key *key,
                                     void (*destructor)(void *value));
/* Gives the key back; no destructor runs for values that are still set.
 * Returns 0, -EINVAL. */
GREENLET_API int greenlet_key_delete(greenlet_key key);
/* The current greenlet's pointer; NULL if unset or the key is unknown. */
GREENLET_API void *greenlet_local_get(greenlet_key key);
/* Sets it. Returns 0, -EINVAL, -ENOMEM.
 * [no switch, allocates at the first use in a greenlet, statuses] */
GREENLET_API int greenlet_local_set(greenlet_key key, void *value);

/* ---- Tracing and host hooks ------------------------------------------- */

typedef enum greenlet_event {
    GREENLET_EVENT_SWITCH,
    GREENLET_EVENT_THROW
} greenlet_event;

/* Called in `target`, on its stack, after each switch of the thread: also at
 * first entry, and at a death (origin is then dead). It may switch. */
typedef void greenlet_tracer(greenlet_event event, greenlet *origin,
                             greenlet *target, void *data);

/* Sets the calling thread's tracer (NULL: none); the previous one is stored
 * through `old_tracer` and `old_data` unless these are NULL. Returns 0,
 * -ENOMEM. [no switch, may allocate, statuses]                Contract: 21 */
GREENLET_API int greenlet_set_tracer(greenlet_tracer *tracer, void *data,
                                     greenlet_tracer **old_tracer,
                                     void **old_data);

/* What a host (a language runtime) wants to be told. Each may be NULL. Start
 * from GREENLET_HOOKS_INIT. */
typedef struct greenlet_hooks {
    size_t size; /* sizeof(greenlet_hooks) */
    /* In `from`, when the switch can no longer fail. Must not switch (-EBUSY),
     * allocate or make greenlets. Also for a dying `from`. */
    void (*pre_switch)(greenlet *from, greenlet *to, void *data);
    /* In `to`, on its stack. May switch. */
    void (*post_switch)(greenlet *from, greenlet *to, void *data);
    /* In a greenlet that is about to enter its entry, after post_switch. */
    void (*first_entry)(greenlet *g, void *data);
    /* In a greenlet whose entry has returned `last`, on its stack; may
     * switch. Before the local-storage destructors. */
    void (*on_finish)(greenlet *g, greenlet_message last, void *data);
    /* After a greenlet died and its stack is gone; in whoever runs next. */
    void (*on_release)(greenlet *g, void *data);
    /* In the starter: stores through `entry` what `g` shall run (it holds
     * what greenlet_new was given). May switch: the library looks again
     * afterwards. Returns 0, or a negative status that the starter's call
     * returns. */
    int (*resolve_entry)(greenlet *g, greenlet_entry **entry, void *data);
    /* A last reference was dropped and the greenlet did not die (status
     * -EBUSY), or died with an error (> 0), and there is nobody to tell.
     * Without this hook a line on standard error tells. */
    void (*unraisable)(greenlet *g, greenlet_message last, void *data);
} greenlet_hooks;

#define GREENLET_HOOKS_INIT                                                    \
    { sizeof(greenlet_hooks), NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/* Sets the calling thread's hooks (copied; NULL: none) and the pointer that
 * they are called with. Returns 0, -EINVAL, -ENOMEM.
 * [no switch, allocates, statuses]                            Contract: 22 */
GREENLET_API int greenlet_set_hooks(const greenlet_hooks *hooks, void *data);

/* ---- Failing well ----------------------------------------------------- */

/* Makes stack overflows of greenlets say so: installs, for the process, a
 * SIGSEGV and SIGBUS handler, and for each thread that uses the library (the
 * calling one at once) an alternate signal stack unless it has one. A fault
 * in the guard of a greenlet's stack is reported on standard error with the
 * greenlet's name and a backtrace; then, as for any other fault, the previous
 * handler gets it. GREENLET_OVERFLOW_HANDLER=1 in the environment does the
 * same at the first use. Returns 0 (also if done before), -ENOMEM.
 * [no switch, allocates, statuses]                        Contract: 27, 37 */
GREENLET_API int greenlet_install_overflow_handler(void);

/* Sets the calling thread's check level. At each switch, the greenlet that is
 * to go on is looked at: -1 not at all (the default); 0: its stack pointer,
 * resume address and the word at its stack's base; 1: and a checksum of its
 * bytes since it was suspended; 2: and every frame. From 0 on, freed greenlets
 * are also kept from being reused at once. What is found goes to the hook of
 * greenlet_debug.h, which prints and aborts unless it was set.
 * GREENLET_CHECK=0, 1, 2 or strict in the environment does so for every
 * thread; docs/debugging.md. Returns 0, -EINVAL, -ENOMEM, -ENOSYS (level 2
 * without libgreenlet-debug).
 * [no switch, may allocate, statuses]                         Contract: 28 */
GREENLET_API int greenlet_set_check_level(int level);

/* A sentence for a status that this library answers: static storage; of
 * positive statuses it knows GREENLET_EXIT. [async-signal-safe] */
GREENLET_API const char *greenlet_strerror(intptr_t status);

/* "0.1.0" and "copy", "private", "ucontext" or "sigaltstack": static.
 * [async-signal-safe] */
GREENLET_API const char *greenlet_version(void);
GREENLET_API const char *greenlet_backend(void);

#ifdef __cplusplus
}
#endif
#endif /* GREENLET_H */
