/* Host hooks. Contract 22.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

static greenlet *a, *b, *c;
static int marker;

/* ---- The order ---------------------------------------------------------- */

static greenlet *pre_from, *pre_to, *post_from, *post_to, *released;
static greenlet_message finished;

static void pre_switch(greenlet *from, greenlet *to, void *data) {
    CHECK_PTR(data, &marker);
    pre_from = from;
    pre_to = to;
    note('p');
}

static void post_switch(greenlet *from, greenlet *to, void *data) {
    CHECK_PTR(data, &marker);
    CHECK_PTR(greenlet_current(), to);
    post_from = from;
    post_to = to;
    note('q');
}

static void first_entry(greenlet *g, void *data) {
    CHECK_PTR(data, &marker);
    CHECK_PTR(greenlet_current(), g);
    note('f');
}

static void on_finish(greenlet *g, greenlet_message last, void *data) {
    CHECK_PTR(data, &marker);
    CHECK_PTR(greenlet_current(), g);
    finished = last;
    note('o');
}

static void on_release(greenlet *g, void *data) {
    CHECK_PTR(data, &marker);
    CHECK_EQ(greenlet_get_state(g), GREENLET_DEAD);
    CHECK(greenlet_current() != g);
    released = g;
    note('r');
}

static void all_hooks(void) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_switch;
    h.post_switch = post_switch;
    h.first_entry = first_entry;
    h.on_finish = on_finish;
    h.on_release = on_release;
    CHECK_EQ(greenlet_set_hooks(&h, &marker), 0);
    memset(&h, 0xee, sizeof h); /* copied */
}

static void destructor(void *value) {
    (void)value;
    note('d');
}

static greenlet_key key;

static greenlet_message entry_body(void *value) {
    note('1');
    greenlet_local_set(key, &marker);
    greenlet_message m = back(I(value));
    note('2');
    return err(I(m.value), m.status);
}

TEST(contract_22_order_of_the_hooks) {
    CHECK_EQ(greenlet_key_create(&key, destructor), 0);
    a = spawn(entry_body);
    all_hooks();
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_STR(notes(), "pqf1pq");
    CHECK_PTR(pre_from, a);
    CHECK_PTR(pre_to, greenlet_main());
    CHECK_PTR(post_from, a);
    CHECK_PTR(post_to, greenlet_main());
    CHECK_MSG(go(a, 2), 2, 0);
    const char *text = notes();
    /* The last three: pre_switch of the dying, then in main post_switch and
     * on_release, in either order. */
    CHECK(strcmp(text, "pq2odpqr") == 0 || strcmp(text, "pq2odprq") == 0);
    CHECK_MSG(finished, 2, 0);
    CHECK_PTR(released, a);
    greenlet_unref(a);
    a = spawn(entry_body);
    go(a, 1);
    notes();
    CHECK_MSG(greenlet_throw(a, 9, V(4)), 4, 9);
    CHECK_MSG(finished, 4, 9);
    greenlet_unref(a);
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    notes();
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_STR(notes(), "");
    greenlet_unref(a);
}

TEST(contract_22_set_hooks_checks_its_argument) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.size = 0;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), -EINVAL);
    h.size = sizeof(size_t) - 1;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), -EINVAL);
    /* A caller compiled against an older header knows fewer fields. */
    h.size = offsetof(greenlet_hooks, post_switch);
    h.post_switch = post_switch;
    CHECK_EQ(greenlet_set_hooks(&h, &marker), 0);
    a = spawn(entry_echo);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_STR(notes(), "");
    greenlet_unref(a);
}

static void *thread_without(void *unused) {
    (void)unused;
    greenlet *g = spawn(entry_echo);
    CHECK_MSG(go(g, 1), 1, 0);
    greenlet_unref(g);
    return NULL;
}

TEST(contract_22_per_thread) {
    all_hooks();
    test_join(test_thread(thread_without, NULL));
    CHECK_STR(notes(), "");
}

/* The host's own per-greenlet state, swapped as an interpreter would. */
static intptr_t register_of_host;

