/* Google Benchmark, seen from C.
 *
 * A workload is one file of bench/workloads/, named in bench/meson.build, that
 * ends in one BENCH_WORKLOAD(...). Each of its cases becomes a benchmark named
 * `contestant/workload[/case]`, where the contestant is who this executable
 * measures: a backend, `copy-lanesN` when GREENLET_LANES=N is in the
 * environment, or a peer. The time that is reported is per iteration, and an
 * iteration is one unit of what the workload counts, most often one switch:
 *
 *     while (bench_keep_running(state, 2 * rounds))
 *         for (int i = 0; i < rounds; i++)
 *             greenlet_switch(g, NULL);   // there and back: two
 *
 * Only the time between the first and the last bench_keep_running() counts.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_SHIM_H
#define BENCH_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bench_state bench_state;

/* One parameter of a workload. A name of NULL stands for the number itself. */
typedef struct bench_case {
    const char *name;
    int64_t number;
} bench_case;

typedef struct bench_workload {
    const char *name;
    const char *unit; /* what one iteration is: "switch", "greenlet", ...   */
    void (*run)(bench_state *state, int64_t number);
    const bench_case *cases; /* NULL: one case without a name, number 0     */
    size_t case_count;
    bool bare; /* does not use the library: the contestant is `floor`       */
    /* NULL, or work whose memory is measured; see memory.h                  */
    const char *(*memory)(size_t count);
} bench_workload;

/* Who is measured. Each executable defines bench_subject_of_this once. */
typedef struct bench_subject {
    const char *(*name)(void);
    const char *version_of; /* what the version is called in the JSON */
    const char *(*version)(void);
} bench_subject;

extern const bench_subject bench_subject_of_this;

/* Adds a workload to those of this executable: static storage. */
void bench_register(const bench_workload *workload);

#define BENCH_COUNT(array) (sizeof(array) / sizeof *(array))

/* Registers the workload whose fields follow, before main(). */
#define BENCH_WORKLOAD(...)                                                    \
    __attribute__((constructor)) static void bench_register_this(void) {       \
        static const bench_workload workload = {__VA_ARGS__};                  \
        bench_register(&workload);                                             \
    }                                                                          \
    _Static_assert(true, "a semicolon follows")

/* True as long as another batch of `iterations` (> 0) shall be measured. */
bool bench_keep_running(bench_state *state, int64_t iterations);

/* Stops and goes on with the clock; each costs some 100 ns. */
void bench_pause(bench_state *state);
void bench_resume(bench_state *state);

/* Adds a figure to the result, or a figure that is divided by the number of
 * iterations. `name` is a few characters: "bytes/switch". */
void bench_counter(bench_state *state, const char *name, double value);
void bench_counter_per_iteration(bench_state *state, const char *name,
                                 double value);

/* A remark beside the result. */
void bench_label(bench_state *state, const char *text);

/* Gives the case up: `why` takes the place of the result. The caller returns
 * at once, and bench_keep_running() is false from here on. bench_skip is for
 * what went wrong, and makes the exit status 3; bench_lacks for what the
 * contestant does not have. */
void bench_skip(bench_state *state, const char *why);
void bench_lacks(bench_state *state, const char *what);

/* The process keeps to one CPU. bench_unpin lets the calling thread, and those
 * that it will start, use all that the process was given; bench_pin has the
 * calling thread keep to the one again. */
void bench_unpin(void);
void bench_pin(void);

/* The compiler must assume that `p` and what it points at are used. */
static inline void bench_use(const void *p) {
    __asm__ volatile("" : : "r"(p) : "memory");
}

#ifdef __cplusplus
}
#endif
#endif
