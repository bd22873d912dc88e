/* The copying switch on i386: see frame.inc for the frame, ../arch.h for what
 * is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in, on the stack:
 *
 *     esp + 16   how
 *     esp + 12   status
 *     esp +  8   value
 *     esp +  4   result
 *     esp +  0   return address
 *
 * Until the stack changes all callee-saved registers are the caller's: C
 * keeps them for us, and nothing here touches one before its place in the
 * frame has been written.
 *
 *     entry esp -> +  0   return address
 *               -  4..-28 the frame, if it belongs on this stack
 *               - 44..-40 arguments of arch_copy_prepare         <- esp */
FUNC arch_switch_copy
        .cfi_startproc
        LANDING_PAD
        subl    $44, %esp
        .cfi_adjust_cfa_offset 44
        movl    44 + 16(%esp), %eax
        leal    44 - FRAME_RETURN(%esp), %ecx
        movl    %eax, 0(%esp)
        movl    %ecx, 4(%esp)
        call    arch_copy_prepare
        testl   %eax, %eax
        jz      .Lfailed

        movl    ARCH_COPY_FRAME(%eax), %ecx
        RESUME_ADDRESS edx
        movl    %edx, FRAME_RESUME(%ecx)
        movl    44(%esp), %edx
        movl    %edi, FRAME_EDI(%ecx)
        movl    %esi, FRAME_ESI(%ecx)
        movl    %ebx, FRAME_EBX(%ecx)
        movl    %ebp, FRAME_EBP(%ecx)
        movl    %edx, FRAME_RETURN(%ecx)
        /* eax copy; C will keep esi value, edi status; nothing of the old
         * stack is needed any more, and soon it is not whole: nothing to
         * unwind to. */
        .cfi_remember_state
        .cfi_undefined eip
        movl    44 + 8(%esp), %esi
        movl    44 + 12(%esp), %edi
/* ------------------------------------------------ the stack changes here */
        movl    ARCH_COPY_RUN_SP(%eax), %esp
        subl    $16, %esp
        movl    %eax, 0(%esp)
        call    arch_copy_fill
/* ------------------------------------------------ the stack changes here */
        movl    %eax, %esp
        movl    %esi, %eax
        movl    %edi, %edx
        /* eax value, edx status, esp the image */
        jmp     *(%esp)

.Lfailed:
        .cfi_restore_state
        movl    44 + 4(%esp), %eax
        movl    $0, 0(%eax)             /* {NULL, -ENOMEM} */
        movl    $-12, 4(%eax)
        addl    $44, %esp
        .cfi_adjust_cfa_offset -44
        ret     $4
        .cfi_endproc
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", @progbits
