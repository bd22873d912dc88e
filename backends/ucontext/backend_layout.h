/* Where a debugger finds the stacks of the ucontext backend. swapcontext()
 * leaves the callee-saved registers in the context; which those are is told
 * for the CPUs that are known, by their DWARF numbers (the psABIs').
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_UCONTEXT_LAYOUT_H
#define GREENLET_UCONTEXT_LAYOUT_H

#include <ucontext.h>

#include "core.h"
#include "layout.h"

#define BACKEND_LAYOUT_STACK                                                   \
    {                                                                          \
        .sp = LAYOUT_NONE, .context = offsetof(greenlet, b.context),           \
        .base = offsetof(greenlet, b.stack.high), .slice = LAYOUT_NONE,        \
        .saved = LAYOUT_NONE,                                                  \
    }

#define AT(number, member)                                                     \
    { number, (uint16_t)offsetof(ucontext_t, uc_mcontext.member) }

#if defined(__x86_64__)
#define BACKEND_LAYOUT_REGISTERS                                               \
    {                                                                          \
        AT(LAYOUT_PC, gregs[REG_RIP]), AT(LAYOUT_SP, gregs[REG_RSP]),          \
            AT(3, gregs[REG_RBX]), AT(6, gregs[REG_RBP]),                      \
            AT(12, gregs[REG_R12]), AT(13, gregs[REG_R13]),                    \
            AT(14, gregs[REG_R14]), AT(15, gregs[REG_R15]), {                  \
            LAYOUT_END, 0                                                      \
        }                                                                      \
    }
#elif defined(__i386__)
#define BACKEND_LAYOUT_REGISTERS                                               \
    {                                                                          \
        AT(LAYOUT_PC, gregs[REG_EIP]), AT(LAYOUT_SP, gregs[REG_ESP]),          \
            AT(3, gregs[REG_EBX]), AT(5, gregs[REG_EBP]),                      \
            AT(6, gregs[REG_ESI]), AT(7, gregs[REG_EDI]), {                    \
            LAYOUT_END, 0                                                      \
        }                                                                      \
    }
#elif defined(__aarch64__)
/* glibc with BTI goes on in swapcontext() itself, which then returns to what
 * it has put into x1; elsewhere pc is in our function, and x30 of no use. */
#define BACKEND_LAYOUT_REGISTERS                                               \
    {                                                                          \
        AT(LAYOUT_PC, pc), AT(LAYOUT_SP, sp), AT(19, regs[19]),                \
            AT(20, regs[20]), AT(21, regs[21]), AT(22, regs[22]),              \
            AT(23, regs[23]), AT(24, regs[24]), AT(25, regs[25]),              \
            AT(26, regs[26]), AT(27, regs[27]), AT(28, regs[28]),              \
            AT(29, regs[29]), AT(30, regs[1]), {                               \
            LAYOUT_END, 0                                                      \
        }                                                                      \
    }
#else /* unknown: lists, but no backtraces */
#define BACKEND_LAYOUT_REGISTERS LAYOUT_NO_REGISTERS
#endif

#endif
