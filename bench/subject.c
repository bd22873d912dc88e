/* Who bench-<backend> measures: a backend of the library and its lanes.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greenlet.h"
#include "shim.h"

/* "private", "copy", or "copy-lanes1" if the environment sets the lanes. */
static const char *name(void) {
    static char text[80];
    const char *lanes = getenv("GREENLET_LANES");
    if (strcmp(greenlet_backend(), "copy") != 0 || !lanes || !*lanes)
        return greenlet_backend();
    snprintf(text, sizeof text, "copy-lanes%s", lanes);
    return text;
}

const bench_subject bench_subject_of_this = {.name = name,
                                             .version_of = "greenlet_version",
                                             .version = greenlet_version};
