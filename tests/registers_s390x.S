/* ELF ABI s390x Supplement 1.6.1, 1.2.2: callee-saved are r6-r13 and f8-f15
 * (r14, r15 are what a call and a switch are about); kept by convention are
 * the masks and rounding modes of fpc.
 *
 *   uintptr_t registers_hold(void (*call)(void *), void *argument,
 *                            uintptr_t seed);
 *   uint64_t registers_fpu_get(void);
 *
 * Sentinels: seed + 1 to seed + 8 in r6-r13, + 9 to + 16 in f8-f15.
 *
 * The frame of registers_hold, r15 at the call:
 *
 *   r15 + 224  the caller's frame: r6-r15 in its register save area
 *   r15 + 160  f8 ... f15, the caller's
 *   r15 +   8  seed: the word that is ours in a save area
 *   r15        register save area of the callee, back chain
 *
 * SPDX-License-Identifier: MIT */
        .text

#define BYTES 224
#define AT_F8 160
#define AT_SEED 8

        .globl  registers_hold
        .type   registers_hold, @function
        .p2align 4
        /* in: r2 call, r3 argument, r4 seed */
registers_hold:
        .cfi_startproc
        stmg    %r6, %r15, 48(%r15)
        .irp    n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        .cfi_offset r\n, 8 * \n - 160
        .endr
        lgr     %r1, %r15
        lay     %r15, -BYTES(%r15)
        .cfi_adjust_cfa_offset BYTES
        stg     %r1, 0(%r15)
        stg     %r4, AT_SEED(%r15)
        .irp    n, 8, 9, 10, 11, 12, 13, 14, 15
        std     %f\n, AT_F8 + 8 * (\n - 8)(%r15)
        .endr
        /* DWARF: 24 to 27 are f8, f10, f12, f14; 28 to 31 the others. */
        .irp    n, 24, 25, 26, 27
        .cfi_offset \n, AT_F8 + 16 * (\n - 24) - BYTES - 160
        .cfi_offset \n + 4, AT_F8 + 8 + 16 * (\n - 24) - BYTES - 160
        .endr

        lgr     %r1, %r2
        lgr     %r2, %r3
        .irp    n, 6, 7, 8, 9, 10, 11, 12, 13
        la      %r\n, \n - 5(%r4)
        .endr
        .irp    n, 8, 9, 10, 11, 12, 13, 14, 15
        la      %r5, \n + 1(%r4)
        ldgr    %f\n, %r5
        .endr
        basr    %r14, %r1

        /* r2 the mask, r3 its next bit, r4 the seed; r6-r13, f8-f15 under
         * test */
        lghi    %r2, 0
        lghi    %r3, 1
        lg      %r4, AT_SEED(%r15)
        .macro  COMPARE is, ought
        cgr     \is, \ought
        je      1f
        ogr     %r2, %r3
1:
        sllg    %r3, %r3, 1
        .endm
        .irp    n, 6, 7, 8, 9, 10, 11, 12, 13
        la      %r5, \n - 5(%r4)
        COMPARE %r\n, %r5
        .endr
        .irp    n, 8, 9, 10, 11, 12, 13, 14, 15
        la      %r5, \n + 1(%r4)
        lgdr    %r1, %f\n
        COMPARE %r1, %r5
        .endr

        .irp    n, 8, 9, 10, 11, 12, 13, 14, 15
        ld      %f\n, AT_F8 + 8 * (\n - 8)(%r15)
        .endr
        .irp    n, 24, 25, 26, 27, 28, 29, 30, 31
        .cfi_restore \n
        .endr
        lmg     %r6, %r15, BYTES + 48(%r15)
        .irp    n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        .cfi_restore r\n
        .endr
        .cfi_def_cfa_offset 160
        br      %r14
        .cfi_endproc
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, @function
        .p2align 4
        /* out: r2 = fpc without its flags and data exception code: masks in
         * the first byte, rounding modes in the last */
registers_fpu_get:
        .cfi_startproc
        efpc    %r2
        llgfr   %r2, %r2
        nill    %r2, 0x00ff
        nilh    %r2, 0xff00
        br      %r14
        .cfi_endproc
        .size   registers_fpu_get, . - registers_fpu_get

        .section .note.GNU-stack, "", @progbits
