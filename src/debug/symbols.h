/* Names of functions. SPDX-License-Identifier: MIT */
#ifndef GREENLET_DEBUG_SYMBOLS_H
#define GREENLET_DEBUG_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The function of the ELF file `path` that has address `at` of it (as in the
 * file: without what it was loaded at): its name, cut to n - 1 bytes, and how
 * far in it `at` is. False: it has none there, or is no such file.
 * Async-signal-safe; keeps errno. */
bool symbol_at(const char *path, uintptr_t at, char *name, size_t n,
               size_t *offset);

#endif
