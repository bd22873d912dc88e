/* glibc's makecontext and swapcontext, bare: each switch saves and restores
 * the signal mask, a system call. Stacks from malloc, without guards.
 *
 * SPDX-License-Identifier: MIT */
#include <gnu/libc-version.h>
#include <ucontext.h>

#include "peer.h"

static const char *peer_version(void) { return gnu_get_libc_version(); }

struct peer_co {
    ucontext_t context;
    peer_body *body;
    void *data;
    void *stack;
};

static ucontext_t peer_main;

static const char *peer_begin(void) { return NULL; }

/* makecontext passes ints: the pointer goes in two halves. */
static void peer_entry(unsigned high, unsigned low) {
    peer_co *self = (peer_co *)(((uintptr_t)high << 16 << 16) | (uintptr_t)low);
    self->body(self, self->data);
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    co->body = body;
    co->data = data;
    co->stack = malloc(stack_bytes);
    if (!co->stack || getcontext(&co->context) != 0) {
        free(co->stack);
        return "no memory for a stack";
    }
    co->context.uc_stack.ss_sp = co->stack;
    co->context.uc_stack.ss_size = stack_bytes;
    co->context.uc_link = &peer_main;
    makecontext(&co->context, (void (*)(void))(void *)peer_entry, 2,
                (unsigned)((uintptr_t)co >> 16 >> 16), (unsigned)(uintptr_t)co);
    return NULL;
}

static inline bool peer_resume(peer_co *co) {
    return swapcontext(&peer_main, &co->context) == 0;
}

static inline bool peer_yield(peer_co *self) {
    return swapcontext(&self->context, &peer_main) == 0;
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    return swapcontext(&self->context, &to->context) == 0;
}

static void peer_drop(peer_co *co) { free(co->stack); }

#include "workloads.h"
