/* A library that is loaded and closed; see many.c.
 * SPDX-License-Identifier: MIT */
#include "greenlet.h"

/* The program's own functions, which a static libgreenlet does not export. */
struct plugin {
    greenlet_message (*switch_to)(greenlet *to, void *value);
    greenlet *parent;
};

__attribute__((visibility("default"))) greenlet_message
plugin_entry(void *value);

greenlet_message plugin_entry(void *value) {
    const struct plugin *p = value;
    volatile char bytes[500];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)i;
    greenlet_message m = p->switch_to(p->parent, (void *)(intptr_t)100);
    for (unsigned i = 0; i < sizeof bytes; i++)
        if (bytes[i] != (char)i)
            m.status = 99;
    return m;
}
