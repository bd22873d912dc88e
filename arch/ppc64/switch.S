/* Switching on 64-bit Power, ELFv2: the frame, its ABI source and the
 * register table are in frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .abiversion 2
        .text

/* in: r3 value, r4 status, r5 where our sp goes, r6 the image to resume */
FUNC arch_switch
        .cfi_startproc
        TOC_FROM_R12 arch_switch
        .localentry arch_switch, . - arch_switch
        SAVE_LR_AND_CR
        stdu    %r1, -ARCH_FRAME_BYTES(%r1)
        .cfi_def_cfa_offset ARCH_FRAME_BYTES
        mr      %r11, %r1
        SAVE_FRAME %r11
        std     %r1, 0(%r5)
        addis   %r5, %r2, arch_resume@toc@ha
        addi    %r5, %r5, arch_resume@toc@l
        ld      %r12, FRAME_RESUME(%r6)
        addi    %r0, %r6, ARCH_FRAME_BYTES
        cmpd    %r12, %r5
        bne     .Lother
        std     %r0, CALLER_CHAIN(%r6)
        /* r3 value, r4 status, r5 arch_resume, r6 its frame and now that of
         * a running function, r11 our image */
/* ------------------------------------------------ the stack changes here */
        mr      %r1, %r6
        .cfi_remember_state
        FRAME_CFI
        std     %r5, FRAME_RESUME(%r11)
        LOAD_FRAME
        RETURN
        .cfi_restore_state
        /* Not our frame: only the code at its resume address knows it.
         * r3 value, r4 status, r5 arch_resume, r6 the image, r11 our image,
         * r12 the resume address */
.Lother:
        .cfi_undefined lr
        mtctr   %r12
/* ------------------------------------------------ the stack changes here */
        mr      %r1, %r6
        std     %r5, FRAME_RESUME(%r11)
        bctr
        .cfi_endproc
END_FUNC arch_switch

/* Resumes a frame: also from other files' jumps. The nop is for unwinders that
 * look up pc - 1 when arch_after has made them come here.
 * in: r3 value, r4 status, r1 the frame */
        .p2align 5
        .cfi_startproc
        FRAME_CFI
        nop
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, @function
arch_resume:
        addi    %r0, %r1, ARCH_FRAME_BYTES
        std     %r0, CALLER_CHAIN(%r1)
        LOAD_FRAME
        RETURN
        .cfi_endproc
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: r3 value, r4 status (0), r12 arch_start, r1 the image of arch_prime
 *
 *     r1 + 40   canary
 *     r1 + 32   0
 *     r1 + 24   entry, then r2
 *     r1 +  0   arch_start, then the end of the back chain
 *
 * Unwinders stop here: the return address is undefined, and the nop in front
 * gives those that look up pc - 1 something of ours to find. */
        .p2align 5
        .cfi_startproc
        .cfi_undefined lr
        .cfi_def_cfa r1, ARCH_PRIMED_BYTES
        nop
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, @function
arch_start:
        TOC_FROM_R12 arch_start
        ld      %r12, CALLER_TOC(%r1)
        li      %r0, 0
        std     %r0, CALLER_CHAIN(%r1)
        std     %r2, CALLER_TOC(%r1)
        mtctr   %r12
        /* r3 value, r12 entry: by pointer, so r2 is its own from there on */
        bctrl
        ld      %r2, CALLER_TOC(%r1)
        /* r3, r4: what the entry returned */
        bl      core_finish
        nop
        trap
        .cfi_endproc
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: r3 value, r4 status, r12 arch_after, r1 the image of arch_push_after
 *
 *     r1 + 32   the image above: its resume address
 *     r1 + 24   the back chain from here
 *     r1 +  0   arch_after, then the back chain
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. */
FUNC arch_after
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa r1, ARCH_AFTER_BYTES
        .cfi_offset lr, 0
        TOC_FROM_R12 arch_after
        ld      %r0, CALLER_TOC(%r1)
        std     %r0, CALLER_CHAIN(%r1)
        bl      core_after
        nop
        ld      %r12, ARCH_AFTER_BYTES(%r1)
        addi    %r1, %r1, ARCH_AFTER_BYTES
        .cfi_def_cfa_offset 0
        mtctr   %r12
        /* r3 value, r4 status, r12 the resume address, r1 the image above */
        bctr
        .cfi_endproc
END_FUNC arch_after
RESUME_POINT arch_after

        .section .note.GNU-stack, "", @progbits
