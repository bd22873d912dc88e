/* A pull parser for XML: expat, which pushes events into callbacks, turned
 * round by a greenlet. The parser runs on a stack of its own; each event is
 * one switch to whoever asked for it, from the middle of expat's call chain.
 *
 *     pull *p = pull_open("file.xml");
 *     const pull_event *e;
 *     while ((e = pull_next(p))->kind > PULL_DONE)
 *         ...
 *     if (e->kind == PULL_ERROR)
 *         puts(e->text);
 *     pull_close(p);
 *
 * SPDX-License-Identifier: MIT */
#ifndef PULL_H
#define PULL_H

#include <stddef.h>
#include <stdint.h>

typedef enum pull_kind {
    PULL_ERROR, /* text: what is wrong and where                */
    PULL_DONE,  /* the document is complete                     */
    PULL_START, /* name, attributes                             */
    PULL_END,   /* name                                         */
    PULL_TEXT   /* text, in pieces as expat delivers it         */
} pull_kind;

/* What expat says, valid until the next pull_next() or pull_close(). The
 * pointers are expat's own: nothing has been copied. */
typedef struct pull_event {
    pull_kind kind;
    const char *name;
    const char *const *attributes; /* name, value, ..., NULL                */
    const char *text;              /* of text_bytes; '\0' only for an error */
    size_t text_bytes;
} pull_event;

typedef struct pull pull;

/* A parser of the file, which is opened by the first pull_next(). NULL: no
 * memory. */
pull *pull_open(const char *file);

/* The next event; PULL_ERROR and PULL_DONE are repeated for ever. */
const pull_event *pull_next(pull *p);

/* Frees the parser, also in the middle of a document. NULL is ignored. */
void pull_close(pull *p);

/* The same document by expat's callbacks, without any greenlet: `consume` is
 * called with each event, the last of which is PULL_DONE or PULL_ERROR.
 * Returns 0, or -1 if there is no memory. */
int pull_push(const char *file,
              void (*consume)(const pull_event *e, void *data), void *data);

#endif
