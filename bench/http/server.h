/* An HTTP/1.1 server with keep-alive that answers every request with a few
 * bytes: a greenlet per connection, or callbacks (which is what greenlets are
 * to be compared with), over one of two event loops.
 *
 *   server.c       main(), what is common, the answer
 *   greenlets.c    a connection as a greenlet, written as if read() blocked
 *   callbacks.c    a connection as a state machine
 *   epoll.c        the loop by epoll, edge-triggered
 *   libevent.c     the loop by libevent
 *
 * SPDX-License-Identifier: MIT */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <http_parser.h>

enum { READ_BYTES_DEFAULT = 1024, READ_BYTES_MAX = 65536 };

/* How many bytes a connection reads at a time, into its own memory. */
extern size_t read_bytes;

/* What the server has done. */
typedef struct http_totals {
    uint64_t connections;
    uint64_t open;
    uint64_t requests;
} http_totals;

extern http_totals totals;

/* ---- A connection: greenlets.c or callbacks.c ------------------------- */

typedef struct connection connection;

/* Which of the two. */
typedef struct http_style {
    const char *name;
    /* Takes over `fd`. NULL: no memory; the caller closes it. */
    connection *(*open)(int fd);
    int (*fd)(const connection *c);
    /* Goes on as far as it can without waiting. False: it has ended, and is
     * to be closed. */
    bool (*go_on)(connection *c);
    void (*close)(connection *c);
    /* Whether it waits for being able to write, rather than to read. */
    bool (*wants_to_write)(const connection *c);
} http_style;

extern const http_style greenlets, callbacks;

/* ---- An event loop: epoll.c or libevent.c ------------------------------ */

typedef struct http_loop {
    const char *name;
    /* Serves until *stop. `wakeups` is a signalfd, of which on_signal() is to
     * be told. Returns 0, or a negative errno. */
    int (*run)(int listener, int wakeups, const http_style *style);
} http_loop;

extern const http_loop epoll_loop;
#ifdef HAVE_LIBEVENT
extern const http_loop libevent_loop;
#endif

/* ---- server.c ---------------------------------------------------------- */

/* Accepts one connection, non-blocking and without delay: NULL when there is
 * none, or no memory for it. */
connection *accept_one(int listener, const http_style *style);

/* Reads the signalfd and does what is asked for. False: the server ends. */
bool on_signal(int wakeups);

/* The answer to the request that `parser` has just seen the end of, in `text`,
 * which has ANSWER_BYTES. Returns its length. Counts the request. */
enum { ANSWER_BYTES = 128 };
size_t make_answer(const http_parser *parser, char *text);

#define BAD_REQUEST                                                            \
    "HTTP/1.1 400 Bad Request\r\n"                                             \
    "Content-Length: 0\r\nConnection: close\r\n\r\n"

#endif
