/* The resume address of inline switches on x86-64: ../../src/greenlet_inline.h
 * has the other half and must agree.
 *
 *     rsp + 160  rsp where the program goes on; below it the red zone
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
#define INLINE_BYTES 160

        .text
        .globl  arch_inline
        .type   arch_inline, @function
        .p2align 6
arch_inline:
.Lresume:
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa rsp, INLINE_BYTES
        .cfi_offset rip, INLINE_NEXT - INLINE_BYTES
        .cfi_offset rbx, INLINE_RBX - INLINE_BYTES
        .cfi_offset rbp, INLINE_RBP - INLINE_BYTES
        endbr64
        movq    INLINE_NEXT(%rsp), %rcx
        .cfi_register rip, rcx
        movq    INLINE_RBX(%rsp), %rbx
        .cfi_restore rbx
        movq    INLINE_RBP(%rsp), %rbp
        .cfi_restore rbp
        leaq    INLINE_BYTES(%rsp), %rsp
        .cfi_def_cfa rsp, 0
        notrack jmp *%rcx
        .cfi_endproc
END_FUNC arch_inline
RESUME_POINT .Lresume

        .section .note.GNU-stack, "", @progbits
