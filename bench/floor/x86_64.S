/* The least that an out-of-line switch between two stacks can do on x86-64:
 * the yardstick of the switch benchmarks. Push the six callee-saved registers
 * of the System V ABI (x86-64 psABI, section 3.2.1), exchange stack pointers,
 * pop the other side's six and jump. No checks, no state, no current.
 *
 *     void *floor_switch(void **save, void *target, void *value);
 *
 * A suspended stack, from its sp up:
 *
 *     +0  r15   +8  r14   +16 r13   +24 r12   +32 rbx   +40 rbp
 *     +48 address to go on at
 *
 * SPDX-License-Identifier: MIT */
        .text
        .globl  floor_switch
        .hidden floor_switch
        .type   floor_switch, @function
        .p2align 4
/* in: rdi where to store our sp, rsi the other's sp, rdx the value */
floor_switch:
        .cfi_startproc
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        movq    %rsp, (%rdi)
        movq    %rdx, %rax
/* ---- sp changes: both frames have the same picture ------------------- */
        movq    %rsi, %rsp
        popq    %r15
        .cfi_adjust_cfa_offset -8
        popq    %r14
        .cfi_adjust_cfa_offset -8
        popq    %r13
        .cfi_adjust_cfa_offset -8
        popq    %r12
        .cfi_adjust_cfa_offset -8
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rcx
/* live: rax the value, rcx where to go on; rsp the target's, popped */
        jmpq    *%rcx
        .cfi_endproc
        .size   floor_switch, . - floor_switch

        .section .note.GNU-stack, "", @progbits
