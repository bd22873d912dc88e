/* Recording what greenlets do: see trace.h.
 *
 * SPDX-License-Identifier: MIT */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(struct trace_header) == 136, "greenlet_trace.py");
_Static_assert(sizeof(struct trace_head) == 32, "greenlet_trace.py");
_Static_assert(sizeof(struct trace_name) == 64, "greenlet_trace.py");
_Static_assert(sizeof(struct trace_event) == 24, "greenlet_trace.py");
_Static_assert(sizeof(((struct greenlet_side *)0)->name) <=
                   sizeof(((struct trace_name *)0)->name),
               "names fit");

/* The process's file; under core_threads_lock. */
static struct {
    enum { UNASKED, RECORDING, OFF } state;
    int fd;
    struct trace_header *header;
    char path[PATH_MAX]; /* as the environment has it */
} file;

static uint64_t now(clockid_t clock) {
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void give_up(const char *what, const char *path, int error) {
    fprintf(stderr, "greenlet: GREENLET_TRACE: %s %s: %s\n", what, path,
            strerror(error));
    file.state = OFF;
}

/* ---- The file --------------------------------------------------------- */

/* FILE[,EVENTS]: cuts the text at the comma. */
static uint32_t read_events(char *text) {
    char *comma = strrchr(text, ',');
    if (!comma || !comma[1] ||
        strspn(comma + 1, "0123456789") != strlen(comma + 1))
        return TRACE_EVENTS;
    unsigned long long n = strtoull(comma + 1, NULL, 10);
    uint32_t events = 64;
    *comma = 0;
    while (events < n && events < TRACE_EVENTS_MOST)
        events *= 2;
    return events;
}

/* %p is the process's number. */
static bool expand(char *out, size_t room, const char *path) {
    const char *mark = strstr(path, "%p");
    int n = mark ? snprintf(out, room, "%.*s%d%s", (int)(mark - path), path,
                            (int)getpid(), mark + 2)
                 : snprintf(out, room, "%s", path);
    return n >= 0 && (size_t)n < room;
}

static void open_file(void) {
    char path[PATH_MAX + 16], setting[PATH_MAX];
    struct trace_header *h;
    const size_t names = TRACE_NAMES * sizeof(struct trace_name);

    memcpy(setting, file.path, sizeof(setting));
    uint32_t events = read_events(setting);
    if (!expand(path, sizeof(path), setting)) {
        give_up("too long:", path, ENAMETOOLONG);
        return;
    }
    /* Not truncated: another process may be writing to it. */
    for (int tries = 0; tries < 100; tries++) {
        if (unlink(path) != 0 && errno != ENOENT) {
            give_up("cannot replace", path, errno);
            return;
        }
        file.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file.fd >= 0 || errno != EEXIST)
            break; /* else another process was faster */
    }
    if (file.fd < 0) {
        give_up("cannot make", path, errno);
        return;
    }
    int error = posix_fallocate(file.fd, 0, TRACE_PAGE);
    h = error ? MAP_FAILED
              : mmap(NULL, TRACE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                     file.fd, 0);
    if (h == MAP_FAILED) {
        give_up("cannot write", path, error ? error : errno);
        close(file.fd);
        return;
    }
    h->order = 0x01020304;
    h->version = TRACE_VERSION;
    h->names = TRACE_NAMES;
    h->events = events;
    h->stride = (TRACE_PAGE + names + events * sizeof(struct trace_event) +
                 TRACE_PAGE - 1) &
                ~(uint64_t)(TRACE_PAGE - 1);
    h->monotonic_ns = now(CLOCK_MONOTONIC);
    h->unix_ns = now(CLOCK_REALTIME);
    h->pid = (uint32_t)getpid();
    snprintf(h->program, sizeof(h->program), "%s",
             program_invocation_short_name);
    memcpy(h->magic, "greenlet trace", 15);
    file.header = h;
    file.state = RECORDING;
}

/* Once in a process. */
static void ask(void) {
    const char *text = secure_getenv("GREENLET_TRACE");
    file.state = OFF;
    if (!text || !*text)
        return;
    if (strlen(text) >= sizeof(file.path)) {
        give_up("too long:", text, ENAMETOOLONG);
        return;
    }
    strcpy(file.path, text);
    open_file();
}

/* ---- A thread --------------------------------------------------------- */

