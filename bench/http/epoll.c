/* The loop by epoll. Connections are registered once, for both directions and
 * edge-triggered: one that goes on does so until read or write would block.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "server.h"

enum { EVENTS = 256 };

/* The open connections: at the end they are closed. Indexed by descriptor. */
static connection **by_fd;
static size_t by_fd_count;

static bool remember(connection *c, int fd) {
    size_t index = (size_t)fd;
    if (index >= by_fd_count) {
        size_t count = 2 * index + 64;
        connection **larger = realloc(by_fd, count * sizeof *by_fd);
        if (!larger)
            return false;
        for (size_t i = by_fd_count; i < count; i++)
            larger[i] = NULL;
        by_fd = larger;
        by_fd_count = count;
    }
    by_fd[index] = c;
    return true;
}

/* Not a variable of run(): in place, main's stack is displaced as others are.
 */
static struct epoll_event events[EVENTS];

static void end(connection *c, const http_style *style) {
    by_fd[style->fd(c)] = NULL;
    style->close(c);
}

static void accept_all(int epoll, int listener, const http_style *style) {
    connection *c;
    while ((c = accept_one(listener, style))) {
        struct epoll_event both = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                   .data.fd = style->fd(c)};
        if (!remember(c, style->fd(c)))
            style->close(c);
        else if (epoll_ctl(epoll, EPOLL_CTL_ADD, style->fd(c), &both) != 0 ||
                 !style->go_on(c))
            end(c, style);
    }
}

static int run(int listener, int wakeups, const http_style *style) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event to_read = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &to_read) != 0)
        return -errno;
    to_read.data.fd = wakeups;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, wakeups, &to_read) != 0)
        return -errno;
    bool more = true;
    int status = 0;
    while (more) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) {
            status = -errno;
            break;
        }
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(epoll, listener, style);
            else if (fd == wakeups)
                more = on_signal(wakeups) && more;
            else if (by_fd[fd] && !style->go_on(by_fd[fd]))
                end(by_fd[fd], style);
        }
    }
    for (size_t fd = 0; fd < by_fd_count; fd++)
        if (by_fd[fd])
            end(by_fd[fd], style);
    free(by_fd);
    close(epoll);
    return status;
}

const http_loop epoll_loop = {.name = "epoll", .run = run};