static void host_saves(greenlet *from, greenlet *to, void *data) {
    (void)to;
    (void)data;
    greenlet_set_user_data(from, V(register_of_host));
}

static void host_loads(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)data;
    register_of_host = I(greenlet_user_data(to));
}

static greenlet_message entry_uses_host(void *value) {
    intptr_t mine = I(value);
    for (int i = 0; i < 20; i++) {
        register_of_host = mine + i;
        back(0);
        CHECK_EQ(register_of_host, mine + i);
    }
    return val(1);
}

TEST(contract_22_host_state_per_greenlet) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = host_saves;
    h.post_switch = host_loads;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    static greenlet *all[5];
    static int i, n;
    for (i = 0; i < 5; i++)
        all[i] = spawn(entry_uses_host);
    for (n = 0; n < 21; n++)
        for (i = 0; i < 5; i++) {
            register_of_host = -7;
            CHECK_MSG(go(all[i], 100 * i), n == 20 ? 1 : 0, 0);
            CHECK_EQ(register_of_host, -7);
        }
    for (i = 0; i < 5; i++)
        greenlet_unref(all[i]);
}

/* ---- What pre_switch must not do ----------------------------------------- */

static intptr_t forbidden_status[4];

static void pre_tries_to_switch(greenlet *from, greenlet *to, void *data) {
    (void)to;
    (void)data;
    forbidden_status[0] = go(b, 1).status;
    forbidden_status[1] = greenlet_throw(b, 5, NULL).status;
    forbidden_status[2] = greenlet_kill(b).status;
    CHECK_PTR(greenlet_current(), from);
}

TEST(contract_22_pre_switch_must_not_switch) {
    b = spawn(entry_pump);
    CHECK_MSG(go(b, 1), 1, 0);
    a = spawn(entry_pump);
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_tries_to_switch;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    CHECK_MSG(go(a, 7), 7, 0);
    CHECK_EQ(forbidden_status[0], -EBUSY);
    CHECK_EQ(forbidden_status[1], -EBUSY);
    CHECK_EQ(forbidden_status[2], -EBUSY);
    CHECK_MSG(greenlet_throw(a, 5, V(6)), 6, 5); /* also when dying */
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    CHECK_MSG(go(b, 3), 3, 0);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* It runs when the switch can no longer fail: nothing is allocated after. */
static unsigned long pre_requests;

static void pre_counts(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)to;
    (void)data;
    pre_requests = faults_requests();
}

static void post_compares(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)to;
    (void)data;
    CHECK_EQ(faults_requests(), pre_requests);
}

TEST(contract_22_pre_switch_is_past_all_failures) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.pre_switch = pre_counts;
    h.post_switch = post_compares;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    static greenlet *all[12];
    static int i, n;
    for (i = 0; i < 12; i++)
        all[i] = spawn(entry_pump);
    for (n = 0; n < 3; n++)
        for (i = 0; i < 12; i++)
            CHECK_MSG(go(all[i], i), i, 0);
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    for (i = 0; i < 12; i++)
        greenlet_unref(all[i]);
}

/* ---- post_switch, first_entry, on_finish may switch ---------------------- */

static int inside;

static void visit_b(void) {
    if (inside || !b || greenlet_current() == b)
        return;
    inside = 1;
    greenlet *parent = greenlet_parent(b);
    CHECK_EQ(greenlet_set_parent(b, greenlet_current()), 0);
    CHECK_MSG(go(b, 123), 123, 0);
    CHECK_EQ(greenlet_set_parent(b, parent), 0);
    note('v');
    inside = 0;
}

static void post_visits(greenlet *from, greenlet *to, void *data) {
    (void)from;
    (void)data;
    CHECK_PTR(greenlet_current(), to);
    visit_b();
    CHECK_PTR(greenlet_current(), to);
}

static void entry_visits(greenlet *g, void *data) {
    (void)data;
    visit_b();
    CHECK_PTR(greenlet_current(), g);
}

