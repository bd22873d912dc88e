/* Switching on 32-bit ARM: the frame, its ABI source and the register table
 * are in frame.inc.
 *
 *   greenlet_message arch_switch(greenlet_message m, void **sp, void *to);
 *   arch_resume, arch_start, arch_after: resume addresses (../arch.h)
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

        .text

/* in: r0 result, r1 value, r2 status, r3 where our sp goes, [sp] the image to
 * resume */
FUNC arch_switch
        .fnstart
        .cfi_startproc
        FRAME_EHABI
        SAVE_FRAME
        adr     r12, .Lresume
        str     r12, [sp, #-8]!
        .cfi_adjust_cfa_offset 8
        ldr     r4, [sp, #112]
        str     sp, [r3]
        ldr     r5, [r4]
        /* r1 value, r2 status, r4 the image, r5 its address, r12 ours */
        cmp     r5, r12
        bne     .Lother
/* ------------------------------------------------ the stack changes here */
        add     sp, r4, #FRAME_D8
        .cfi_adjust_cfa_offset -FRAME_D8
        .cfi_remember_state
        LOAD_FRAME_AND_RETURN
        .cfi_restore_state
        .cfi_adjust_cfa_offset FRAME_D8
        /* Not our frame: only the code at its resume address knows it. */
.Lother:
        .cfi_undefined lr
/* ------------------------------------------------ the stack changes here */
        mov     sp, r4
        bx      r5
        .cfi_endproc
        .fnend
END_FUNC arch_switch

/* Resumes a frame: also from other files' jumps. The nop is for unwinders
 * that look up pc - 1 when arch_after has made them come here.
 * in: r1 value, r2 status, sp the frame */
        .p2align 5
        .fnstart
        .cfi_startproc
        FRAME_CFI
        FRAME_EHABI
        nop
        .globl  arch_resume
        .hidden arch_resume
        .type   arch_resume, %function
arch_resume:
.Lresume:
        add     sp, sp, #FRAME_D8
        .cfi_adjust_cfa_offset -FRAME_D8
        LOAD_FRAME_AND_RETURN
        .cfi_endproc
        .fnend
END_FUNC arch_resume
RESUME_POINT arch_resume

/* Enters a greenlet.
 * in: r1 value, r2 status (0), sp the image of arch_prime
 *
 *     sp + 12   canary
 *     sp +  8   0
 *     sp +  4   entry        then status and
 *     sp +  0   arch_start   then value of what the entry returns
 *
 * Unwinders stop here: the return address is undefined (CFI), there is none
 * (EHABI), and the nop in front gives those that look up pc - 1 something of
 * ours to find. r11 and r7: the frame pointers of ARM and of Thumb code. */
        .p2align 5
        .fnstart
        .cantunwind
        .cfi_startproc
        .cfi_undefined lr
        .cfi_undefined r11
        .cfi_undefined r7
        .cfi_def_cfa sp, 16
        nop
        .globl  arch_start
        .hidden arch_start
        .type   arch_start, %function
arch_start:
        ldr     r3, [sp, #4]
        mov     r0, sp
        mov     r11, #0
        mov     r7, #0
        /* r0 result, r1 value, r3 entry */
        blx     r3
        ldm     sp, {r0, r1}
        /* r0, r1: what the entry returned */
        bl      core_finish
        udf     #0
        .cfi_endproc
        .fnend
END_FUNC arch_start
RESUME_POINT arch_start

/* Sends the message through core_after() on the target's stack, then resumes
 * the image above.
 * in: r1 value, r2 status, sp the image of arch_push_after
 *
 *     sp + 8   the image above: its resume address
 *     sp + 4   unused       then status and
 *     sp + 0   arch_after   then value of what core_after returns
 *
 * To an unwinder it looks like a signal that came at the resume address of
 * the image above: the one whose CFI knows that image. In EHABI's words:
 *     0x01        sp += 8
 *     0x88 0x00   pop {pc}: the resume address
 *     0x40        sp -= 4: back to the image's sp */
FUNC arch_after
        .fnstart
        .unwind_raw 8, 0x01, 0x88, 0x00, 0x40
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa sp, 8
        .cfi_offset lr, 0
        mov     r0, sp
        /* r0 result, r1 value, r2 status */
        bl      core_after
        pop     {r1, r2}
        .cfi_adjust_cfa_offset -8
        ldr     r12, [sp]
        bx      r12
        .cfi_endproc
        .fnend
END_FUNC arch_after
RESUME_POINT arch_after

#ifdef __SOFTFP__
/* Asks the kernel for a VFP (bit 6 of AT_HWCAP, 16), before all other
 * constructors. Every frame has room for d8-d15, so it would not matter when,
 * but to those who run greenlets before. */
        .p2align 2
        .type   probe_vfp, %function
probe_vfp:
        .fnstart
        .cfi_startproc
        .save   {r4, lr}
        push    {r4, lr}
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r4, 0
        .cfi_rel_offset lr, 4
        mov     r0, #16
        bl      getauxval
        ldr     r1, .Lvfp_distance
        and     r0, r0, #1 << 6
.Lhere:
        str     r0, [pc, r1]
        pop     {r4, pc}
        .cfi_endproc
        .fnend
.Lvfp_distance:
        .word   arch_vfp - .Lhere - 8
END_FUNC probe_vfp

        .section .init_array.00101, "aw", %init_array
        .p2align 2
        .word   probe_vfp(TARGET1)

        .bss
        .p2align 2
        .globl  arch_vfp
        .hidden arch_vfp
        .type   arch_vfp, %object
arch_vfp:
        .zero   4
        .size   arch_vfp, 4
#endif

        .section .note.GNU-stack, "", %progbits
