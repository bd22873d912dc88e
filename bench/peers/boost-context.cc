/* Boost.Context's boost::context::fiber: one-shot continuations above
 * jump_fcontext; dropping a suspended one unwinds its stack. Stacks by its
 * default allocator, which is malloc.
 *
 * SPDX-License-Identifier: MIT */
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <boost/version.hpp>
#include <new>
#include <utility>

#include "peer.h"

static const char *peer_version(void) { return BOOST_LIB_VERSION; }

using boost::context::fiber;

struct peer_co {
    fiber at; /* while suspended */
};

static peer_co peer_main, *peer_from;

static const char *peer_begin(void) { return NULL; }

/* Suspends `from` and goes on with `to`. Whoever comes back says who it is. */
static inline void peer_jump(peer_co *from, peer_co *to) {
    peer_from = from;
    fiber back = std::move(to->at).resume();
    peer_from->at = std::move(back);
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    new (co) peer_co;
    try {
        co->at = fiber(std::allocator_arg,
                       boost::context::fixedsize_stack(stack_bytes),
                       [co, body, data](fiber &&back) {
                           peer_from->at = std::move(back);
                           body(co, data);
                           peer_from = co;
                           return std::move(peer_main.at);
                       });
    } catch (const std::bad_alloc &) {
        return "no memory for a stack";
    }
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

static void peer_drop(peer_co *co) { co->~peer_co(); }

#include "workloads.h"
