/* What memory the process has, as the kernel counts it, and how much more of
 * it a piece of work takes.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bench_memory {
    double resident_bytes;   /* in RAM: /proc/self/smaps_rollup            */
    double page_table_bytes; /* the kernel's tables of it: VmPTE           */
    double maps;             /* mappings, of which a process has 65,530    */
} bench_memory;

/* What a piece of work took: all its fields are 0 unless `ok`. */
typedef struct bench_taken {
    bool ok;
    char why_not[160];
    bench_memory taken;
} bench_taken;

/* Measures what workload->memory(count) takes: in a process of its own, this
 * program started anew, which has not done anything else before but
 * workload->memory(8), for what is made once. That function returns NULL or why
 * it failed (static storage), and leaves in place what is to be counted. */
bench_taken bench_measure_memory(const char *workload, size_t count);

/* What that process does: shim.cc calls it. Returns its exit status. */
int bench_memory_main(const bench_workload *workload, const char *count);
#define BENCH_MEMORY_OPTION "--measure-memory"

/* Reports it, divided by `count`: "rss/NOUN", "page_tables/NOUN",
 * "maps/NOUN". */
void bench_count_memory(bench_state *state, const bench_taken *taken,
                        size_t count, const char *noun);

/* Whether there is memory for `count` times `bytes`: better to say so than to
 * have the kernel choose whom to kill. */
bool bench_affordable(size_t count, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
