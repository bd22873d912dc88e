/* AAPCS32, 6.1: callee-saved are r4-r11 and d8-d15 (sp is what a switch is
 * about); the control bits of fpscr are nobody's to change. Where this is
 * compiled for CPUs without VFP (armel), the one that it runs on is asked.
 *
 *   uintptr_t registers_hold(void (*call)(void *), void *argument,
 *                            uintptr_t seed);
 *   uint64_t registers_fpu_get(void);
 *
 * Here greenlet_switch, in C, cannot jump to the assembly but must call it,
 * and saves registers itself: what is wrong below would not be seen from
 * above. So the linker's --wrap puts registers_hold around each call of the
 * assembly as well, once registers_hold has been called; what that finds is
 * kept in `inside` for the next to return.
 *
 * Sentinels: r4-r11 seed + 1 ... seed + 8, d8-d15 seed + 9 ... seed + 16 in
 * both halves, the upper one inverted.
 *
 * The frame of registers_hold, sp at the call:
 *
 *   sp + 172  lr
 *   sp + 140  r4-r11
 *   sp + 136  seed
 *   sp + 132  not 0: there is a VFP
 *   sp + 128  unused
 *   sp +  64  the caller's d8-d15
 *   sp        d8-d15 before and after the call
 *
 * SPDX-License-Identifier: MIT */
        .syntax unified
        .arm
        .cfi_sections .debug_frame

