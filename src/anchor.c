/* What a debugger or a core reader looks for: found by its magic in any
 * loaded image, stripped or not, and valid if `self` is its own address.
 * Offsets and sizes are in bytes. A reader must check `version`; its other
 * half is tools/lib/image.py.
 *
 * SPDX-License-Identifier: MIT */
#include "core.h"

#include "backend_layout.h"
#include "layout.h"

struct anchor {
    char magic[16];
    const struct anchor *self;
    uint32_t version; /* of this layout */
    uint32_t bytes;
    char backend[16];
    struct greenlet_thread *const *threads;
    const struct slab_layout *slab;
    struct {
        uint32_t next, current, main, slabs, foreign, exited, tid;
    } thread;
    struct {
        uint32_t bytes, home, parent, entry, side, state, flags, serial;
    } greenlet;
    struct {
        uint32_t name, name_bytes, foreign_next;
    } side;
    struct {
        uint32_t state_new, state_active, state_dead; /* values of `state`   */
        uint32_t flag_main;                           /* in `flags`          */
        uint32_t home_mask; /* low bits of `home` that are no address        */
    } value;
    struct layout_stack stack;
    struct layout_register registers[LAYOUT_REGISTERS];
};

#define OFFSET(type, member) (uint32_t) offsetof(struct type, member)

/* Not const: cores have what is writable. */
struct anchor greenlet_anchor = {
    .magic = "greenlet anchor",
    .self = &greenlet_anchor,
    .version = 2,
    .bytes = sizeof(struct anchor),
    .backend = BACKEND_NAME,
    .threads = &core_threads,
    .slab = &slab_layout,
    .thread = {OFFSET(greenlet_thread, next), OFFSET(greenlet_thread, current),
               OFFSET(greenlet_thread, main), OFFSET(greenlet_thread, slabs),
               OFFSET(greenlet_thread, foreign),
               OFFSET(greenlet_thread, exited), OFFSET(greenlet_thread, tid)},
    .greenlet = {sizeof(struct greenlet), OFFSET(greenlet, home),
                 OFFSET(greenlet, parent), OFFSET(greenlet, entry),
                 OFFSET(greenlet, side), OFFSET(greenlet, state),
                 OFFSET(greenlet, flags), OFFSET(greenlet, serial)},
    .side = {OFFSET(greenlet_side, name),
             sizeof(((struct greenlet_side *)0)->name),
             OFFSET(greenlet_side, foreign_next)},
    .value = {GREENLET_NEW, GREENLET_ACTIVE, GREENLET_DEAD, CORE_MAIN,
              CORE_TAGS},
    .stack = BACKEND_LAYOUT_STACK,
    .registers = BACKEND_LAYOUT_REGISTERS,
};
