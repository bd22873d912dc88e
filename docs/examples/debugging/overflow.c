/* Finds how deep brackets are nested. Dies of some input.
 * Has a bug on purpose: docs/debugging.md finds it.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <greenlet.h>

static const char *text;

/* The depth of what begins here; `text` goes on behind it. */
static int depth_of_list(void) {
    volatile char scratch[64];
    int deepest = 0;
    scratch[0] = *text++;
    while (*text == '[') {
        int depth = depth_of_list();
        if (depth > deepest)
            deepest = depth;
    }
    if (*text == ']')
        text++;
    return deepest + (scratch[0] == '[');
}

static greenlet_message parser(void *input) {
    text = input;
    printf("depth %d\n", depth_of_list());
    return (greenlet_message){NULL, 0};
}

int main(int argc, char **argv) {
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    char *input = calloc(2 * n + 1, 1);
    greenlet_options options = GREENLET_OPTIONS_INIT;
    options.name = "parser";
    greenlet *g = greenlet_new(parser, &options);
    if (!input || !g)
        return 1;
    memset(input, '[', n);
    memset(input + n, ']', n);
    greenlet_switch(g, input);
    greenlet_unref(g);
    free(input);
    return 0;
}
