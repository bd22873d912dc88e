/* Clients ask a server for squares. Some answers get lost.
 * Has a bug on purpose: docs/debugging.md finds it.
 *
 * SPDX-License-Identifier: MIT */
#include <stdint.h>
#include <stdio.h>

#include <greenlet.h>

enum { CLIENTS = 12 };

static struct request {
    int question;
    volatile int *answer;
} requests[CLIENTS];
static int n_requests;
static int wrong;

/* Leaves a request and waits until the server has answered it. */
static __attribute__((noinline)) int ask(int question) {
    volatile int answer = -1;
    requests[n_requests].question = question;
    requests[n_requests++].answer = &answer;
    greenlet_switch(greenlet_main(), NULL);
    return answer;
}

static greenlet_message client(void *value) {
    int question = (int)(intptr_t)value, answer = ask(question);
    if (answer != question * question) {
        printf("%d squared is not %d\n", question, answer);
        wrong++;
    }
    return (greenlet_message){NULL, 0};
}

static __attribute__((noinline)) void reply(const struct request *r) {
    *r->answer = r->question * r->question;
}

static greenlet_message server(void *value) {
    for (int i = 0; i < n_requests; i++)
        reply(&requests[i]);
    return (greenlet_message){value, 0};
}

static greenlet *start(greenlet_entry *entry, const char *name, int value) {
    greenlet_options options = GREENLET_OPTIONS_INIT;
    options.name = name;
    greenlet *g = greenlet_new(entry, &options);
    if (g)
        greenlet_switch(g, (void *)(intptr_t)value);
    return g;
}

int main(void) {
    static greenlet *clients[CLIENTS];
    char name[32];
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(name, sizeof(name), "client %d", i);
        clients[i] = start(client, name, i);
    }
    greenlet *s = start(server, "server", 0);
    for (int i = 0; i < CLIENTS; i++) {
        greenlet_switch(clients[i], NULL);
        greenlet_unref(clients[i]);
    }
    greenlet_unref(s);
    printf("%d wrong answers\n", wrong);
    return wrong != 0;
}
