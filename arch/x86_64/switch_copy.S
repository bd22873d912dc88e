/* The copying switch on x86-64: see frame.inc for the frame, ../arch.h for
 * what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: rdi value, rsi status, rdx how
 *
 * Until the stack changes all callee-saved registers are the caller's: C
 * keeps them for us, and nothing here touches one.
 *
 *     entry rsp -> +  0   return address
 *               -  8..-56 the frame, if it belongs on this stack
 *               - 64      status
 *               - 72      value                            <- rsp */
FUNC arch_switch_copy
        .cfi_startproc
        endbr64
        subq    $72, %rsp
        .cfi_adjust_cfa_offset 72
        movq    %rdi, 0(%rsp)
        movq    %rsi, 8(%rsp)
        movq    %rdx, %rdi
        leaq    16(%rsp), %rsi
        call    arch_copy_prepare
        testq   %rax, %rax
        jz      .Lfailed

        movq    ARCH_COPY_FRAME(%rax), %rcx
        leaq    arch_resume(%rip), %r8
        movq    72(%rsp), %rdx
        movq    %r8, FRAME_RESUME(%rcx)
        movq    %r15, FRAME_R15(%rcx)
        movq    %r14, FRAME_R14(%rcx)
        movq    %r13, FRAME_R13(%rcx)
        movq    %r12, FRAME_R12(%rcx)
        movq    %rbx, FRAME_RBX(%rcx)
        movq    %rbp, FRAME_RBP(%rcx)
        movq    %rdx, FRAME_RETURN(%rcx)
        /* Nothing of the old stack is needed any more, and soon it is not
         * whole: nothing to unwind to. What is in the frame now is free for
         * us: rbx copy, r12 value, r13 status. */
        .cfi_remember_state
        .cfi_undefined rip
        movq    %rax, %rbx
        movq    0(%rsp), %r12
        movq    8(%rsp), %r13
/* ------------------------------------------------ the stack changes here */
        movq    ARCH_COPY_RUN_SP(%rax), %rsp
        movq    %rax, %rdi
        call    arch_copy_fill
        movq    ARCH_COPY_FRAME(%rbx), %rcx
        movq    %r12, %r8
        movq    %r13, %rdx
        /* rax the image, rcx its frame or 0, r8 value, rdx status */
        testq   %rcx, %rcx
        jz      .Lother
        movq    FRAME_R15(%rcx), %r15
        movq    FRAME_R14(%rcx), %r14
        movq    FRAME_R13(%rcx), %r13
        movq    FRAME_R12(%rcx), %r12
        movq    FRAME_RBX(%rcx), %rbx
        movq    FRAME_RBP(%rcx), %rbp
        movq    FRAME_RETURN(%rcx), %rcx
/* ------------------------------------------------ the stack changes here */
        leaq    ARCH_FRAME_BYTES(%rax), %rsp
        .cfi_def_cfa_offset 0
        .cfi_register rip, rcx
        movq    %r8, %rax
        notrack jmp *%rcx
        .cfi_def_cfa_offset 80
        .cfi_undefined rip

        /* Not our frame, or on the stack: its resume address knows it. */
.Lother:
/* ------------------------------------------------ the stack changes here */
        movq    %rax, %rsp
        movq    %r8, %rax
        jmp     *(%rsp)

.Lfailed:
        .cfi_restore_state
        movq    $-12, %rdx              /* {NULL, -ENOMEM}, and rax is 0 */
        addq    $72, %rsp
        .cfi_adjust_cfa_offset -72
        ret
        .cfi_endproc
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", @progbits
