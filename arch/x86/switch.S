/* Switching on i386: the frame, its ABI source and the register table are in
 * frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in, on the stack:
 *
 *     esp + 20   the image to resume
 *     esp + 16   where our sp goes
 *     esp + 12   status
 *     esp +  8   value
 *     esp +  4   result
 *     esp +  0   return address */
FUNC arch_switch
        .cfi_startproc
        LANDING_PAD
        PUSH_CFI ebp
        PUSH_CFI ebx
        PUSH_CFI esi
        PUSH_CFI edi
        RESUME_ADDRESS ebx
        subl    $8, %esp
        .cfi_adjust_cfa_offset 8
        pushl   %ebx
        .cfi_adjust_cfa_offset 4
        movl    FRAME_RETURN + 8(%esp), %eax
        movl    FRAME_RETURN + 12(%esp), %edx
        movl    FRAME_RETURN + 16(%esp), %esi
        movl    FRAME_RETURN + 20(%esp), %ecx
        movl    %esp, (%esi)
        /* eax value, edx status, ecx the image, ebx arch_resume */
        cmpl    (%ecx), %ebx
        jne     .Lother
/* ------------------------------------------------ the stack changes here */
        leal    FRAME_EDI(%ecx), %esp
        .cfi_adjust_cfa_offset -FRAME_EDI
        .cfi_remember_state
        LOAD_FRAME_AND_RETURN
        .cfi_restore_state
        .cfi_adjust_cfa_offset FRAME_EDI
        /* Not our frame: only the code at its resume address knows it. */
.Lother:
        .cfi_undefined eip
/* ------------------------------------------------ the stack changes here */
        movl    %ecx, %esp
        jmp     *(%esp)
        .cfi_endproc
END_FUNC arch_switch

/* Resumes a frame: also from other files' jumps. The nop is for unwinders that
 * look up pc - 1 when arch_after has made them come here.
 * in: eax value, edx status, esp the frame */
        .p2align 5
        .cfi_startproc
        FRAME_CFI
        nop
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, @function
arch_resume:
        LANDING_PAD
        addl    $FRAME_EDI, %esp
        .cfi_adjust_cfa_offset -FRAME_EDI
        LOAD_FRAME_AND_RETURN
        .cfi_endproc
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: eax value, edx status (0), esp the image of arch_prime
 *
 *     esp + 28   canary
 *     esp + 16   0, 0, 0
 *     esp + 12   status, and
 *     esp +  8   value: of what the entry returns
 *     esp +  4   entry        then the entry's argument: the value
 *     esp +  0   arch_start   then where the entry's result goes: esp + 8
 *
 * Unwinders stop here: the return address is undefined, and the nop in front
 * gives those that look up pc - 1 something of ours to find. */
        .p2align 5
        .cfi_startproc
        .cfi_undefined eip
        .cfi_undefined ebp
        .cfi_def_cfa esp, 32
        nop
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, @function
arch_start:
        LANDING_PAD
        movl    4(%esp), %ecx
        movl    %eax, 4(%esp)
        leal    8(%esp), %eax
        movl    %eax, 0(%esp)
        xorl    %ebp, %ebp
        /* ecx entry, its arguments at esp */
        call    *%ecx
        .cfi_adjust_cfa_offset -4       /* its ret $4 */
        movl    4(%esp), %eax
        movl    8(%esp), %edx
        subl    $4, %esp
        .cfi_adjust_cfa_offset 4
        /* eax, edx: what the entry returned */
        movl    %eax, 0(%esp)
        movl    %edx, 4(%esp)
        call    core_finish
        ud2
        .cfi_endproc
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: eax value, edx status, esp the image of arch_push_after
 *
 *     esp + 32   the image above: its resume address
 *     esp + 20   status, and
 *     esp + 16   value: of what core_after returns
 *     esp +  8   status       its arguments from here down
 *     esp +  4   value
 *     esp +  0   arch_after   then where the result goes: esp + 16
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. */
FUNC arch_after
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa esp, 32
        .cfi_offset eip, 0
        LANDING_PAD
        movl    %eax, 4(%esp)
        movl    %edx, 8(%esp)
        leal    16(%esp), %eax
        movl    %eax, 0(%esp)
        call    core_after
        .cfi_adjust_cfa_offset -4       /* its ret $4 */
        movl    16 - 4(%esp), %eax
        movl    20 - 4(%esp), %edx
        addl    $32 - 4, %esp
        .cfi_adjust_cfa_offset -28
        jmp     *(%esp)
        .cfi_endproc
END_FUNC arch_after
RESUME_POINT arch_after

        .section .note.GNU-stack, "", @progbits
