/* The copying switch on x86-64: see frame.inc for the frame, ../arch.h for
 * what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, unsigned how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: rdi value, rsi status, edx how
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
        movl    %edx, %edi
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
        movq    0(%rsp), %r8
        movq    8(%rsp), %r9
        /* rax copy, r8 value, r9 status; nothing of the old stack is needed
         * any more, and soon it is not whole: nothing to unwind to. */
        .cfi_undefined rip
/* ------------------------------------------------ the stack changes here */
        movq    ARCH_COPY_RUN_SP(%rax), %rsp
        pushq   %r8
        pushq   %r9
        movq    %rax, %rdi
        call    arch_copy_fill
        popq    %rdx
        movq    (%rsp), %rcx
        leaq    arch_resume(%rip), %r8
        /* rax the image, rcx value, rdx status, r8 arch_resume */
        cmpq    (%rax), %r8
        jne     .Lother
        .cfi_remember_state
/* ------------------------------------------------ the stack changes here */
        leaq    8(%rax), %rsp
        FRAME_CFI
        .cfi_adjust_cfa_offset -8
        movq    %rcx, %rax
        LOAD_FRAME_AND_RETURN
        .cfi_restore_state
        /* Not our frame: only the code at its resume address knows it. */
.Lother:
/* ------------------------------------------------ the stack changes here */
        movq    %rax, %rsp
        movq    %rcx, %rax
        jmp     *(%rsp)

.Lfailed:
        .cfi_offset rip, -8
        movq    $-12, %rdx              /* {NULL, -ENOMEM}, and rax is 0 */
        addq    $72, %rsp
        .cfi_adjust_cfa_offset -72
        ret
        .cfi_endproc
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", @progbits
