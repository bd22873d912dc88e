/* 64-bit Power, ELF V2 ABI 1.5, 2.2.2: callee-saved are r14-r31, f14-f31,
 * v20-v31, cr2-cr4 and, where anything uses it, vrsave (r1 is what a switch is
 * about, r2 and r13 belong to the code that runs), the control bits of fpscr.
 *
 *   uintptr_t registers_hold(void (*call)(void *), void *argument,
 *                            uintptr_t seed);
 *   uint64_t registers_fpu_get(void);
 *
 * Sentinels: seed + 1 to seed + 18 in r14-r31, + 19 to + 36 in f14-f31, + 37
 * to + 48 in both halves of v20-v31, + 49 in vrsave, and in cr2, cr3, cr4
 * the digits 2, 3, 4 of the low word of the seed: bits 49 to 51 of the mask.
 *
 * The frame of registers_hold, r1 at the call:
 *
 *   r1 + 608  the caller's back chain; above it LR and CR save words
 *   r1 + 416  v20 ... v31
 *   r1 + 272  f14 ... f31
 *   r1 + 128  r14 ... r31
 *   r1 +  64  scratch, 16 bytes
 *   r1 +  48  vrsave
 *   r1 +  40  seed
 *   r1 +  32  argument
 *   r1        back chain, words of the callee
 *
 * SPDX-License-Identifier: MIT */
        .abiversion 2
        .text

#define BYTES 608
#define AT_V20 416
#define AT_F14 272
#define AT_R14 128
#define AT_SCRATCH 64
#define AT_VRSAVE 48
#define AT_SEED 40

#define GENERAL 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
#define VECTOR 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31

/* cr2-cr4: the bits of the low word. */
#define CR_BITS 0x00fff000

        .globl  registers_hold
        .type   registers_hold, @function
        .p2align 4
        /* in: r3 call, r4 argument, r5 seed */
registers_hold:
        .cfi_startproc
        addis   %r2, %r12, (.TOC. - registers_hold)@ha
        addi    %r2, %r2, (.TOC. - registers_hold)@l
        .localentry registers_hold, . - registers_hold
        mflr    %r0
        mfcr    %r12
        std     %r0, 16(%r1)
        .cfi_offset lr, 16
        stw     %r12, 8(%r1)
        .cfi_offset cr2, 8
        .cfi_offset cr3, 8
        .cfi_offset cr4, 8
        stdu    %r1, -BYTES(%r1)
        .cfi_def_cfa_offset BYTES
        mfvrsave %r0
        stw     %r0, AT_VRSAVE(%r1)
        std     %r5, AT_SEED(%r1)
        .irp    n, GENERAL
        std     %r\n, AT_R14 + 8 * (\n - 14)(%r1)
        .cfi_offset r\n, AT_R14 + 8 * (\n - 14) - BYTES
        stfd    %f\n, AT_F14 + 8 * (\n - 14)(%r1)
        .cfi_offset f\n, AT_F14 + 8 * (\n - 14) - BYTES
        .endr
        .irp    n, VECTOR
        li      %r6, AT_V20 + 16 * (\n - 20)
        stvx    %v\n, %r1, %r6
        .cfi_offset v\n, AT_V20 + 16 * (\n - 20) - BYTES
        .endr

        .irp    n, VECTOR
        addi    %r6, %r5, 37 + \n - 20
        std     %r6, AT_SCRATCH(%r1)
        std     %r6, AT_SCRATCH + 8(%r1)
        li      %r6, AT_SCRATCH
        lvx     %v\n, %r1, %r6
        .endr
        .irp    n, GENERAL
        addi    %r6, %r5, 19 + \n - 14
        std     %r6, AT_SCRATCH(%r1)
        lfd     %f\n, AT_SCRATCH(%r1)
        addi    %r\n, %r5, 1 + \n - 14
        .endr
        addi    %r6, %r5, 49
        mtvrsave %r6
        mtocrf  0x20, %r5
        mtocrf  0x10, %r5
        mtocrf  0x08, %r5

        mr      %r12, %r3
        mr      %r3, %r4
        mtctr   %r12
        std     %r2, 24(%r1)
        bctrl
        ld      %r2, 24(%r1)

        /* r3 the mask, r4 its next bit, r5 the seed; r14-r31, f14-f31,
         * v20-v31, vrsave, cr2-cr4 under test */
        li      %r3, 0
        li      %r4, 1
        ld      %r5, AT_SEED(%r1)
        mfcr    %r12
        mfvrsave %r11
        .macro  COMPARE is, ought
        cmpd    \is, \ought
        beq     1f
        or      %r3, %r3, %r4
1:
        sldi    %r4, %r4, 1
        .endm
        .irp    n, GENERAL
        addi    %r6, %r5, 1 + \n - 14
        COMPARE %r\n, %r6
        .endr
        .irp    n, GENERAL
        addi    %r6, %r5, 19 + \n - 14
        stfd    %f\n, AT_SCRATCH(%r1)
        ld      %r7, AT_SCRATCH(%r1)
        COMPARE %r7, %r6
        .endr
        .irp    n, VECTOR
        addi    %r6, %r5, 37 + \n - 20
        li      %r7, AT_SCRATCH
        stvx    %v\n, %r1, %r7
        ld      %r7, AT_SCRATCH(%r1)
        ld      %r8, AT_SCRATCH + 8(%r1)
        xor     %r7, %r7, %r6
        xor     %r8, %r8, %r6
        or      %r7, %r7, %r8
        li      %r6, 0
        COMPARE %r7, %r6
        .endr
        addi    %r6, %r5, 49
        clrldi  %r6, %r6, 32
        COMPARE %r11, %r6
        xor     %r12, %r12, %r5
        li      %r6, 0
        rlwinm  %r7, %r12, 0, 8, 11
        COMPARE %r7, %r6
        rlwinm  %r7, %r12, 0, 12, 15
        COMPARE %r7, %r6
        rlwinm  %r7, %r12, 0, 16, 19
        COMPARE %r7, %r6

        .irp    n, VECTOR
        li      %r6, AT_V20 + 16 * (\n - 20)
        lvx     %v\n, %r1, %r6
        .cfi_restore v\n
        .endr
        .irp    n, GENERAL
        ld      %r\n, AT_R14 + 8 * (\n - 14)(%r1)
        .cfi_restore r\n
        lfd     %f\n, AT_F14 + 8 * (\n - 14)(%r1)
        .cfi_restore f\n
        .endr
        lwz     %r0, AT_VRSAVE(%r1)
        mtvrsave %r0
        addi    %r1, %r1, BYTES
        .cfi_def_cfa_offset 0
        lwz     %r12, 8(%r1)
        ld      %r0, 16(%r1)
        mtocrf  0x20, %r12
        .cfi_restore cr2
        mtocrf  0x10, %r12
        .cfi_restore cr3
        mtocrf  0x08, %r12
        .cfi_restore cr4
        mtlr    %r0
        .cfi_restore lr
        blr
        .cfi_endproc
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, @function
        .p2align 4
        /* out: r3 = fpscr without its flags: traps, non-IEEE mode, rounding
         * (the low byte), decimal rounding (the last digit of the high word).
         * In the protected zone below r1. */
registers_fpu_get:
        .cfi_startproc
        mffs    %f0
        stfd    %f0, -16(%r1)
        ld      %r3, -16(%r1)
        rldicl  %r4, %r3, 32, 61
        rldicl  %r3, %r3, 0, 56
        rldimi  %r3, %r4, 32, 29
        blr
        .cfi_endproc
        .size   registers_fpu_get, . - registers_fpu_get

        .section .note.GNU-stack, "", @progbits
