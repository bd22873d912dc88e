/* A connection as a state machine: what could not be written is kept until it
 * can be. Nothing else outlives a callback, so that all connections read into
 * the same memory: hardly anything is left of an idle one.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

struct connection {
    http_parser parser;
    int fd;
    bool closing;    /* as soon as everything is written      */
    char *unwritten; /* NULL, or what could not be written    */
    size_t unwritten_bytes;
};

/* Writes, or keeps, `bytes`. False: the connection is broken. */
static bool write_or_keep(connection *c, const char *from, size_t bytes) {
    ssize_t put = 0;
    if (!c->unwritten) {
        do
            put = write(c->fd, from, bytes);
        while (put < 0 && errno == EINTR);
        if (put < 0 && errno != EAGAIN)
            return false;
        put = put < 0 ? 0 : put;
    }
    size_t rest = bytes - (size_t)put;
    if (rest == 0)
        return true;
    char *larger = realloc(c->unwritten, c->unwritten_bytes + rest);
    if (!larger)
        return false;
    memcpy(larger + c->unwritten_bytes, from + put, rest);
    c->unwritten = larger;
    c->unwritten_bytes += rest;
    return true;
}

/* Writes what was kept. False: the connection is broken. */
static bool write_kept(connection *c) {
    size_t done = 0;
    while (done < c->unwritten_bytes) {
        ssize_t put =
            write(c->fd, c->unwritten + done, c->unwritten_bytes - done);
        if (put >= 0)
            done += (size_t)put;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return false;
    }
    c->unwritten_bytes -= done;
    if (c->unwritten_bytes) {
        memmove(c->unwritten, c->unwritten + done, c->unwritten_bytes);
    } else {
        free(c->unwritten);
        c->unwritten = NULL;
    }
    return true;
}

static int on_message_complete(http_parser *parser) {
    connection *c = parser->data;
    char answer[ANSWER_BYTES];
    size_t bytes = make_answer(parser, answer);
    if (!write_or_keep(c, answer, bytes)) {
        free(c->unwritten);
        c->unwritten = NULL;
        c->closing = true;
    } else if (!http_should_keep_alive(parser)) {
        c->closing = true;
    }
    return c->closing;
}

static connection *open_callbacks(int fd) {
    connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = fd;
    http_parser_init(&c->parser, HTTP_REQUEST);
    c->parser.data = c;
    totals.connections++;
    totals.open++;
    return c;
}

static int fd_of(const connection *c) { return c->fd; }

static bool go_on(connection *c) {
    static const http_parser_settings settings = {.on_message_complete =
                                                      on_message_complete};
    static char text[READ_BYTES_MAX];
    if (c->unwritten && !write_kept(c))
        return false;
    while (!c->closing && !c->unwritten) {
        ssize_t got = read(c->fd, text, read_bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0)
            return false;
        size_t parsed =
            http_parser_execute(&c->parser, &settings, text, (size_t)got);
        if (!c->closing && (parsed != (size_t)got || c->parser.upgrade)) {
            c->closing = true;
            if (!write_or_keep(c, BAD_REQUEST, sizeof BAD_REQUEST - 1))
                return false;
        }
    }
    return c->unwritten != NULL;
}

static void close_callbacks(connection *c) {
    close(c->fd);
    free(c->unwritten);
    free(c);
    totals.open--;
}

static bool wants_to_write(const connection *c) { return c->unwritten != NULL; }

const http_style callbacks = {.name = "callbacks",
                              .open = open_callbacks,
                              .fd = fd_of,
                              .go_on = go_on,
                              .close = close_callbacks,
                              .wants_to_write = wants_to_write};
