/* SPDX-License-Identifier: MIT */
#include "say.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void say_flush(struct say *s) {
    int saved = errno;
    const char *p = s->text;
    while (s->n) {
        ssize_t done = write(s->fd, p, s->n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            break;
        p += done;
        s->n -= (size_t)done;
    }
    s->n = 0;
    errno = saved;
}

void say_text(struct say *s, const char *text) {
    while (*text) {
        if (s->n == sizeof(s->text))
            say_flush(s);
        s->text[s->n++] = *text;
        if (*text++ == '\n' && s->n > sizeof(s->text) / 2)
            say_flush(s);
    }
}

/* snprintf is not promised to be safe in a handler. */
static void say_number(struct say *s, uintptr_t n, unsigned radix) {
    char text[24], *p = text + sizeof(text);
    *--p = 0;
    do {
        *--p = "0123456789abcdef"[n % radix];
        n /= radix;
    } while (n);
    say_text(s, p);
}

void say_hex(struct say *s, uintptr_t n) {
    say_text(s, "0x");
    say_number(s, n, 16);
}

void say_dec(struct say *s, uintptr_t n) { say_number(s, n, 10); }
