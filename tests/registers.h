/* What a CPU's register file (registers_CPU.S) supplies to registers.c; the
 * fallback for unknown CPUs is in registers.c.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_REGISTERS_H
#define GREENLET_REGISTERS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Plants seed + 1, seed + 2, ... in the callee-saved registers, calls
 * call(argument), compares them all. Returns a mask of those that differ:
 * bit i - 1 for the one that held seed + i. */
uintptr_t registers_hold(void (*call)(void *), void *argument, uintptr_t seed);

/* The floating-point control words, callee-saved bits only, as one number;
 * sets them to what registers_fpu_get has returned before. */
uint64_t registers_fpu_get(void);

#ifdef __cplusplus
}
#endif

#endif
