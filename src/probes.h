/* Probe points for tools that attach to a running process: USDT, if built
 * with meson's -Dusdt=enabled. A probe is then a nop whose operands a note
 * describes; else it is nothing.
 *
 *     greenlet:switch (from, to)       each transfer of control, before it
 *     greenlet:start  (g, name)        its first one
 *     greenlet:death  (g, name)        its entry has returned
 *     greenlet:evict  (g, bytes)       they are copied out to the heap
 *     greenlet:fill   (g, bytes)       and back
 *
 * from, to, g: greenlet *. name: const char *, "(no name)" if it has none.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_PROBES_H
#define GREENLET_PROBES_H

#ifdef GREENLET_USDT
#include <sys/sdt.h>
#define PROBE_SWITCH(from, to) DTRACE_PROBE2(greenlet, switch, from, to)
#define PROBE_START(g)                                                         \
    do {                                                                       \
        if (core_state(g) == GREENLET_NEW)                                     \
            DTRACE_PROBE2(greenlet, start, g, core_label(g));                  \
    } while (0)
#define PROBE_DEATH(g) DTRACE_PROBE2(greenlet, death, g, core_label(g))
#define PROBE_EVICT(g, bytes) DTRACE_PROBE2(greenlet, evict, g, bytes)
#define PROBE_FILL(g, bytes) DTRACE_PROBE2(greenlet, fill, g, bytes)
#else
#define PROBE_SWITCH(from, to) ((void)0)
#define PROBE_START(g) ((void)0)
#define PROBE_DEATH(g) ((void)0)
#define PROBE_EVICT(g, bytes) ((void)0)
#define PROBE_FILL(g, bytes) ((void)0)
#endif

#endif
