/* Ruby's Fiber, from C, with blocks in C as what its fibers run; transfer
 * everywhere, which cannot be mixed with resume and yield.
 *
 * SPDX-License-Identifier: MIT */
#include <ruby.h>
#include <ruby/version.h>

#include "peer.h"

static const char *peer_version(void) { return ruby_version; }

struct peer_co {
    VALUE fiber;
    peer_body *body;
    void *data;
    long kept_at;
    bool started;
};

static VALUE peer_main;
static VALUE kept; /* an array of fibers, for the garbage collector */
static long in_use;
static bool crowded; /* there was no room for another one */
static char words[160];
#define PEER_WORDS words /* Ruby's, when one did not start */

static const char *peer_begin(void) {
    if (ruby_setup() != 0)
        return "ruby_setup failed";
    peer_main = rb_fiber_current();
    rb_gc_register_address(&peer_main);
    kept = rb_ary_new();
    rb_gc_register_address(&kept);
    return NULL;
}

static VALUE peer_entry(RB_BLOCK_CALL_FUNC_ARGLIST(yielded, callback)) {
    (void)yielded;
    (void)argc;
    (void)argv;
    (void)blockarg;
    peer_co *self = (peer_co *)NUM2ULL(callback);
    self->body(self, self->data);
    return Qnil;
}

static VALUE make(VALUE co) { return rb_fiber_new(peer_entry, co); }

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    (void)stack_bytes; /* RUBY_FIBER_MACHINE_STACK_SIZE in the environment */
    int failed = 0;
    co->body = body;
    co->data = data;
    co->fiber = rb_protect(make, ULL2NUM((uintptr_t)co), &failed);
    if (failed) {
        rb_set_errinfo(Qnil);
        return "rb_fiber_new failed";
    }
    co->kept_at = RARRAY_LEN(kept);
    rb_ary_push(kept, co->fiber);
    in_use++;
    return NULL;
}

static VALUE transfer(VALUE to) { return rb_fiber_transfer(to, 0, NULL); }

/* The first switch makes the stack, which may fail. */
static inline bool peer_resume(peer_co *co) {
    if (co->started) {
        (void)rb_fiber_transfer(co->fiber, 0, NULL);
        return true;
    }
    int failed = 0;
    co->started = true;
    (void)rb_protect(transfer, co->fiber, &failed);
    if (!failed)
        return true;
    VALUE message = rb_obj_as_string(rb_errinfo());
    snprintf(words, sizeof words, "%s", StringValueCStr(message));
    rb_set_errinfo(Qnil);
    crowded = true;
    return false;
}

static inline bool peer_yield(peer_co *self) {
    (void)self;
    (void)rb_fiber_transfer(peer_main, 0, NULL);
    return true;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    (void)self;
    (void)rb_fiber_transfer(to->fiber, 0, NULL);
    return true;
}

static void peer_drop(peer_co *co) {
    rb_ary_store(kept, co->kept_at, Qnil);
    if (--in_use > 0)
        return;
    rb_ary_clear(kept);
    if (crowded)
        rb_gc();
    crowded = false;
}

#include "workloads.h"
