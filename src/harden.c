/* See harden.h.
 *
 * SPDX-License-Identifier: MIT */
#include "harden.h"

#ifdef GREENLET_HARDEN

#include <sys/random.h>
#include <time.h>

#include "backend.h"

static uint64_t secret;

/* When the library is loaded: constant from then on. */
static __attribute__((constructor)) void choose(void) {
    if (getrandom(&secret, sizeof(secret), GRND_NONBLOCK) == sizeof(secret))
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    secret = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30 ^
             (uint64_t)(uintptr_t)&now << 20;
}

static uint64_t mix(uint64_t sum, uint64_t word) {
    sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 32;
}

static uint32_t seal_header(const greenlet *g, const struct harden_trust *t) {
    uint64_t sum = mix(secret, (uintptr_t)g);
    for (size_t i = 0; i < sizeof(t->words) / sizeof(t->words[0]); i++)
        sum = mix(sum, t->words[i]);
    return (uint32_t)(sum ^ secret >> 32);
}

static ANNOTATE_BARE uint32_t seal_image(const greenlet *g,
                                         const struct harden_trust *t) {
    uint64_t sum = mix(~secret, (uintptr_t)g);
    for (size_t i = 0; i < t->bytes / sizeof(uintptr_t); i++)
        sum = mix(sum, ((const uintptr_t *)t->image)[i]);
    return (uint32_t)(sum ^ secret >> 32);
}

void harden_seal(greenlet *g) {
    struct harden_trust t = {0};
    backend_trust(g, &t);
    g->seal.header = seal_header(g, &t);
    g->seal.image = seal_image(g, &t);
}

void harden_check(greenlet *g, const greenlet *by) {
    struct harden_trust t = {0};
    backend_trust(g, &t);
    if (unlikely(g->seal.header != seal_header(g, &t)))
        core_fatal("the header of a suspended greenlet was overwritten", g, by);
    if (unlikely(g->seal.image != seal_image(g, &t)))
        core_fatal("the resume address of a suspended greenlet was overwritten",
                   g, by);
}

#endif
