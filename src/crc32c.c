/* SPDX-License-Identifier: MIT */
#include "crc32c.h"

#include <stdatomic.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#ifdef __clang__ /* gcc has none of "memory" */
#define PLAIN                                                                  \
    __attribute__((no_sanitize("address", "undefined", "thread", "memory")))
#else
#define PLAIN __attribute__((no_sanitize("address", "undefined", "thread")))
#endif

/* Filled at the first use; filling twice at once writes the same. */
static const uint32_t *table(void) {
    static _Atomic uint32_t rows[256];
    if (atomic_load_explicit(&rows[255], memory_order_acquire) == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int bit = 0; bit < 8; bit++)
                c = c >> 1 ^ (c & 1 ? UINT32_C(0x82f63b78) : 0);
            atomic_store_explicit(&rows[i], c, memory_order_release);
        }
    return (const uint32_t *)rows;
}

PLAIN uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t n) {
    const uint32_t *rows = table();
    const unsigned char *p = bytes;
    for (; n; n--, p++)
        crc = crc >> 8 ^ rows[(crc ^ *p) & 0xff];
    return crc;
}

/* The instruction, a word at a time. */
#if defined(__x86_64__)
#define HAVE_INSTRUCTION 1
#define WITH_INSTRUCTION PLAIN __attribute__((target("sse4.2")))
#define BY_WORD(crc, word) (uint32_t) __builtin_ia32_crc32di((crc), (word))
#define BY_BYTE(crc, byte) __builtin_ia32_crc32qi((crc), (byte))
static int have_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#define HAVE_INSTRUCTION 1
#define WITH_INSTRUCTION PLAIN __attribute__((target("+crc")))
#ifdef __clang__
#define BY_WORD(crc, word) __builtin_arm_crc32cd((crc), (word))
#define BY_BYTE(crc, byte) __builtin_arm_crc32cb((crc), (byte))
#else
#define BY_WORD(crc, word) __builtin_aarch64_crc32cx((crc), (word))
#define BY_BYTE(crc, byte) __builtin_aarch64_crc32cb((crc), (byte))
#endif
static int have_instruction(void) {
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}
#endif

#ifdef HAVE_INSTRUCTION
WITH_INSTRUCTION static uint32_t by_instruction(uint32_t crc, const void *bytes,
                                                size_t n) {
    const unsigned char *p = bytes;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof(word));
        crc = BY_WORD(crc, word);
    }
    for (; n; n--, p++)
        crc = BY_BYTE(crc, *p);
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t n) {
#ifdef HAVE_INSTRUCTION
    static _Atomic int have; /* 0: not asked, 1: yes, 2: no */
    int answer = atomic_load_explicit(&have, memory_order_relaxed);
    if (answer == 0) {
        answer = have_instruction() ? 1 : 2;
        atomic_store_explicit(&have, answer, memory_order_relaxed);
    }
    if (answer == 1)
        return by_instruction(crc, bytes, n);
#endif
    return crc32c_by_table(crc, bytes, n);
}
