/* Switching on RISC-V: the frame, its ABI source and the register table are
 * in frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: a0 value, a1 status, a2 where our sp goes, a3 the image to resume
 *
 * All stores come before the first load of the other frame, and sp changes
 * after the last: until then unwinders find us in our stored frame. */
FUNC arch_switch
        .cfi_startproc
        addi    sp, sp, -ARCH_FRAME_BYTES
        .cfi_adjust_cfa_offset ARCH_FRAME_BYTES
        STORE_REGISTERS sp
        FRAME_CFI
        lla     t0, arch_resume
        ld      t1, FRAME_RESUME(a3)
        sd      t0, FRAME_RESUME(sp)
        sd      sp, 0(a2)
        bne     t0, t1, .Lother
        LOAD_REGISTERS a3
        .cfi_remember_state
/* ------------------------------------------------ the stack changes here */
        addi    sp, a3, ARCH_FRAME_BYTES
        CALLER_CFI
        jr      t2
        .cfi_restore_state
        /* Not our frame: only the code at its resume address knows it.
         * live: a0 value, a1 status, a3 the image, t1 its resume address */
.Lother:
        .cfi_undefined ra
        mv      t2, t1
/* ------------------------------------------------ the stack changes here */
        mv      sp, a3
        jr      t2
        .cfi_endproc
END_FUNC arch_switch

/* Resumes a frame: also from other files' jumps. The nop is for unwinders that
 * look up pc - 1 when arch_after has made them come here.
 * in: a0 value, a1 status, sp the frame */
        .p2align 4
        .cfi_startproc
        FRAME_CFI
        nop
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, @function
arch_resume:
        LOAD_REGISTERS sp
        addi    sp, sp, ARCH_FRAME_BYTES
        CALLER_CFI
        jr      t2
        .cfi_endproc
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: a0 value, a1 status (0), sp the image of arch_prime
 *
 *     sp + 40   canary
 *     sp + 32   0
 *     sp + 16   0, 0: a frame record
 *     sp +  8   entry
 *     sp +  0   arch_start
 *
 * Unwinders stop here: the return address is undefined, s0 leads to a zero
 * record, and the nop in front gives those that look up pc - 1 something of
 * ours to find. */
        .p2align 4
        .cfi_startproc
        .cfi_undefined ra
        .cfi_undefined s0
        .cfi_def_cfa sp, ARCH_PRIMED_BYTES
        nop
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, %function
arch_start:
        ld      t1, 8(sp)
        addi    sp, sp, 16
        .cfi_adjust_cfa_offset -16
        addi    s0, sp, 16
        /* live: a0 value, t1 entry, sp at the zero record, s0 above it */
        jalr    t1
        /* a0, a1: what the entry returned, and what core_finish takes */
        call    core_finish
        ebreak
        .cfi_endproc
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: a0 value, a1 status, sp the image of arch_push_after
 *
 *     sp + 16   the image above: its resume address
 *     sp +  8   unused
 *     sp +  0   arch_after
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. Those that follow s0
 * stop. */
FUNC arch_after
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa sp, ARCH_AFTER_BYTES
        .cfi_offset ra, 0
        addi    sp, sp, ARCH_AFTER_BYTES
        .cfi_adjust_cfa_offset -ARCH_AFTER_BYTES
        li      s0, 0
        call    core_after
        /* live: a0 value, a1 status, sp the image above */
        ld      t2, 0(sp)
        jr      t2
        .cfi_endproc
END_FUNC arch_after
RESUME_POINT arch_after

        .section .note.GNU-stack, "", %progbits
