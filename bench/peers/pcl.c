/* The Portable Coroutine Library.
 *
 * SPDX-License-Identifier: MIT */
#include <pcl.h>

#include "peer.h"

/* Its header does not tell. */
static const char *peer_version(void) { return "unknown"; }

struct peer_co {
    coroutine_t handle;
    peer_body *body;
    void *data;
};

static coroutine_t peer_main;

static const char *peer_begin(void) {
    if (co_thread_init() != 0)
        return "co_thread_init failed";
    peer_main = co_current();
    return NULL;
}

static void peer_entry(void *argument) {
    peer_co *self = argument;
    self->body(self, self->data);
    self->handle = NULL; /* freed by what follows */
    co_exit_to(peer_main);
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    co->body = body;
    co->data = data;
    co->handle = co_create(peer_entry, co, NULL, (int)stack_bytes);
    return co->handle ? NULL : "co_create failed";
}

static inline bool peer_resume(peer_co *co) {
    co_call(co->handle);
    return true;
}

static inline bool peer_yield(peer_co *self) {
    (void)self;
    co_call(peer_main);
    return true;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    (void)self;
    co_call(to->handle);
    return true;
}

static void peer_drop(peer_co *co) {
    if (co->handle)
        co_delete(co->handle);
}

#include "workloads.h"
