/* GNU Pth's threads: pth_yield() in favour of one of them, which is a pass
 * through its scheduler.
 *
 * SPDX-License-Identifier: MIT */
#include <pth.h>

#include "peer.h"

#define PEER_MOST 2000
#define PEER_TOO_MANY "Pth's scheduler searches a list at each switch"

static const char *peer_version(void) { return PTH_VERSION_STR; }

struct peer_co {
    pth_t thread;
    peer_body *body;
    void *data;
    bool ending;
};

static pth_t peer_main;
static pth_attr_t attributes;

static const char *peer_begin(void) {
    if (!pth_init())
        return "pth_init failed";
    peer_main = pth_self();
    attributes = pth_attr_new();
    return attributes ? NULL : "pth_attr_new failed";
}

static void *peer_entry(void *argument) {
    peer_co *self = argument;
    self->body(self, self->data);
    pth_yield(peer_main);
    return NULL;
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    co->body = body;
    co->data = data;
    pth_attr_set(attributes, PTH_ATTR_STACK_SIZE, (unsigned)stack_bytes);
    co->thread = pth_spawn(attributes, peer_entry, co);
    return co->thread ? NULL : "pth_spawn failed";
}

static inline bool peer_resume(peer_co *co) { return pth_yield(co->thread); }

static inline bool peer_yield(peer_co *self) {
    pth_yield(peer_main);
    return !self->ending;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    pth_yield(to->thread);
    return !self->ending;
}

static void peer_drop(peer_co *co) { (void)pth_abort(co->thread); }

#include "workloads.h"
