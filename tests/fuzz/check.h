/* Comparing what the model and the library do with a program.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_CHECK_H
#define FUZZ_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Runs it on the model, and in each setting on the library. True if all
 * traces are equal and nothing was left over; else `out`, unless NULL, tells
 * the first difference. */
bool check_program(const uint8_t *program, size_t n, FILE *out);

/* The same; prints the operations and the model's trace first. */
bool check_print(const uint8_t *program, size_t n, FILE *out);

/* Of the last program, on the model. */
uint64_t check_hash(void);
uint64_t check_events(void);
bool check_was_left_open(void); /* fuzz.h: model_left_open */

unsigned check_settings(void); /* how many */
const char *check_backend(void);

#endif
