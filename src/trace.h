/* The recorder behind GREENLET_TRACE=FILE[,EVENTS]: what a thread's greenlets
 * do, into a ring of that thread in a file that all rings share. The file is
 * mapped, so that it can be read after any end of the process.
 *
 *     file:  header   one page
 *            ring     of the first thread, header.stride bytes
 *            ring     of the second ...
 *     ring:  head     one page
 *            names    TRACE_NAMES of them, the newest replacing the oldest
 *            events   header.events of them, likewise
 *
 * A counter in the head says how many have ever been written; it is raised
 * after the entry is there. While one is being written the oldest one is not
 * whole: readers leave it out. Numbers are in the machine's byte order. The
 * reader is tools/lib/greenlet_trace.py.
 *
 * Recording needs the slow path of switches (SLOW_TRACE); when it is off
 * nothing of it is on the fast one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_TRACE_H
#define GREENLET_TRACE_H

#include "core.h"

enum {
    TRACE_VERSION = 1,
    TRACE_PAGE = 4096,
    TRACE_NAMES = 4096,
    TRACE_THREADS_MOST = 1024, /* later ones are counted, not recorded */
    TRACE_EVENTS = 1 << 16,    /* of each thread, if not told otherwise */
    TRACE_EVENTS_MOST = 1 << 26
};

struct trace_header {
    char magic[16]; /* "greenlet trace" */
    uint32_t order; /* 0x01020304 */
    uint32_t version, names, events;
    uint64_t stride;
    uint64_t monotonic_ns, unix_ns; /* of the same moment */
    uint32_t pid;
    uint32_t threads, lost; /* recorded; not recorded */
    uint32_t reserved;
    char program[64];
};

struct trace_head {
    char magic[8]; /* "thread" */
    uint32_t tid;
    uint32_t exited;
    volatile uint64_t names, events; /* written so far */
};

/* A greenlet is known by its thread and its number in the order of starts;
 * main is 0. */
struct trace_name {
    uint32_t greenlet, reserved;
    char name[56];
};

enum { TRACE_SWITCH = 1, TRACE_EVICT, TRACE_FILL };

/* Of a TRACE_SWITCH. */
enum { TRACE_STARTS = 1, TRACE_THROWS = 2, TRACE_DIES = 4 };

struct trace_event {
    uint64_t ns;       /* CLOCK_MONOTONIC                              */
    uint32_t from, to; /* of a switch; else the greenlet, twice        */
    uint32_t bytes;    /* copied                                       */
    uint8_t kind;
    uint8_t flags;
    uint16_t reserved;
};

/* A thread's, while it records. */
struct core_trace {
    struct trace_head *head;
    struct trace_name *names;
    struct trace_event *events;
    uint64_t mask; /* events - 1 */
    size_t bytes;
};

/* Adopts the calling thread's `t` if the environment asks for a trace. What
 * cannot be had is said once on standard error, and not recorded. */
void trace_adopt(struct greenlet_thread *t);
void trace_exit(struct greenlet_thread *t);

/* In a fork's child, under core_threads_lock: it has nothing to do with its
 * parent's file; it records to one of its own if FILE has %p. */
void trace_forked(void);

/* A switch that is to happen now, as prepare() has noted it in `t`. */
void trace_switch(struct greenlet_thread *t, const greenlet *from,
                  const greenlet *to);

/* TRACE_EVICT or TRACE_FILL. On little stack. */
void trace_copy(struct greenlet_thread *t, const greenlet *g, uint8_t kind,
                size_t bytes);

/* A started greenlet of this thread has got a name. */
void trace_name(struct greenlet_thread *t, const greenlet *g);

/* For backends. `after`: the switch goes through core_after(), as all that
 * are recorded do. */
#define TRACE_EVICTED(t, after, g, bytes)                                      \
    do {                                                                       \
        PROBE_EVICT(g, bytes);                                                 \
        if (unlikely(after))                                                   \
            trace_copy(t, g, TRACE_EVICT, bytes);                              \
    } while (0)
#define TRACE_FILLED(t, after, g, bytes)                                       \
    do {                                                                       \
        PROBE_FILL(g, bytes);                                                  \
        if (unlikely(after))                                                   \
            trace_copy(t, g, TRACE_FILL, bytes);                               \
    } while (0)

#endif
