/* Greenlet-local storage, user data, names. Contract 24.
 * SPDX-License-Identifier: MIT */
#include "test.h"

static greenlet *a, *b;
static greenlet_key key, second;
static int destroyed;
static intptr_t destroyed_sum;
static greenlet *destroyed_in;

static void count_destroyed(void *value) {
    destroyed++;
    destroyed_sum += I(value);
    destroyed_in = greenlet_current();
}

static greenlet_message entry_keeps(void *value) {
    CHECK_PTR(greenlet_local_get(key), NULL);
    CHECK_EQ(greenlet_local_set(key, value), 0);
    CHECK_PTR(greenlet_local_get(key), value);
    greenlet_message m = back(0);
    CHECK_PTR(greenlet_local_get(key), value);
    return m;
}

TEST(contract_24_one_pointer_per_greenlet) {
    CHECK_EQ(greenlet_key_create(&key, NULL), 0);
    CHECK_PTR(greenlet_local_get(key), NULL);
    CHECK_EQ(greenlet_local_set(key, V(1)), 0);
    a = spawn(entry_keeps);
    b = spawn(entry_keeps);
    CHECK_MSG(go(a, 100), 0, 0);
    CHECK_PTR(greenlet_local_get(key), V(1));
    CHECK_MSG(go(b, 200), 0, 0);
    CHECK_PTR(greenlet_local_get(key), V(1));
    CHECK_MSG(go(a, 5), 5, 0);
    CHECK_MSG(go(b, 6), 6, 0);
    CHECK_PTR(greenlet_local_get(key), V(1));
    greenlet_unref(a);
    greenlet_unref(b);
    CHECK_EQ(greenlet_key_delete(key), 0);
    CHECK_PTR(greenlet_local_get(key), NULL);
    CHECK_EQ(greenlet_local_set(key, V(1)), -EINVAL);
}

TEST(contract_24_destructor_runs_at_death_on_the_dying_stack) {
    CHECK_EQ(greenlet_key_create(&key, count_destroyed), 0);
    a = spawn(entry_keeps);
    go(a, 100);
    CHECK_EQ(destroyed, 0);
    go(a, 0);
    CHECK_EQ(destroyed, 1);
    CHECK_EQ(destroyed_sum, 100);
    CHECK_PTR(destroyed_in, a);
    greenlet_unref(a);
    CHECK_EQ(destroyed, 1);
    a = spawn(entry_keeps); /* and when it is killed */
    go(a, 11);
    greenlet_unref(a);
    CHECK_EQ(destroyed, 2);
    CHECK_EQ(destroyed_sum, 111);
}

static greenlet_message entry_clears(void *value) {
    CHECK_EQ(greenlet_local_set(key, value), 0);
    CHECK_EQ(greenlet_local_set(key, NULL), 0);
    return val(0);
}

TEST(contract_24_no_destructor_for_null_or_deleted) {
    CHECK_EQ(greenlet_key_create(&key, count_destroyed), 0);
    a = spawn(entry_clears);
    CHECK_MSG(go(a, 7), 0, 0);
    CHECK_EQ(destroyed, 0);
    greenlet_unref(a);
    a = spawn(entry_keeps);
    go(a, 100);
    CHECK_EQ(greenlet_key_delete(key), 0);
    CHECK_EQ(greenlet_key_delete(key), -EINVAL);
    /* A key made later does not see the values of a deleted one. */
    CHECK_EQ(greenlet_key_create(&second, count_destroyed), 0);
    b = spawn(entry_clears);
    greenlet_unref(b);
    CHECK_EQ(destroyed, 0);
}

static greenlet_message entry_reads_second(void *value) {
    CHECK_EQ(greenlet_local_set(key, value), 0);
    back(0);
    CHECK_PTR(greenlet_local_get(second), NULL);
    return val(3);
}

TEST(contract_24_reused_key_starts_empty) {
    CHECK_EQ(greenlet_key_create(&key, NULL), 0);
    a = spawn(entry_reads_second);
    CHECK_MSG(go(a, 9), 0, 0);
    CHECK_EQ(greenlet_key_delete(key), 0);
    CHECK_EQ(greenlet_key_create(&second, count_destroyed), 0);
    CHECK_MSG(go(a, 9), 3, 0);
    CHECK_EQ(destroyed, 0);
    greenlet_unref(a);
}

static int resets;

static void sets_again(void *value) {
    resets++;
    CHECK_EQ(greenlet_local_set(key, value), 0);
}

static greenlet_message entry_sets(void *value) {
    CHECK_EQ(greenlet_local_set(key, value), 0);
    return val(0);
}

TEST(contract_24_destructor_that_sets_again_is_looked_at_4_times) {
    CHECK_EQ(greenlet_key_create(&key, sets_again), 0);
    a = spawn(entry_sets);
    CHECK_MSG(go(a, 1), 0, 0);
    CHECK_EQ(resets, 4);
    greenlet_unref(a);
}

static void destructor_switches(void *value) {
    destroyed++;
    CHECK_MSG(go(b, I(value)), I(value), 0);
    CHECK_PTR(greenlet_current(), a);
}

static greenlet_message entry_answers_a(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0)
        m = greenlet_switch(a, m.value);
    return m;
}

