/* A push parser turned into a pull parser; see pull.h.
 *
 * The consumer and expat each believe that they are in charge:
 *
 *     consumer                         expat, on the greenlet's stack
 *     --------                         ------------------------------
 *     pull_next() --- switch --------> parse_file() reads, calls
 *                                        XML_ParseBuffer() calls
 *                                          on_start() fills p->event
 *     uses p->event <--- switch -----------  deliver()
 *     pull_next() --- switch ------------->  deliver() returns,
 *                                          on_start() returns, expat goes on
 *
 * What the two sides share lives in struct pull, on the heap: where stacks
 * are copied, a suspended greenlet's own variables may be out of place while
 * the consumer looks at them. The strings are expat's, on the heap as well,
 * and stay as they are while expat waits inside its callback; with one
 * exception, see on_text().
 *
 * SPDX-License-Identifier: MIT */
#include "pull.h"

#include <errno.h>
#include <expat.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greenlet.h"

enum { PIECE_BYTES = 65536, SMALL_BYTES = 8 };

struct pull {
    pull_event event;
    greenlet *parser; /* NULL: push, by `consume`                         */
    intptr_t stop;    /* not 0: a status that ends the parser             */
    void (*consume)(const pull_event *e, void *data);
    void *data;
    XML_Parser expat;
    char small[SMALL_BYTES];
    char error[256];
    char file[]; /* its name */
};

/* Hands p->event over. As a pull parser: one switch to the consumer, who is
 * the parser's parent. It returns when the consumer asks for the next event, or
 * with GREENLET_EXIT when the parser is to be closed; expat is then stopped,
 * and so unwound in the normal way. */
static void deliver(pull *p) {
    if (!p->parser) {
        p->consume(&p->event, p->data);
        return;
    }
    greenlet_message m = greenlet_switch(greenlet_parent(p->parser), &p->event);
    if (m.status) {
        p->stop = m.status;
        (void)XML_StopParser(p->expat, XML_FALSE);
    }
}

/* ---- expat's callbacks ------------------------------------------------ */

static void on_start(void *data, const XML_Char *name, const XML_Char **atts) {
    pull *p = data;
    if (p->stop)
        return; /* expat may still call for the rest of an empty element */
    p->event = (pull_event){
        .kind = PULL_START,
        .name = name,
        .attributes = (const char *const *)atts,
    };
    deliver(p);
}

static void on_end(void *data, const XML_Char *name) {
    pull *p = data;
    if (p->stop)
        return;
    p->event = (pull_event){.kind = PULL_END, .name = name};
    deliver(p);
}

/* Line ends, character references and the predefined entities reach us as a
 * character or two in one of expat's local variables: these are on the
 * greenlet's stack, so they are moved into struct pull. */
static void on_text(void *data, const XML_Char *text, int bytes) {
    pull *p = data;
    if (p->stop)
        return;
    p->event = (pull_event){
        .kind = PULL_TEXT,
        .text = text,
        .text_bytes = (size_t)bytes,
    };
    if ((size_t)bytes <= sizeof p->small)
        p->event.text = memcpy(p->small, text, (size_t)bytes);
    deliver(p);
}

/* ---- The parser's side ------------------------------------------------ */

static void fail(pull *p, const char *what) {
    unsigned long line = 0;
    if (p->expat && XML_GetErrorCode(p->expat) != XML_ERROR_NONE)
        line = (unsigned long)XML_GetCurrentLineNumber(p->expat);
    if (line)
        snprintf(p->error, sizeof p->error, "%s:%lu: %s", p->file, line, what);
    else
        snprintf(p->error, sizeof p->error, "%s: %s", p->file, what);
    p->event = (pull_event){
        .kind = PULL_ERROR,
        .text = p->error,
        .text_bytes = strlen(p->error),
    };
}

/* Reads the stream piece by piece into expat's own buffer. Leaves the last
 * event, PULL_DONE or PULL_ERROR, in p->event. */
static void parse_stream(pull *p, FILE *stream) {
    bool last = false;
    while (!last) {
        void *piece = XML_GetBuffer(p->expat, PIECE_BYTES);
        if (!piece) {
            fail(p, XML_ErrorString(XML_GetErrorCode(p->expat)));
            return;
        }
        size_t bytes = fread(piece, 1, PIECE_BYTES, stream);
        if (ferror(stream)) {
            fail(p, strerror(errno));
            return;
        }
        last = bytes < PIECE_BYTES;
        enum XML_Status status = XML_ParseBuffer(p->expat, (int)bytes, last);
        if (p->stop) {
            if (p->stop < 0) /* could not switch to the consumer */
                fail(p, greenlet_strerror(p->stop));
            return;
        }
        if (status != XML_STATUS_OK) {
            fail(p, XML_ErrorString(XML_GetErrorCode(p->expat)));
            return;
        }
    }
    p->event = (pull_event){.kind = PULL_DONE};
}

static void parse_file(pull *p) {
    FILE *stream = fopen(p->file, "rb");
    if (!stream) {
        fail(p, strerror(errno));
        return;
    }
    p->expat = XML_ParserCreate(NULL);
    if (p->expat) {
        XML_SetUserData(p->expat, p);
        XML_SetElementHandler(p->expat, on_start, on_end);
        XML_SetCharacterDataHandler(p->expat, on_text);
        parse_stream(p, stream);
        XML_ParserFree(p->expat);
        p->expat = NULL;
    } else {
        fail(p, strerror(ENOMEM));
    }
    fclose(stream);
}

/* The greenlet. Its last event goes to its parent, the consumer, as the value
 * of its end. */
static greenlet_message parser_entry(void *value) {
    pull *p = value;
    parse_file(p);
    return (greenlet_message){&p->event, p->stop > 0 ? p->stop : 0};
}

/* ---- The consumer's side ---------------------------------------------- */

static pull *make(const char *file) {
    size_t bytes = strlen(file) + 1;
    pull *p = calloc(1, sizeof *p + bytes);
    if (p)
        memcpy(p->file, file, bytes);
    return p;
}

pull *pull_open(const char *file) {
    pull *p = make(file);
    if (!p)
        return NULL;
    greenlet_options options = GREENLET_OPTIONS_INIT;
    options.name = "expat";
    p->parser = greenlet_new(parser_entry, &options);
    if (!p->parser) {
        free(p);
        return NULL;
    }
    return p;
}

const pull_event *pull_next(pull *p) {
    if (greenlet_get_state(p->parser) == GREENLET_DEAD)
        return &p->event;
    /* Whoever asks is the one to be answered, also with the last event. */
    greenlet_message m = {NULL, 0};
    if (greenlet_parent(p->parser) != greenlet_current())
        m.status = greenlet_set_parent(p->parser, greenlet_current());
    if (m.status == 0)
        m = greenlet_switch(p->parser, p);
    if (m.status)
        fail(p, greenlet_strerror(m.status));
    return &p->event;
}

void pull_close(pull *p) {
    if (!p)
        return;
    greenlet_unref(p->parser); /* throws GREENLET_EXIT into deliver() */
    free(p);
}

int pull_push(const char *file,
              void (*consume)(const pull_event *e, void *data), void *data) {
    pull *p = make(file);
    if (!p)
        return -1;
    p->consume = consume;
    p->data = data;
    parse_file(p);
    consume(&p->event, data);
    free(p);
    return 0;
}
