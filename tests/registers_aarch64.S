/* AAPCS64, 6.1: callee-saved are x19-x28, the frame pointer x29, and the low
 * 64 bits of v8-v15 (sp is what a switch is about); fpcr is preserved but by
 * those who set it on purpose.
 *
 *   uintptr_t registers_hold(void (*call)(void *), void *argument,
 *                            uintptr_t seed);
 *   uint64_t registers_fpu_get(void);
 *
 * The frame of registers_hold:
 *
 *   sp + 112  d8-d15
 *   sp +  32  x19-x28
 *   sp +  16  x29, x30
 *   sp +   0  seed, unused
 *
 * SPDX-License-Identifier: MIT */
        .text

        .globl  registers_hold
        .type   registers_hold, %function
        .p2align 2
        /* in: x0 call, x1 argument, x2 seed */
registers_hold:
        .cfi_startproc
        hint    #34                     /* bti c */
        sub     sp, sp, #176
        .cfi_adjust_cfa_offset 176
        str     x2, [sp]
        .macro  BOTH instruction
        \instruction x29, x30, [sp, #16]
        \instruction x19, x20, [sp, #32]
        \instruction x21, x22, [sp, #48]
        \instruction x23, x24, [sp, #64]
        \instruction x25, x26, [sp, #80]
        \instruction x27, x28, [sp, #96]
        \instruction d8, d9, [sp, #112]
        \instruction d10, d11, [sp, #128]
        \instruction d12, d13, [sp, #144]
        \instruction d14, d15, [sp, #160]
        .endm
        BOTH    stp
        .macro  STORED first, second, offset
        .cfi_rel_offset \first, \offset
        .cfi_rel_offset \second, \offset + 8
        .endm
        STORED  x29, x30, 16
        STORED  x19, x20, 32
        STORED  x21, x22, 48
        STORED  x23, x24, 64
        STORED  x25, x26, 80
        STORED  x27, x28, 96
        STORED  d8, d9, 112
        STORED  d10, d11, 128
        STORED  d12, d13, 144
        STORED  d14, d15, 160
        mov     x16, x0
        mov     x0, x1
        .macro  PLANT register, number
        add     \register, x2, #\number
        .endm
        .macro  PLANT_D register, number
        add     x9, x2, #\number
        fmov    \register, x9
        .endm
        .macro  EACH word, double
        \word   x19, 1
        \word   x20, 2
        \word   x21, 3
        \word   x22, 4
        \word   x23, 5
        \word   x24, 6
        \word   x25, 7
        \word   x26, 8
        \word   x27, 9
        \word   x28, 10
        \word   x29, 11
        \double d8, 12
        \double d9, 13
        \double d10, 14
        \double d11, 15
        \double d12, 16
        \double d13, 17
        \double d14, 18
        \double d15, 19
        .endm
        EACH    PLANT, PLANT_D
        blr     x16
        /* live: x19-x29 and d8-d15 under test, sp */
        ldr     x2, [sp]
        mov     x0, xzr
        .macro  COMPARE register, number
        add     x9, x2, #\number
        cmp     x9, \register
        cset    x10, ne
        orr     x0, x0, x10, lsl #(\number - 1)
        .endm
        .macro  COMPARE_D register, number
        fmov    x11, \register
        COMPARE x11, \number
        .endm
        EACH    COMPARE, COMPARE_D
        BOTH    ldp
        add     sp, sp, #176
        .cfi_def_cfa_offset 0
        .irp    register, x19, x20, x21, x22, x23, x24, x25, x26, x27, x28
        .cfi_restore \register
        .endr
        .irp    register, x29, x30, d8, d9, d10, d11, d12, d13, d14, d15
        .cfi_restore \register
        .endr
        ret
        .cfi_endproc
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, %function
        /* out: x0 = fpcr */
registers_fpu_get:
        .cfi_startproc
        hint    #34                     /* bti c */
        mrs     x0, fpcr
        ret
        .cfi_endproc
        .size   registers_fpu_get, . - registers_fpu_get

        .section .note.GNU-stack, "", %progbits
