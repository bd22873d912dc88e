/* What a debugger or a core reader looks for: found by its magic in any
 * loaded image, stripped or not, and valid if `self` is its own address.
 * Offsets and sizes are in bytes. A reader must check `version`.
 *
 * SPDX-License-Identifier: MIT */
#include "core.h"

struct anchor {
    char magic[16];
    const struct anchor *self;
    uint32_t version; /* of this layout */
    uint32_t bytes;
    char backend[16];
    struct greenlet_thread *const *threads;
    struct {
        uint32_t next, current, main, slabs, foreign, exited;
    } thread;
    struct {
        uint32_t bytes, sp, home, parent, side, state, flags, serial;
    } greenlet;
    struct {
        uint32_t name, foreign_next;
    } side;
};

#define OFFSET(type, member) (uint32_t) offsetof(struct type, member)

GREENLET_API extern const struct anchor greenlet_anchor;

/* In writable memory, so that cores have it. */
__attribute__((section(".data"))) const struct anchor greenlet_anchor = {
    .magic = "greenlet anchor",
    .self = &greenlet_anchor,
    .version = 1,
    .bytes = sizeof(struct anchor),
    .backend = BACKEND_NAME,
    .threads = &core_threads,
    .thread = {OFFSET(greenlet_thread, next), OFFSET(greenlet_thread, current),
               OFFSET(greenlet_thread, main), OFFSET(greenlet_thread, slabs),
               OFFSET(greenlet_thread, foreign),
               OFFSET(greenlet_thread, exited)},
    .greenlet = {sizeof(struct greenlet), OFFSET(greenlet, b),
                 OFFSET(greenlet, home), OFFSET(greenlet, parent),
                 OFFSET(greenlet, side), OFFSET(greenlet, state),
                 OFFSET(greenlet, flags), OFFSET(greenlet, serial)},
    .side = {OFFSET(greenlet_side, name), OFFSET(greenlet_side, foreign_next)},
};
