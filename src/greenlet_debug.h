/* libgreenlet's companion for debugging: backtraces of suspended greenlets,
 * dumps, and checks that find corrupt stacks and say where.
 *
 * The functions are in libgreenlet itself. Those that unwind load
 * libgreenlet-debug, which uses libunwind, when they are first needed, in such
 * a way that no symbol of the process is bound to it; where it is missing they
 * answer -ENOSYS. It is looked for at GREENLET_DEBUG_LIBRARY (environment),
 * beside libgreenlet, where it was installed, and where dlopen() looks.
 *
 * Marks as in greenlet.h. docs/debugging.md is the guide.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_DEBUG_H
#define GREENLET_DEBUG_H

#include <greenlet.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Loads libgreenlet-debug now, so that later calls, those in signal handlers
 * among them, need not. Returns 0, -ENOSYS (not there, cannot be loaded, or of
 * another version: greenlet_debug_why() tells).
 * [no switch, allocates, statuses] */
GREENLET_API int greenlet_debug_load(void);

/* Why greenlet_debug_load() failed, in one line: static; "" if it did not. */
GREENLET_API const char *greenlet_debug_why(void);

/* ---- Backtraces and dumps --------------------------------------------- */

/* One call frame. */
typedef struct greenlet_frame {
    size_t size;          /* sizeof(greenlet_frame)                        */
    int number;           /* 0: the innermost                              */
    int is_signal;        /* the kernel's frame of a signal handler        */
    const void *ip;       /* where it goes on                              */
    const void *sp;       /* its stack pointer: the frame is [sp, end)     */
    const void *end;      /* the next frame's sp; NULL: not known          */
    const char *function; /* NULL: not known. Borrowed during the visit    */
    size_t offset;        /* of ip, from the function's start              */
    const char *module;   /* the file of the code, NULL: not known         */
    size_t module_offset; /* of ip, from where the module is loaded        */
} greenlet_frame;

/* Called per frame, innermost first, until it returns non-zero. */
typedef int greenlet_frame_visitor(const greenlet_frame *frame, void *data);

/* Walks the frames of `g`, wherever its bytes are: suspended ones of any
 * thread (another thread's may move meanwhile: what can be read is shown), and
 * the calling thread's current one. A new or dead one has none. Corrupt stacks
 * end the walk early.
 * Returns how many frames were visited, -EINVAL, -ENOSYS, -EPERM (current in
 * another thread). [no switch; async-signal-safe once loaded, but for the
 * loading or unloading of libraries meanwhile; needs 16 KiB of stack] */
GREENLET_API int greenlet_debug_walk(greenlet *g, greenlet_frame_visitor *visit,
                                     void *data);

/* From a signal handler: the same for what the signal has interrupted.
 * context  the handler's third argument. */
GREENLET_API int greenlet_debug_walk_context(const void *context,
                                             greenlet_frame_visitor *visit,
                                             void *data);

/* Writes a line per frame to the file descriptor `fd`. As above. */
GREENLET_API int greenlet_debug_backtrace(greenlet *g, int fd);

/* Flags of greenlet_debug_dump. */
#define GREENLET_DUMP_THREAD 0x0u    /* the calling thread's greenlets      */
#define GREENLET_DUMP_PROCESS 0x1u   /* every thread's                      */
#define GREENLET_DUMP_NO_FRAMES 0x2u /* one line each, no backtraces        */

/* Writes to `fd`, for each greenlet: name, state, parent, lane, live bytes
 * and how many of them are in the heap, and its backtrace. What other threads
 * do meanwhile may show half done. Returns how many greenlets, -EINVAL.
 * [no switch, async-signal-safe as greenlet_debug_walk] */
GREENLET_API int greenlet_debug_dump(int fd, unsigned flags);

/* ---- Checks ------------------------------------------------------------ */

/* What a check can find. */
typedef enum greenlet_finding_kind {
    GREENLET_FOUND_HEADER = 1, /* the greenlet's record points nowhere good  */
    GREENLET_FOUND_SP,         /* stack pointer out of its stack, misaligned */
    GREENLET_FOUND_SAVED,      /* more bytes saved than are live             */
    GREENLET_FOUND_RESUME,     /* not a place that a switch goes on at       */
    GREENLET_FOUND_CANARY,     /* the word at the stack's base was changed   */
    GREENLET_FOUND_CHECKSUM,   /* bytes have changed while it was suspended  */
    GREENLET_FOUND_RETURN,     /* a return address that no call has left     */
    GREENLET_FOUND_FRAME,      /* a frame out of order or out of the stack   */
    GREENLET_FOUND_END,        /* the frames do not end where they began     */
    GREENLET_FOUND_ACCESS,     /* strict: somebody used an absent stack      */
    GREENLET_FOUND_OVERFLOW    /* a stack is used up                         */
} greenlet_finding_kind;

/* One finding. */
typedef struct greenlet_finding {
    size_t size; /* sizeof(greenlet_finding)                                */
    greenlet_finding_kind kind;
    int level;            /* of the check; -1: strict mode or the overflow
                           * handler                                       */
    greenlet *g;          /* whose stack; NULL: not known                  */
    greenlet *by;         /* who ran when it was found                     */
    const void *address;  /* of what is wrong, as `g` sees it; of an ACCESS
                           * on s390x, where CPUs tell no more, the page    */
    int frame;            /* number of the frame it is in; -1: not known   */
    const char *function; /* that frame's; NULL: not known. Borrowed       */
    uintptr_t expected;   /* the word that should be there, or a limit     */
    uintptr_t found;
    const char *what; /* a sentence: static                               */
} greenlet_finding;

/* Called with each finding, in the thread that found it, on the stack of the
 * current greenlet or, for ACCESS and OVERFLOW, in a signal handler. It must
 * not switch. When it returns, a checked switch answers -EFAULT and nothing
 * has moved (a death goes on, it has no choice); an ACCESS goes on, and the
 * stack is open to all until its greenlet has run again; an OVERFLOW is fatal.
 */
typedef void greenlet_finding_hook(const greenlet_finding *f, void *data);

/* Sets the process's hook; NULL: the default, which prints the finding with
 * the backtrace and aborts. Any thread. Returns 0. [no switch] */
GREENLET_API int greenlet_set_finding_hook(greenlet_finding_hook *hook,
                                           void *data);

/* Prints a finding as the default hook does, and returns. */
GREENLET_API void greenlet_print_finding(const greenlet_finding *f, int fd);

/* "canary" for GREENLET_FOUND_CANARY and so on: static. */
GREENLET_API const char *greenlet_finding_name(greenlet_finding_kind kind);

/* Checks a suspended greenlet of the calling thread, or all of them, at
 * `level` (0 to 2) now, whatever the thread's check level is; checksums can
 * only be compared where they were taken, at check level 1 or 2. Findings go
 * to the hook. Never crashes on a corrupt stack, slice or record.
 * Return how many findings there were, -EINVAL, -EPERM (another thread's),
 * -ENOSYS (level 2 without libgreenlet-debug).
 * [no switch, allocates (level 2), statuses] */
GREENLET_API int greenlet_check(greenlet *g, int level);
GREENLET_API int greenlet_check_all(int level);

#ifdef __cplusplus
}
#endif
#endif /* GREENLET_DEBUG_H */
