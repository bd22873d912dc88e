/* The least that a copying switch can do on x86-64, for bench/floor/copy.c;
 * and leaving a stack for good, for bench/floor/spawn.c.
 *
 *     void floor_copy_switch(struct floor_copy *c);
 *     void floor_copy_play(void);
 *     void floor_leave(void *target, void *value);
 *
 * struct floor_copy: +0 where the frame goes (its place in a slice, or a
 * buffer), +8 the stack pointer to copy with, +16 the function that copies,
 * +24 the target's sp; floor_copy_move(c) does the rest.
 *
 * A suspended stack, from its sp up, as in x86_64.S:
 *
 *     +0  r15   +8  r14   +16 r13   +24 r12   +32 rbx   +40 rbp
 *     +48 address to go on at
 *
 * SPDX-License-Identifier: MIT */
        .text
        .globl  floor_copy_switch
        .hidden floor_copy_switch
        .type   floor_copy_switch, @function
        .p2align 6
/* in: rdi c; the frame would stand at rsp - 48 */
floor_copy_switch:
        .cfi_startproc
        movq    (%rdi), %rcx
        movq    (%rsp), %rdx
        movq    %r15, (%rcx)
        movq    %r14, 8(%rcx)
        movq    %r13, 16(%rcx)
        movq    %r12, 24(%rcx)
        movq    %rbx, 32(%rcx)
        movq    %rbp, 40(%rcx)
        movq    %rdx, 48(%rcx)
        .cfi_undefined %rip
        movq    %rdi, %rbx
/* ---- sp changes: below all that is copied ----------------------------- */
        movq    8(%rdi), %rsp
        call    *16(%rdi)
        movq    24(%rbx), %rsi
/* ---- sp changes: the target's frame, just filled ---------------------- */
        leaq    56(%rsi), %rsp
        movq    (%rsi), %r15
        movq    8(%rsi), %r14
        movq    16(%rsi), %r13
        movq    24(%rsi), %r12
        movq    32(%rsi), %rbx
        movq    40(%rsi), %rbp
        movq    48(%rsi), %rcx
        jmpq    *%rcx
        .cfi_endproc
        .size   floor_copy_switch, . - floor_copy_switch

/* Takes turns until floor_copy_turns are gone, then goes to
 * floor_copy_main_sp. Has no frame, so that all live bytes but the 56 of the
 * switch are the payload. Entered with rsp 56 bytes above the image. */
        .globl  floor_copy_play
        .hidden floor_copy_play
        .type   floor_copy_play, @function
        .p2align 4
floor_copy_play:
        .cfi_startproc
        .cfi_undefined %rip
1:      decq    floor_copy_turns(%rip)
        jle     2f
        leaq    floor_copy_now(%rip), %rdi
        call    floor_copy_switch
        jmp     1b
2:      leaq    floor_copy_play_sp(%rip), %rdi
        movq    floor_copy_main_sp(%rip), %rsi
        call    floor_switch
        jmp     1b
        .cfi_endproc
        .size   floor_copy_play, . - floor_copy_play

        .globl  floor_leave
        .hidden floor_leave
        .type   floor_leave, @function
        .p2align 4
/* in: rdi the target's sp, rsi the value */
floor_leave:
        .cfi_startproc
        movq    %rsi, %rax
/* ---- sp changes -------------------------------------------------------- */
        movq    %rdi, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        popq    %rcx
        .cfi_undefined %rip
        jmpq    *%rcx
        .cfi_endproc
        .size   floor_leave, . - floor_leave

        .section .note.GNU-stack, "", @progbits
