/* Many threads with many greenlets each, which end in every way; and the end
 * of the process, whatever its greenlets are doing.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- 64 threads with 10,000 greenlets ------------------------------------ */

enum { THREADS = 64, EACH = 10000, EACH_UNDER_TSAN = 300, AT_A_TIME = 100 };

/* References that go from thread to thread. */
static pthread_mutex_t shelf_lock = PTHREAD_MUTEX_INITIALIZER;
static greenlet *shelf[256];
static unsigned shelf_n;

/* Puts `g` there and takes another thread's away, if there are enough. */
static greenlet *exchange(greenlet *g) {
    greenlet *other = NULL;
    pthread_mutex_lock(&shelf_lock);
    if (shelf_n == sizeof shelf / sizeof *shelf) {
        unsigned i = shelf_n / 2;
        other = shelf[i];
        shelf[i] = g;
    } else {
        shelf[shelf_n++] = g;
    }
    pthread_mutex_unlock(&shelf_lock);
    return other;
}

/* New, suspended, dead: each kind may be left at the end of the thread. */
static void *one_of_many(void *seed_at) {
    uint64_t seed = (uint64_t)I(seed_at);
    greenlet **mine = calloc(AT_A_TIME, sizeof *mine);
    unsigned each = test_has_tsan() ? EACH_UNDER_TSAN : EACH; /* fibers: slow */
    CHECK(mine != NULL);
    for (unsigned i = 0; i < each; i++) {
        greenlet **at = &mine[test_random(&seed) % AT_A_TIME];
        greenlet_unref(*at);
        *at = spawn(entry_pump);
        switch (test_random(&seed) % 4) {
        case 0:
            break;
        case 1:
            CHECK_MSG(greenlet_throw(*at, 5, V(i)), i, 5);
            break;
        default:
            CHECK_MSG(go(*at, (intptr_t)i), i, 0);
        }
        if (test_random(&seed) % 8 == 0) {
            greenlet *other = exchange(greenlet_ref(*at));
            if (other && greenlet_get_state(other) == GREENLET_ACTIVE) {
                intptr_t status = greenlet_switch(other, NULL).status;
                if (status && status != -EPERM && status != -EOWNERDEAD)
                    FAIL("status %ld", (long)status);
            }
            greenlet_unref(other);
        }
    }
    /* Half of what it has is left to the exit. */
    for (unsigned i = 0; i < AT_A_TIME; i += 2)
        greenlet_unref(mine[i]);
    for (unsigned i = 1; i < AT_A_TIME; i += 2)
        if (mine[i])
            greenlet_unref(exchange(mine[i]));
    free(mine);
    return NULL;
}

TEST(contract_18_sixty_four_threads_with_ten_thousand_greenlets) {
    pthread_t threads[THREADS];
    CHECK(greenlet_main() != NULL);
    for (intptr_t i = 0; i < THREADS; i++)
        threads[i] = test_thread(one_of_many, V(i + 1));
    for (int i = 0; i < THREADS; i++)
        test_join(threads[i]);
    for (unsigned i = 0; i < shelf_n; i++) {
        CHECK_EQ(greenlet_get_state(shelf[i]), GREENLET_DEAD);
        greenlet_unref(shelf[i]);
    }
}

/* ---- The end of the process -----------------------------------------------
 */

static void leave_by_exit(void) { exit(7); }
static void leave_by_exit_now(void) { _exit(7); }
static void leave_by_quick_exit(void) { quick_exit(7); }

static void (*const ways[])(void) = {leave_by_exit, leave_by_exit_now,
                                     leave_by_quick_exit};
static void (*leave)(void);

static greenlet_message entry_leaves(void *value) {
    (void)value;
    leave();
    FAIL("it came back");
}

static void some_suspended(void) {
    for (int i = 0; i < 20; i++) {
        greenlet *g = spawn(entry_pump);
        if (i % 4)
            go(g, i);
        if (i % 4 == 2)
            greenlet_kill(g);
        if (i % 4 == 3)
            continue; /* its reference stays */
        greenlet_unref(g);
    }
}

