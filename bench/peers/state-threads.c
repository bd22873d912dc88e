/* The State Threads library: a scheduler with condition variables. Handing
 * over is waking the other one and waiting.
 *
 * SPDX-License-Identifier: MIT */
#include <st.h>

#include "peer.h"

/* Its header does not tell. */
static const char *peer_version(void) { return "unknown"; }

struct peer_co {
    st_cond_t turn;
    st_thread_t thread;
    peer_body *body;
    void *data;
    bool ended;
    bool ending;
};

static st_cond_t peer_main;

static const char *peer_begin(void) {
    if (st_init() != 0)
        return "st_init failed";
    peer_main = st_cond_new();
    return peer_main ? NULL : "st_cond_new failed";
}

static void *peer_entry(void *argument) {
    peer_co *self = argument;
    st_cond_signal(peer_main);
    st_cond_wait(self->turn);
    self->body(self, self->data);
    self->ended = true;
    st_cond_signal(peer_main);
    return NULL;
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    co->body = body;
    co->data = data;
    co->turn = st_cond_new();
    if (!co->turn)
        return "st_cond_new failed";
    co->thread = st_thread_create(peer_entry, co, 1, (int)stack_bytes);
    if (!co->thread) {
        st_cond_destroy(co->turn);
        return "st_thread_create failed";
    }
    st_cond_wait(peer_main); /* until it waits for its turn */
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    st_cond_signal(co->turn);
    return st_cond_wait(peer_main) == 0;
}

static inline bool peer_yield(peer_co *self) {
    st_cond_signal(peer_main);
    st_cond_wait(self->turn);
    return !self->ending;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    st_cond_signal(to->turn);
    st_cond_wait(self->turn);
    return !self->ending;
}

static void peer_drop(peer_co *co) {
    co->ending = true;
    if (!co->ended)
        peer_resume(co);
    st_thread_join(co->thread, NULL);
    st_cond_destroy(co->turn);
}

#include "workloads.h"
