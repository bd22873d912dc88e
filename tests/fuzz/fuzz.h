/* The parts of the fuzzer.
 *
 * A program is a sequence of operations of four bytes each (program.c). It is
 * run on the model (model.c), which keeps the contract in the plainest way,
 * and on the library with each lane count; what happens is a trace of events,
 * and all traces must be equal.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Traces ------------------------------------------------------------- */

struct event {
    const char *what; /* a name, as the same string in every run */
    int32_t who, other;
    int64_t value;
};

enum { TRACE_EVENTS = 65536, OP_BYTES = 4, PROGRAM_BYTES = 1024 * OP_BYTES };

struct trace {
    size_t n; /* also of those beyond TRACE_EVENTS */
    uint64_t hash;
    struct event events[TRACE_EVENTS];
};

/* ---- Running ------------------------------------------------------------ */

struct setting {
    int lanes; /* -1: the backend has none */
};

/* Runs a program in threads of its own. Its trace replaces what is in `out`.
 */
void run_program_on_model(const uint8_t *program, size_t n,
                          const struct setting *s, struct trace *out);
void run_program_on_library(const uint8_t *program, size_t n,
                            const struct setting *s, struct trace *out);

/* The model forgets all its greenlets. Returns how many were leaked because
 * they refused to die, or because a suspended one held the reference. */
unsigned model_reset(void);

/* The program is about to look at what there is. Should the contract leave
 * open how that is just now, model_left_open() is true from then on: the
 * rest of the trace says nothing. */
void model_look(void);
bool model_left_open(void);

#endif
