/* CRC-32C (Castagnoli polynomial 0x1edc6f41, reflected; RFC 3720 appendix B.4)
 * by the CPU's instruction where there is one at run time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_CRC32C_H
#define GREENLET_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* Goes on from `crc`, which is 0 at first; not inverted, as nobody else sees
 * it. Not instrumented: it reads whole stacks. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);

/* The same without the instruction: for tests. */
uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t n);

#endif
