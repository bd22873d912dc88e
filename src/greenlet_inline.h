/* An inline switch: greenlet_switch() for the few places where a nanosecond
 * counts. Opt-in; nothing else includes this file.
 *
 *     greenlet_message greenlet_switch_inline(greenlet *to, void *value);
 *
 * The same call with the same meaning as greenlet_switch(); both may be used
 * on either side of any switch. The compiler spills what is live at the call
 * and nothing else, and the jump has a branch-predictor entry of its own at
 * each place. Everything out of the ordinary (see greenlet_switch in
 * src/switch.c) goes to greenlet_switch() itself.
 *
 * The price: the layout of the library's structs is compiled into the
 * program. So the program refuses to link, and a linked one to load, with
 * another version or backend of the library: the thread's pointer is found
 * through a symbol whose name has version, backend and layout in it
 * (greenlet_inline_self_0_1_0_copy_48).
 *
 * GREENLET_INLINE is 1 where the switch is inline; where it is 0,
 * greenlet_switch_inline() is greenlet_switch(): other CPUs than x86-64 and
 * AArch64, the ucontext and sigaltstack backends, other compilers than gcc
 * and clang, and sanitizers, which must be told of each switch.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_INLINE_H
#define GREENLET_INLINE_H

#include "greenlet.h"

/* Made when the library was configured: its version, backend and layout. */
#ifndef GREENLET_INLINE_ABI
#include "greenlet_inline_abi.h"
#endif

#if GREENLET_INLINE_ABI_VERSION != GREENLET_VERSION_MAJOR * 10000 +            \
                                       GREENLET_VERSION_MINOR * 100 +          \
                                       GREENLET_VERSION_PATCH
#error "greenlet.h and greenlet_inline_abi.h are of different versions"
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GREENLET_INLINE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||     \
    __has_feature(memory_sanitizer) || __has_feature(hwaddress_sanitizer)
#define GREENLET_INLINE_SANITIZED 1
#endif
#endif

#if !GREENLET_INLINE_ABI || !defined(__GNUC__) ||                              \
    defined(GREENLET_INLINE_SANITIZED)
#define GREENLET_INLINE 0
#elif defined(__x86_64__) && !defined(__ILP32__)
#define GREENLET_INLINE 1
#elif defined(__aarch64__) && defined(__linux__) && !defined(__ANDROID__) &&   \
    !defined(__ILP32__) && !defined(__AARCH64EB__) && defined(__ARM_FP)
#define GREENLET_INLINE 1
#else
#define GREENLET_INLINE 0
#endif

/* Offsets into the library's structs; src/inline.c asserts them. */
#define GREENLET_INLINE_SP 0        /* of a greenlet: its suspended sp      */
#define GREENLET_INLINE_FAST 0      /* of a thread: what an ordinary target */
#define GREENLET_INLINE_CURRENT 8   /*   has at GREENLET_INLINE_HOME        */
#define GREENLET_INLINE_SWITCHES 16 /*   and the counter                    */

#if GREENLET_INLINE

