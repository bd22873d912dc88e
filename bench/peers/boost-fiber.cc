/* Boost.Fiber: fibers with a scheduler. Handing over is what its mutexes and
 * channels do: making the other one ready, and suspending.
 *
 * SPDX-License-Identifier: MIT */
#include <boost/fiber/all.hpp>
#include <boost/version.hpp>
#include <new>

#include "peer.h"

static const char *peer_version(void) { return BOOST_LIB_VERSION; }

using boost::fibers::context;

struct peer_co {
    boost::fibers::fiber *fiber;
    context *at;
    bool ended;
    bool ending;
};

static context *peer_main;

static const char *peer_begin(void) {
    peer_main = context::active();
    return NULL;
}

/* Suspends the caller, whoever that is, and lets `to` run. */
static inline void peer_jump(context *to) {
    context *self = context::active();
    self->schedule(to);
    self->suspend();
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    try {
        co->fiber = new boost::fibers::fiber(
            boost::fibers::launch::post, std::allocator_arg,
            boost::fibers::fixedsize_stack(stack_bytes), [co, body, data] {
                co->at = context::active();
                peer_jump(peer_main); /* until it is resumed */
                body(co, data);
                co->ended = true;
                context::active()->schedule(peer_main);
            });
    } catch (const std::exception &) {
        return "no memory for a fiber";
    }
    peer_main->suspend(); /* until it waits for its turn */
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    peer_jump(co->at);
    return true;
}

static inline bool peer_yield(peer_co *self) {
    peer_jump(peer_main);
    return !self->ending;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    peer_jump(to->at);
    return !self->ending;
}

static void peer_drop(peer_co *co) {
    co->ending = true;
    if (!co->ended)
        peer_resume(co);
    co->fiber->join();
    delete co->fiber;
}

#include "workloads.h"
