/* What no other test has a reason to do, and a user may.
 *
 * SPDX-License-Identifier: MIT */
#include "test.h"

TEST(contract_22_walk_without_a_visitor) {
    CHECK_EQ(greenlet_walk(NULL, NULL), -EINVAL);
}

TEST(contract_24_no_name_to_take_away) {
    greenlet *g = spawn(entry_echo);
    CHECK_EQ(greenlet_set_name(g, NULL), 0);
    CHECK_STR(greenlet_name(g), "");
    CHECK_EQ(greenlet_set_name(NULL, "x"), -EINVAL);
    greenlet_unref(g);
}

TEST(contract_28_a_stack_that_cannot_be) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.stack_bytes = SIZE_MAX / 2;
    errno = 0;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, E2BIG);
    o.stack_bytes = 0;
    o.flags = 0x40;
    CHECK_PTR(greenlet_new(entry_echo, &o), NULL);
    CHECK_EQ(errno, EINVAL);
}

/* A setting that makes no sense is said and not used. */
static void starts_with_many_lanes(void *unused) {
    (void)unused;
    setenv("GREENLET_LANES", "many", 1);
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 5), 5, 0);
    greenlet_unref(g);
}

TEST(contract_28_senseless_settings_are_said) {
    static struct test_death death;
    test_die(starts_with_many_lanes, NULL, &death);
    CHECK_EQ(death.status, 0);
    CHECK(strstr(death.text, "GREENLET_LANES=many is not a number") != NULL);
}
