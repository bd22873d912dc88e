/* backend_resume() (src/backend.h) of the backends that switch with arch/.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_BACKEND_RESUME_H
#define GREENLET_BACKEND_RESUME_H

#include "arch.h"

#define BACKEND_SHORT_WAYS 0

static inline greenlet_message backend_resume(greenlet_message m,
                                              greenlet *from, greenlet *to) {
    return arch_switch(m, &from->b.sp, to->b.sp);
}

#endif
