/* RISC-V psABI, Register Convention: callee-saved are s0-s11, and fs0-fs11 as
 * wide as the floating-point ABI's arguments (sp is what a switch is about);
 * frm is the thread's.
 *
 *   uintptr_t registers_hold(void (*call)(void *), void *argument,
 *                            uintptr_t seed);
 *   uint64_t registers_fpu_get(void);
 *
 * The frame of registers_hold:
 *
 *   sp + 112  fs0-fs11
 *   sp +  16  s0-s11
 *   sp +   8  ra
 *   sp +   0  seed
 *
 * SPDX-License-Identifier: MIT */
        .text

        .macro  EACH each
        \each   s0, 1
        \each   s1, 2
        \each   s2, 3
        \each   s3, 4
        \each   s4, 5
        \each   s5, 6
        \each   s6, 7
        \each   s7, 8
        \each   s8, 9
        \each   s9, 10
        \each   s10, 11
        \each   s11, 12
        .endm

        .macro  EACH_F each
#ifndef __riscv_float_abi_soft
        \each   fs0, 13
        \each   fs1, 14
        \each   fs2, 15
        \each   fs3, 16
        \each   fs4, 17
        \each   fs5, 18
        \each   fs6, 19
        \each   fs7, 20
        \each   fs8, 21
        \each   fs9, 22
        \each   fs10, 23
        \each   fs11, 24
#endif
        .endm

#ifdef __riscv_float_abi_single
#define FSTORE fsw
#define FLOAD flw
#define FROM_WORD fmv.w.x
#define TO_WORD fmv.x.w
#else
#define FSTORE fsd
#define FLOAD fld
#define FROM_WORD fmv.d.x
#define TO_WORD fmv.x.d
#endif

        .globl  registers_hold
        .type   registers_hold, %function
        .p2align 2
        /* in: a0 call, a1 argument, a2 seed */
registers_hold:
        .cfi_startproc
        addi    sp, sp, -208
        .cfi_adjust_cfa_offset 208
        sd      a2, 0(sp)
        sd      ra, 8(sp)
        .cfi_rel_offset ra, 8
        .macro  STORE register, number
        sd      \register, 8 + \number * 8(sp)
        .cfi_rel_offset \register, 8 + \number * 8
        .endm
        .macro  STORE_F register, number
        FSTORE  \register, 8 + \number * 8(sp)
        .cfi_rel_offset \register, 8 + \number * 8
        .endm
        EACH    STORE
        EACH_F  STORE_F
        mv      t0, a0
        mv      a0, a1
        .macro  PLANT register, number
        addi    \register, a2, \number
        .endm
        .macro  PLANT_F register, number
        addi    t1, a2, \number
        FROM_WORD \register, t1
        .endm
        EACH    PLANT
        EACH_F  PLANT_F
        jalr    t0
        /* live: s0-s11 and fs0-fs11 under test, sp */
        ld      a2, 0(sp)
        li      a0, 0
        .macro  COMPARE register, number
        addi    t0, a2, \number
        xor     t0, t0, \register
        snez    t0, t0
        slli    t0, t0, \number - 1
        or      a0, a0, t0
        .endm
        .macro  COMPARE_F register, number
        TO_WORD t1, \register
        addi    t0, a2, \number
        xor     t0, t0, t1
#ifdef __riscv_float_abi_single
        sext.w  t0, t0
#endif
        snez    t0, t0
        slli    t0, t0, \number - 1
        or      a0, a0, t0
        .endm
        EACH    COMPARE
        EACH_F  COMPARE_F
        .macro  LOAD register, number
        ld      \register, 8 + \number * 8(sp)
        .cfi_restore \register
        .endm
        .macro  LOAD_F register, number
        FLOAD   \register, 8 + \number * 8(sp)
        .cfi_restore \register
        .endm
        EACH    LOAD
        EACH_F  LOAD_F
        ld      ra, 8(sp)
        .cfi_restore ra
        addi    sp, sp, 208
        .cfi_adjust_cfa_offset -208
        ret
        .cfi_endproc
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, %function
        /* out: a0 = frm */
registers_fpu_get:
        .cfi_startproc
#ifdef __riscv_flen
        frrm    a0
#else
        li      a0, 0
#endif
        ret
        .cfi_endproc
        .size   registers_fpu_get, . - registers_fpu_get

        .section .note.GNU-stack, "", %progbits
