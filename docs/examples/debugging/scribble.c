/* Copies lines of a message, one per turn. Crashes, but elsewhere.
 * Has a bug on purpose: docs/debugging.md finds it.
 *
 * SPDX-License-Identifier: MIT */
#include <stddef.h>
#include <stdio.h>

#include <greenlet.h>

#define LONG_LINE                                                              \
    "a line that is much longer than anybody had thought that a line could "   \
    "ever be, which is how these things begin, and which nobody has tested"

static const char *const lines[] = {"short", "also short", LONG_LINE};

static size_t longest;

/* Measures a line in a buffer of its own, then lets others run. */
static __attribute__((noinline)) int read_line(const char *line) {
    volatile char buffer[16];
    size_t n = 0;
    for (; line[n]; n++)
        buffer[n] = line[n];
    if (n > longest)
        longest = n;
    greenlet_switch(greenlet_main(), NULL);
    return buffer[0];
}

static __attribute__((noinline)) void read_message(void) {
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        int first = read_line(lines[i]);
        printf("line %zu begins with %c, the longest has %zu characters\n",
               i + 1, first, longest);
        fflush(stdout);
    }
}

static greenlet_message reader(void *value) {
    volatile char room[256]; /* what the scribbling ends in */
    for (size_t i = 0; i < sizeof(room); i++)
        room[i] = 0;
    read_message();
    return (greenlet_message){value, room[0]};
}

int main(void) {
    greenlet_options options = GREENLET_OPTIONS_INIT;
    options.name = "reader";
    greenlet *g = greenlet_new(reader, &options);
    if (!g)
        return 1;
    while (greenlet_get_state(g) != GREENLET_DEAD)
        greenlet_switch(g, NULL);
    greenlet_unref(g);
    return 0;
}
