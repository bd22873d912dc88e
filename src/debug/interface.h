/* Between libgreenlet and libgreenlet-debug, which is loaded by dlopen() and
 * knows nothing of greenlets: it unwinds images that it is handed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_DEBUG_INTERFACE_H
#define GREENLET_DEBUG_INTERFACE_H

#include <stdbool.h>

#include "greenlet_debug.h"

enum { DEBUG_VERSION = 1, DEBUG_RANGES = 3 };

/* Addresses [low, high) as the unwound code sees them; their bytes are at
 * `bytes`, readable for as long as the walk takes. */
struct debug_range {
    uintptr_t low, high;
    const char *bytes;
};

/* A walk: what it starts from, what it calls, what it has found. */
struct debug_walk {
    uintptr_t ip, sp, fp; /* of the innermost frame; fp 0: unknown   */
    const void *context;  /* or all registers: a ucontext_t; NULL    */
    bool after_call;      /* ip is a return address                  */
    struct debug_range ranges[DEBUG_RANGES]; /* the stack                   */
    uintptr_t base; /* no frame ends above it                  */
    const intptr_t *first_resume_point,
        *last_resume_point;        /* addresses that
                                    * need no call before them, from here   */
    const void *trampoline;        /* in the function where walks must end;
                                    * NULL: anywhere                         */
    uintptr_t end_low, end_high;   /* its sp: in [end_low, end_high]          */
    bool names;                    /* resolve function names                  */
    bool fresh;                    /* look for newly loaded libraries first;
                                    * not in a signal handler                 */
    greenlet_frame_visitor *visit; /* NULL: none                            */
    void *data;
    int skip_from, skip_to; /* frames [from, to) are not visited: names take
                             * longer than all else                        */

    int frames;
    bool complete; /* the end was reached                                   */
    bool cut;      /* no unwind information, or too many frames: no verdict */
    bool stopped;  /* by the visitor                                        */
    int kind;      /* of the first thing wrong; 0: none                     */
    int at;        /* the frame of it                                       */
    uintptr_t address, expected, found;
    const char *what;
};

enum debug_fork { DEBUG_FORK_PREPARE, DEBUG_FORK_PARENT, DEBUG_FORK_CHILD };

struct debug_library {
    unsigned version;
    /* Fills the results of `w`. Reads nothing but ranges and loaded files. */
    void (*walk)(struct debug_walk *w);
    /* The name of the function at `ip`, in `text`; NULL: not known. */
    const char *(*name)(uintptr_t ip, char *text, size_t n, size_t *offset);
    /* From the process's fork handlers. */
    void (*forking)(enum debug_fork phase);
};

/* The one symbol that libgreenlet-debug exports. NULL: other version. */
const struct debug_library *greenlet_debug_library(unsigned version);

#endif
