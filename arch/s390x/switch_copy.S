/* The copying switch on 64-bit IBM Z: see frame.inc for the frame, ../arch.h
 * for what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* Our frame, below the place of arch_resume's. */
#define OUR_MESSAGE CALLER_BYTES
#define OUR_RESULT (CALLER_BYTES + 16)
#define OUR_IMAGE (CALLER_BYTES + 24)
#define OUR_BYTES (OUR_IMAGE + ARCH_FRAME_BYTES)

/* And on the stack that C fills with: up to the message. */
#define RUN_BYTES (OUR_MESSAGE + 16)

/* in: r2 where the result goes, r3 address of m, r4 how
 *
 * r6-r15 go to the caller's save area at once: they are part of what
 * arch_copy_prepare saves. Until the stack changes the floating-point ones
 * are the caller's: C keeps them for us, and nothing here touches one.
 *
 *     entry r15 +   0   the caller's frame: with r6-r15
 *               -  80   the frame, if it belongs on this stack
 *               -  88   where the result goes
 *               - 104   the message
 *               - 264   register save area of our callees     <- r15 */
FUNC arch_switch_copy
        .cfi_startproc
        PROLOGUE OUR_BYTES
        mvc     OUR_MESSAGE(16, %r15), 0(%r3)
        stg     %r2, OUR_RESULT(%r15)
        lgr     %r2, %r4
        la      %r3, OUR_IMAGE(%r15)
        brasl   %r14, arch_copy_prepare
        ltgr    %r2, %r2
        je      .Lfailed

        lg      %r1, ARCH_COPY_FRAME(%r2)
        larl    %r3, arch_resume
        lg      %r4, OUR_RESULT(%r15)
        stg     %r3, FRAME_RESUME(%r1)
        stg     %r4, FRAME_RESULT(%r1)
        SAVE_FRAME %r1
        lmg     %r4, %r5, OUR_MESSAGE(%r15)
        lg      %r1, ARCH_COPY_RUN_SP(%r2)
        /* r1 the next stack, r2 copy, r4 value, r5 status; nothing of the old
         * stack is needed any more, and soon it is not whole: nothing to
         * unwind to. */
        .cfi_remember_state
        .cfi_undefined r14
/* ------------------------------------------------ the stack changes here */
        lay     %r15, -RUN_BYTES(%r1)
        xc      CALLER_CHAIN(8, %r15), CALLER_CHAIN(%r15)
        stmg    %r4, %r5, OUR_MESSAGE(%r15)
        brasl   %r14, arch_copy_fill
        lgr     %r1, %r2
        lmg     %r2, %r3, OUR_MESSAGE(%r15)
/* ------------------------------------------------ the stack changes here */
        lgr     %r15, %r1
        lg      %r1, FRAME_RESUME(%r15)
        /* r2 value, r3 status, r1 the resume address, r15 the image */
        br      %r1

.Lfailed:
        .cfi_restore_state
        lg      %r2, OUR_RESULT(%r15)
        mvghi   0(%r2), 0               /* {NULL, -ENOMEM} */
        mvghi   8(%r2), -12
        EPILOGUE %r15, OUR_BYTES
        br      %r14
        .cfi_endproc
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", @progbits
