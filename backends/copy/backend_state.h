/* State of the copy backend. docs/how-it-works.md has the pictures.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_COPY_STATE_H
#define GREENLET_COPY_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch_cpu.h"
#include "greenlet.h"
#include "slices.h"

#define BACKEND_NAME "copy"
#define BACKEND_FRAME_BYTES ARCH_FRAME_BYTES
#define BACKEND_SP_ALIGN ARCH_STACK_ALIGN

/* A place that greenlets run on: a lane, or in place the thread's stack. */
struct copy_region {
    greenlet *head; /* the chain of its owners, deepest first              */
    char *base, *low;
    struct copy_region *next, *prev; /* the ring of lanes                  */
    char *memory;
    bool used; /* since it was last looked at for a start                  */
    char pad[64 - 6 * sizeof(void *) - sizeof(bool)];
};

_Static_assert(sizeof(struct copy_region) == 64, "lanes are found by a shift");

struct backend_greenlet {
    void *sp;       /* suspended: where the register frame stands; new: how
                     * many bytes of stack it wants, as a number           */
    char *base;     /* the high end of its addresses; NULL: never started  */
    char *slice;    /* the saved bytes [sp, sp + saved); NULL: none        */
    greenlet *next; /* in its region's chain: the next owner above         */
    uint32_t saved;
    uint16_t lane; /* from its options or its start on; or COPY_NO_LANE   */
    uint8_t class; /* of the slice                                        */
    uint8_t reserved;
};

enum { COPY_NO_LANE = 0xffff };

#define BACKEND_GREENLET_INIT                                                  \
    { .lane = COPY_NO_LANE }

/* What a copying switch does, between its three calls from assembly. */
struct copy_plan {
    void *frame, *run_sp; /* struct arch_copy: first                       */
    greenlet *from, *to;
    struct copy_region *region; /* of `to`                                 */
    bool dying;    /* `from` is: its bytes are not saved            */
    bool fresh;    /* `to` starts                                   */
    bool exchange; /* the slice of `to` becomes the evicted one's   */
    bool after;
    bool refill;    /* prepared by prepare_refill(): it needs only `region` */
    uint64_t moved; /* bytes                                         */
};

struct backend_thread {
    struct copy_plan plan;
    struct copy_region *lanes; /* t->lanes of them                         */
    struct copy_region *hand;  /* the ring's front: the next to be given    */
    struct copy_region *place; /* in place: the thread's own stack         */
    char *place_top;           /* highest base started in place            */
    struct slice_pool slices;
    char *reserve; /* slices for those who cannot fail: blocks one after
                    * the other, `used` bytes; `out` of them have an owner */
    size_t reserve_bytes, reserve_used, reserve_out;
    void *nowhere; /* a dying greenlet's sp goes here          */
};

#endif
