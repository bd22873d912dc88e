/* Memory that fails on demand; see faults.h.
 * SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* clang links its sanitizers' runtime to the program: it comes through here,
 * too, and before it is ready to be told of accesses. */
#ifdef __clang__
#pragma clang attribute push(                                                  \
    __attribute__((disable_sanitizer_instrumentation)), apply_to = function)
#endif

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__real_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at);
/* What mmap is called with a 64-bit off_t, Meson's choice. */
void *__real_mmap64(void *p, size_t n, int prot, int flags, int fd, int64_t at);
int __real_munmap(void *p, size_t n);
int __real_mprotect(void *p, size_t n, int prot);
int __real_madvise(void *p, size_t n, int advice);
int __real_pthread_key_create(pthread_key_t *key, void (*destroy)(void *));
int __real_pthread_setspecific(pthread_key_t key, const void *value);
int __real_sigaltstack(const stack_t *new_stack, stack_t *old_stack);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at);
void *__wrap_mmap64(void *p, size_t n, int prot, int flags, int fd, int64_t at);
int __wrap_munmap(void *p, size_t n);
int __wrap_mprotect(void *p, size_t n, int prot);
int __wrap_madvise(void *p, size_t n, int advice);
int __wrap_pthread_key_create(pthread_key_t *key, void (*destroy)(void *));
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_sigaltstack(const stack_t *new_stack, stack_t *old_stack);

static __thread unsigned long fail_at; /* 0: not armed */
static __thread unsigned long requests, failures;
static __thread enum faults_kind fail_kind;
static atomic_long blocks, mapped;

void faults_arm(unsigned long n, enum faults_kind kind) {
    fail_at = n;
    fail_kind = kind;
    requests = failures = 0;
}

unsigned long faults_disarm(void) {
    fail_at = 0;
    return failures;
}

unsigned long faults_requests(void) { return requests; }
long faults_blocks(void) { return atomic_load(&blocks); }
long faults_mapped(void) { return atomic_load(&mapped); }

/* ---- The library's own, in any thread -------------------------------------
 */

static unsigned long library_fails_at;
static _Atomic unsigned long *library_requests;

void faults_arm_library(unsigned long n, _Atomic unsigned long *count) {
    library_fails_at = n;
    library_requests = count;
}

static bool library_fails(void) {
    return library_requests &&
           atomic_fetch_add(library_requests, 1) + 1 == library_fails_at;
}

/* ---- The calling thread's ------------------------------------------------ */

/* Called at each request: whether it shall fail. */
static bool fails(void) {
    requests++;
    if (fail_at == 0)
        return false;
    if (fail_kind == FAULTS_ONCE ? requests != fail_at : requests < fail_at)
        return false;
    failures++;
    return true;
}

/* What the tests hardly ever ask for: it is the library's. */
static bool system_fails(void) {
    bool library = library_fails();
    return fails() || library;
}

static void *counted(void *p) {
    if (p)
        atomic_fetch_add(&blocks, 1);
    return p;
}

void *__wrap_malloc(size_t n) {
    if (fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return counted(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size) {
    if (fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *p, size_t n) {
    if (fails()) {
        errno = ENOMEM;
        return NULL;
    }
    void *q = __real_realloc(p, n);
    return p ? q : counted(q);
}

void __wrap_free(void *p) {
    if (p)
        atomic_fetch_sub(&blocks, 1);
    __real_free(p);
}

static void *mapping(void *q, size_t n, int flags) {
    if (q != MAP_FAILED && !(flags & MAP_FIXED))
        atomic_fetch_add(&mapped, (long)n);
    return q;
}

void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at) {
    if (system_fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mapping(__real_mmap(p, n, prot, flags, fd, at), n, flags);
}

void *__wrap_mmap64(void *p, size_t n, int prot, int flags, int fd,
                    int64_t at) {
    if (system_fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mapping(__real_mmap64(p, n, prot, flags, fd, at), n, flags);
}

int __wrap_munmap(void *p, size_t n) {
    int status = __real_munmap(p, n);
    if (status == 0)
        atomic_fetch_sub(&mapped, (long)n);
    return status;
}

int __wrap_mprotect(void *p, size_t n, int prot) {
    if (system_fails()) {
        errno = ENOMEM;
        return -1;
    }
    return __real_mprotect(p, n, prot);
}

int __wrap_madvise(void *p, size_t n, int advice) {
    if (system_fails()) {
        errno = ENOMEM;
        return -1;
    }
    return __real_madvise(p, n, advice);
}

int __wrap_pthread_key_create(pthread_key_t *key, void (*destroy)(void *)) {
    return system_fails() ? EAGAIN : __real_pthread_key_create(key, destroy);
}

int __wrap_pthread_setspecific(pthread_key_t key, const void *value) {
    return value && system_fails() ? ENOMEM
                                   : __real_pthread_setspecific(key, value);
}

/* The kernel refuses a stack that is too small; never one that it has told
 * and that is put back. */
int __wrap_sigaltstack(const stack_t *new_stack, stack_t *old_stack) {
    static __thread stack_t told;
    bool put_back = new_stack && new_stack->ss_sp == told.ss_sp &&
                    new_stack->ss_size == told.ss_size &&
                    new_stack->ss_flags == told.ss_flags;
    if (new_stack && !put_back && system_fails()) {
        errno = ENOMEM;
        return -1;
    }
    int status = __real_sigaltstack(new_stack, old_stack);
    if (status == 0 && old_stack)
        told = *old_stack;
    return status;
}

/* Of the heap the library asks through this one: the tests' own requests are
 * not counted. */
void *__real_greenlet_memory_alloc(size_t bytes);
void *__wrap_greenlet_memory_alloc(size_t bytes);

void *__wrap_greenlet_memory_alloc(size_t bytes) {
    return library_fails() ? NULL : __real_greenlet_memory_alloc(bytes);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
