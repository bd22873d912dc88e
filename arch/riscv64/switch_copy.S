/* The copying switch on RISC-V: see frame.inc for the frame, ../arch.h for
 * what is called when.
 *
 *   greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: a0 value, a1 status, a2 how
 *
 * Until the stack changes all callee-saved registers are the caller's: C
 * keeps them for us, and nothing here touches one.
 *
 *     entry sp -> -   8..-ARCH_FRAME_BYTES   the frame, if it belongs on this
 *                                            stack
 *     then below  -   8                      unused
 *                 -  16                      ra
 *                 -  24                      status
 *                 -  32                      value               <- sp */
FUNC arch_switch_copy
        .cfi_startproc
        addi    sp, sp, -(ARCH_FRAME_BYTES + 32)
        .cfi_adjust_cfa_offset ARCH_FRAME_BYTES + 32
        sd      a0, 0(sp)
        sd      a1, 8(sp)
        sd      ra, 16(sp)
        .cfi_rel_offset ra, 16
        mv      a0, a2
        addi    a1, sp, 32
        call    arch_copy_prepare
        ld      ra, 16(sp)
        beqz    a0, .Lfailed

        ld      t1, ARCH_COPY_FRAME(a0)
        lla     t0, arch_resume
        sd      t0, FRAME_RESUME(t1)
        STORE_REGISTERS t1
        .cfi_remember_state
        /* Nothing of the old stack is needed any more, and soon it is not
         * whole: nothing to unwind to, and s0 is 0. What is in the frame
         * now is free for us: the message goes to s1 and s2. */
        .cfi_undefined ra
        ld      t1, ARCH_COPY_RUN_SP(a0)
        ld      s1, 0(sp)
        ld      s2, 8(sp)
        li      s0, 0
        /* live: a0 copy, t1 run_sp, s1 value, s2 status */
/* ------------------------------------------------ the stack changes here */
        mv      sp, t1
        call    arch_copy_fill
        ld      t2, 0(a0)
/* ------------------------------------------------ the stack changes here */
        mv      sp, a0
        mv      a0, s1
        mv      a1, s2
        /* live: a0 value, a1 status, t2 the resume address, sp the image */
        jr      t2

        /* live: a0 is 0: the value; ra */
.Lfailed:
        .cfi_restore_state
        li      a1, -12                 /* -ENOMEM */
        addi    sp, sp, ARCH_FRAME_BYTES + 32
        .cfi_adjust_cfa_offset -(ARCH_FRAME_BYTES + 32)
        .cfi_restore ra
        ret
        .cfi_endproc
END_FUNC arch_switch_copy

        .section .note.GNU-stack, "", %progbits