static void in_main(void *unused) {
    (void)unused;
    some_suspended();
    leave();
}

static void in_greenlet(void *unused) {
    (void)unused;
    some_suspended();
    go(spawn_under(entry_leaves, spawn(entry_pump)), 1);
}

static greenlet_message entry_leaves_at_exit(void *value) {
    back(I(value));
    leave(); /* while it is killed */
    return val(0);
}

static void in_kill(void *unused) {
    (void)unused;
    some_suspended();
    greenlet *g = spawn(entry_leaves_at_exit);
    go(g, 1);
    greenlet_unref(g);
}

static void tracer_leaves(greenlet_event event, greenlet *origin,
                          greenlet *target, void *data) {
    (void)event, (void)origin, (void)target, (void)data;
    leave();
}

static void in_tracer(void *unused) {
    (void)unused;
    some_suspended();
    CHECK_EQ(greenlet_set_tracer(tracer_leaves, NULL, NULL, NULL), 0);
    go(spawn(entry_echo), 1);
}

/* Each hook in turn. */
static void switch_leaves(greenlet *from, greenlet *to, void *data) {
    (void)from, (void)to, (void)data;
    leave();
}

static void greenlet_leaves(greenlet *g, void *data) {
    (void)g, (void)data;
    leave();
}

static void last_leaves(greenlet *g, greenlet_message last, void *data) {
    (void)g, (void)last, (void)data;
    leave();
}

static int resolve_leaves(greenlet *g, greenlet_entry **entry, void *data) {
    (void)g, (void)entry, (void)data;
    leave();
    return 0;
}

static greenlet_message entry_starts_echo(void *value) {
    return go(spawn(entry_echo), I(value));
}

static greenlet_message entry_fails(void *value) {
    back(I(value));
    return err(1, 2);
}

static void in_hook(const greenlet_hooks *h) {
    some_suspended();
    greenlet *g = spawn(entry_fails);
    go(g, 1);
    CHECK_EQ(greenlet_set_hooks(h, NULL), 0);
    if (h->unraisable)
        greenlet_unref(g);
    go(spawn(entry_starts_echo), 1);
}

#define IN_HOOK(name, function)                                                \
    static void in_##name(void *unused) {                                      \
        greenlet_hooks h = GREENLET_HOOKS_INIT;                                \
        (void)unused;                                                          \
        h.name = function;                                                     \
        in_hook(&h);                                                           \
    }

IN_HOOK(pre_switch, switch_leaves)
IN_HOOK(post_switch, switch_leaves)
IN_HOOK(first_entry, greenlet_leaves)
IN_HOOK(on_finish, last_leaves)
IN_HOOK(on_release, greenlet_leaves)
IN_HOOK(resolve_entry, resolve_leaves)
IN_HOOK(unraisable, last_leaves)

static int visit_leaves(greenlet *g, void *data) {
    greenlet_leaves(g, data);
    return 0;
}

static void in_walk(void *unused) {
    (void)unused;
    some_suspended();
    greenlet_walk(visit_leaves, NULL);
}

static void in_shutdown(void *unused) {
    (void)unused;
    some_suspended();
    go(spawn(entry_leaves_at_exit), 1);
    greenlet_thread_shutdown();
}

static void *drops(void *g) {
    greenlet_unref((greenlet *)g);
    return NULL;
}

static void in_drain(void *unused) {
    (void)unused;
    some_suspended();
    greenlet *g = spawn(entry_leaves_at_exit);
    go(g, 1);
    test_join(test_thread(drops, g));
    greenlet_drain();
}

static void local_leaves(void *value) {
    (void)value;
    leave();
}

static greenlet_key key;

static greenlet_message entry_sets_local(void *value) {
    CHECK_EQ(greenlet_local_set(key, V(1)), 0);
    return val(I(value));
}

static void in_destructor(void *unused) {
    (void)unused;
    some_suspended();
    CHECK_EQ(greenlet_key_create(&key, local_leaves), 0);
    go(spawn(entry_sets_local), 1);
}

