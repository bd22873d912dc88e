/* What readers of a process's memory or core are told, beside the offsets in
 * src/anchor.c: how slabs and a suspended greenlet's stack are found.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_LAYOUT_H
#define GREENLET_LAYOUT_H

#include <stdint.h>

#include "greenlet.h"
#include "names.h"

#define LAYOUT_NONE UINT32_MAX

/* anchor.c. Who uses it keeps it in a static program. */
GREENLET_API extern struct anchor greenlet_anchor;

struct slab_layout {
    uint32_t bytes; /* of a slab */
    uint32_t maker, next, used_high, slots;
};

/* slab.c. Not const: cores have what is writable. */
extern struct slab_layout slab_layout;

/* Offsets in a greenlet; LAYOUT_NONE for what the backend has not.
 *
 * A backend that switches with arch/ has `sp`: there stands a register frame
 * whose first word is where it goes on. The others have `context`, a pointer
 * to a block that holds the registers of the anchor's table.
 *
 * `slice`, `saved`: the lowest `saved` bytes are at `slice`. */
struct layout_stack {
    uint32_t sp, context;
    uint32_t base; /* the high end */
    uint32_t slice, saved;
};

/* A register's DWARF number on this CPU, or one of these. */
enum { LAYOUT_PC = 0x100, LAYOUT_SP, LAYOUT_FP, LAYOUT_END = 0xffff };

/* Where it is in the context. An entry LAYOUT_END is the last. */
struct layout_register {
    uint16_t number, offset;
};

enum { LAYOUT_REGISTERS = 24 };

#define LAYOUT_NO_REGISTERS                                                    \
    {                                                                          \
        { LAYOUT_END, 0 }                                                      \
    }

#endif
