/* The loop by libevent: an event per connection for reading, which is what it
 * nearly always waits for, and one for writing when it has to.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>

#include "server.h"

typedef struct watched {
    connection *c;
    struct event *readable, *writable; /* one of them is added */
    bool to_write;
    struct watched *next, *previous;
} watched;

static struct event_base *base;
static const http_style *style;
static watched all = {.next = &all, .previous = &all};

static void end(watched *w) {
    w->next->previous = w->previous;
    w->previous->next = w->next;
    if (w->readable)
        event_free(w->readable);
    if (w->writable)
        event_free(w->writable);
    style->close(w->c);
    free(w);
}

static void on_event(evutil_socket_t fd, short what, void *data) {
    (void)fd;
    (void)what;
    watched *w = data;
    if (!style->go_on(w->c)) {
        end(w);
        return;
    }
    /* While it waits to write, what comes in would only wake it in vain. */
    bool to_write = style->wants_to_write(w->c);
    if (to_write == w->to_write)
        return;
    w->to_write = to_write;
    (void)event_del(to_write ? w->readable : w->writable);
    if (event_add(to_write ? w->writable : w->readable, NULL) != 0)
        end(w);
}

static void on_accept(evutil_socket_t listener, short what, void *data) {
    (void)what;
    (void)data;
    connection *c;
    while ((c = accept_one((int)listener, style))) {
        watched *w = calloc(1, sizeof *w);
        if (!w) {
            style->close(c);
            continue;
        }
        *w = (watched){.c = c, .next = all.next, .previous = &all};
        all.next = w->next->previous = w;
        int fd = style->fd(c);
        w->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_event, w);
        w->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_event, w);
        if (!w->readable || !w->writable || event_add(w->readable, NULL) != 0)
            end(w);
        else
            on_event(fd, EV_READ, w);
    }
}

static void on_wakeup(evutil_socket_t wakeups, short what, void *data) {
    (void)what;
    (void)data;
    if (!on_signal((int)wakeups))
        (void)event_base_loopbreak(base);
}

static int run(int listener, int wakeups, const http_style *which) {
    style = which;
    base = event_base_new();
    if (!base)
        return -ENOMEM;
    struct event *accepts =
        event_new(base, listener, EV_READ | EV_PERSIST, on_accept, NULL);
    struct event *signals =
        event_new(base, wakeups, EV_READ | EV_PERSIST, on_wakeup, NULL);
    int status = 0;
    if (!accepts || !signals || event_add(accepts, NULL) != 0 ||
        event_add(signals, NULL) != 0 || event_base_dispatch(base) != 0)
        status = -EIO;
    while (all.next != &all)
        end(all.next);
    if (accepts)
        event_free(accepts);
    if (signals)
        event_free(signals);
    event_base_free(base);
    return status;
}

const http_loop libevent_loop = {.name = "libevent", .run = run};
