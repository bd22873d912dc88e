/* System V i386 psABI 1.1, 2.2.3: callee-saved are ebx, ebp, esi, edi (esp is
 * what a switch is about), the control bits of mxcsr and the x87 control word.
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
 * The frame of registers_hold, esp at the call:
 *
 *   esp + 56  seed
 *   esp + 52  argument
 *   esp + 48  call         a multiple of 16, as is esp
 *   esp + 44  return address
 *   esp + 40  ebp
 *   esp + 36  ebx
 *   esp + 32  esi
 *   esp + 28  edi
 *   esp +  4  unused
 *   esp       argument of the call
 *
 * SPDX-License-Identifier: MIT */
/* reg = the address of .Lhere, the following instruction. */
        .macro  HERE reg
        call    .Lhere_\@
.Lhere_\@:
        .set    .Lhere, .Lhere_\@
        .cfi_adjust_cfa_offset 4
        popl    %\reg
        .cfi_adjust_cfa_offset -4
        .endm

        .text

        .globl  registers_hold
        .type   registers_hold, @function
        /* in, on the stack: call, argument, seed */
registers_hold:
        .cfi_startproc
        pushl   %ebp
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset ebp, 0
        pushl   %ebx
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset ebx, 0
        pushl   %esi
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset esi, 0
        pushl   %edi
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset edi, 0
        subl    $24, %esp
        .cfi_adjust_cfa_offset 24
        pushl   52 - 4(%esp)
        .cfi_adjust_cfa_offset 4
        HERE    ecx
        movl    $1, asked - .Lhere(%ecx)
        movl    56(%esp), %edx
        leal    1(%edx), %ebx
        leal    2(%edx), %ebp
        leal    3(%edx), %esi
        leal    4(%edx), %edi
        call    *48(%esp)
        /* live: ebx, ebp, esi, edi under test, esp */
        movl    56(%esp), %edx
        xorl    %eax, %eax
        .macro  COMPARE reg, number
        leal    \number(%edx), %ecx
        cmpl    %ecx, \reg
        je      1f
        orl     $(1 << (\number - 1)), %eax
1:
        .endm
        COMPARE %ebx, 1
        COMPARE %ebp, 2
        COMPARE %esi, 3
        COMPARE %edi, 4
        HERE    ecx
        orl     inside - .Lhere(%ecx), %eax
        addl    $28, %esp
        .cfi_adjust_cfa_offset -28
        popl    %edi
        .cfi_adjust_cfa_offset -4
        .cfi_restore edi
        popl    %esi
        .cfi_adjust_cfa_offset -4
        .cfi_restore esi
        popl    %ebx
        .cfi_adjust_cfa_offset -4
        .cfi_restore ebx
        popl    %ebp
        .cfi_adjust_cfa_offset -4
        .cfi_restore ebp
        ret
        .cfi_endproc
        .size   registers_hold, . - registers_hold

        .globl  registers_fpu_get
        .type   registers_fpu_get, @function
        /* out: eax = mxcsr without its sticky flags (bits 0-5), 0 if the CPU
         * has none; edx = the x87 control word */
registers_fpu_get:
        .cfi_startproc
        pushl   %ebx
        .cfi_adjust_cfa_offset 4
        .cfi_rel_offset ebx, 0
        subl    $8, %esp
        .cfi_adjust_cfa_offset 8
        movl    $0, 0(%esp)
        movl    $1, %eax
        cpuid
        testl   $(1 << 25), %edx        /* SSE */
        jz      1f
        stmxcsr 0(%esp)
1:
        fnstcw  4(%esp)
        movl    0(%esp), %eax
        andl    $~0x3f, %eax
        movzwl  4(%esp), %edx
        addl    $8, %esp
        .cfi_adjust_cfa_offset -8
        popl    %ebx
        .cfi_adjust_cfa_offset -4
        .cfi_restore ebx
        ret
        .cfi_endproc
        .size   registers_fpu_get, . - registers_fpu_get

/* The library calls this for what is known as `name`, with `words` words of
 * arguments: the first one says where the result goes, and is removed. */
        .macro  HOLD name, words
        .globl  __wrap_\name
        .type   __wrap_\name, @function
        .weak   __real_\name
__wrap_\name:
        .cfi_startproc
        HERE    ecx
        cmpl    $0, asked - .Lhere(%ecx)
        je      __real_\name@PLT
        leal    4(%esp), %eax
        leal    .Lcall_\name - .Lhere(%ecx), %edx
        addl    $0x01010101, seed - .Lhere(%ecx)
        pushl   seed - .Lhere(%ecx)
        .cfi_adjust_cfa_offset 4
        pushl   %eax
        .cfi_adjust_cfa_offset 4
        pushl   %edx
        .cfi_adjust_cfa_offset 4
        call    registers_hold
        HERE    ecx
        orl     %eax, inside - .Lhere(%ecx)
        addl    $12, %esp
        .cfi_adjust_cfa_offset -12
        movl    4(%esp), %eax
        ret     $4
        .cfi_endproc
        .size   __wrap_\name, . - __wrap_\name

        /* in: esp + 4 the arguments' address */
.Lcall_\name:
        .cfi_startproc
        movl    4(%esp), %ecx
        subl    $28, %esp
        .cfi_adjust_cfa_offset 28
        .set    at, 0
        .rept   \words
        movl    at(%ecx), %eax
        movl    %eax, at(%esp)
        .set    at, at + 4
        .endr
        call    __real_\name@PLT
        .cfi_adjust_cfa_offset -4
        addl    $24, %esp
        .cfi_adjust_cfa_offset -24
        ret
        .cfi_endproc
        .endm

        HOLD    greenlet_arch_switch, 5
        HOLD    greenlet_arch_switch_copy, 4

        .local  asked, inside, seed
        .comm   asked, 4, 4
        .comm   inside, 4, 4
        .comm   seed, 4, 4

        .section .note.GNU-stack, "", @progbits
