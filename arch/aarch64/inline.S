/* The resume address of inline switches on AArch64:
 * ../../src/greenlet_inline.h has the other half and must agree.
 *
 *     sp +  48   sp where the program goes on
 *     sp +  40   unused
 *     sp +  32   x19                 INLINE_X19
 *     sp +  24   where to go on      like x30 of a frame record
 *     sp +  16   x29                 INLINE_X29
 *     sp +   8   unused
 *     sp +   0   arch_inline
 *
 * in: x0 value, x1 status, sp the image
 *
 * Exported; the program compares an image's first word with it. To an unwinder
 * it looks like a signal that came where the program goes on: the CFI of the
 * program's own function is right there.
 *
 * SPDX-License-Identifier: MIT */
#include "frame.inc"

#define INLINE_X29 16
#define INLINE_X19 32
#define INLINE_BYTES 48

        .text
        .globl  arch_inline
        .type   arch_inline, %function
        .p2align 5
arch_inline:
.Lresume:
        .cfi_startproc
        .cfi_signal_frame
        .cfi_def_cfa sp, INLINE_BYTES
        .cfi_offset x29, INLINE_X29 - INLINE_BYTES
        .cfi_offset x30, INLINE_X29 + 8 - INLINE_BYTES
        .cfi_offset x19, INLINE_X19 - INLINE_BYTES
        BTI_J
        ldp     x29, x30, [sp, #INLINE_X29]
        .cfi_restore x29
        .cfi_restore x30
        ldr     x19, [sp, #INLINE_X19]
        .cfi_restore x19
        mov     x16, x30
        add     sp, sp, #INLINE_BYTES
        .cfi_def_cfa sp, 0
        br      x16
        .cfi_endproc
END_FUNC arch_inline
RESUME_POINT .Lresume

        NOTES
