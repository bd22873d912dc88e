/* A bare _setjmp and _longjmp pair, on stacks that makecontext entered once:
 * what many libraries are made of. glibc mangles the pointers that it saves.
 * Stacks from malloc, without guards.
 *
 * SPDX-License-Identifier: MIT */
#undef _FORTIFY_SOURCE /* its longjmp aborts when the stack changes */
#include <gnu/libc-version.h>
#include <setjmp.h>
#include <ucontext.h>

#include "peer.h"

static const char *peer_version(void) { return gnu_get_libc_version(); }

struct peer_co {
    jmp_buf at;
    peer_body *body;
    void *data;
    void *stack;
};

static jmp_buf peer_main;
static peer_co *starting;
static ucontext_t starter;

static const char *peer_begin(void) { return NULL; }

static void peer_entry(void) {
    peer_co *self = starting;
    if (_setjmp(self->at) == 0)
        (void)setcontext(&starter);
    self->body(self, self->data);
    _longjmp(peer_main, 1);
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    ucontext_t context;
    co->body = body;
    co->data = data;
    co->stack = malloc(stack_bytes);
    if (!co->stack || getcontext(&context) != 0) {
        free(co->stack);
        return "no memory for a stack";
    }
    context.uc_stack.ss_sp = co->stack;
    context.uc_stack.ss_size = stack_bytes;
    context.uc_link = NULL;
    makecontext(&context, peer_entry, 0);
    starting = co;
    if (swapcontext(&starter, &context) != 0) {
        free(co->stack);
        return "swapcontext failed";
    }
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    if (_setjmp(peer_main) == 0)
        _longjmp(co->at, 1);
    return true;
}

static inline bool peer_yield(peer_co *self) {
    if (_setjmp(self->at) == 0)
        _longjmp(peer_main, 1);
    return true;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    if (_setjmp(self->at) == 0)
        _longjmp(to->at, 1);
    return true;
}

static void peer_drop(peer_co *co) { free(co->stack); }

#include "workloads.h"
