/* Is a shadow stack active in this thread: a second stack, kept by the CPU,
 * that every return address is compared with?
 *
 * A switch that changes the other stack alone would end in a fault at the next
 * return, so a thread with one is not adopted. None of the instructions below
 * does anything on a CPU, or for a process, without the feature.
 *
 * SPDX-License-Identifier: MIT */
#ifdef __riscv
#include <errno.h>
#include <sys/prctl.h>
#endif

#include "core.h"

bool core_shadow_stack(void) {
#if defined(__x86_64__)
    /* CET. Intel SDM 2, RDSSPQ: leaves the register alone without one. */
    uint64_t pointer = 0;
    __asm__ volatile("rdsspq %0" : "+r"(pointer));
    return pointer != 0;
#elif defined(__aarch64__)
    /* GCS. Arm ARM, CHKFEAT: clears the bits of the features that are on. */
    register uint64_t features __asm__("x16") = 1;
    __asm__ volatile("hint #40" : "+r"(features));
    return features == 0;
#elif defined(__riscv)
    /* Zicfiss, whose instructions are illegal without it: the kernel knows.
     * PR_GET_SHADOW_STACK_STATUS, bit PR_SHADOW_STACK_ENABLE. */
    unsigned long status = 0;
    int saved = errno;
    bool active = prctl(74, &status, 0, 0, 0) == 0 && status & 1;
    errno = saved;
    return active;
#else
    return false;
#endif
}
