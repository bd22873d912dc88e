/* The copying switch on AArch64: see frame.inc for the frame, ../arch.h for
 * what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: x0 value, x1 status, x2 how
 *
 * Until the stack changes all callee-saved registers but x30 are the
 * caller's: C keeps them for us, and nothing here touches one.
 *
 *     entry sp -> -   8..-176   the frame, if it belongs on this stack
 *                 - 184         unused
 *                 - 192         x30
 *                 - 200         status
 *                 - 208         value                            <- sp */
FUNC arch_switch_copy
        .cfi_startproc
        ENTER
        sub     sp, sp, #ARCH_FRAME_BYTES + 32
        .cfi_adjust_cfa_offset ARCH_FRAME_BYTES + 32
        stp     x0, x1, [sp]
        str     x30, [sp, #16]
        .cfi_rel_offset x30, 16
        mov     x0, x2
        add     x1, sp, #32
        bl      arch_copy_prepare
        ldr     x30, [sp, #16]
        cbz     x0, .Lfailed

        ldr     x9, [x0, #ARCH_COPY_FRAME]
        adrp    x16, arch_resume
        add     x16, x16, #:lo12:arch_resume
        str     x16, [x9, #FRAME_RESUME]
        stp     x29, x30, [x9, #FRAME_X29]
        STORE_REGISTERS x9
        .cfi_remember_state
        /* Nothing of the old stack is needed any more, and soon it is not
         * whole: nothing to unwind to, and x29 is 0. What is in the frame
         * now is free for us: the message goes to x19 and x20. */
        .cfi_undefined x30
        ldr     x10, [x0, #ARCH_COPY_RUN_SP]
        ldp     x19, x20, [sp]
        mov     x29, xzr
        /* live: x0 copy, x10 run_sp, x19 value, x20 status */
/* ------------------------------------------------ the stack changes here */
        mov     sp, x10
        bl      arch_copy_fill
        ldr     x16, [x0]
/* ------------------------------------------------ the stack changes here */
        mov     sp, x0
        mov     x0, x19
        mov     x1, x20
        /* live: x0 value, x1 status, x16 the resume address, sp the image */
        br      x16

        /* live: x0 is 0: the value; x30 */
.Lfailed:
        .cfi_restore_state
        mov     x1, #-12                /* -ENOMEM */
        add     sp, sp, #ARCH_FRAME_BYTES + 32
        .cfi_adjust_cfa_offset -(ARCH_FRAME_BYTES + 32)
        .cfi_restore x30
        LEAVE
        .cfi_endproc
END_FUNC arch_switch_copy

        NOTES
