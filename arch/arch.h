/* The interface to a CPU family: how registers are switched.
 *
 * A port is a folder of arch/ with arch_cpu.h and switch.S. Its duties, each
 * with the test that proves it, are in docs/porting.md.
 *
 * The suspended image. A suspended greenlet is the bytes [sp, base), stacks
 * grow down, and at sp stands a frame whose first word is the resume address:
 * where to jump, with sp loaded and the message in two registers of the
 * port's choice. Code at a resume address restores its own registers from the
 * frame. Three resume addresses are the port's:
 *
 *   arch_resume  returns from arch_switch or arch_switch_copy;
 *   arch_start   calls core_finish(entry(message.value)): made by arch_prime;
 *   arch_after   sends the message through core_after(), then resumes the
 *                image above it: made by arch_push_after.
 *
 * and one belongs to greenlet_inline.h, on the CPUs that it knows:
 *
 *   arch_inline  goes on behind an inline switch: made by that.
 *
 * All are listed in the section "greenlet_resume". sp is always aligned as
 * the ABI wants it at a call.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_ARCH_H
#define GREENLET_ARCH_H

#include "core.h"

/* ARCH_FRAME_BYTES, ARCH_STACK_ALIGN, ARCH_PRIMED_BYTES, ARCH_AFTER_BYTES;
 * arch_prime, arch_push_after. */
#include "arch_cpu.h"

/* What a port may have besides: 1 in its arch_cpu.h. */
#ifndef ARCH_FRAME_ANYWHERE
#define ARCH_FRAME_ANYWHERE 0
#endif
#ifndef ARCH_MOVE
#define ARCH_MOVE 0
#endif
#ifndef ARCH_LEAVE
#define ARCH_LEAVE 0
#endif

/* Pushes the frame of arch_resume, stores the resulting sp through `sp`, then
 * resumes the image at `to`. Returns with the message it is resumed with. */
greenlet_message arch_switch(greenlet_message m, void **sp, void *to);

/* Optional (ARCH_LEAVE in arch_cpu.h): resumes the image at `to`; the calling
 * stack is left for ever. */
_Noreturn void arch_leave(greenlet_message m, void *to);

/* What a copying switch is told by C. */
struct arch_copy {
    void *frame;  /* store the frame here: at sp, or where the byte at sp
                   * will be in a slice. After arch_copy_fill, if the port
                   * has ARCH_FRAME_ANYWHERE and this is not NULL: the image
                   * is that of arch_resume, and its frame is here and not on
                   * the stack; the first word is not valid                 */
    void *run_sp; /* fill with this stack pointer: below all that is written;
                   * a multiple of 64                                       */
};

/* Suspends as arch_switch does, but lets C move stacks in between:
 *
 *   copy = arch_copy_prepare(how, sp)   on the caller's stack; sp is where
 *                                       the frame belongs. Saves what must
 *                                       be saved but for that frame. NULL:
 *                                       return {NULL, -ENOMEM} at once
 *   the frame is stored to copy->frame by word-sized moves
 *   sp = copy->run_sp                   from here on nothing to unwind to
 *   image = arch_copy_fill(copy)
 *   sp = image, which is resumed with m
 *
 * The two functions are the backend's. */
greenlet_message arch_switch_copy(greenlet_message m, uintptr_t how);

struct arch_copy *arch_copy_prepare(uintptr_t how, void *sp);
void *arch_copy_fill(struct arch_copy *copy);

/* Optional, in a file move.c (ARCH_MOVE in arch_cpu.h): copies that are tuned
 * to the CPU for ranges of 256 bytes and more. Any multiple of
 * ARCH_STACK_ALIGN may come, 0 too; the ranges do not overlap. They run on any
 * stack, with all of its bytes valid memory, and use little of it. */
void arch_move(void *dst, const void *src, size_t n);
void arch_exchange(void *x, void *y, size_t n);
bool arch_exchange_pays(size_t n); /* against two arch_move()              */

extern const char arch_resume[], arch_start[], arch_after[];

#endif
