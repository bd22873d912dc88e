/* Boost.Coroutine2: asymmetric coroutines above boost::context::fiber.
 *
 * SPDX-License-Identifier: MIT */
#include <boost/coroutine2/all.hpp>
#include <boost/version.hpp>
#include <new>

#include "peer.h"

#define PEER_NO_DIRECT "Boost.Coroutine2 is asymmetric: no direct switch"

static const char *peer_version(void) { return BOOST_LIB_VERSION; }

using coroutine = boost::coroutines2::coroutine<void>;

struct peer_co {
    coroutine::push_type *push;
    coroutine::pull_type *source;
};

static const char *peer_begin(void) { return NULL; }

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    try {
        co->push = new coroutine::push_type(
            boost::coroutines2::fixedsize_stack(stack_bytes),
            [co, body, data](coroutine::pull_type &source) {
                co->source = &source;
                body(co, data);
            });
    } catch (const std::bad_alloc &) {
        return "no memory for a stack";
    }
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    (*co->push)();
    return true;
}

static inline bool peer_yield(peer_co *self) {
    (*self->source)();
    return true;
}

static void peer_drop(peer_co *co) { delete co->push; }

#include "workloads.h"
