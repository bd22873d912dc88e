/* What can be read from a ucontext_t, where the CPU's fields are known.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_CONTEXT_H
#define GREENLET_CONTEXT_H

#include <stdint.h>
#include <ucontext.h>

#include "annotate.h"

/* The stack pointer. Elsewhere the context's own address, which is a little
 * above it if it was made by getcontext(). */
static ANNOTATE_READER inline uintptr_t context_sp(const ucontext_t *c) {
#if defined(__x86_64__)
    return (uintptr_t)c->uc_mcontext.gregs[REG_RSP];
#elif defined(__i386__)
    return (uintptr_t)c->uc_mcontext.gregs[REG_ESP];
#elif defined(__aarch64__)
    return (uintptr_t)c->uc_mcontext.sp;
#elif defined(__arm__)
    return (uintptr_t)c->uc_mcontext.arm_sp;
#elif defined(__riscv)
    return (uintptr_t)c->uc_mcontext.__gregs[REG_SP];
#elif defined(__powerpc64__)
    return (uintptr_t)c->uc_mcontext.gp_regs[1];
#elif defined(__s390x__)
    return (uintptr_t)c->uc_mcontext.gregs[15];
#elif defined(__loongarch__)
    return (uintptr_t)c->uc_mcontext.__gregs[3];
#else
    return (uintptr_t)c;
#endif
}

/* The program counter; 0: not known. */
static ANNOTATE_READER inline uintptr_t context_ip(const ucontext_t *c) {
#if defined(__x86_64__)
    return (uintptr_t)c->uc_mcontext.gregs[REG_RIP];
#elif defined(__i386__)
    return (uintptr_t)c->uc_mcontext.gregs[REG_EIP];
#elif defined(__aarch64__)
    return (uintptr_t)c->uc_mcontext.pc;
#elif defined(__arm__)
    return (uintptr_t)c->uc_mcontext.arm_pc;
#elif defined(__riscv)
    return (uintptr_t)c->uc_mcontext.__gregs[REG_PC];
#elif defined(__s390x__)
    return (uintptr_t)c->uc_mcontext.psw.addr;
#else
    (void)c;
    return 0;
#endif
}

/* How much si_addr tells after a fault: an address, or so many bytes from
 * there on. (z/Architecture Principles of Operation, 6, translation-exception
 * identification: the page.) */
#if defined(__s390x__)
enum { CONTEXT_FAULT_BYTES = 4096 };
#else
enum { CONTEXT_FAULT_BYTES = 1 };
#endif

/* After a fault: 1 it wrote, 0 it read, -1 not known. */
static inline int context_wrote(const ucontext_t *c) {
#if defined(__x86_64__) || defined(__i386__)
    return (c->uc_mcontext.gregs[REG_ERR] & 2) != 0; /* page-fault error, W */
#else
    (void)c;
    return -1;
#endif
}

#endif
