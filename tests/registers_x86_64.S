/* System V x86-64 psABI, 3.2.1: callee-saved are rbx, rbp, r12-r15 (rsp is
 * what a switch is about), the control bits of mxcsr and the x87 control word.
 *
 *   uintptr_t registers_hold(void (*call)(void *), void *argument,
 *                            uintptr_t seed);
 *   uint64_t registers_fpu_get(void);
 *
 * The frame of registers_hold, rsp at the call:
 *
 *   rsp + 56  return address
 *   rsp + 48  rbp
 *   rsp + 40  rbx
 *   rsp + 32  r12
 *   rsp + 24  r13
 *   rsp + 16  r14
 *   rsp +  8  r15
 *   rsp       seed
 *
 * SPDX-License-Identifier: MIT */
        .text

        .globl  registers_hold
        .type   registers_hold, @function
        /* in: rdi call, rsi argument, rdx seed */
registers_hold:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r15, 0
        pushq   %rdx
        .cfi_adjust_cfa_offset 8
        movq    %rdi, %rax
        movq    %rsi, %rdi
        leaq    1(%rdx), %rbx
        leaq    2(%rdx), %rbp
        leaq    3(%rdx), %r12
        leaq    4(%rdx), %r13
        leaq    5(%rdx), %r14
        leaq    6(%rdx), %r15
        call    *%rax
        /* live: rbx, rbp, r12-r15 under test, rsp */
        movq    (%rsp), %rdx
        xorl    %eax, %eax
        .macro  COMPARE reg, number
        leaq    \number(%rdx), %rcx
        cmpq    %rcx, \reg
        je      1f
        orl     $(1 << (\number - 1)), %eax
1:
        .endm
        COMPARE %rbx, 1
        COMPARE %rbp, 2
        COMPARE %r12, 3
        COMPARE %r13, 4
        COMPARE %r14, 5
        COMPARE %r15, 6
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbp
        ret
        .cfi_endproc
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, @function
        /* out: rax = mxcsr without its sticky flags (bits 0-5), and the x87
         * control word in the high half */
registers_fpu_get:
        .cfi_startproc
        endbr64
        stmxcsr -4(%rsp)
        fnstcw  -8(%rsp)
        movl    -4(%rsp), %eax
        andl    $~0x3f, %eax
        movzwl  -8(%rsp), %edx
        shlq    $32, %rdx
        orq     %rdx, %rax
        ret
        .cfi_endproc
        .size   registers_fpu_get, . - registers_fpu_get

        .section .note.GNU-stack, "", @progbits
