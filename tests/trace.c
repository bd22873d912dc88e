/* The tracer. Contract 21.
 * SPDX-License-Identifier: MIT */
#include "test.h"

static greenlet *a, *b;

static struct record {
    greenlet_event event;
    greenlet *origin, *target, *current;
    greenlet_state origin_state;
    void *data;
} records[64];
static size_t count;

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    if (count < sizeof records / sizeof *records) {
        struct record *r = &records[count++];
        r->event = event;
        r->origin = origin;
        r->target = target;
        r->current = greenlet_current();
        r->origin_state = greenlet_get_state(origin);
        r->data = data;
    }
}

static void check_record(size_t i, greenlet_event event, greenlet *origin,
                         greenlet *target) {
    CHECK(i < count);
    CHECK_EQ(records[i].event, event);
    CHECK_PTR(records[i].origin, origin);
    CHECK_PTR(records[i].target, target);
    CHECK_PTR(records[i].current, target);
}

static void start_tracing(void) {
    CHECK_EQ(greenlet_set_tracer(tracer, &count, NULL, NULL), 0);
    count = 0;
}

TEST(contract_21_switches_starts_and_deaths) {
    greenlet *m = greenlet_main();
    a = spawn(entry_pump);
    start_tracing();
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(count, 2);
    check_record(0, GREENLET_EVENT_SWITCH, m, a); /* first entry */
    check_record(1, GREENLET_EVENT_SWITCH, a, m);
    CHECK_PTR(records[0].data, &count);
    CHECK_MSG(go(a, 2), 2, 0);
    CHECK_EQ(count, 4);
    check_record(2, GREENLET_EVENT_SWITCH, m, a);
    check_record(3, GREENLET_EVENT_SWITCH, a, m);
    CHECK_EQ(records[3].origin_state, GREENLET_ACTIVE);
    CHECK_MSG(greenlet_throw(a, 5, V(3)), 3, 5);
    CHECK_EQ(count, 6);
    check_record(4, GREENLET_EVENT_THROW, m, a);
    check_record(5, GREENLET_EVENT_THROW, a, m); /* death by an error */
    CHECK_EQ(records[5].origin_state, GREENLET_DEAD);
    greenlet_unref(a);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(count, 8);
    check_record(6, GREENLET_EVENT_SWITCH, m, a);
    check_record(7, GREENLET_EVENT_SWITCH, a, m); /* death by a value */
    CHECK_EQ(records[7].origin_state, GREENLET_DEAD);
    greenlet_unref(a);
}

TEST(contract_21_exit_is_thrown_in_and_arrives_as_a_switch) {
    greenlet *m = greenlet_main();
    a = spawn(entry_pump);
    go(a, 1);
    start_tracing();
    CHECK_MSG(greenlet_throw(a, GREENLET_EXIT, V(2)), 2, 0);
    CHECK_EQ(count, 2);
    check_record(0, GREENLET_EVENT_THROW, m, a);
    check_record(1, GREENLET_EVENT_SWITCH, a, m);
    greenlet_unref(a);
}

TEST(contract_21_kill_is_traced) {
    greenlet *m = greenlet_main();
    a = spawn(entry_pump);
    go(a, 1);
    start_tracing();
    greenlet_unref(a);
    CHECK_EQ(count, 2);
    CHECK_EQ(records[0].event, GREENLET_EVENT_THROW);
    CHECK_PTR(records[0].origin, m);
    CHECK_PTR(records[0].target, a);
    CHECK_PTR(records[1].target, m);
}

TEST(contract_21_set_returns_the_previous) {
    greenlet_tracer *old = tracer;
    void *old_data = &count;
    CHECK_EQ(greenlet_set_tracer(tracer, &a, &old, &old_data), 0);
    CHECK(old == NULL);
    CHECK_PTR(old_data, NULL);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, &old, &old_data), 0);
    CHECK(old == tracer);
    CHECK_PTR(old_data, &a);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(count, 0);
    greenlet_unref(a);
}

static void *untraced_thread(void *unused) {
    (void)unused;
    size_t before = count;
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 1), 1, 0);
    greenlet_unref(g);
    CHECK_EQ(count, before);
    return NULL;
}

TEST(contract_21_per_thread) {
    start_tracing();
    test_join(test_thread(untraced_thread, NULL));
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(count, 2);
    greenlet_unref(a);
}

/* A tracer that switches: the message under way arrives all the same. */
static int inside, side_trips;

static void switching_tracer(greenlet_event event, greenlet *origin,
                             greenlet *target, void *data) {
    (void)event;
    (void)origin;
    (void)data;
    if (inside)
        return;
    inside = 1;
    CHECK_PTR(greenlet_current(), target);
    greenlet *g = spawn_under(entry_echo, target);
    CHECK_MSG(go(g, 4711), 4711, 0);
    CHECK_EQ(greenlet_get_state(g), GREENLET_DEAD);
    greenlet_unref(g);
    side_trips++;
    inside = 0;
}

TEST(contract_21_tracer_may_switch) {
    CHECK_EQ(greenlet_set_tracer(switching_tracer, NULL, NULL, NULL), 0);
    a = spawn(entry_pump);
    for (int i = 0; i < 20; i++)
        CHECK_MSG(go(a, i), i, 0);
    CHECK_MSG(greenlet_throw(a, 6, V(77)), 77, 6);
    CHECK_EQ(side_trips, 42);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
    greenlet_unref(a);
}

/* A tracer that switches from first entry and at death to a long-lived one. */
static void visiting_tracer(greenlet_event event, greenlet *origin,
                            greenlet *target, void *data) {
    (void)event;
    (void)origin;
    (void)data;
    if (inside)
        return;
    inside = 1;
    CHECK_EQ(greenlet_set_parent(b, target), 0);
    CHECK_MSG(go(b, 8), 8, 0);
    CHECK_EQ(greenlet_set_parent(b, greenlet_main()), 0);
    inside = 0;
}

TEST(contract_21_tracer_may_visit_others) {
    b = spawn(entry_pump);
    go(b, 1);
    CHECK_EQ(greenlet_set_tracer(visiting_tracer, NULL, NULL, NULL), 0);
    for (int i = 0; i < 20; i++) {
        a = spawn(entry_pump);
        CHECK_MSG(go(a, i), i, 0);
        CHECK_MSG(go(a, i + 1), i + 1, 0);
        CHECK_MSG(greenlet_throw(a, 3, V(i)), i, 3);
        greenlet_unref(a);
    }
    greenlet_set_tracer(NULL, NULL, NULL, NULL);
    CHECK_MSG(go(b, 9), 9, 0);
    greenlet_unref(b);
}

/* Set and cleared within greenlets, at any depth. */
static greenlet_message entry_clears(void *value) {
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
    back(I(value));
    start_tracing();
    return val(7);
}

TEST(contract_21_set_and_cleared_inside) {
    a = spawn(entry_clears);
    start_tracing();
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(count, 1);
    CHECK_MSG(go(a, 1), 7, 0);
    CHECK_EQ(count, 1); /* counted from its own start: the death */
    check_record(0, GREENLET_EVENT_SWITCH, a, greenlet_main());
    greenlet_unref(a);
}
