/* What tools that watch memory and threads must be told of greenlets. One
 * line of each hook stands in the core and in the backends; everything else
 * is here and in annotate.c.
 *
 *   AddressSanitizer   which stack runs, with which fake frames; the shadow
 *                      of stack bytes that are copied travels with them
 *   LeakSanitizer      where, besides the heap, pointers are
 *   MemorySanitizer    what assembly passes to C is initialised
 *   ThreadSanitizer    which greenlet ("fiber") runs
 *   Valgrind           which ranges are stacks, which bytes are in use
 *
 * Sanitizers are known when the library is compiled, which must be with the
 * same ones as the program. Valgrind is asked for at a thread's adoption, if
 * the build had its headers. Then, and always with a sanitizer, the thread's
 * switches take the slow path (SLOW_WATCHED): all hooks are there, and the
 * paths that matter for speed have none.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_ANNOTATE_H
#define GREENLET_ANNOTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "greenlet.h"
#include "names.h"

/* ---- Which tools ------------------------------------------------------ */

#ifdef __has_feature
#define ANNOTATE_FEATURE(x) __has_feature(x)
#else
#define ANNOTATE_FEATURE(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || ANNOTATE_FEATURE(address_sanitizer)
#define ANNOTATE_ASAN 1
#else
#define ANNOTATE_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || ANNOTATE_FEATURE(thread_sanitizer)
#define ANNOTATE_TSAN 1
#else
#define ANNOTATE_TSAN 0
#endif

#define ANNOTATE_MSAN ANNOTATE_FEATURE(memory_sanitizer)

/* Alone it leaves no trace in the compiler: meson.build says so. */
#if ANNOTATE_ASAN || defined(GREENLET_LEAK_SANITIZER)
#define ANNOTATE_LSAN 1
#else
#define ANNOTATE_LSAN 0
#endif

#define ANNOTATE_SANITIZER                                                     \
    (ANNOTATE_ASAN || ANNOTATE_TSAN || ANNOTATE_MSAN || ANNOTATE_LSAN)

#if defined(GREENLET_VALGRIND) && !ANNOTATE_SANITIZER
#define ANNOTATE_VALGRIND 1
#else
#define ANNOTATE_VALGRIND 0
#endif

/* A function during which the running greenlet changes. Else it would have a
 * fake frame of the one that may be gone when it ends, and ThreadSanitizer
 * would note its beginning with the one and its end with the other. */
#if ANNOTATE_TSAN && defined(__clang__)
#define ANNOTATE_BARE __attribute__((disable_sanitizer_instrumentation))
#elif ANNOTATE_ASAN || ANNOTATE_TSAN
#define ANNOTATE_BARE __attribute__((no_sanitize("address", "thread")))
#else
#define ANNOTATE_BARE
#endif

/* What is called from assembly, which leaves no account of its arguments, and
 * what reads stacks where nobody may have written. */
#if ANNOTATE_MSAN
#define ANNOTATE_FROM_ASM __attribute__((no_sanitize("memory")))
#define ANNOTATE_READER __attribute__((no_sanitize("memory")))
#else
#define ANNOTATE_FROM_ASM
#define ANNOTATE_READER
#endif

/* Guards that are seen in the list of mappings: LeakSanitizer reads all else.
 */
#define ANNOTATE_PLAIN_GUARDS ANNOTATE_LSAN

/* ---- State ------------------------------------------------------------ */

/* ANNOTATE_STATE(x); is a member of struct greenlet and of struct
 * greenlet_thread in builds with a sanitizer that needs it. */
#if ANNOTATE_ASAN || ANNOTATE_TSAN

struct annotate_greenlet {
    void *fiber;           /* ThreadSanitizer's; AddressSanitizer's frames   */
    unsigned char *shadow; /* of the saved bytes                             */
    size_t room;           /* bytes of `shadow`                              */
    void *root;            /* `fiber`, if LeakSanitizer knows it             */
    size_t root_bytes;
};

struct annotate_thread {
    bool left; /* a switch is under way; by the main greenlet: main  */
    bool main;
    const void *low; /* the thread's own stack, once it has been left      */
    size_t bytes;
    void *root; /* of its frames, what LeakSanitizer knows             */
    size_t root_bytes;
};

#define ANNOTATE_STATE(x) struct annotate_##x note
#define ANNOTATE_STATE_BYTES sizeof(struct annotate_greenlet)

#else
#define ANNOTATE_STATE(x) _Static_assert(1, "no state")
#define ANNOTATE_STATE_BYTES 0
#endif

/* ---- Hooks ------------------------------------------------------------ */

struct greenlet_thread;

#if ANNOTATE_SANITIZER

#define annotate_leave greenlet_annotate_leave
#define annotate_arrive greenlet_annotate_arrive
#define annotate_home greenlet_annotate_home
#define annotate_entry greenlet_annotate_entry
#define annotate_call greenlet_annotate_call
#define annotate_filled greenlet_annotate_filled
#define annotate_dropped greenlet_annotate_dropped
#define annotate_forget greenlet_annotate_forget

/* Right before the switch from `from` to t->current; no return: `dying`. */
void annotate_leave(struct greenlet_thread *t, greenlet *from, bool dying);

/* On the stack of t->current, after a switch. */
void annotate_arrive(struct greenlet_thread *t);