TEST(contract_24_destructor_may_switch) {
    CHECK_EQ(greenlet_key_create(&key, destructor_switches), 0);
    a = spawn(entry_sets);
    b = spawn(entry_answers_a);
    CHECK_MSG(go(a, 1), 0, 0);
    CHECK_EQ(destroyed, 1);
    greenlet_unref(a);
}

static greenlet_key thread_key;
static pthread_t destroyed_by;

static void destroyed_at_exit(void *value) {
    destroyed++;
    destroyed_sum += I(value);
    destroyed_by = pthread_self();
}

static greenlet_message entry_sets_and_waits(void *value) {
    CHECK_EQ(greenlet_local_set(thread_key, value), 0);
    back(0);
    FAIL("runs again");
}

static void *exits_with_locals(void *unused) {
    (void)unused;
    CHECK_EQ(greenlet_local_set(thread_key, V(1)), 0);
    a = spawn(entry_sets_and_waits);
    go(a, 20);
    b = spawn(entry_sets_and_waits);
    go(b, 300);
    return NULL;
}

TEST(contract_24_destructors_run_at_thread_exit) {
    CHECK_EQ(greenlet_key_create(&thread_key, destroyed_at_exit), 0);
    pthread_t thread = test_thread(exits_with_locals, NULL);
    test_join(thread);
    CHECK_EQ(destroyed, 3);
    CHECK_EQ(destroyed_sum, 321);
    CHECK(pthread_equal(destroyed_by, thread));
    greenlet_unref(a);
    greenlet_unref(b);
    CHECK_EQ(destroyed, 3);
}

TEST(contract_24_keys_run_out) {
    static greenlet_key keys[GREENLET_KEYS_MAX];
    for (int i = 0; i < GREENLET_KEYS_MAX; i++)
        CHECK_EQ(greenlet_key_create(&keys[i], NULL), 0);
    CHECK_EQ(greenlet_key_create(&key, NULL), -EAGAIN);
    for (int i = 0; i < GREENLET_KEYS_MAX; i++)
        CHECK_EQ(greenlet_local_set(keys[i], V(i + 1)), 0);
    for (int i = 0; i < GREENLET_KEYS_MAX; i++)
        CHECK_PTR(greenlet_local_get(keys[i]), V(i + 1));
    CHECK_EQ(greenlet_key_delete(keys[17]), 0);
    CHECK_EQ(greenlet_key_create(&key, NULL), 0);
    CHECK_PTR(greenlet_local_get(key), NULL);
    CHECK_EQ(greenlet_key_create(NULL, NULL), -EINVAL);
    CHECK_EQ(greenlet_key_delete(GREENLET_KEYS_MAX), -EINVAL);
    CHECK_EQ(greenlet_key_delete((greenlet_key)-1), -EINVAL);
    CHECK_PTR(greenlet_local_get((greenlet_key)-1), NULL);
    CHECK_EQ(greenlet_local_set((greenlet_key)-1, NULL), -EINVAL);
}

/* ---- user data, names -----------------------------------------------------
 */

TEST(contract_24_user_data) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.user_data = &destroyed;
    a = greenlet_new(entry_pump, &o);
    CHECK_PTR(greenlet_user_data(a), &destroyed);
    go(a, 1);
    CHECK_PTR(greenlet_user_data(a), &destroyed);
    greenlet_set_user_data(a, &key);
    CHECK_PTR(greenlet_user_data(a), &key);
    greenlet_kill(a);
    CHECK_PTR(greenlet_user_data(a), &key);
    greenlet_set_user_data(greenlet_main(), &a);
    CHECK_PTR(greenlet_user_data(greenlet_main()), &a);
    CHECK_PTR(greenlet_user_data(NULL), NULL);
    greenlet_set_user_data(NULL, &a);
    greenlet_unref(a);
}

TEST(contract_24_names) {
    char text[100];
    a = spawn_named(entry_pump, "first");
    CHECK_STR(greenlet_name(a), "first");
    strcpy(text, "second");
    CHECK_EQ(greenlet_set_name(a, text), 0);
    memset(text, 'x', sizeof text); /* copied */
    CHECK_STR(greenlet_name(a), "second");
    text[sizeof text - 1] = 0;
    CHECK_EQ(greenlet_set_name(a, text), 0);
    CHECK_EQ(strlen(greenlet_name(a)), 47);
    CHECK(strncmp(greenlet_name(a), text, 47) == 0);
    text[47] = 0;
    CHECK_EQ(greenlet_set_name(a, text), 0);
    CHECK_STR(greenlet_name(a), text);
    go(a, 1);
    CHECK_STR(greenlet_name(a), text);
    CHECK_EQ(greenlet_set_name(a, ""), 0);
    CHECK_STR(greenlet_name(a), "");
    CHECK_EQ(greenlet_set_name(a, NULL), 0);
    CHECK_STR(greenlet_name(a), "");
    CHECK_EQ(greenlet_set_name(greenlet_main(), "main"), 0);
    CHECK_STR(greenlet_name(greenlet_main()), "main");
    CHECK_EQ(greenlet_set_name(NULL, "x"), -EINVAL);
    CHECK_STR(greenlet_name(NULL), "");
    b = spawn(entry_echo);
    CHECK_STR(greenlet_name(b), "");
    greenlet_unref(b);
    greenlet_unref(a);
}
