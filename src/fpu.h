/* The floating-point control words (rounding, traps) that GREENLET_FPU keeps
 * per greenlet: by fenv(3)'s means where the library has no assembly, which
 * is why this is the core's and not arch/'s.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_FPU_H
#define GREENLET_FPU_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))

static inline void fpu_get(uint32_t words[2]) {
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1"
                     : "=m"(words[0]), "=m"(words[1]));
}

static inline void fpu_set(const uint32_t words[2]) {
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1"
                     :
                     : "m"(words[0]), "m"(words[1]));
}

#elif defined(__aarch64__)

/* FPCR: rounding, flushing to zero, default NaN, trap enables. Its upper half
 * is reserved. */
static inline void fpu_get(uint32_t words[2]) {
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    words[0] = (uint32_t)fpcr;
    words[1] = 0;
}

static inline void fpu_set(const uint32_t words[2]) {
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)words[0]));
}

#elif defined(__riscv_flen)

/* frm, the rounding mode: all there is besides the sticky flags. */
static inline void fpu_get(uint32_t words[2]) {
    unsigned long frm;
    __asm__ volatile("frrm %0" : "=r"(frm));
    words[0] = (uint32_t)frm;
    words[1] = 0;
}

static inline void fpu_set(const uint32_t words[2]) {
    __asm__ volatile("fsrm %0" : : "r"((unsigned long)words[0]));
}

#else
#include <fenv.h>

/* Only the rounding direction is portable; a port that has more to keep adds
 * its case above. */
static inline void fpu_get(uint32_t words[2]) {
    words[0] = (uint32_t)fegetround();
    words[1] = 0;
}

static inline void fpu_set(const uint32_t words[2]) {
    fesetround((int)words[0]);
}

#endif
#endif
