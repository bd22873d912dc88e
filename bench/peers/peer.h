/* What an adapter to a peer defines: one file, bench/peers/NAME.c or .cc,
 * named in bench/peers/meson.build.
 *
 *     #include "peer.h"
 *     static const char *peer_version(void);    of the peer, in words
 *     struct peer_co { ... };
 *     static const char *peer_begin(void);      NULL, or why it cannot run
 *     static const char *peer_make(peer_co *co, peer_body *body, void *data,
 *                                  size_t stack_bytes);   NULL, or why not
 *     static inline bool peer_resume(peer_co *co);
 *     static inline bool peer_yield(peer_co *self);
 *     static inline bool peer_direct(peer_co *self, peer_co *to);
 *     static void peer_drop(peer_co *co);
 *     #include "workloads.h"
 *
 * PEER_NAME is defined by the build: NAME.
 *
 * The adapter and the workloads are one translation unit, so that the adapter
 * costs no call of its own: what is measured is what a user of the technique
 * who writes it by hand would get.
 *
 * - A coroutine runs body(self, data) on its own stack of at least
 *   stack_bytes. peer_make may start it, but not run the body.
 * - peer_resume, called by the main flow only, gives control to `co` until
 *   that, or whoever it has handed over to, yields. peer_yield gives control
 *   back to the main flow. peer_direct hands over from one coroutine to
 *   another; where the technique cannot, the adapter defines PEER_NO_DIRECT as
 *   the reason, a string.
 * - No value goes with a switch: where a technique has none, it need not pay.
 * - All three return false when the coroutine is to end: its body then
 *   returns at once. Only where the technique can free a suspended coroutine
 *   no other way does an adapter make use of it, in peer_drop.
 * - A body that returns goes back to the main flow.
 * - peer_drop frees a coroutine, suspended or finished.
 * - A technique that copies stacks defines PEER_SAVED_BYTES(co): how many
 *   bytes of the suspended `co` are saved now.
 * - PEER_MOST and PEER_TOO_MANY, PEER_WORDS: see workloads.h.
 * - struct peer_co is in memory that does not move; what coroutines share is
 *   static or on the heap, never on a stack.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct peer_co peer_co;
typedef void peer_body(peer_co *self, void *data);

/* What every benchmark uses unless it says otherwise. */
enum { PEER_STACK_BYTES = 65536 };

#endif
