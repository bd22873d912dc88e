/* Programs with one bug each, in a greenlet, for the tool that must find it:
 *
 *   seeded overflow | return | race | leak | uninitialised | undefined
 *
 * Before each bug its greenlet is suspended, and others run where it ran.
 * seeded.py runs them. Without a tool they end with 0, as a rule.
 *
 * SPDX-License-Identifier: MIT */
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greenlet.h"

enum { OTHERS = 12 };

static greenlet_message to_parent(void *value) {
    return greenlet_switch(greenlet_parent(greenlet_current()), value);
}

/* Returns what the greenlet returns. */
static intptr_t run(greenlet_entry *entry) {
    greenlet *g = greenlet_new(entry, NULL);
    greenlet_message m;
    if (!g)
        abort();
    do
        m = greenlet_switch(g, NULL);
    while (greenlet_get_state(g) == GREENLET_ACTIVE);
    greenlet_unref(g);
    return (intptr_t)m.value + m.status;
}

static greenlet_message other(void *value) {
    volatile char wide[600];
    memset((char *)wide, 1, sizeof(wide));
    return (greenlet_message){value, wide[0] - 1};
}

/* Gives up the stack, for long enough that others have been everywhere. */
static greenlet_message others(void *value) {
    for (int i = 0; i < OTHERS; i++)
        run(other);
    return (greenlet_message){value, 0};
}

static void displace(void) {
    run(others);
    to_parent(NULL);
}

/* ---- Overflow after a switch ------------------------------------------ */

static volatile size_t index_of_16 = 16;

static greenlet_message overflows(void *value) {
    volatile char bytes[16];
    memset((char *)bytes, 0, sizeof(bytes));
    displace();
    bytes[index_of_16] = 1;
    return (greenlet_message){value, bytes[0]};
}

/* ---- Use after return ------------------------------------------------- */

static int *volatile kept;

static __attribute__((noinline)) void keep_a_local(void) {
    int local = 7, *volatile address = &local; /* or the compiler warns */
    kept = address;
    displace();
}

static greenlet_message uses_after_return(void *value) {
    keep_a_local();
    displace();
    volatile int found = *kept;
    return (greenlet_message){value, found == 8};
}

/* ---- Race between two threads' greenlets ------------------------------ */

static int shared;
static int met;

/* Threads meet without what a tool takes for an order between them, as any
 * lock would be, the library's included. */
static __attribute__((noinline)) void meet(int n) {
    __atomic_fetch_add(&met, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&met, __ATOMIC_RELAXED) < n)
        sched_yield();
}

static greenlet_message writes_shared(void *value) {
    displace();
    meet(2);
    for (int i = 0; i < 100; i++)
        (*(volatile int *)&shared)++;
    meet(4);
    return (greenlet_message){value, 0};
}

static void *racing(void *unused) {
    (void)unused;
    run(writes_shared);
    return NULL;
}

static void race(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, racing, NULL) != 0)
            abort();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

/* ---- Leak: a greenlet dies with what only it knew ---------------------- */

static greenlet_message leaks(void *value) {
    char *volatile block = malloc(1234);
    memset(block, 0, 1234);
    displace();
    block = NULL;
    return (greenlet_message){value, block != NULL};
}

/* Over what calls have left on the stack: the real one, which with
 * detect_stack_use_after_return is not where locals are. */
static __attribute__((noinline, no_sanitize("address"))) int wipe(void) {
    volatile char wide[8192];
    memset((char *)wide, 0, sizeof(wide));
    __asm__ volatile("" : : "r"(wide) : "memory"); /* all of it is needed */
    return wide[0];
}

static greenlet_message wipes(void *value) {
    return (greenlet_message){value, wipe()};
}

/* No leak: a suspended greenlet knows it. */
static greenlet_message keeps(void *value) {
    char *volatile block = malloc(4321);
    memset(block, 0, 4321);
    while (block)
        to_parent(value);
    return (greenlet_message){value, 0};
}

static void leak(void) {
    static greenlet *holder;
    holder = greenlet_new(keeps, NULL);
    greenlet_switch(holder, NULL);
    run(leaks);
    for (int i = 0; i < OTHERS; i++)
        run(wipes); /* on every lane */
    wipe();
}

/* ---- An uninitialised value, that was in a slice meanwhile ------------- */

static greenlet_message uses_uninitialised(void *value) {
    volatile int numbers[16];
    numbers[0] = 1;
    displace();
    if (numbers[9] == 42)
        puts("by chance");
    return (greenlet_message){value, 0};
}

/* ---- Undefined -------------------------------------------------------- */

static volatile int most = INT_MAX;

static greenlet_message overflows_signed(void *value) {
    displace();
    most = most + 1;
    return (greenlet_message){value, 0};
}

int main(int argc, char **argv) {
    const char *bug = argc == 2 ? argv[1] : "";
    if (strcmp(bug, "overflow") == 0)
        run(overflows);
    else if (strcmp(bug, "return") == 0)
        run(uses_after_return);
    else if (strcmp(bug, "race") == 0)
        race();
    else if (strcmp(bug, "leak") == 0)
        leak();
    else if (strcmp(bug, "uninitialised") == 0)
        run(uses_uninitialised);
    else if (strcmp(bug, "undefined") == 0)
        run(overflows_signed);
    else if (strcmp(bug, "none") == 0)
        run(others);
    else
        return 2;
    return 0;
}
