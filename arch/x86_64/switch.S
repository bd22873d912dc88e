/* Switching on x86-64: the frame, its ABI source and the register table are
 * in frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   _Noreturn void arch_leave(greenlet_message m, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * Leaving by an indirect jump and not by ret: the return predictor holds the
 * other greenlet's calls and would be wrong every time.
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: rdi value, rsi status, rdx where our sp goes, rcx the image to resume */
FUNC arch_switch
        .cfi_startproc
        endbr64
        SAVE_FRAME
        leaq    arch_resume(%rip), %r8
        pushq   %r8
        .cfi_adjust_cfa_offset 8
        movq    %rdi, %rax
        movq    %rsp, (%rdx)
        movq    %rsi, %rdx
        /* rax value, rdx status, rcx the image, r8 arch_resume */
        cmpq    (%rcx), %r8
        jne     .Lother
/* ------------------------------------------------ the stack changes here */
        leaq    8(%rcx), %rsp
        .cfi_adjust_cfa_offset -8
        .cfi_remember_state
        LOAD_FRAME_AND_RETURN
        .cfi_restore_state
        .cfi_adjust_cfa_offset 8
        /* Not our frame: only the code at its resume address knows it. */
.Lother:
        .cfi_undefined rip
/* ------------------------------------------------ the stack changes here */
        movq    %rcx, %rsp
        jmp     *(%rsp)
        .cfi_endproc
END_FUNC arch_switch

/* in: rdi value, rsi status, rdx the image to resume */
FUNC arch_leave
        .cfi_startproc
        endbr64
        leaq    arch_resume(%rip), %r8
        movq    %rdi, %rax
        movq    %rdx, %rcx
        movq    %rsi, %rdx
        /* rax value, rdx status, rcx the image, r8 arch_resume */
        cmpq    (%rcx), %r8
        jne     .Lleave_other
/* ------------------------------------------------ the stack changes here */
        leaq    8(%rcx), %rsp
        .cfi_remember_state
        FRAME_CFI
        .cfi_adjust_cfa_offset -8
        LOAD_FRAME_AND_RETURN
        .cfi_restore_state
.Lleave_other:
        .cfi_undefined rip
/* ------------------------------------------------ the stack changes here */
        movq    %rcx, %rsp
        jmp     *(%rsp)
        .cfi_endproc
END_FUNC arch_leave

/* Resumes a frame: also from other files' jumps. The nop is for unwinders that
 * look up pc - 1 when arch_after has made them come here.
 * in: rax value, rdx status, rsp the frame */
        .p2align 5
        .cfi_startproc
        FRAME_CFI
        nop
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, @function
arch_resume:
        endbr64
        leaq    8(%rsp), %rsp
        .cfi_adjust_cfa_offset -8
        LOAD_FRAME_AND_RETURN
        .cfi_endproc
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: rax value, rdx status (0), rsp the image of arch_prime
 *
 *     rsp + 24   canary
 *     rsp + 16   0
 *     rsp +  8   entry
 *     rsp +  0   arch_start
 *
 * Unwinders stop here: the return address is undefined, and the nop in front
 * gives those that look up pc - 1 something of ours to find. */
        .p2align 5
        .cfi_startproc
        .cfi_undefined rip
        .cfi_undefined rbp
        .cfi_def_cfa rsp, 32
        nop
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, @function
arch_start:
        endbr64
        movq    8(%rsp), %rcx
        leaq    16(%rsp), %rsp
        .cfi_adjust_cfa_offset -16
        movq    %rax, %rdi
        xorl    %ebp, %ebp
        /* rdi value, rcx entry, rsp at the 0 */
        call    *%rcx
        /* rax, rdx: what the entry returned */
        movq    %rax, %rdi
        movq    %rdx, %rsi
        call    core_finish
        ud2
        .cfi_endproc
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: rax value, rdx status, rsp the image of arch_push_after
 *
 *     rsp + 16   the image above: its resume address
 *     rsp +  0   arch_after
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. */
FUNC arch_after
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa rsp, 16
        .cfi_offset rip, 0
        endbr64
        leaq    16(%rsp), %rsp
        .cfi_adjust_cfa_offset -16
        movq    %rax, %rdi
        movq    %rdx, %rsi
        call    core_after
        jmp     *(%rsp)
        .cfi_endproc
END_FUNC arch_after
RESUME_POINT arch_after

        .section .note.GNU-stack, "", @progbits
