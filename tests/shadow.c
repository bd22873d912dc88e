/* A thread with an active shadow stack is refused, clearly. What asks the CPU
 * is replaced: the suite is linked with --wrap. Contract 28.
 *
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_bool active;

bool __real_greenlet_core_shadow_stack(void);
bool __wrap_greenlet_core_shadow_stack(void);

bool __wrap_greenlet_core_shadow_stack(void) {
    return atomic_load(&active) || __real_greenlet_core_shadow_stack();
}

static greenlet *other;

static void *is_refused(void *unused) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    atomic_store(&active, true);
    errno = 0;
    CHECK_PTR(greenlet_new(entry_echo, NULL), NULL);
    CHECK_EQ(errno, ENOTSUP);
    CHECK_PTR(greenlet_current(), NULL);
    CHECK_EQ(greenlet_thread_configure(&o), -ENOTSUP);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), -ENOTSUP);
    CHECK_EQ(greenlet_thread_statistics(&s), -ENOTSUP);
    CHECK_MSG(go(other, 1), 0, -ENOTSUP);
    CHECK_MSG(greenlet_kill(other), 0, -ENOTSUP);
    /* Nothing is left of that. */
    atomic_store(&active, false);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 2), 2, 0);
    greenlet_unref(g);
    return unused;
}

/* The main thread was adopted before, and goes on. */
static void in_a_new_thread(void *unused) {
    (void)unused;
    other = spawn(entry_pump);
    CHECK_MSG(go(other, 1), 1, 0);
    test_join(test_thread(is_refused, NULL));
    atomic_store(&active, true);
    CHECK_MSG(go(other, 2), 2, 0);
    greenlet_unref(other);
}

TEST(contract_28_shadow_stack_is_refused) {
    static struct test_death d;
    if (test_is("ucontext"))
        SKIP("swapcontext() switches shadow stacks");
    test_die(in_a_new_thread, NULL, &d);
    if (d.status != 0)
        FAIL("ended with %#x: %s", d.status, d.text);
    const char *line = strstr(d.text, "a shadow stack is active");
    CHECK(line != NULL);
    CHECK(strstr(line, greenlet_backend()) != NULL);
    CHECK(strstr(line + 1, "a shadow stack is active") == NULL); /* once */
}

TEST(contract_28_no_shadow_stack_here) {
    CHECK(!__real_greenlet_core_shadow_stack() || test_is("ucontext"));
    atomic_store(&active, test_is("ucontext")); /* which does not mind */
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 2), 2, 0);
    greenlet_unref(g);
}
