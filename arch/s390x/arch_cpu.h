/* 64-bit IBM Z: what C must know of switch.S.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_ARCH_CPU_H
#define GREENLET_ARCH_CPU_H

#define ARCH_FRAME_BYTES 80   /* arch_resume's frame    */
#define ARCH_PRIMED_BYTES 192 /* arch_prime's           */
#define ARCH_AFTER_BYTES 16   /* arch_push_after's      */
#define ARCH_STACK_ALIGN 8

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
 *     base -   8   canary: a word of the backend's, 0 here
 *     base -  16   0
 *     base -  32   what the entry returns: two words, unset
 *     base - 176   the entry's register save area, but for two words; unset
 *     base - 184   entry           taken by arch_start
 *     base - 192   arch_start      then 0: ends walks of the back chain
 *
 * Returns the sp of that image. Writes only there. */
static inline void *arch_prime(void *base, greenlet_entry *entry) {
    uintptr_t *sp = (uintptr_t *)base - 24;
    sp[0] = (uintptr_t)arch_start;
    sp[1] = (uintptr_t)entry;
    sp[22] = 0;
    sp[23] = 0;
    return sp;
}

/* Puts an image below the suspended one at `sp` that sends the message
 * through core_after() first:
 *
 *     sp -   8   what arch_after's back chain will be
 *     sp -  16   arch_after
 *
 * Returns its sp. */
static inline void *arch_push_after(void *sp) {
    uintptr_t *image = (uintptr_t *)sp - 2;
    uintptr_t above = *(uintptr_t *)sp == (uintptr_t)arch_resume
                          ? (uintptr_t)sp + ARCH_FRAME_BYTES
                          : 0;
    image[0] = (uintptr_t)arch_after;
    image[1] = above;
    return image;
}

#endif
#endif
