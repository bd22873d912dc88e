/* The main job on real input: the document that every Linux desktop has,
 * through docs/examples/pull.c. The time is per event, each of which is one
 * switch to the consumer and one back to the parser; floor/expat is the same
 * document by plain callbacks.
 *
 * SPDX-License-Identifier: MIT */
#include "common.h"
#include "pull.h"

#define DOCUMENT "/usr/share/mime/packages/freedesktop.org.xml"

typedef struct tally {
    int64_t events;
    size_t text_bytes;
    char error[200];
} tally;

static void count(const pull_event *e, void *data) {
    tally *t = data;
    if (e->kind == PULL_ERROR)
        snprintf(t->error, sizeof t->error, "%s", e->text);
    else if (e->kind != PULL_DONE)
        t->events++;
    t->text_bytes += e->text_bytes;
}

static tally push(void) {
    tally t = {0, 0, ""};
    if (pull_push(DOCUMENT, count, &t) != 0)
        snprintf(t.error, sizeof t.error, "no memory");
    return t;
}

static tally pull_all(void) {
    tally t = {0, 0, ""};
    pull *p = pull_open(DOCUMENT);
    if (!p) {
        snprintf(t.error, sizeof t.error, "no memory");
        return t;
    }
    const pull_event *e;
    do {
        e = pull_next(p);
        count(e, &t);
    } while (e->kind > PULL_DONE);
    pull_close(p);
    return t;
}

static void measure(bench_state *state, tally (*parse)(void)) {
    tally expected = push();
    tally got = expected;
    greenlet_statistics before = bench_statistics();
    while (!*got.error && got.events > 0 &&
           bench_keep_running(state, got.events))
        got = parse();
    if (*got.error)
        bench_skip(state, got.error);
    else if (got.events != expected.events ||
             got.text_bytes != expected.text_bytes)
        bench_skip(state, "events were lost");
    else
        bench_count_copies(state, &before, 2);
}

static void run_pull(bench_state *state, int64_t number) {
    (void)number;
    measure(state, pull_all);
}

static void run_push(bench_state *state, int64_t number) {
    (void)number;
    measure(state, push);
}

__attribute__((constructor)) static void register_both(void) {
    static const bench_workload pull_workload = {
        .name = "expat", .unit = "event", .run = run_pull};
    static const bench_workload push_workload = {
        .name = "expat", .unit = "event", .run = run_push, .bare = true};
    bench_register(&pull_workload);
    bench_register(&push_workload);
}
