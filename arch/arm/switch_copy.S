/* The copying switch on 32-bit ARM: see frame.inc for the frame, ../arch.h
 * for what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: r0 result, r1 value, r2 status, r3 how
 *
 * Until the stack changes all callee-saved registers are the caller's: C
 * keeps them for us, and nothing here touches one before its place in the
 * frame has been written.
 *
 *     entry sp -> -  4 ... -112   the frame, if it belongs on this stack
 *                 -116            lr
 *                 -120            status
 *                 -124            value
 *                 -128            result                        <- sp */
FUNC arch_switch_copy
        .fnstart
        .cfi_startproc
        .pad    #ARCH_FRAME_BYTES
        sub     sp, sp, #ARCH_FRAME_BYTES
        .cfi_adjust_cfa_offset ARCH_FRAME_BYTES
        .save   {lr}
        .pad    #12
        push    {r0, r1, r2, lr}
        .cfi_adjust_cfa_offset 16
        .cfi_rel_offset lr, 12
        mov     r0, r3
        add     r1, sp, #16
        bl      arch_copy_prepare
        cmp     r0, #0
        bne     .Lmove

        .cfi_remember_state
        pop     {r0, r1, r2, lr}
        .cfi_adjust_cfa_offset -16
        .cfi_restore lr
        add     sp, sp, #ARCH_FRAME_BYTES
        .cfi_adjust_cfa_offset -ARCH_FRAME_BYTES
        mov     r1, #0                  /* {NULL, -ENOMEM} */
        mvn     r2, #12 - 1
        stm     r0, {r1, r2}
        bx      lr
        .fnend

/* For EHABI a function of its own, which cannot be unwound: in the calls to
 * come that is so. */
.Lmove:
        .fnstart
        .cantunwind
        .cfi_restore_state
        ldr     r2, [r0, #ARCH_COPY_FRAME]
        ldr     r12, .Lresume_distance
.Lhere:
        add     r12, pc, r12
        str     r12, [r2, #FRAME_RESUME]
        add     r2, r2, #FRAME_D8
        STORE_VFP r2, r12
        add     r2, r2, #FRAME_RESULT - FRAME_D8
        ldr     r1, [sp, #0]
        ldr     lr, [sp, #12]
        stm     r2, {r1, r4-r11, lr}
        /* r0 copy; C will keep r4 value, r5 status; nothing of the old stack
         * is needed any more, and soon it is not whole: nothing to unwind
         * to. */
        .cfi_undefined lr
        ldr     r4, [sp, #4]
        ldr     r5, [sp, #8]
/* ------------------------------------------------ the stack changes here */
        ldr     sp, [r0, #ARCH_COPY_RUN_SP]
        bl      arch_copy_fill
/* ------------------------------------------------ the stack changes here */
        mov     sp, r0
        mov     r1, r4
        mov     r2, r5
        ldr     r12, [sp]
        /* r1 value, r2 status, sp the image */
        bx      r12
        .cfi_endproc
        .fnend
.Lresume_distance:
        .word   arch_resume - .Lhere - 8
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", %progbits
