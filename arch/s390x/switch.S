/* Switching on 64-bit IBM Z: the frame, its ABI source and the register table
 * are in frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: r2 where the result goes, r3 address of m, r4 where our sp goes, r5 the
 * image to resume */
FUNC arch_switch
        .cfi_startproc
        PROLOGUE ARCH_FRAME_BYTES
        SAVE_FRAME %r15
        FLOATS_CFI
        larl    %r1, arch_resume
        stg     %r2, FRAME_RESULT(%r15)
        stg     %r15, 0(%r4)
        lmg     %r2, %r3, 0(%r3)
        lgr     %r4, %r15
        clg     %r1, FRAME_RESUME(%r5)
        jne     .Lother
        /* r1 arch_resume, r2 value, r3 status, r4 our image, r5 its frame */
        LOAD_FRAME %r5
        lg      %r0, FRAME_RESULT(%r5)
        .cfi_remember_state
/* ------------------------------------------------ the stack changes here */
        EPILOGUE %r5, ARCH_FRAME_BYTES
        FLOATS_CFI_RESTORE
        stg     %r1, FRAME_RESUME(%r4)
        lgr     %r1, %r0
        stmg    %r2, %r3, 0(%r1)
        lgr     %r2, %r1
        br      %r14
        .cfi_restore_state
        /* Not our frame: only the code at its resume address knows it.
         * r1 arch_resume, r2 value, r3 status, r4 our image, r5 the image */
.Lother:
        .cfi_undefined r14
/* ------------------------------------------------ the stack changes here */
        lgr     %r15, %r5
        stg     %r1, FRAME_RESUME(%r4)
        lg      %r1, FRAME_RESUME(%r15)
        br      %r1
        .cfi_endproc
END_FUNC arch_switch

/* Resumes a frame: also from other files' jumps. The nop is for unwinders that
 * look up pc - 1 when arch_after has made them come here.
 * in: r2 value, r3 status, r15 the frame */
        .p2align 4
        .cfi_startproc
        .cfi_def_cfa r15, ARCH_FRAME_BYTES + CALLER_BYTES
        CALLER_CFI
        FLOATS_CFI
        nopr
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, @function
arch_resume:
        LOAD_FRAME %r15
        lg      %r1, FRAME_RESULT(%r15)
        EPILOGUE %r15, ARCH_FRAME_BYTES
        FLOATS_CFI_RESTORE
        stmg    %r2, %r3, 0(%r1)
        lgr     %r2, %r1
        br      %r14
        .cfi_endproc
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: r2 value, r3 status (0), r15 the image of arch_prime
 *
 *     r15 + 184   canary
 *     r15 + 176   0
 *     r15 + 160   what the entry returns: status above value
 *     r15 +   8   entry; from here up the entry's register save area
 *     r15 +   0   arch_start, then the end of the back chain
 *
 * Unwinders stop here: the return address is undefined, and the nop in front
 * gives those that look up pc - 1 something of ours to find. */
#define START_RESULT CALLER_BYTES
        .p2align 4
        .cfi_startproc
        .cfi_undefined r14
        .cfi_def_cfa r15, ARCH_PRIMED_BYTES
        nopr
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, @function
arch_start:
        lg      %r1, CALLER_WORD(%r15)
        xc      CALLER_CHAIN(8, %r15), CALLER_CHAIN(%r15)
        lgr     %r3, %r2
        la      %r2, START_RESULT(%r15)
        /* r1 entry, r2 where its result goes, r3 value */
        basr    %r14, %r1
        la      %r2, START_RESULT(%r15)
        /* r2 the result's address, as a parameter now */
        brasl   %r14, core_finish
        trap2
        .cfi_endproc
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: r2 value, r3 status, r15 the image of arch_push_after
 *
 *     r15 +  16   the image above: its resume address
 *     r15 +   8   the back chain from here
 *     r15 +   0   arch_after
 *     r15 -  16   the message that core_after returns
 *     r15 -  32   the message that it is given
 *     r15 - 192   its register save area
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. */
#define AFTER_GIVEN CALLER_BYTES
#define AFTER_RESULT (CALLER_BYTES + 16)
#define AFTER_BYTES (CALLER_BYTES + 32)
FUNC arch_after
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa r15, ARCH_AFTER_BYTES
        .cfi_offset r14, 0
        /* r15 is the CFA: DW_CFA_val_offset in other words, which libunwind
         * does not know. DW_CFA_val_expression, r15, 1 byte: DW_OP_nop; what
         * is on the expression's stack at first is the CFA. */
        .cfi_escape 0x16, 15, 1, 0x96
        lg      %r1, CALLER_WORD(%r15)
        lay     %r15, -AFTER_BYTES(%r15)
        .cfi_adjust_cfa_offset AFTER_BYTES
        stg     %r1, CALLER_CHAIN(%r15)
        stmg    %r2, %r3, AFTER_GIVEN(%r15)
        la      %r2, AFTER_RESULT(%r15)
        la      %r3, AFTER_GIVEN(%r15)
        brasl   %r14, core_after
        lmg     %r2, %r3, AFTER_RESULT(%r15)
        la      %r15, AFTER_BYTES + ARCH_AFTER_BYTES(%r15)
        .cfi_def_cfa_offset 0
        lg      %r1, FRAME_RESUME(%r15)
        /* r2 value, r3 status, r1 the resume address, r15 the image above */
        br      %r1
        .cfi_endproc
END_FUNC arch_after
RESUME_POINT arch_after

        .section .note.GNU-stack, "", @progbits
