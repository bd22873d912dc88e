/* Many greenlets that have been started, all of the same entry.
 *
 * SPDX-License-Identifier: MIT */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include <stdlib.h>

#include "../memory.h"
#include "common.h"

typedef struct crowd {
    greenlet **all;
    size_t count;
    char why_not[160];
} crowd;

/* Makes `count` of them, each of which has been given control once, with its
 * number as the value. Returns whether that worked; else why_not tells. To be
 * followed by crowd_end() in either case. */
static inline bool crowd_begin(crowd *c, size_t count, greenlet_entry *entry) {
    c->count = 0;
    c->all = calloc(count, sizeof(greenlet *));
    *c->why_not = '\0';
    intptr_t status = c->all ? 0 : -ENOMEM;
    while (status == 0 && c->count < count) {
        size_t i = c->count;
        c->all[i] = greenlet_new(entry, NULL);
        if (!c->all[i]) {
            status = -errno;
            break;
        }
        c->count++;
        status = greenlet_switch(c->all[i], (void *)(uintptr_t)i).status;
    }
    if (status)
        snprintf(c->why_not, sizeof c->why_not, "the %zuth greenlet: %s",
                 c->count + 1, greenlet_strerror(status));
    return status == 0;
}

static inline void crowd_end(crowd *c) {
    for (size_t i = 0; i < c->count; i++)
        greenlet_unref(c->all[i]);
    free(c->all);
    c->all = NULL;
    c->count = 0;
}

/* What most of them do: give every value back to their parent. */
static inline greenlet_message crowd_answer(void *value) {
    greenlet *parent = greenlet_parent(greenlet_current());
    greenlet_message m = {value, 0};
    while (m.status == 0)
        m = greenlet_switch(parent, m.value);
    return m;
}

#endif
