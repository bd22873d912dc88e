/* GNU Pth's user-space contexts, without its scheduler.
 *
 * SPDX-License-Identifier: MIT */
#include <pth.h>

#include "peer.h"

static const char *peer_version(void) { return PTH_VERSION_STR; }

struct peer_co {
    pth_uctx_t context;
    peer_body *body;
    void *data;
};

static pth_uctx_t peer_main;

static const char *peer_begin(void) {
    return pth_uctx_create(&peer_main) ? NULL : "pth_uctx_create failed";
}

static void peer_entry(void *argument) {
    peer_co *self = argument;
    self->body(self, self->data);
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    co->body = body;
    co->data = data;
    if (!pth_uctx_create(&co->context))
        return "pth_uctx_create failed";
    if (!pth_uctx_make(co->context, NULL, stack_bytes, NULL, peer_entry, co,
                       peer_main)) {
        pth_uctx_destroy(co->context);
        return "pth_uctx_make failed";
    }
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    return pth_uctx_switch(peer_main, co->context);
}

static inline bool peer_yield(peer_co *self) {
    return pth_uctx_switch(self->context, peer_main);
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    return pth_uctx_switch(self->context, to->context);
}

static void peer_drop(peer_co *co) { pth_uctx_destroy(co->context); }

#include "workloads.h"
