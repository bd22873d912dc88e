/* What debuggers are tried on: greenlets in every state and place, and then
 * a stop. Run with GREENLET_LANES 0, 1 or more; in place (0) the stops are at
 *
 *     main    partly in its slice   deep runs where part of it was
 *     flat    in its slice          started from further down than deep
 *     nest    in its slice
 *     relay   in its slice
 *     deep    all in place          leaf was started by it
 *     leaf    current
 *
 * on one lane all but main and leaf are in their slices, on eight all are in
 * place. A second thread has "other" and waits in its main greenlet.
 *
 *     inspected stop|abort|loop
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "greenlet.h"

static greenlet *main_g, *deep, *flat, *nest, *relay, *leaf, *unborn, *gone;
static const char *how;
static pthread_barrier_t barrier;
static volatile int sink;

static greenlet *make(greenlet_entry *entry, const char *name) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.name = name;
    greenlet *g = greenlet_new(entry, &o);
    if (!g)
        abort();
    return g;
}

/* Here the debugger is. */
void inspected_stop(void);
__attribute__((noinline)) void inspected_stop(void) {
    sink++;
    if (strcmp(how, "abort") == 0)
        abort();
}

/* Every stack has a marker, and a pointer into itself to follow. */
struct marks {
    int marker;
    int *own;
};

static greenlet_message entry_leaf(void *value) {
    struct marks marks = {0x1eaf, &marks.marker};
    inspected_stop();
    sink = *marks.own;
    greenlet_switch(deep, value);
    return (greenlet_message){NULL, 0};
}

__attribute__((noinline)) static void descend(int n) {
    struct marks marks = {0xd00 + n, &marks.marker};
    volatile char room[200];
    room[0] = (char)n;
    if (n > 0) {
        descend(n - 1);
    } else {
        greenlet_switch(main_g, NULL);
        leaf = make(entry_leaf, "leaf");
        greenlet_switch(leaf, NULL);
        if (*marks.own != 0xd00)
            abort();
        greenlet_switch(main_g, NULL);
    }
    sink = *marks.own + room[0];
}

static greenlet_message entry_deep(void *value) {
    descend(5);
    return (greenlet_message){value, 0};
}

static greenlet_message entry_flat(void *value) {
    struct marks marks = {0xf1a7, &marks.marker};
    greenlet_switch(main_g, value);
    sink = *marks.own;
    return (greenlet_message){NULL, 0};
}

static greenlet_message entry_relay(void *value) {
    struct marks marks = {0x4e1a, &marks.marker};
    greenlet_switch(deep, value);
    sink = *marks.own;
    return (greenlet_message){NULL, 0};
}

static greenlet_message entry_nest(void *value) {
    struct marks marks = {0x4e57, &marks.marker};
    relay = make(entry_relay, "relay");
    greenlet_switch(relay, value);
    sink = *marks.own;
    return (greenlet_message){NULL, 0};
}

static greenlet_message entry_gone(void *value) {
    return (greenlet_message){value, 0};
}

static greenlet_message entry_other(void *value) {
    struct marks marks = {0x07e4, &marks.marker};
    greenlet_switch(greenlet_main(), value);
    sink = *marks.own;
    return (greenlet_message){NULL, 0};
}

static void *second_thread(void *unused) {
    greenlet *g = make(entry_other, "other");
    greenlet_set_name(greenlet_main(), "second");
    greenlet_switch(g, NULL);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    greenlet_switch(g, NULL);
    greenlet_unref(g);
    return unused;
}

/* Further down on main's stack than where deep was started. */
__attribute__((noinline)) static void main_below(int n) {
    struct marks marks = {0x3a10 + n, &marks.marker};
    volatile char room[300];
    room[0] = (char)n;
    if (n > 0) {
        main_below(n - 1);
    } else {
        flat = make(entry_flat, "flat");
        greenlet_switch(flat, NULL);
        nest = make(entry_nest, "nest");
        greenlet_switch(nest, NULL); /* and so to leaf, which stops */
    }
    sink = *marks.own + room[0];
}

int main(int argc, char **argv) {
    pthread_t thread;
    how = argc > 1 ? argv[1] : "stop";
    pthread_barrier_init(&barrier, NULL, 2);
    if (pthread_create(&thread, NULL, second_thread, NULL) != 0)
        return 1;
    pthread_barrier_wait(&barrier);
    main_g = greenlet_main();
    deep = make(entry_deep, "deep");
    greenlet_switch(deep, NULL);
    unborn = make(entry_flat, "unborn");
    gone = make(entry_gone, "gone");
    greenlet_switch(gone, NULL);
    main_below(2);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);

    /* All goes on: whoever looked has put back what was there. */
    greenlet_switch(relay, NULL);
    greenlet_switch(nest, NULL);
    greenlet_switch(flat, NULL);
    greenlet *all[] = {relay, nest, flat, unborn, gone, leaf, deep};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        greenlet_unref(all[i]);
    puts("went on to its end");
    return 0;
}
