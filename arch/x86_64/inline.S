/* The resume address of inline switches on x86-64: ../../src/greenlet_inline.h
 * has the other half and must agree.
 *
 *     rsp + 40 .. 55  a gap of 0 or 8, then the red zone of 128 bytes
 *     rsp +  32  rsp where the program goes on     INLINE_RSP
 *     rsp +  24  rbp              INLINE_RBP
 *     rsp +  16  rbx              INLINE_RBX
 *     rsp +   8  where to go on   INLINE_NEXT
 *     rsp +   0  arch_inline
 *
 * in: rax value, rdx status, rsp the image
 *
 * Exported; the program compares an image's first word with it. To an unwinder
 * it looks like a signal that came where the program goes on: the CFI of the
 * program's own function is right there.
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

#define INLINE_NEXT 8
#define INLINE_RBX 16
#define INLINE_RBP 24
#define INLINE_RSP 32

        .text
        .globl  arch_inline
        .type   arch_inline, @function
        .p2align 6
arch_inline:
.Lresume:
        .cfi_startproc
        .cfi_signal_frame
        /* The CFA is what stands at INLINE_RSP, and the registers' places are
         * not at a known distance from it:
         * DW_CFA_def_cfa_expression, 3 bytes: DW_OP_breg7 32, DW_OP_deref */
        .cfi_escape 0x0f, 3, 0x77, INLINE_RSP, 0x06
        /* DW_CFA_expression rip, rbx, rbp, 2 bytes: DW_OP_breg7 n */
        .cfi_escape 0x10, 16, 2, 0x77, INLINE_NEXT
        .cfi_escape 0x10, 3, 2, 0x77, INLINE_RBX
        .cfi_escape 0x10, 6, 2, 0x77, INLINE_RBP
        endbr64
        movq    INLINE_NEXT(%rsp), %rcx
        .cfi_register rip, rcx
        movq    INLINE_RBX(%rsp), %rbx
        .cfi_restore rbx
        movq    INLINE_RBP(%rsp), %rbp
        .cfi_restore rbp
        movq    INLINE_RSP(%rsp), %rsp
        .cfi_def_cfa rsp, 0
        notrack jmp *%rcx
        .cfi_endproc
END_FUNC arch_inline
RESUME_POINT .Lresume

        .section .note.GNU-stack, "", @progbits
