/* Many that wait.
 *
 * parked/N  made, started and left waiting: the time is per greenlet, with
 *           its first switch and the one back. Counters, per greenlet: what the
 *           process grew by (everything: headers, slices, stacks, slabs), the
 *           page tables, and the time that the first touch of as much memory
 *           took in the same run. How large pages are decides much of it, so
 *           the label says whether they are transparently huge.
 * scale/N   while N others wait: made, started, finished and freed. Nothing of
 *           it may depend on N.
 *
 * Only where the environment has GREENLET_BENCH_LIMITS=1 (tools/bench --only
 * limits), or =full for ten million: each wants a process of its own.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct {
    greenlet *main, **all;
    size_t count;
} p;

static greenlet_message wait(void *value) {
    greenlet_message m = greenlet_switch(p.main, value);
    return m;
}

static greenlet_message nothing(void *value) {
    return (greenlet_message){value, 0};
}

/* A number of a file of /proc, behind `key`; 0 if it has none. */
static double field(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    double result = 0;
    char line[256];
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0) {
            result = strtod(line + strlen(key), NULL);
            break;
        }
    fclose(file);
    return result;
}

static double resident_bytes(void) {
    return field("/proc/self/smaps_rollup", "Rss:") * 1024;
}

static double page_table_bytes(void) {
    return field("/proc/self/status", "VmPTE:") * 1024;
}

static double mappings(void) {
    FILE *file = fopen("/proc/self/maps", "r");
    double lines = 0;
    if (!file)
        return 0;
    for (int c; (c = getc(file)) != EOF;)
        lines += c == '\n';
    fclose(file);
    return lines;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now); /* as the harness */
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds that the first touch of so much memory takes; 0: there is none. */
static double first_touch(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return 0;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    double start = seconds();
    for (size_t at = 0; at < bytes; at += page)
        ((volatile char *)memory)[at] = 1;
    double taken = seconds() - start;
    munmap(memory, bytes);
    return taken;
}

static void huge_pages(char *text, size_t room) {
    char mode[64] = "unknown", *chosen = mode, *end;
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file) {
        if (fgets(mode, sizeof mode, file) && (chosen = strchr(mode, '[')) &&
            (end = strchr(++chosen, ']')))
            *end = '\0';
        fclose(file);
    }
    snprintf(text, room, "transparent huge pages: %s", chosen ? chosen : mode);
}

static intptr_t park(size_t count) {
    for (; p.count < count; p.count++) {
        greenlet *g = p.all[p.count] = greenlet_new(wait, NULL);
        if (!g)
            return -errno;
        greenlet_message m = greenlet_switch(g, NULL);
        if (m.status) {
            p.count++;
            return m.status;
        }
    }
    return 0;
}

static bool begin(bench_state *state, size_t count) {
    p.main = greenlet_current();
    p.count = 0;
    p.all = malloc(count * sizeof *p.all);
    if (!p.all) {
        bench_skip(state, "no memory");
        return false;
    }
    memset(p.all, 0, count * sizeof *p.all);
    (void)mappings(), (void)resident_bytes(); /* stdio's buffers */
    return true;
}

static void end(void) {
    for (size_t i = 0; i < p.count; i++)
        greenlet_unref(p.all[i]);
    free(p.all);
}

static void run_park(bench_state *state, int64_t number) {
    size_t count = (size_t)number;
    if (!begin(state, count))
        return;
    double each = 1 / (double)count;
    double bytes = resident_bytes(), tables = page_table_bytes();
    intptr_t status = 0;
    /* One batch: what is parked stays. */
    while (status == 0 && p.count == 0 && bench_keep_running(state, number))
        status = park(count);
    if (status == 0 && p.count == count)
        while (bench_keep_running(state, number)) { /* ends the timing */
        }
    bytes = resident_bytes() - bytes;
    tables = page_table_bytes() - tables;
    char text[400];
    if (status) {
        snprintf(text, sizeof text, "the %zuth: %s", p.count,
                 greenlet_strerror(status));
        bench_skip(state, text);
    } else {
        huge_pages(text, sizeof text);
        bench_label(state, text);
        bench_counter(state, "rss/greenlet", bytes * each);
        bench_counter(state, "page_tables/greenlet", tables * each);
        bench_counter(state, "maps", mappings());
        bench_counter(state, "first_touch_ns",
                      first_touch((size_t)bytes) * each * 1e9);
    }
    end();
}

enum { ROUNDS = 1000 };

static void run_scale(bench_state *state, int64_t number) {
    if (!begin(state, (size_t)number))
        return;
    intptr_t status = park((size_t)number);
    while (status == 0 && bench_keep_running(state, ROUNDS))
        for (int i = 0; i < ROUNDS && status == 0; i++) {
            greenlet *g = greenlet_new(nothing, NULL);
            status = g ? greenlet_switch(g, NULL).status : -errno;
            greenlet_unref(g);
        }
    if (status)
        bench_skip_status(state, "scale", status);
    end();
}

static const bench_case parked[] = {
    {NULL, 100000}, {NULL, 1000000}, {NULL, 10000000}};
static const bench_case scales[] = {
    {NULL, 1000}, {NULL, 100000}, {NULL, 1000000}, {NULL, 10000000}};

__attribute__((constructor)) static void register_both(void) {
    const char *limits = getenv("GREENLET_BENCH_LIMITS");
    if (!limits)
        return;
    static bench_workload park_workload = {
        .name = "parked", .unit = "greenlet", .run = run_park, .cases = parked};
    static bench_workload scale_workload = {
        .name = "scale", .unit = "greenlet", .run = run_scale, .cases = scales};
    size_t but = strcmp(limits, "full") != 0; /* the last one */
    park_workload.case_count = BENCH_COUNT(parked) - but;
    scale_workload.case_count = BENCH_COUNT(scales) - but;
    bench_register(&park_workload);
    bench_register(&scale_workload);
}