#ifdef __SOFTFP__
        .macro  ASK_VFP
        ldr     r12, [sp, #132]
        cmp     r12, #0
        .endm
        .macro  STORE_VFP base
        stcne   p11, c8, [\base], {16}
        .endm
        .macro  LOAD_VFP base
        ldcne   p11, c8, [\base], {16}
        .endm
#else
        .macro  ASK_VFP
        .endm
        .macro  STORE_VFP base
        vstmia  \base, {d8-d15}
        .endm
        .macro  LOAD_VFP base
        vldmia  \base, {d8-d15}
        .endm
#endif

/* reg = the address of a variable */
        .macro  ADDRESS reg, variable
        ldr     \reg, .Ldistance\@
.Lhere\@:
        add     \reg, pc, \reg
        .subsection 1
.Ldistance\@:
        .word   \variable - .Lhere\@ - 8
        .previous
        .endm

        .text
        .p2align 2

        .globl  registers_hold
        .type   registers_hold, %function
        /* in: r0 call, r1 argument, r2 seed */
registers_hold:
        .fnstart
        .cfi_startproc
        .save   {r4-r11, lr}
        push    {r4-r11, lr}
        .cfi_adjust_cfa_offset 36
        .cfi_rel_offset r4, 0
        .cfi_rel_offset r5, 4
        .cfi_rel_offset r6, 8
        .cfi_rel_offset r7, 12
        .cfi_rel_offset r8, 16
        .cfi_rel_offset r9, 20
        .cfi_rel_offset r10, 24
        .cfi_rel_offset r11, 28
        .cfi_rel_offset lr, 32
        .pad    #140
        sub     sp, sp, #140
        .cfi_adjust_cfa_offset 140
        str     r2, [sp, #136]
        mov     r4, r0
        mov     r5, r1
        mov     r0, #1
        ADDRESS r12, asked
        str     r0, [r12]
#ifdef __SOFTFP__
        mov     r0, #16                 /* AT_HWCAP */
        bl      getauxval
        and     r0, r0, #1 << 6         /* HWCAP_VFP */
        str     r0, [sp, #132]
#endif
        ASK_VFP
        add     r3, sp, #64
        STORE_VFP r3
        ldr     r2, [sp, #136]
        mov     r3, sp
        add     r0, r2, #9
1:      mvn     r1, r0
        stmia   r3!, {r0, r1}
        add     r0, r0, #1
        sub     r1, r0, r2
        cmp     r1, #17
        bne     1b
        ASK_VFP
        LOAD_VFP sp
        mov     r12, r4
        mov     r0, r5
        add     r4, r2, #1
        add     r5, r2, #2
        add     r6, r2, #3
        add     r7, r2, #4
        add     r8, r2, #5
        add     r9, r2, #6
        add     r10, r2, #7
        add     r11, r2, #8
        blx     r12
        /* live: r4-r11, d8-d15 under test, sp */
        ASK_VFP
        STORE_VFP sp
        ldr     r2, [sp, #136]
        mov     r0, #0
        .macro  COMPARE reg, number
        add     r1, r2, #\number
        cmp     r1, \reg
        orrne   r0, r0, #1 << (\number - 1)
        .endm
        COMPARE r4, 1
        COMPARE r5, 2
        COMPARE r6, 3
        COMPARE r7, 4
        COMPARE r8, 5
        COMPARE r9, 6
        COMPARE r10, 7
        COMPARE r11, 8
        /* r3 a pair's address, r4 its expected lower half, r5 its bit */
        mov     r3, sp
        add     r4, r2, #9
        mov     r5, #1 << 8
2:      ldmia   r3!, {r6, r7}
        cmp     r6, r4
        mvneq   r7, r7
        cmpeq   r7, r4
        orrne   r0, r0, r5
        add     r4, r4, #1
        lsl     r5, r5, #1
        cmp     r5, #1 << 16
        bne     2b
        ADDRESS r1, inside
        ldr     r1, [r1]
        orr     r0, r0, r1
        ASK_VFP
        add     r3, sp, #64
        LOAD_VFP r3
        add     sp, sp, #140
        .cfi_adjust_cfa_offset -140
        pop     {r4-r11, pc}
        .cfi_endproc
        .fnend
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, %function
        /* out: r0 = fpscr without its flags, condition (31-27) and sticky (7,
         * 4-0), 0 if there is no VFP; r1 = 0 */
registers_fpu_get:
        .fnstart
        .cfi_startproc
        .save   {r4, lr}
        push    {r4, lr}
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r4, 0
        .cfi_rel_offset lr, 4
        mov     r1, #0
#ifdef __SOFTFP__
        mov     r0, #16                 /* AT_HWCAP */
        bl      getauxval
        ands    r0, r0, #1 << 6         /* HWCAP_VFP */
        mov     r1, #0
        popeq   {r4, pc}
        mrc     p10, 7, r0, cr1, cr0, 0
#else
        vmrs    r0, fpscr
#endif
        bic     r0, r0, #0xf8000000
        bic     r0, r0, #0x9f
        pop     {r4, pc}
        .cfi_endproc
        .fnend
        .size   registers_fpu_get, . - registers_fpu_get

/* The library calls this for what is known as `name`: r0-r3 and a word on the
 * stack, if there is one, are its arguments; r0 says where the result goes. */
        .macro  HOLD name
        .globl  __wrap_\name
        .type   __wrap_\name, %function
        .weak   __real_\name
__wrap_\name:
        .fnstart
        .cfi_startproc
        ADDRESS r12, asked
        ldr     r12, [r12]
        cmp     r12, #0
        beq     __real_\name
        ldr     r12, [sp]
        .save   {lr}
        .pad    #20
        push    {r0-r3, r12, lr}
        .cfi_adjust_cfa_offset 24
        .cfi_rel_offset lr, 20
        ADDRESS r12, seed
        ldr     r2, [r12]
        add     r2, r2, #0x01000000
        add     r2, r2, #0x00000100
        str     r2, [r12]
        adr     r0, .Lcall_\name
        mov     r1, sp
        bl      registers_hold
        ADDRESS r12, inside
        ldr     r1, [r12]
        orr     r1, r1, r0
        str     r1, [r12]
        ldr     r0, [sp], #20
        .cfi_adjust_cfa_offset -20
        pop     {pc}
        .cfi_endproc
        .fnend
        .size   __wrap_\name, . - __wrap_\name

        /* in: r0 the arguments' address */
.Lcall_\name:
        .fnstart
        .cfi_startproc
        ldr     r12, [r0, #16]
        .save   {lr}
        .pad    #4
        push    {r12, lr}
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset lr, 4
        ldm     r0, {r0-r3}
        bl      __real_\name
        pop     {r12, pc}
        .cfi_endproc
        .fnend
        .endm

        HOLD    greenlet_arch_switch
        HOLD    greenlet_arch_switch_copy

        .local  asked, inside, seed
        .comm   asked, 4, 4
        .comm   inside, 4, 4
        .comm   seed, 4, 4

        .section .note.GNU-stack, "", %progbits
