/* 64-bit Power, ELFv2: what C must know of switch.S.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_ARCH_CPU_H
#define GREENLET_ARCH_CPU_H

#if !defined(_CALL_ELF) || _CALL_ELF != 2
#error "arch/ppc64 is for the ELFv2 ABI: use the ucontext backend with ELFv1"
#endif

#define ARCH_FRAME_BYTES 512 /* arch_resume's frame    */
#define ARCH_PRIMED_BYTES 48 /* arch_prime's           */
#define ARCH_AFTER_BYTES 32  /* arch_push_after's      */
#define ARCH_STACK_ALIGN 16

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
 *     base - 16   0
 *     base - 24   entry           taken by arch_start; then its TOC pointer
 *     base - 32   0               the entry's place to save LR
 *     base - 40   0               the entry's place to save CR
 *     base - 48   arch_start      then 0: ends walks of the back chain
 *
 * Returns the sp of that image. Writes only there. */
static inline void *arch_prime(void *base, greenlet_entry *entry) {
    uintptr_t *sp = (uintptr_t *)base - 6;
    sp[0] = (uintptr_t)arch_start;
    sp[1] = 0;
    sp[2] = 0;
    sp[3] = (uintptr_t)entry;
    sp[4] = 0;
    sp[5] = 0;
    return sp;
}

/* Puts an image below the suspended one at `sp` that sends the message
 * through core_after() first:
 *
 *     sp -  8   what arch_after's back chain will be
 *     sp - 16   core_after's place to save LR
 *     sp - 24   core_after's place to save CR
 *     sp - 32   arch_after      then the back chain
 *
 * Returns its sp. */
static inline void *arch_push_after(void *sp) {
    uintptr_t *image = (uintptr_t *)sp - 4;
    uintptr_t above = *(uintptr_t *)sp == (uintptr_t)arch_resume
                          ? (uintptr_t)sp + ARCH_FRAME_BYTES
                          : 0;
    image[0] = (uintptr_t)arch_after;
    image[3] = above;
    return image;
}

#endif
#endif
