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
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(words[0]), "m"(words[1]));
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

#elif defined(__powerpc64__) && defined(_CALL_ELF) && _CALL_ELF == 2

/* FPSCR: traps, non-IEEE mode and rounding in the last byte; the rounding of
 * decimals in the last digit of the high word. Its flags stay as they are. */
static inline void fpu_get(uint32_t words[2]) {
    double fpscr;
    uint64_t bits;
    __asm__ volatile("mffs %0" : "=d"(fpscr));
    memcpy(&bits, &fpscr, sizeof(bits));
    words[0] = (uint32_t)bits & 0xff;
    words[1] = (uint32_t)(bits >> 32) & 7;
}

static inline void fpu_set(const uint32_t words[2]) {
    uint64_t bits = (uint64_t)words[1] << 32 | words[0];
    double fpscr;
    memcpy(&fpscr, &bits, sizeof(bits));
    /* Fields 6 and 7; field 7 of the high word. */
    __asm__ volatile("mtfsf 0x03,%0,0,0\n\tmtfsf 0x01,%0,0,1" : : "d"(fpscr));
}

#elif defined(__s390x__)

/* FPC: traps and rounding modes, and its flags. */
static inline void fpu_get(uint32_t words[2]) {
    __asm__ volatile("efpc %0" : "=d"(words[0]));
    words[1] = 0;
}

static inline void fpu_set(const uint32_t words[2]) {
    __asm__ volatile("sfpc %0" : : "d"(words[0]));
}

#elif defined(__i386__)

/* Compiled for CPUs without SSE; the program's other parts may use it. */
static inline void fpu_get(uint32_t words[2]) {
    words[0] = 0;
    if (__builtin_cpu_supports("sse"))
        __asm__ volatile("stmxcsr %0" : "=m"(words[0]));
    __asm__ volatile("fnstcw %0" : "=m"(words[1]));
}

static inline void fpu_set(const uint32_t words[2]) {
    if (__builtin_cpu_supports("sse"))
        __asm__ volatile("ldmxcsr %0" : : "m"(words[0]));
    __asm__ volatile("fldcw %0" : : "m"(words[1]));
}

#elif defined(__arm__) && !defined(__SOFTFP__)

static inline void fpu_get(uint32_t words[2]) {
    __asm__ volatile("vmrs %0, fpscr" : "=r"(words[0]));
    words[1] = 0;
}

static inline void fpu_set(const uint32_t words[2]) {
    __asm__ volatile("vmsr fpscr, %0" : : "r"(words[0]));
}

#elif defined(__arm__) && (!defined(__thumb__) || defined(__thumb2__))
#include <sys/auxv.h>

/* Compiled for CPUs without VFP; the program's other parts may use it. The
 * assembler does not know it then: fpscr is c1 of coprocessor 10. */
static inline int fpu_there(void) {
    return (getauxval(AT_HWCAP) & 1 << 6) != 0; /* HWCAP_VFP */
}

static inline void fpu_get(uint32_t words[2]) {
    words[0] = words[1] = 0;
    if (fpu_there())
        __asm__ volatile("mrc p10, 7, %0, cr1, cr0, 0" : "=r"(words[0]));
}

static inline void fpu_set(const uint32_t words[2]) {
    if (fpu_there())
        __asm__ volatile("mcr p10, 7, %0, cr1, cr0, 0" : : "r"(words[0]));
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
