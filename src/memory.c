/* The system's memory, in one place: what the library asks the kernel and
 * malloc for. Every function keeps errno. See core.h for the contracts.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

#ifndef MADV_GUARD_INSTALL /* Linux 6.13; absent from older headers */
#define MADV_GUARD_INSTALL 102
#endif

static void counted(void) { counter_add(&core_self->counters.allocations, 1); }

size_t memory_page(void) {
    static _Atomic size_t page; /* threads may all be the first */
    size_t known = atomic_load_explicit(&page, memory_order_relaxed);
    if (!known) {
        known = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&page, known, memory_order_relaxed);
    }
    return known;
}

static char *map(size_t bytes) {
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *memory_map(size_t bytes, size_t align) {
    int saved = errno;
    counted();
    /* The kernel puts one mapping right beside the last: after one aligned
     * block the next is aligned by itself. */
    char *p = map(bytes);
    if (p && (uintptr_t)p & (align ? align - 1 : 0)) {
        munmap(p, bytes);
        p = bytes + align < bytes ? NULL : map(bytes + align);
        if (p) {
            size_t head = (size_t)(-(uintptr_t)p & (align - 1));
            if (head)
                munmap(p, head);
            if (align - head)
                munmap(p + head + bytes, align - head);
            p += head;
        }
    }
    if (p)
        annotate_mapped(p, bytes);
    errno = saved;
    return p;
}

/* Does the kernel know guard markers? Emulators answer success to any
 * advice, so look whether the kernel itself now faults there. */
static bool guard_markers(void) {
    static _Atomic int known; /* 0: not asked, 1: yes, 2: no */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer)
        return answer == 1;
    answer = 2;
    int fd[2];
    size_t page = memory_page();
    char *p = memory_map(page, 0);
    if (p) {
        if (madvise(p, page, MADV_GUARD_INSTALL) == 0 &&
            pipe2(fd, O_CLOEXEC) == 0) {
            if (write(fd[1], p, 1) == -1 && errno == EFAULT)
                answer = 1;
            close(fd[0]);
            close(fd[1]);
        }
        memory_unmap(p, page);
    }
    atomic_store_explicit(&known, answer, memory_order_relaxed);
    return answer == 1;
}

int memory_guard(void *p, size_t bytes) {
    int saved = errno, status;
    counted();
    status = !ANNOTATE_PLAIN_GUARDS && guard_markers()
                 ? madvise(p, bytes, MADV_GUARD_INSTALL)
                 : mprotect(p, bytes, PROT_NONE);
    errno = saved;
    return status ? -ENOMEM : 0;
}

_Atomic unsigned long memory_unmaps;

void memory_unmap(void *p, size_t bytes) {
    int saved = errno;
    atomic_fetch_add_explicit(&memory_unmaps, 1, memory_order_relaxed);
    annotate_unmapped(p, bytes);
    munmap(p, bytes);
    errno = saved;
}

void memory_discard(void *p, size_t bytes) {
    int saved = errno;
    madvise(p, bytes, MADV_DONTNEED);
    errno = saved;
}

size_t memory_resident(void *p, size_t bytes) {
    int saved = errno;
    size_t page = memory_page(), found = 0;
    unsigned char seen[256];
    for (size_t at = 0; at < bytes; at += page * sizeof(seen)) {
        size_t n = bytes - at;
        if (n > page * sizeof(seen))
            n = page * sizeof(seen);
        if (mincore((char *)p + at, n, seen))
            break;
        for (size_t i = 0; i < n / page; i++)
            found += (seen[i] & 1) * page;
    }
    errno = saved;
    return found;
}

bool memory_mapped(void *page) {
    int saved = errno;
    unsigned char seen;
    bool mapped = mincore(page, memory_page(), &seen) == 0;
    errno = saved;
    return mapped;
}

void *memory_alloc(size_t bytes) {
    int saved = errno;
    counted();
    void *p = calloc(1, bytes);
    errno = saved;
    return p;
}

void memory_free(void *p) { free(p); }