static void finish_visits(greenlet *g, greenlet_message last, void *data) {
    (void)data;
    (void)last;
    visit_b();
    CHECK_PTR(greenlet_current(), g);
}

TEST(contract_22_hooks_may_switch) {
    b = spawn(entry_pump);
    go(b, 1);
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.post_switch = post_visits;
    h.first_entry = entry_visits;
    h.on_finish = finish_visits;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
    for (int i = 0; i < 10; i++) {
        a = spawn(entry_pump);
        CHECK_MSG(go(a, i), i, 0);
        CHECK_STR(notes(), "vvv"); /* post, first, post */
        CHECK_MSG(go(a, i + 1), i + 1, 0);
        CHECK_STR(notes(), "vv");
        CHECK_MSG(greenlet_throw(a, 4, V(i)), i, 4);
        CHECK_STR(notes(), "vvv"); /* post, finish, post */
        greenlet_unref(a);
    }
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
    CHECK_MSG(go(b, 2), 2, 0);
    greenlet_unref(b);
}

/* ---- resolve_entry --------------------------------------------------------
 */

static int resolved, resolve_status;
static greenlet_entry *resolve_to;

static int resolve(greenlet *g, greenlet_entry **entry, void *data) {
    (void)data;
    CHECK(greenlet_current() != g);
    CHECK_EQ(greenlet_get_state(g), GREENLET_NEW);
    resolved++;
    if (resolve_status == 0)
        *entry = resolve_to;
    return resolve_status;
}

static void set_resolve(int (*hook)(greenlet *, greenlet_entry **, void *)) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.resolve_entry = hook;
    CHECK_EQ(greenlet_set_hooks(&h, NULL), 0);
}

static greenlet_message entry_plus_one(void *value) {
    return val(I(value) + 1);
}

TEST(contract_22_resolve_entry_supplies_the_entry) {
    set_resolve(resolve);
    resolve_to = entry_plus_one;
    a = greenlet_new(NULL, NULL);
    CHECK(a != NULL);
    CHECK_MSG(go(a, 5), 6, 0);
    CHECK_EQ(resolved, 1);
    greenlet_unref(a);
    a = spawn(entry_echo); /* and replaces one */
    CHECK_MSG(go(a, 5), 6, 0);
    CHECK_EQ(resolved, 2);
    CHECK_MSG(go(a, 5), 5, 0); /* dead: no more */
    CHECK_EQ(resolved, 2);
    greenlet_unref(a);
}

TEST(contract_22_resolve_entry_may_refuse) {
    set_resolve(resolve);
    resolve_to = entry_plus_one;
    resolve_status = -71;
    a = greenlet_new(NULL, NULL);
    CHECK(a != NULL);
    CHECK_EQ(go(a, 5).status, -71);
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    CHECK_PTR(greenlet_current(), greenlet_main());
    CHECK_EQ(go(a, 5).status, -71);
    resolve_status = 0;
    CHECK_MSG(go(a, 5), 6, 0);
    CHECK_EQ(resolved, 3);
    greenlet_unref(a);
}

TEST(contract_22_no_entry_at_all) {
    errno = 0;
    a = greenlet_new(NULL, NULL); /* refused here, or at the start */
    if (!a) {
        CHECK_EQ(errno, EINVAL);
        return;
    }
    CHECK_EQ(go(a, 5).status, -EINVAL);
    CHECK_EQ(greenlet_get_state(a), GREENLET_NEW);
    greenlet_unref(a);
}

static int resolve_by_switching(greenlet *g, greenlet_entry **entry,
                                void *data) {
    (void)g;
    (void)data;
    CHECK_MSG(go(c, 55), 55, 0);
    *entry = entry_plus_one;
    return 0;
}

TEST(contract_22_resolve_entry_may_switch) {
    c = spawn(entry_pump);
    CHECK_MSG(go(c, 1), 1, 0);
    set_resolve(resolve_by_switching);
    a = greenlet_new(NULL, NULL);
    CHECK_MSG(go(a, 5), 6, 0);
    greenlet_unref(a);
    greenlet_unref(c);
}

