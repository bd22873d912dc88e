/* A connection as a greenlet, written as if read() and write() blocked.
 *
 * The parser and what has been read are on the greenlet's stack, also while it
 * waits for the next request: that is what an idle connection costs.
 *
 * SPDX-License-Identifier: MIT */
#include <alloca.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "greenlet.h"
#include "server.h"

struct connection {
    greenlet *task;
    int fd;
    bool to_write; /* while it waits */
    bool closing;
};

/* Until the loop says that it may go on. False: it is to end. */
static bool wait_until(connection *c, bool to_write) {
    c->to_write = to_write;
    greenlet *hub = greenlet_parent(c->task);
    return greenlet_switch(hub, NULL).status == 0;
}

/* As read(), but does not come back without bytes: 0 at the end, or error. */
static size_t read_some(connection *c, char *to, size_t bytes) {
    for (;;) {
        ssize_t got = read(c->fd, to, bytes);
        if (got >= 0)
            return (size_t)got;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN || !wait_until(c, false))
            return 0;
    }
}

static bool write_all(connection *c, const char *from, size_t bytes) {
    while (bytes > 0) {
        ssize_t put = write(c->fd, from, bytes);
        if (put >= 0) {
            from += put;
            bytes -= (size_t)put;
        } else if (errno != EINTR &&
                   (errno != EAGAIN || !wait_until(c, true))) {
            return false;
        }
    }
    return true;
}

/* Not zero ends the parsing. */
static int on_message_complete(http_parser *parser) {
    connection *c = parser->data;
    char answer[ANSWER_BYTES];
    size_t bytes = make_answer(parser, answer);
    c->closing =
        !write_all(c, answer, bytes) || !http_should_keep_alive(parser);
    return c->closing;
}

static greenlet_message serve(void *value) {
    static const http_parser_settings settings = {.on_message_complete =
                                                      on_message_complete};
    connection *c = value;
    char *text = alloca(read_bytes);
    http_parser parser;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = c;
    size_t bytes;
    while (!c->closing && (bytes = read_some(c, text, read_bytes)) > 0) {
        size_t parsed = http_parser_execute(&parser, &settings, text, bytes);
        if (!c->closing && (parsed != bytes || parser.upgrade)) {
            (void)write_all(c, BAD_REQUEST, sizeof BAD_REQUEST - 1);
            break;
        }
    }
    return (greenlet_message){NULL, 0};
}

static connection *open_greenlet(int fd) {
    connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = fd;
    c->task = greenlet_new(serve, NULL);
    if (!c->task) {
        free(c);
        return NULL;
    }
    totals.connections++;
    totals.open++;
    return c;
}

static int fd_of(const connection *c) { return c->fd; }

static bool go_on(connection *c) {
    greenlet_message m = greenlet_switch(c->task, c);
    return m.status == 0 && greenlet_get_state(c->task) != GREENLET_DEAD;
}

/* A suspended greenlet ends in its wait_until(). */
static void close_greenlet(connection *c) {
    greenlet_unref(c->task);
    close(c->fd);
    free(c);
    totals.open--;
}

static bool wants_to_write(const connection *c) { return c->to_write; }

const http_style greenlets = {.name = "greenlets",
                              .open = open_greenlet,
                              .fd = fd_of,
                              .go_on = go_on,
                              .close = close_greenlet,
                              .wants_to_write = wants_to_write};