static void add_ring(struct greenlet_thread *t) {
    struct trace_header *h = file.header;
    if (h->threads == TRACE_THREADS_MOST) {
        h->lost++;
        return;
    }
    off_t at = (off_t)(TRACE_PAGE + h->threads * h->stride);
    size_t bytes = (size_t)h->stride;
    struct core_trace *trace = memory_alloc(sizeof(*trace));
    /* All of it now: a write to a page that the disk has no room for would
     * be a SIGBUS. */
    int error = trace ? posix_fallocate(file.fd, at, (off_t)bytes) : ENOMEM;
    char *p = error ? MAP_FAILED
                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                           file.fd, at);
    if (p == MAP_FAILED) {
        if (h->lost++ == 0)
            fprintf(stderr,
                    "greenlet: GREENLET_TRACE: no room for a thread: %s\n",
                    strerror(error ? error : errno));
        memory_free(trace);
        return;
    }
    trace->head = (struct trace_head *)(void *)p;
    trace->names = (struct trace_name *)(void *)(p + TRACE_PAGE);
    trace->events = (struct trace_event *)(void *)(trace->names + TRACE_NAMES);
    trace->mask = h->events - 1;
    trace->bytes = bytes;
    trace->head->tid = (uint32_t)t->tid;
    memcpy(trace->head->magic, "thread", 7);
    h->threads++;
    t->trace = trace;
    core_slow_on(t, SLOW_TRACE);
}

void trace_adopt(struct greenlet_thread *t) {
    int saved = errno;
    pthread_mutex_lock(&core_threads_lock);
    if (file.state == UNASKED)
        ask();
    if (file.state == RECORDING)
        add_ring(t);
    pthread_mutex_unlock(&core_threads_lock);
    errno = saved;
}

static void end(struct greenlet_thread *t) {
    munmap(t->trace->head, t->trace->bytes);
    memory_free(t->trace);
    t->trace = NULL;
}

void trace_exit(struct greenlet_thread *t) {
    if (!t->trace)
        return;
    t->trace->head->exited = 1;
    end(t);
}

void trace_forked(void) {
    if (file.state != RECORDING)
        return;
    for (struct greenlet_thread *t = core_threads; t; t = t->next)
        if (t->trace)
            end(t);
    munmap(file.header, TRACE_PAGE);
    close(file.fd);
    file.state = OFF;
    struct greenlet_thread *t = core_self;
    if (t != &core_nobody)
        core_slow_off(t, SLOW_TRACE);
    if (!strstr(file.path, "%p"))
        return;
    open_file();
    if (file.state == RECORDING && t != &core_nobody)
        add_ring(t);
}

/* ---- Recording -------------------------------------------------------- */

/* The entry is there before the count says so. Volatile and a fence, not an
 * atomic: some CPUs have none of 64 bits, and a thread only reads its own. */
static void raise_count(volatile uint64_t *count) {
    atomic_thread_fence(memory_order_release);
    *count = *count + 1;
}

static struct trace_event *next(const struct core_trace *trace) {
    return &trace->events[trace->head->events & trace->mask];
}

void trace_switch(struct greenlet_thread *t, const greenlet *from,
                  const greenlet *to) {
    if (t->fresh)
        trace_name(t, to);
    struct trace_event *e = next(t->trace);
    *e = (struct trace_event){
        .ns = now(CLOCK_MONOTONIC),
        .from = from->serial,
        .to = to->serial,
        .kind = TRACE_SWITCH,
        .flags =
            (uint8_t)((t->fresh ? TRACE_STARTS : 0) |
                      (t->event == GREENLET_EVENT_THROW ? TRACE_THROWS : 0) |
                      (t->died ? TRACE_DIES : 0)),
    };
    raise_count(&t->trace->head->events);
}

void trace_copy(struct greenlet_thread *t, const greenlet *g, uint8_t kind,
                size_t bytes) {
    if (!t->trace)
        return;
    struct trace_event *e = next(t->trace);
    *e = (struct trace_event){
        .ns = now(CLOCK_MONOTONIC),
        .from = g->serial,
        .to = g->serial,
        .bytes = bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX,
        .kind = kind,
    };
    raise_count(&t->trace->head->events);
}

void trace_name(struct greenlet_thread *t, const greenlet *g) {
    struct core_trace *trace = t->trace;
    if (!trace || !g->side || !*g->side->name)
        return;
    struct trace_name *entry = &trace->names[trace->head->names % TRACE_NAMES];
    entry->greenlet = g->serial;
    memcpy(entry->name, g->side->name, sizeof(g->side->name));
    raise_count(&trace->head->names);
}
