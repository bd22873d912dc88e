/* x86-64, System V psABI: what C must know of switch.S.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_ARCH_CPU_H
#define GREENLET_ARCH_CPU_H

#define ARCH_FRAME_BYTES 64  /* arch_resume's frame, return address included */
#define ARCH_PRIMED_BYTES 32 /* arch_prime's                                */
#define ARCH_AFTER_BYTES 16  /* arch_push_after's                           */
#define ARCH_STACK_ALIGN 16
#define ARCH_FRAME_ANYWHERE 1 /* struct arch_copy                            */
#define ARCH_MOVE 1           /* move.c                                      */
#define ARCH_LEAVE 1          /* arch_leave                                  */

/* Offsets into struct arch_copy, asserted in arch_check.c. */
#define ARCH_COPY_FRAME 0
#define ARCH_COPY_RUN_SP 8

#ifndef __ASSEMBLER__
#include <stdint.h>

#include "greenlet.h"
#include "names.h"

extern const char arch_resume[], arch_start[], arch_after[];

/* A fresh stack, growing down from `base` (ARCH_STACK_ALIGN-aligned):
 *
 *     base -  8   canary: a word of the backend's, 0 here
 *     base - 16   0: ends walks that follow return addresses
 *     base - 24   entry           taken by arch_start, then its call's
 *     base - 32   arch_start      return address is pushed to base - 24
 *
 * Returns the sp of that image. Writes only there. */
static inline void *arch_prime(void *base, greenlet_entry *entry) {
    uintptr_t *sp = (uintptr_t *)base - 4;
    sp[0] = (uintptr_t)arch_start;
    sp[1] = (uintptr_t)entry;
    sp[2] = 0;
    sp[3] = 0;
    return sp;
}

/* Puts an image below the suspended one at `sp` that sends the message
 * through core_after() first. Returns its sp. */
static inline void *arch_push_after(void *sp) {
    uintptr_t *image = (uintptr_t *)sp - 2;
    image[0] = (uintptr_t)arch_after;
    return image;
}

#endif
#endif
