/* The copying switch on 64-bit Power, ELFv2: see frame.inc for the frame,
 * ../arch.h for what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .abiversion 2
        .text

/* Our frame, below the place of arch_resume's. */
#define OUR_VALUE CALLER_BYTES
#define OUR_STATUS (CALLER_BYTES + 8)
#define OUR_IMAGE (CALLER_BYTES + 16)
#define OUR_BYTES (OUR_IMAGE + ARCH_FRAME_BYTES)

/* And on the stack that C fills with: the same without the image. */
#define RUN_BYTES OUR_IMAGE

/* in: r3 value, r4 status, r5 how
 *
 * LR and CR go to the caller's frame at once: they are part of what
 * arch_copy_prepare saves. Until the stack changes all other callee-saved
 * registers are the caller's: C keeps them for us, and nothing here touches
 * one.
 *
 *     entry r1 +   0   the caller's frame, with LR and CR
 *              - 512   the frame, if it belongs on this stack
 *              - 520   status
 *              - 528   value
 *              - 560   back chain, words of our callees     <- r1 */
FUNC arch_switch_copy
        .cfi_startproc
        TOC_FROM_R12 arch_switch_copy
        .localentry arch_switch_copy, . - arch_switch_copy
        SAVE_LR_AND_CR
        stdu    %r1, -OUR_BYTES(%r1)
        .cfi_def_cfa_offset OUR_BYTES
        std     %r3, OUR_VALUE(%r1)
        std     %r4, OUR_STATUS(%r1)
        mr      %r3, %r5
        addi    %r4, %r1, OUR_IMAGE
        bl      arch_copy_prepare
        nop
        cmpdi   %r3, 0
        beq     .Lfailed

        ld      %r11, ARCH_COPY_FRAME(%r3)
        addis   %r5, %r2, arch_resume@toc@ha
        addi    %r5, %r5, arch_resume@toc@l
        std     %r5, FRAME_RESUME(%r11)
        SAVE_FRAME %r11
        ld      %r5, OUR_VALUE(%r1)
        ld      %r6, OUR_STATUS(%r1)
        ld      %r7, ARCH_COPY_RUN_SP(%r3)
        li      %r0, 0
        addi    %r7, %r7, -RUN_BYTES
        subf    %r7, %r1, %r7
        /* r3 copy, r5 value, r6 status, r7 the way from r1 to its next;
         * nothing of the old stack is needed any more, and soon it is not
         * whole: nothing to unwind to. */
        .cfi_remember_state
        .cfi_undefined lr
/* ------------------------------------------------ the stack changes here */
        stdux   %r0, %r1, %r7
        std     %r5, OUR_VALUE(%r1)
        std     %r6, OUR_STATUS(%r1)
        bl      arch_copy_fill
        nop
        mr      %r7, %r3
        ld      %r3, OUR_VALUE(%r1)
        ld      %r4, OUR_STATUS(%r1)
        ld      %r12, FRAME_RESUME(%r7)
        mtctr   %r12
/* ------------------------------------------------ the stack changes here */
        mr      %r1, %r7
        /* r3 value, r4 status, r12 the resume address, r1 the image */
        bctr

.Lfailed:
        .cfi_restore_state
        li      %r4, -12                /* {NULL, -ENOMEM}, and r3 is 0 */
        addi    %r1, %r1, OUR_BYTES
        .cfi_def_cfa_offset 0
        ld      %r0, CALLER_LR(%r1)
        mtlr    %r0
        blr
        .cfi_endproc
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", @progbits
