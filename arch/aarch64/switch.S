/* Switching on AArch64: the frame, its ABI source and the register table are
 * in frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: x0 value, x1 status, x2 where our sp goes, x3 the image to resume
 *
 * All stores come before the first load of the other frame, and sp changes
 * after the last: until then unwinders find us in our stored frame. */
FUNC arch_switch
        .cfi_startproc
        ENTER
        sub     sp, sp, #ARCH_FRAME_BYTES
        .cfi_adjust_cfa_offset ARCH_FRAME_BYTES
        stp     x29, x30, [sp, #FRAME_X29]
        STORE_REGISTERS sp
        FRAME_CFI
        adr     x16, arch_resume
        ldr     x17, [x3]
        str     x16, [sp, #FRAME_RESUME]
        mov     x9, sp
        str     x9, [x2]
        cmp     x16, x17
        b.ne    .Lother
        ldp     x29, x30, [x3, #FRAME_X29]
        LOAD_REGISTERS x3
        .cfi_remember_state
/* ------------------------------------------------ the stack changes here */
        add     sp, x3, #ARCH_FRAME_BYTES
        CALLER_CFI
        LEAVE
        .cfi_restore_state
        /* Not our frame: only the code at its resume address knows it.
         * live: x0 value, x1 status, x3 the image, x17 its resume address */
.Lother:
        .cfi_undefined x30
        mov     x16, x17
/* ------------------------------------------------ the stack changes here */
        mov     sp, x3
        br      x16
        .cfi_endproc
END_FUNC arch_switch

/* Resumes a frame: also from other files' jumps. The nop is for unwinders that
 * look up pc - 1 when arch_after has made them come here.
 * in: x0 value, x1 status, sp the frame */
        .p2align 5
        .cfi_startproc
        RA_IS_SIGNED
        FRAME_CFI
        nop
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, %function
arch_resume:
        BTI_J
        ldp     x29, x30, [sp, #FRAME_X29]
        LOAD_REGISTERS sp
        add     sp, sp, #ARCH_FRAME_BYTES
        CALLER_CFI
        LEAVE
        .cfi_endproc
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: x0 value, x1 status (0), sp the image of arch_prime
 *
 *     sp + 40   canary
 *     sp + 32   0
 *     sp + 16   0, 0: a frame record
 *     sp +  8   entry
 *     sp +  0   arch_start
 *
 * Unwinders stop here: the return address is undefined, x29 leads to a zero
 * record, and the nop in front gives those that look up pc - 1 something of
 * ours to find. */
        .p2align 5
        .cfi_startproc
        .cfi_undefined x30
        .cfi_undefined x29
        .cfi_def_cfa sp, ARCH_PRIMED_BYTES
        nop
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, %function
arch_start:
        BTI_J
        ldr     x16, [sp, #8]
        add     sp, sp, #16
        .cfi_adjust_cfa_offset -16
        mov     x29, sp
        /* live: x0 value, x16 entry, sp and x29 at the zero record */
        blr     x16
        /* x0, x1: what the entry returned, and what core_finish takes */
        bl      core_finish
        brk     #0
        .cfi_endproc
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: x0 value, x1 status, sp the image of arch_push_after
 *
 *     sp + 32   the image above: its frame record
 *     sp + 16   the image above: its resume address
 *     sp +  8   unused
 *     sp +  0   arch_after
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. Those that follow x29
 * find its frame record, which is at the same place in every image. */
FUNC arch_after
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa sp, ARCH_AFTER_BYTES
        .cfi_offset x30, 0
        BTI_J
        add     sp, sp, #ARCH_AFTER_BYTES
        .cfi_adjust_cfa_offset -ARCH_AFTER_BYTES
        add     x29, sp, #FRAME_X29
        bl      core_after
        /* live: x0 value, x1 status, sp the image above */
        ldr     x16, [sp]
        br      x16
        .cfi_endproc
END_FUNC arch_after
RESUME_POINT arch_after

        NOTES