#ifdef __cplusplus
extern "C" {
#endif

struct greenlet_thread;

/* The calling thread's: initial-exec, so that it takes two loads. */
extern __thread struct greenlet_thread *GREENLET_INLINE_SELF
    __attribute__((tls_model("initial-exec")));

/* The resume address of all images that inline switches leave; in the
 * library, arch/CPU/inline.S. */
extern const char greenlet_inline_resume[]
    __attribute__((visibility("default")));

/* In the middle of a switch there is nothing to unwind to: an unwinder that
 * comes there, from a signal, stops cleanly. */
#ifndef __GCC_HAVE_DWARF2_CFI_ASM
#define GREENLET_INLINE_LEAVES
#define GREENLET_INLINE_ARRIVES
#else
#if defined(__x86_64__)
#define GREENLET_INLINE_LEAVES ".cfi_remember_state; .cfi_undefined rip\n\t"
#else
#define GREENLET_INLINE_LEAVES ".cfi_remember_state; .cfi_undefined x30\n\t"
#endif
#define GREENLET_INLINE_ARRIVES ".cfi_restore_state\n"
#endif

/* One instruction a line. */
/* clang-format off */

/* Suspends `from` and resumes `to`, as arch_switch() does. The image, from
 * its sp up, the same on all CPUs but for the registers' names:
 *
 *     greenlet_inline_resume   restores what follows and jumps to
 *     where to go on           the label 1 below
 *     the registers that the compiler may have reserved, so that they cannot
 *     be clobbered: frame pointer and base pointer
 *     the red zone, where the ABI has one
 *
 * All other registers are clobbered, so the compiler keeps what it needs in
 * its frame. When the target's image is an inline one too, its registers are
 * loaded here and one jump goes to its label; else the code at its resume
 * address is entered with the message in registers. */
#if defined(__x86_64__)

/*  rax value  rdx status  rcx the image to resume  rsi where our sp goes
 *
 *  A leaf function promises an sp that is a multiple of 8 only; an image's sp
 *  is one of 16. So the function's own sp stands in the image, too.
 *
 *  gcc knows the registers of AVX-512 only where the file's options have
 *  them: a function that has them by its own target attribute, in a file
 *  that has not, must use greenlet_switch(). */
static __attribute__((always_inline)) inline greenlet_message
greenlet_inline_registers(greenlet_message m, void **sp, void *image) {
    __asm__ volatile(
        GREENLET_INLINE_LEAVES
        "movq   %%rsp, %%r10\n\t"
        "leaq   -168(%%rsp), %%rsp\n\t"
        "leaq   1f(%%rip), %%r8\n\t"
        "andq   $-16, %%rsp\n\t"
        "movq   greenlet_inline_resume@GOTPCREL(%%rip), %%r9\n\t"
        "movq   %%r10, 32(%%rsp)\n\t"
        "movq   %%rbp, 24(%%rsp)\n\t"
        "movq   %%rbx, 16(%%rsp)\n\t"
        "movq   %%r8, 8(%%rsp)\n\t"
        "movq   %%r9, (%%rsp)\n\t"
        "movq   %%rsp, (%[sp])\n\t"
        "cmpq   %%r9, (%[image])\n\t"
        "jne    2f\n\t"
        "movq   8(%[image]), %%r8\n\t"
        "movq   16(%[image]), %%rbx\n\t"
        "movq   24(%[image]), %%rbp\n\t"
        /* ------------------------------------- the stack changes here */
        "movq   32(%[image]), %%rsp\n\t"
        "notrack jmp *%%r8\n"
        "2:\n\t"
        /* ------------------------------------- the stack changes here */
        "movq   %[image], %%rsp\n\t"
        "jmp    *(%%rsp)\n"
        GREENLET_INLINE_ARRIVES
        "1:"
        : "+a"(m.value), "+d"(m.status), [image] "+c"(image), [sp] "+S"(sp)
        :
        : "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
          "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
          "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "mm0",
          "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7", "st", "st(1)",
          "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)",
#if defined(__AVX512F__) || defined(__clang__)
          "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
          "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29",
          "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7",
#endif
#if defined(__APX_F__)
          "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25",
          "r26", "r27", "r28", "r29", "r30", "r31",
#endif
          "cc", "memory");
    return m;
}

#elif defined(__aarch64__)

/*  x0 value  x1 status  x2 where our sp goes  x3 the image to resume
 *
 *  x29 and the label stand where a frame record has x29 and x30, at the same
 *  place as in the library's frames. There is no red zone. x18 is a
 *  temporary on Linux. */
static __attribute__((always_inline)) inline greenlet_message
greenlet_inline_registers(greenlet_message m, void **sp, void *image) {
    register void *x0 __asm__("x0") = m.value;
    register intptr_t x1 __asm__("x1") = m.status;
    register void **x2 __asm__("x2") = sp;
    register void *x3 __asm__("x3") = image;
    __asm__ volatile(
        GREENLET_INLINE_LEAVES
        "sub    sp, sp, #48\n\t"
        "adr    x17, 1f\n\t"
        "adrp   x16, :got:greenlet_inline_resume\n\t"
        "ldr    x16, [x16, #:got_lo12:greenlet_inline_resume]\n\t"
        "str    x19, [sp, #32]\n\t"
        "stp    x29, x17, [sp, #16]\n\t"
        "str    x16, [sp]\n\t"
        "mov    x9, sp\n\t"
        "ldr    x17, [x3]\n\t"
        "str    x9, [x2]\n\t"
        "cmp    x16, x17\n\t"
        "b.ne   2f\n\t"
        "ldr    x19, [x3, #32]\n\t"
        "ldp    x29, x16, [x3, #16]\n\t"
        /* ------------------------------------- the stack changes here */
        "add    sp, x3, #48\n\t"
        "br     x16\n"
        "2:\n\t"
        "mov    x16, x17\n\t"
        /* ------------------------------------- the stack changes here */
        "mov    sp, x3\n\t"
        "br     x16\n"
        GREENLET_INLINE_ARRIVES
        "nop\n" /* for unwinders that look one before where it goes on */
        "1:\n\t"
        "hint   #36" /* bti j */
        : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
        :
        : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
          "x15", "x16", "x17", "x18", "x20", "x21", "x22", "x23", "x24", "x25",
          "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6",
          "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",
          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
          "v27", "v28", "v29", "v30", "v31", "p0", "p1", "p2", "p3", "p4", "p5",
          "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", "p15",
          "cc", "memory");
    m.value = x0;
    m.status = x1;
    return m;
}

#endif

/* clang-format on */

typedef uintptr_t greenlet_inline_word __attribute__((may_alias));
typedef uint64_t greenlet_inline_count __attribute__((may_alias));
typedef greenlet *greenlet_inline_pointer __attribute__((may_alias));
typedef void *greenlet_inline_sp __attribute__((may_alias));

/* As greenlet_switch(). [switches, may allocate, statuses] */
static __attribute__((always_inline)) inline greenlet_message
greenlet_switch_inline(greenlet *to, void *value) {
    char *t = (char *)GREENLET_INLINE_SELF;
    greenlet *from = *(greenlet_inline_pointer *)(t + GREENLET_INLINE_CURRENT);
    if (__builtin_expect(
            to && to != from &&
                __atomic_load_n(
                    (greenlet_inline_word *)((char *)to + GREENLET_INLINE_HOME),
                    __ATOMIC_RELAXED) ==
                    __atomic_load_n(
                        (greenlet_inline_word *)(t + GREENLET_INLINE_FAST),
                        __ATOMIC_RELAXED),
            1)) {
        greenlet_inline_count *switches =
            (greenlet_inline_count *)(t + GREENLET_INLINE_SWITCHES);
        greenlet_message m;
        m.value = value;
        m.status = 0;
        *(greenlet_inline_pointer *)(t + GREENLET_INLINE_CURRENT) = to;
        __atomic_store_n(switches,
                         __atomic_load_n(switches, __ATOMIC_RELAXED) + 1,
                         __ATOMIC_RELAXED);
        return greenlet_inline_registers(
            m, (void **)(void *)((char *)from + GREENLET_INLINE_SP),
            *(greenlet_inline_sp *)((char *)to + GREENLET_INLINE_SP));
    }
    return greenlet_switch(to, value);
}

#ifdef __cplusplus
}
#endif

#else /* not inline here */

static inline greenlet_message greenlet_switch_inline(greenlet *to,
                                                      void *value) {
    return greenlet_switch(to, value);
}

#endif
#endif /* GREENLET_INLINE_H */