/* The hook starts the very greenlet that it was asked about. */
static int resolve_by_starting(greenlet *g, greenlet_entry **entry,
                               void *data) {
    (void)data;
    *entry = entry_pump;
    if (resolved++ == 0)
        CHECK_MSG(go(g, 70), 70, 0);
    return 0;
}

TEST(contract_22_resolve_entry_is_looked_at_again_started) {
    set_resolve(resolve_by_starting);
    a = greenlet_new(NULL, NULL);
    CHECK_MSG(go(a, 5), 5, 0); /* a switch to a started one by now */
    CHECK_EQ(greenlet_get_state(a), GREENLET_ACTIVE);
    CHECK_MSG(go(a, 6), 6, 0);
    CHECK_EQ(resolved, 2);
    greenlet_unref(a);
}

/* The hook kills it. */
static int resolve_by_killing(greenlet *g, greenlet_entry **entry, void *data) {
    (void)data;
    *entry = entry_pump;
    CHECK_MSG(greenlet_kill(g), 0, 0);
    return 0;
}

TEST(contract_22_resolve_entry_is_looked_at_again_dead) {
    set_resolve(resolve_by_killing);
    a = greenlet_new(NULL, NULL);
    CHECK_MSG(go(a, 5), 5, 0); /* to its nearest live ancestor */
    CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
    greenlet_unref(a);
}

/* ---- walk ------------------------------------------------------------------
 */

static greenlet *walked[32];
static size_t walk_count;
static intptr_t walk_status;

static int collect(greenlet *g, void *data) {
    (void)data;
    if (walk_count < 32)
        walked[walk_count++] = g;
    return 0;
}

static bool was_walked(greenlet *g) {
    int times = 0;
    for (size_t i = 0; i < walk_count; i++)
        times += walked[i] == g;
    CHECK(times <= 1);
    return times == 1;
}

static greenlet_message entry_walks(void *value) {
    (void)value;
    walk_count = 0;
    return val(greenlet_walk(collect, NULL));
}

static int stop(greenlet *g, void *data) {
    (void)g;
    (void)data;
    walk_count++;
    return 42;
}

static int try_to_switch(greenlet *g, void *data) {
    (void)data;
    walk_count++;
    walk_status = go(g, 1).status;
    return 0;
}

TEST(contract_22_walk_over_suspended_greenlets) {
    greenlet *m = greenlet_main();
    a = spawn(entry_pump);
    b = spawn(entry_echo); /* new: not walked */
    c = spawn(entry_pump);
    go(a, 1);
    go(c, 1);
    greenlet *d = spawn(entry_echo);
    go(d, 1); /* dead: not walked */
    CHECK_EQ(greenlet_walk(collect, NULL), 0);
    CHECK_EQ(walk_count, 2);
    CHECK(was_walked(a) && was_walked(c));
    greenlet *w = spawn(entry_walks);
    CHECK_MSG(go(w, 0), 0, 0);
    CHECK_EQ(walk_count, 3);
    CHECK(was_walked(a) && was_walked(c) && was_walked(m));
    walk_count = 0;
    CHECK_EQ(greenlet_walk(stop, NULL), 42);
    CHECK_EQ(walk_count, 1);
    walk_count = 0;
    CHECK_EQ(greenlet_walk(try_to_switch, NULL), 0);
    CHECK_EQ(walk_count, 2);
    CHECK_EQ(walk_status, -EBUSY);
    CHECK_MSG(go(a, 3), 3, 0);
    greenlet_unref(a);
    greenlet_unref(b);
    greenlet_unref(c);
    greenlet_unref(d);
    greenlet_unref(w);
}

static void *walks_alone(void *unused) {
    (void)unused;
    walk_count = 0;
    CHECK_EQ(greenlet_walk(collect, NULL), 0);
    CHECK_EQ(walk_count, 0);
    return NULL;
}

TEST(contract_22_walk_stays_in_its_thread) {
    a = spawn(entry_pump);
    go(a, 1);
    test_join(test_thread(walks_alone, NULL));
    greenlet_unref(a);
}