/* The thread's own stack runs again, and from its beginning, after `left` has
 * ended the thread: t->current is the main greenlet. */
void annotate_home(struct greenlet_thread *t, greenlet *left);

/* Arguments of the function that assembly calls next are initialised. */
void annotate_call(void);

/* Saved bytes are back: [g's sp, + n). */
void annotate_filled(greenlet *g, const char *p, size_t n);

/* The saved bytes [p, p + n) are of no use any more. */
void annotate_dropped(void *p, size_t n);

/* g will never run again, or its header be another's. */
void annotate_forget(greenlet *g);

/* What the stack of a new greenlet is to call. */
greenlet_entry *annotate_entry(greenlet_entry *entry);

#else /* of these Valgrind needs to know nothing */

#define annotate_leave(t, from, dying) ((void)0)
#define annotate_arrive(t) ((void)0)
#define annotate_home(t, left) ((void)0)
#define annotate_entry(entry) (entry)
#define annotate_call() ((void)0)
#define annotate_filled(g, p, n) ((void)0)
#define annotate_dropped(p, n) ((void)0)
#define annotate_forget(g) ((void)0)

#endif

#if ANNOTATE_SANITIZER || ANNOTATE_VALGRIND

#define annotate_adopt greenlet_annotate_adopt
#define annotate_watching greenlet_annotate_watching
#define annotate_looking greenlet_annotate_looking
#define annotate_looked greenlet_annotate_looked
#define annotate_saving greenlet_annotate_saving
#define annotate_saved greenlet_annotate_saved
#define annotate_open greenlet_annotate_open
#define annotate_mapped greenlet_annotate_mapped
#define annotate_unmapped greenlet_annotate_unmapped
#define annotate_stack greenlet_annotate_stack
#define annotate_shared greenlet_annotate_shared
#define annotate_entered greenlet_annotate_entered

/* A thread's first use: its main greenlet runs. True: watch its switches. */
bool annotate_adopt(struct greenlet_thread *t);

/* Valgrind runs this process. */
extern bool annotate_watching;

/* Checks are about to read stacks, also where nobody has written; of that came
 * the bytes [p, p + n), the last of them ending it. They nest. Where nobody
 * would report it (annotate_reads false) they may be left out. */
void annotate_looking(void);
void annotate_looked(void *p, size_t n);
#if ANNOTATE_VALGRIND
#define annotate_reads annotate_watching
#else
#define annotate_reads ANNOTATE_MSAN
#endif

/* Bytes of a suspended stack are about to be saved, whatever is between them:
 * below a signal's frame are some that Valgrind says nobody may read. */
void annotate_saving(void);

/* The bytes [p, p + n) of g's suspended stack have been saved; their place is
 * anybody's. */
void annotate_saved(greenlet *g, const char *p, size_t n);

/* They are about to be put back, or others to be written for the first
 * time. */
void annotate_open(const char *p, size_t n);

/* Memory from the system, as it is got and before it is given back. */
void annotate_mapped(const void *p, size_t n);
void annotate_unmapped(const void *p, size_t n);

/* [low, high), mapped before, is to be run on. */
void annotate_stack(const char *low, const char *high);

/* A stack that was the alternate one has been entered, and stops being it. */
void annotate_entered(void);

/* [p, p + n) is shared by threads through atomic accesses. */
void annotate_shared(const void *p, size_t n);

/* Copies bytes of a stack, whatever the compiler has put between objects. */
#if ANNOTATE_SANITIZER
#define annotate_copy greenlet_annotate_copy
void annotate_copy(void *dst, const void *src, size_t n);
#else
#define annotate_copy memcpy
#endif

/* siglongjmp and swapcontext to where another greenlet goes on: the C
 * library's own, that tell no tool what it knows already. siglongjmp is not
 * called one that does not return, or AddressSanitizer would take all frames
 * of this stack for left. */
#if ANNOTATE_ASAN || ANNOTATE_TSAN
#define annotate_siglongjmp greenlet_annotate_siglongjmp
void annotate_siglongjmp(void *env, int value);
#else
#define annotate_siglongjmp siglongjmp
#endif
/* sigaction for a signal that the thread sends to itself: ThreadSanitizer's
 * would put the handler off, and call it on another stack. */
#if ANNOTATE_TSAN
#define annotate_sigaction greenlet_annotate_sigaction
int annotate_sigaction(int signal, const void *action, void *old);
#else
#define annotate_sigaction sigaction
#endif
#if ANNOTATE_ASAN
#define annotate_swapcontext greenlet_annotate_swapcontext
int annotate_swapcontext(void *from, const void *to);
#else
#define annotate_swapcontext swapcontext
#endif

#else

#define annotate_adopt(t) false
#define annotate_reads false
#define annotate_looking() ((void)0)
#define annotate_looked(p, n) ((void)0)
#define annotate_saving() ((void)0)
#define annotate_saved(g, p, n) ((void)0)
#define annotate_open(p, n) ((void)0)
#define annotate_mapped(p, n) ((void)0)
#define annotate_unmapped(p, n) ((void)0)
#define annotate_stack(low, high) ((void)0)
#define annotate_shared(p, n) ((void)0)
#define annotate_entered() ((void)0)
#define annotate_copy memcpy
#define annotate_siglongjmp siglongjmp
#define annotate_sigaction sigaction
#define annotate_swapcontext swapcontext

#endif

#endif
