/* The server's main(); see server.h.
 *
 *     http-<backend> [--style greenlets|callbacks] [--loop epoll|libevent]
 *                    [--port N] [--read-bytes N]
 *
 * Prints "listening on PORT" when it does. SIGUSR1 has it print a line of JSON
 * with its totals and the library's; so does SIGTERM or SIGINT, after which it
 * closes all connections and exits with 0.
 *
 * SPDX-License-Identifier: MIT */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "greenlet.h"

size_t read_bytes = READ_BYTES_DEFAULT;
http_totals totals;

size_t make_answer(const http_parser *parser, char *text) {
    static const char body[] = "Hello, world\n";
    totals.requests++;
    int length =
        snprintf(text, ANSWER_BYTES,
                 "HTTP/1.1 200 OK\r\n"
                 "Content-Type: text/plain\r\nContent-Length: %zu\r\n"
                 "%s\r\n%s",
                 sizeof body - 1,
                 http_should_keep_alive(parser) ? "" : "Connection: close\r\n",
                 parser->method == HTTP_HEAD ? "" : body);
    return (size_t)length;
}

connection *accept_one(int listener, const http_style *style) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return NULL;
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection *c = style->open(fd);
    if (!c)
        close(fd);
    return c;
}

static void tell(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    (void)greenlet_thread_statistics(&s);
    printf("{\"connections\": %llu, \"open\": %llu, \"requests\": %llu, "
           "\"switches\": %llu, \"copied_bytes\": %llu}\n",
           (unsigned long long)totals.connections,
           (unsigned long long)totals.open, (unsigned long long)totals.requests,
           (unsigned long long)s.switches,
           (unsigned long long)(s.saved_bytes + s.filled_bytes));
    (void)fflush(stdout);
}

bool on_signal(int wakeups) {
    struct signalfd_siginfo info;
    while (read(wakeups, &info, sizeof info) == (ssize_t)sizeof info) {
        tell();
        if (info.ssi_signo != SIGUSR1)
            return false;
    }
    return true;
}

/* As many descriptors as this process may have. */
static void raise_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Listens on 127.0.0.1 and stores the port; -1 and errno if that fails. */
static int listen_on(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(*port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        close(fd);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static void complain(const char *what, const char *why) {
    fprintf(stderr, "http server: %s: %s\n", what, why);
    exit(2);
}

int main(int argc, char **argv) {
    static const http_style *const styles[] = {&greenlets, &callbacks};
    static const http_loop *const loops[] = {
        &epoll_loop,
#ifdef HAVE_LIBEVENT
        &libevent_loop,
#endif
    };
    static const struct option options[] = {
        {"style", required_argument, NULL, 's'},
        {"loop", required_argument, NULL, 'l'},
        {"port", required_argument, NULL, 'p'},
        {"read-bytes", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0}};
    const http_style *style = styles[0];
    const http_loop *loop = loops[0];
    unsigned long port = 0;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (option) {
        case 's':
            style = NULL;
            for (size_t i = 0; i < sizeof styles / sizeof *styles; i++)
                if (strcmp(optarg, styles[i]->name) == 0)
                    style = styles[i];
            if (!style)
                complain(optarg, "no such style; known: greenlets callbacks");
            break;
        case 'l':
            loop = NULL;
            for (size_t i = 0; i < sizeof loops / sizeof *loops; i++)
                if (strcmp(optarg, loops[i]->name) == 0)
                    loop = loops[i];
            if (!loop)
                complain(optarg, "not built with such a loop");
            break;
        case 'p':
            port = strtoul(optarg, NULL, 10);
            break;
        case 'r':
            read_bytes = strtoul(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    if (port > UINT16_MAX)
        complain("--port", "out of range");
    if (read_bytes < 1 || read_bytes > READ_BYTES_MAX)
        complain("--read-bytes", "out of range");
    raise_limit();

    sigset_t asked;
    sigemptyset(&asked);
    sigaddset(&asked, SIGUSR1);
    sigaddset(&asked, SIGTERM);
    sigaddset(&asked, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &asked, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    int wakeups = signalfd(-1, &asked, SFD_NONBLOCK | SFD_CLOEXEC);
    uint16_t number = (uint16_t)port;
    int listener = listen_on(&number);
    if (wakeups < 0 || listener < 0)
        complain("cannot listen", strerror(errno));
    printf("listening on %u\n", (unsigned)number);
    (void)fflush(stdout);

    int status = loop->run(listener, wakeups, style);
    close(listener);
    close(wakeups);
    if (status)
        complain(loop->name, strerror(-status));
    return 0;
}
