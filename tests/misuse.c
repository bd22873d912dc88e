/* Misuse has a defined answer. Contract 28.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <signal.h>
#include <unistd.h>

static greenlet *a, *b;

TEST(contract_28_null_everywhere) {
    CHECK_MSG(greenlet_switch(NULL, V(1)), 0, -EINVAL);
    CHECK_MSG(greenlet_throw(NULL, 5, V(1)), 0, -EINVAL);
    CHECK_MSG(greenlet_kill(NULL), 0, -EINVAL);
    CHECK_PTR(greenlet_ref(NULL), NULL);
    greenlet_unref(NULL);
    CHECK_PTR(greenlet_parent(NULL), NULL);
    CHECK_EQ(greenlet_get_state(NULL), 0);
    CHECK_EQ(greenlet_is_main(NULL), 0);
    CHECK_EQ(greenlet_set_parent(NULL, NULL), -EINVAL);
    CHECK_EQ(greenlet_set_name(NULL, NULL), -EINVAL);
    CHECK_EQ(greenlet_get_stack(NULL, NULL), -EINVAL);
    CHECK_EQ(greenlet_thread_configure(NULL), -EINVAL);
    CHECK_EQ(greenlet_thread_statistics(NULL), -EINVAL);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
}

TEST(contract_28_bad_options) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.size = 0;
    errno = 0;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, EINVAL);
    o.size = sizeof o;
    o.flags = 0x80000000u;
    errno = 0;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, EINVAL);
    o.flags = 0;
    o.stack_bytes = SIZE_MAX;
    errno = 0;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, E2BIG);
    o.stack_bytes = GREENLET_STACK_BYTES_MIN;
    a = greenlet_new(entry_echo, &o);
    CHECK(a != NULL);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
    /* A caller compiled against an older header knows fewer fields. */
    o.size = offsetof(greenlet_options, stack_bytes);
    o.stack_bytes = SIZE_MAX;
    a = greenlet_new(entry_echo, &o);
    CHECK(a != NULL);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
}

TEST(contract_28_check_levels) {
    CHECK_EQ(greenlet_set_check_level(-2), -EINVAL);
    CHECK_EQ(greenlet_set_check_level(1000), -EINVAL);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    a = spawn(entry_pump);
    for (int i = 0; i < 10; i++)
        CHECK_MSG(go(a, i), i, 0);
    CHECK_EQ(greenlet_set_check_level(-1), 0);
    CHECK_MSG(go(a, 3), 3, 0);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    CHECK_MSG(greenlet_throw(a, 2, NULL), 0, 2);
    greenlet_unref(a);
}

/* In a checking build, a freed greenlet answers -EINVAL; its place is not
 * used again at once. */
TEST(contract_28_freed_greenlet) {
    CHECK_EQ(greenlet_set_check_level(0), 0);
    a = spawn(entry_echo);
    b = a;
    go(a, 1);
    greenlet_unref(a);
    CHECK_EQ(go(b, 1).status, -EINVAL);
    CHECK_EQ(greenlet_throw(b, 5, NULL).status, -EINVAL);
    greenlet *next[10];
    for (int i = 0; i < 10; i++) {
        next[i] = spawn(entry_echo);
        if (next[i] == b)
            FAIL("reused by new greenlet %d", i);
    }
    for (int i = 0; i < 10; i++)
        greenlet_unref(next[i]);
    CHECK_EQ(go(b, 1).status, -EINVAL);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
}

static void unref_twice(void *unused) {
    (void)unused;
    greenlet_set_check_level(0);
    a = spawn(entry_echo);
    go(a, 1);
    greenlet_unref(a);
    greenlet_unref(a);
}

TEST(contract_28_unref_of_a_freed_one) {
    static struct test_death death;
    test_die(unref_twice, NULL, &death);
    /* An abort with a message, or a refusal; no crash. */
    if (WIFSIGNALED(death.status)) {
        CHECK_EQ(WTERMSIG(death.status), SIGABRT);
        CHECK(strstr(death.text, "greenlet") != NULL);
    }
}

/* ---- A switch from a signal handler on the alternate stack -----------------
 */

