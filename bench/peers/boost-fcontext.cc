/* Boost.Context's lowest level: jump_fcontext, assembly, which leaves the
 * bookkeeping to its user. Stacks from malloc, without guards.
 *
 * SPDX-License-Identifier: MIT */
#include <boost/context/detail/fcontext.hpp>
#include <boost/version.hpp>

#include "peer.h"

static const char *peer_version(void) { return BOOST_LIB_VERSION; }

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::transfer_t;

struct peer_co {
    fcontext_t at; /* while suspended */
    peer_body *body;
    void *data;
    void *stack;
};

static peer_co peer_main;

static const char *peer_begin(void) { return NULL; }

/* Suspends `from` and goes on with `to`. Whoever comes back says who it is. */
static inline void peer_jump(peer_co *from, peer_co *to) {
    transfer_t t = jump_fcontext(to->at, from);
    static_cast<peer_co *>(t.data)->at = t.fctx;
}

static void peer_entry(transfer_t t) {
    peer_co *self = static_cast<peer_co *>(t.data);
    t = jump_fcontext(t.fctx, NULL);
    static_cast<peer_co *>(t.data)->at = t.fctx;
    self->body(self, self->data);
    peer_jump(self, &peer_main);
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    co->body = body;
    co->data = data;
    co->stack = malloc(stack_bytes);
    if (!co->stack)
        return "no memory for a stack";
    fcontext_t fresh = boost::context::detail::make_fcontext(
        static_cast<char *>(co->stack) + stack_bytes, stack_bytes, peer_entry);
    co->at = jump_fcontext(fresh, co).fctx;
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    peer_jump(&peer_main, co);
    return true;
}

static inline bool peer_yield(peer_co *self) {
    peer_jump(self, &peer_main);
    return true;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    peer_jump(self, to);
    return true;
}

static void peer_drop(peer_co *co) { free(co->stack); }

#include "workloads.h"