/* A thread's exit runs the destructors of those that are left. */
static greenlet_message entry_keeps_local(void *value) {
    CHECK_EQ(greenlet_local_set(key, V(1)), 0);
    return back(I(value));
}

static void *exits_with_local(void *unused) {
    some_suspended();
    go(spawn(entry_keeps_local), 1);
    return unused;
}

static void in_thread_exit(void *unused) {
    some_suspended();
    CHECK_EQ(greenlet_key_create(&key, local_leaves), 0);
    test_join(test_thread(exits_with_local, unused));
}

static void *busy_thread(void *unused) {
    (void)unused;
    greenlet *g = spawn(entry_pump);
    while (go(g, 1).status == 0)
        continue;
    return NULL;
}

static void beside_a_busy_thread(void *unused) {
    some_suspended();
    for (int i = 0; i < 3; i++)
        test_thread(busy_thread, NULL);
    usleep(2000);
    in_greenlet(unused);
}

static void *thread_leaves(void *unused) {
    in_greenlet(unused);
    return NULL;
}

static void in_another_thread(void *unused) {
    some_suspended();
    test_join(test_thread(thread_leaves, unused));
}

TEST(contract_36_process_exits_in_every_state) {
    static void (*const states[])(void *) = {
        in_main,
        in_greenlet,
        in_kill,
        in_tracer,
        in_pre_switch,
        in_post_switch,
        in_first_entry,
        in_on_finish,
        in_on_release,
        in_resolve_entry,
        in_unraisable,
        in_walk,
        in_shutdown,
        in_drain,
        in_destructor,
        in_thread_exit,
        beside_a_busy_thread,
        in_another_thread,
    };
    static struct test_death death;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (size_t k = 0; k < sizeof states / sizeof *states; k++) {
            leave = ways[i];
            test_die(states[k], NULL, &death);
            if (!WIFEXITED(death.status) || WEXITSTATUS(death.status) != 7 ||
                death.length)
                FAIL("way %zu in state %zu: wait status %#x: %s", i, k,
                     death.status, death.text);
        }
}

/* ---- dlclose --------------------------------------------------------------
 */

/* Of plugin.c, whose code is on no stack when it is closed. */
struct plugin {
    greenlet_message (*switch_to)(greenlet *to, void *value);
    greenlet *parent;
};

TEST(contract_17_library_without_a_frame_can_be_closed) {
    for (int round = 0; round < 3; round++) {
        static struct plugin plugin;
        void *library = dlopen(TEST_PLUGIN, RTLD_NOW | RTLD_LOCAL);
        if (!library)
            FAIL("%s", dlerror());
        greenlet_entry *entry;
        *(void **)&entry = dlsym(library, "plugin_entry");
        CHECK(entry != NULL);
        plugin.switch_to = greenlet_switch;
        plugin.parent = greenlet_main();
        greenlet *finished = spawn(entry), *killed = spawn(entry);
        greenlet *never = spawn(entry), *other = spawn(entry_pump);
        CHECK_MSG(go(other, 1), 1, 0);
        CHECK_MSG(greenlet_switch(finished, &plugin), 100, 0);
        CHECK_MSG(greenlet_switch(killed, &plugin), 100, 0);
        CHECK_MSG(go(finished, 5), 5, 0);
        CHECK_EQ(greenlet_get_state(finished), GREENLET_DEAD);
        CHECK_EQ(greenlet_kill(killed).status, 0);
        CHECK_EQ(greenlet_get_state(killed), GREENLET_DEAD);
        CHECK_EQ(dlclose(library), 0);
        /* What is left of them needs none of that code. */
        greenlet_unref(never);
        CHECK_MSG(go(other, 2), 2, 0);
        CHECK_MSG(go(finished, 3), 3, 0);
        greenlet_unref(finished);
        greenlet_unref(killed);
        greenlet_unref(other);
        /* New ones run where those of the library ran. */
        greenlet *next = spawn(entry_pump);
        CHECK_MSG(go(next, 4), 4, 0);
        greenlet_unref(next);
    }
}
