/* Memory that fails on demand. The suite is linked with -Wl,--wrap for each
 * function of faults.c, which catches the calls of the tests and of the
 * library, but not those that the C library makes to itself.
 *
 * Arming is per thread; counting of what is live is for the process.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_FAULTS_H
#define GREENLET_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

/* Not told to a sanitizer: clang links its runtime to the program, and it
 * comes through the wrapped functions before it is ready to be told. */
#ifdef __clang__
#define FAULTS_BARE __attribute__((disable_sanitizer_instrumentation))
#else
#define FAULTS_BARE
#endif

enum faults_kind {
    FAULTS_ONCE,   /* only the n-th request from now fails */
    FAULTS_FOREVER /* it and all that follow               */
};

/* The calling thread's n-th request from now fails, n >= 1. */
void faults_arm(unsigned long n, enum faults_kind kind);

/* No request fails any more. Returns how many did. */
unsigned long faults_disarm(void);

/* Requests of the calling thread since it was last armed. */
unsigned long faults_requests(void);

/* The n-th request from now fails, once, whichever thread makes it: of the
 * heap only the library's own are counted, of the rest everybody's (mappings,
 * guards, advice, alternate signal stacks, keys of threads and their values).
 * They are counted into `requests`, which may be shared memory. */
void faults_arm_library(unsigned long n, _Atomic unsigned long *requests);

/* What is live: heap blocks; mapped bytes. */
long faults_blocks(void);
long faults_mapped(void);

#endif
