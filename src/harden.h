/* The build option `harden`: what a resume trusts is sealed while a greenlet
 * is suspended, and looked at before it is used. An overwritten header or
 * resume address ends the process with a message that names the greenlet.
 *
 * A seal has two halves, from a secret of the process: one of the words in the
 * greenlet's header that say where its image is, one of the image's first
 * words. The second is looked at when the first is right. All switches of a
 * hardened build take the slow path.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_HARDEN_H
#define GREENLET_HARDEN_H

#include <stddef.h>
#include <stdint.h>

#include "greenlet.h"
#include "names.h"

struct harden_halves {
    uint32_t header, image;
};

/* What a backend trusts when it resumes a suspended greenlet. */
struct harden_trust {
    uintptr_t words[4]; /* of the header                       */
    const void *image;  /* bytes that the words lead to        */
    size_t bytes;       /* a multiple of a word                */
};

#ifdef GREENLET_HARDEN

#define HARDEN_STATE struct harden_halves seal
#define HARDEN_ALL 1

#define harden_seal greenlet_harden_seal
#define harden_check greenlet_harden_check
#define backend_trust greenlet_backend_trust

/* Each backend's. Unused words are 0; looks at nothing but the header. */
void backend_trust(const greenlet *g, struct harden_trust *out);

/* g has been suspended, or the library has moved its bytes. */
void harden_seal(greenlet *g);

/* g is to be resumed by `by`, or its bytes are to be moved. */
void harden_check(greenlet *g, const greenlet *by);

#else

#define HARDEN_STATE _Static_assert(1, "no state")
#define HARDEN_ALL 0
#define harden_seal(g) ((void)0)
#define harden_check(g, by) ((void)0)

#endif
#endif
