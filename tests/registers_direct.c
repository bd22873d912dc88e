/* Sentinels right around arch_switch and arch_switch_copy, linked with --wrap:
 * for mutate.py. In the suite there are C functions between the switch and
 * registers_hold. Some compilers' prologues save more registers than the
 * function uses (s390x: always up to r15), and would hide that a switch has
 * lost one.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>

#include "arch.h"
#include "registers.h"

greenlet_message __real_greenlet_arch_switch(greenlet_message m, void **sp,
                                             void *to);
greenlet_message __real_greenlet_arch_switch_copy(greenlet_message m,
                                                  uintptr_t how);
greenlet_message __wrap_greenlet_arch_switch(greenlet_message m, void **sp,
                                             void *to);
greenlet_message __wrap_greenlet_arch_switch_copy(greenlet_message m,
                                                  uintptr_t how);

struct call {
    greenlet_message m;
    void **sp, *to;
    uintptr_t how;
};

/* Not in struct call, so that nothing need survive the switch in a register.
 * The cases run one thread at a time. */
static greenlet_message result;

static void do_switch(void *argument) {
    struct call *c = argument;
    result = __real_greenlet_arch_switch(c->m, c->sp, c->to);
}

static void do_switch_copy(void *argument) {
    struct call *c = argument;
    result = __real_greenlet_arch_switch_copy(c->m, c->how);
}

/* No two greenlets' sentinels are the same. */
static greenlet_message hold(void (*f)(void *), struct call *c) {
    static uintptr_t count;
    uintptr_t seed = ++count * (uintptr_t)0x0102040811214181;
    uintptr_t lost = registers_hold(f, c, seed);
    if (lost) {
        fprintf(stderr, "the switch lost registers: mask %#llx\n",
                (unsigned long long)lost);
        abort();
    }
    return result;
}

greenlet_message __wrap_greenlet_arch_switch(greenlet_message m, void **sp,
                                             void *to) {
    struct call c = {m, sp, to, 0};
    return hold(do_switch, &c);
}

greenlet_message __wrap_greenlet_arch_switch_copy(greenlet_message m,
                                                  uintptr_t how) {
    struct call c = {m, NULL, NULL, how};
    return hold(do_switch_copy, &c);
}