static volatile intptr_t handler_status, handler_throw_status;
static int handled;

static void handler(int sig) {
    (void)sig;
    handled++;
    handler_status = go(a, 1).status;
    handler_throw_status = greenlet_throw(a, 5, NULL).status;
}

static greenlet_message entry_raises(void *value) {
    raise(SIGUSR1);
    return val(I(value));
}

TEST(contract_28_switch_on_the_alternate_stack) {
    enum { STACK = 128 * 1024 };
    stack_t alternate;
    struct sigaction action;
    memset(&alternate, 0, sizeof alternate);
    alternate.ss_sp = malloc(STACK);
    alternate.ss_size = STACK;
    CHECK(alternate.ss_sp != NULL);
    CHECK_EQ(sigaltstack(&alternate, NULL), 0);
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_ONSTACK;
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    a = spawn(entry_pump);
    CHECK_MSG(go(a, 1), 1, 0);
    b = spawn(entry_raises);
    CHECK_MSG(go(b, 2), 2, 0); /* in a greenlet */
    CHECK_EQ(handled, 1);
    CHECK_EQ(handler_status, -EFAULT);
    CHECK_EQ(handler_throw_status, -EFAULT);
    CHECK_MSG(go(a, 7), 7, 0);
    greenlet_unref(b);
    if (!test_in_place()) {
        handler_status = handler_throw_status = 0;
        raise(SIGUSR1); /* in main, whose bounds the system knows */
        CHECK_EQ(handled, 2);
        CHECK_EQ(handler_status, -EFAULT);
        CHECK_EQ(handler_throw_status, -EFAULT);
    }
    CHECK_MSG(go(a, 8), 8, 0);
    greenlet_unref(a);
    stack_t off;
    memset(&off, 0, sizeof off);
    off.ss_flags = SS_DISABLE;
    CHECK_EQ(sigaltstack(&off, NULL), 0);
    free(alternate.ss_sp);
}

/* A switch from a handler on the greenlet's own stack is an ordinary one. */
static void own_stack_handler(int sig) {
    (void)sig;
    handled++;
    CHECK_MSG(go(a, 5), 5, 0);
}

TEST(contract_28_switch_from_a_handler_on_the_own_stack) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = own_stack_handler;
    action.sa_flags = SA_NODEFER;
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    a = spawn(entry_pump);
    CHECK_MSG(go(a, 1), 1, 0);
    raise(SIGUSR1);
    CHECK_EQ(handled, 1);
    CHECK_MSG(go(a, 7), 7, 0);
    greenlet_unref(a);
}

/* ---- Forbidden places -------------------------------------------------------
 */

static intptr_t forbidden[6];

static void pre_switch(greenlet *from, greenlet *to, void *data) {
    (void)to;
    (void)data;
    forbidden[0] = go(b, 1).status;
    forbidden[1] = go(from, 1).status;
    forbidden[2] = greenlet_throw(b, 3, NULL).status;
    forbidden[3] = greenlet_kill(b).status;
    forbidden[4] = greenlet_thread_shutdown();
}

TEST(contract_28_switch_out_of_a_hook_that_forbids_it) {
    b = spawn(entry_pump);
    go(b, 1);
    a = spawn(entry_echo);
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_switch;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(forbidden[0], -EBUSY);
    CHECK_EQ(forbidden[2], -EBUSY);
    CHECK_EQ(forbidden[3], -EBUSY);
    CHECK(forbidden[4] < 0);
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    CHECK_EQ(greenlet_get_state(b), GREENLET_ACTIVE);
    CHECK_MSG(go(b, 2), 2, 0);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* Nothing is too small to run a libc call on. */
static greenlet_message entry_prints(void *value) {
    char text[64];
    snprintf(text, sizeof text, "%d %s %f", 5, "five", 5.0);
    CHECK_STR(text, "5 five 5.000000");
    return val(I(value));
}

TEST(contract_28_smallest_stack_runs_libc) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.stack_bytes = 1; /* at least this much */
    a = greenlet_new(entry_prints, &o);
    CHECK(a != NULL);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
}
