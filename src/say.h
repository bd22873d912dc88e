/* Writing reports where printf must not be: in signal handlers, and when
 * memory is corrupt. Everything here is async-signal-safe.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_SAY_H
#define GREENLET_SAY_H

#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* Gathers a line or so, so that it reaches the file in one piece. */
struct say {
    int fd;
    size_t n;
    char text[400];
};

#define SAY_TO(fd_)                                                            \
    { .fd = (fd_), .n = 0 }

void say_flush(struct say *s);
void say_text(struct say *s, const char *text);
void say_hex(struct say *s, uintptr_t n); /* with 0x */
void say_dec(struct say *s, uintptr_t n);

#endif
