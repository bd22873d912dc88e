/* Threads that end while their greenlets are suspended in every way. No code
 * of these runs any more; their handles stay valid and tell so; their stacks
 * go, and with the last handle everything does, but for what a reference on
 * one of those stacks held. Contract 18.
 * SPDX-License-Identifier: MIT */
#include "faults.h"
#include "test.h"

#include <stdatomic.h>

enum { LEFT = 64, DEEP = 40000 };

static greenlet *left[LEFT], *helper, *main_here;
static int left_n;
static bool over; /* the thread has ended: nobody may run */
static greenlet_key key;
static struct test_gate gate;

/* The reference is for whoever looks at it afterwards. */
static greenlet *leave(greenlet *g) {
    CHECK(left_n < LEFT);
    return left[left_n++] = g;
}

static greenlet_message to_main(void) {
    greenlet_message m = greenlet_switch(main_here, NULL);
    if (over)
        FAIL("it runs after the end of its thread");
    return m;
}

static greenlet_message entry_stays(void *value) {
    (void)value;
    return to_main();
}

static void start(greenlet *g) { CHECK_MSG(go(g, 0), 0, 0); }

/* ---- The kinds ----------------------------------------------------------- */

static void new_ones(void) {
    leave(spawn(entry_stays));
    leave(spawn_under(entry_stays, leave(spawn_named(entry_stays, "new"))));
}

static void dead_ones(void) {
    start(leave(spawn(entry_echo)));
    greenlet *g = leave(spawn(entry_stays));
    start(g);
    CHECK_MSG(greenlet_kill(g), 0, 0);
}

/* Resident, and displaced by those that come after it. */
static void suspended_ones(void) {
    for (int i = 0; i < 20; i++)
        start(leave(spawn(entry_stays)));
    leave(spawn_under(entry_stays, left[left_n - 1]));
}

static greenlet_message entry_stays_deep(void *value) {
    volatile unsigned char bytes[DEEP];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    greenlet_message m = entry_stays(value);
    for (size_t i = 0; i < sizeof bytes; i++)
        CHECK_EQ(bytes[i], (unsigned char)i);
    return m;
}

static void deep_ones(void) {
    for (int i = 0; i < 5; i++)
        start(leave(spawn(entry_stays_deep)));
}

/* Each is suspended in the call that started the next one. */
static greenlet_message entry_nests(void *value) {
    if (I(value) > 0)
        return go(leave(spawn(entry_nests)), I(value) - 1);
    return to_main();
}

static void nested_ones(void) {
    CHECK_MSG(go(leave(spawn(entry_nests)), 10), 0, 0);
}

static void special_ones(void) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.flags = GREENLET_STATS | GREENLET_FPU;
    o.name = "special";
    start(leave(greenlet_new(entry_stays, &o)));
    leave(greenlet_new(entry_stays, &o));
}

static greenlet_message entry_with_local(void *value) {
    CHECK_EQ(greenlet_local_set(key, V(1)), 0);
    return entry_stays(value);
}

static void with_locals(void) {
    start(leave(spawn(entry_with_local)));
    start(leave(spawn(entry_with_local)));
}

static void *makes_three(void *unused) {
    (void)unused;
    for (int i = 0; i < 3; i++)
        leave(spawn_under(entry_stays_deep, main_here));
    return NULL;
}

/* Their maker has exited, too. */
static void made_elsewhere(void) {
    test_join(test_thread(makes_three, NULL));
    start(left[left_n - 1]);
    start(left[left_n - 2]);
}

static void *drops(void *g) {
    greenlet_unref((greenlet *)g);
    return NULL;
}

/* The last references are in the thread's queue, or too many in its count. */
static void dropped_elsewhere(void) {
    greenlet *g = spawn(entry_stays);
    start(g);
    test_join(test_thread(drops, g));
    test_join(test_thread(drops, spawn(entry_stays)));
    start(greenlet_ref(leave(spawn(entry_stays))));
    test_join(test_thread(drops, left[left_n - 1]));
}

static greenlet_message entry_refuses(void *value) {
    (void)value;
    CHECK_EQ(to_main().status, GREENLET_EXIT);
    return to_main();
}

static void one_that_refused_to_die(void) {
    start(leave(spawn(entry_refuses)));
    CHECK_EQ(greenlet_kill(left[left_n - 1]).status, -EBUSY);
}

/* From here on references of the library stay on the stacks. */

static greenlet_message entry_kills_helper(void *value) {
    (void)value;
    return greenlet_kill(helper);
}

static greenlet_message entry_drops_helper(void *value) {
    (void)value;
    greenlet_unref(helper);
    return val(0);
}

/* The victim, in the middle of unwinding, goes to main. */
static void in_a_kill(void) {
    helper = leave(spawn(entry_refuses));
    start(helper);
    start(leave(spawn(entry_kills_helper)));
}

static void in_a_last_unref(void) {
    helper = spawn(entry_refuses);
    start(helper);
    start(leave(spawn(entry_drops_helper)));
}

static bool once;

static void hook_goes_to_main(greenlet *from, greenlet *to, void *data) {
    (void)from, (void)data;
    if (once && to != main_here) {
        once = false;
        to_main();
    }
}

static void entered_goes_to_main(greenlet *g, void *data) {
    hook_goes_to_main(NULL, g, data);
}

static void finishing_goes_to_main(greenlet *g, greenlet_message last,
                                   void *data) {
    (void)last;
    hook_goes_to_main(NULL, g, data);
}

static void released_goes_to_main(greenlet *g, void *data) {
    (void)g;
    hook_goes_to_main(NULL, greenlet_current(), data);
}

static int resolve_goes_to_main(greenlet *g, greenlet_entry **entry,
                                void *data) {
    (void)g, (void)entry;
    hook_goes_to_main(NULL, greenlet_current(), data);
    return 0;
}

static void tracer_goes_to_main(greenlet_event event, greenlet *origin,
                                greenlet *target, void *data) {
    (void)event;
    hook_goes_to_main(origin, target, data);
}

static greenlet_message entry_starts_another(void *value) {
    (void)value;
    return go(leave(spawn(entry_echo)), 1);
}

/* It is the hook's or tracer's call that is suspended. */
static void in_a_hook(const greenlet_hooks *h, greenlet_entry *entry) {
    CHECK_EQ(greenlet_set_hooks(h, NULL), 0);
    once = true;
    start(leave(spawn(entry)));
    CHECK_EQ(once, false);
    CHECK_EQ(greenlet_set_hooks(NULL, NULL), 0);
}

static void in_hooks(void) {
    greenlet_hooks h = GREENLET_HOOKS_INIT;
    h.post_switch = hook_goes_to_main;
    in_a_hook(&h, entry_echo);
    h.post_switch = NULL;
    h.first_entry = entered_goes_to_main;
    in_a_hook(&h, entry_echo);
    h.first_entry = NULL;
    h.on_finish = finishing_goes_to_main; /* dying */
    in_a_hook(&h, entry_echo);
    h.on_finish = NULL;
    h.on_release = released_goes_to_main; /* of the one that it started */
    in_a_hook(&h, entry_starts_another);
    h.on_release = NULL;
    h.resolve_entry = resolve_goes_to_main; /* for the one that it starts */
    in_a_hook(&h, entry_starts_another);
}

static void in_a_tracer(void) {
    once = true;
    CHECK_EQ(greenlet_set_tracer(tracer_goes_to_main, NULL, NULL, NULL), 0);
    start(leave(spawn(entry_echo)));
    CHECK_EQ(once, false);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
}

static void local_goes_to_main(void *value) {
    (void)value;
    if (greenlet_current() != main_here && once) {
        once = false;
        to_main();
    }
}

static greenlet_message entry_ends_with_local(void *value) {
    CHECK_EQ(greenlet_local_set(key, V(1)), 0);
    return val(I(value));
}

static void in_a_destructor(void) {
    once = true;
    start(leave(spawn(entry_ends_with_local))); /* dying */
    CHECK_EQ(once, false);
}

/* ---- The exits ------------------------------------------------------------
 */

static const struct kind {
    const char *name;
    void (*make)(void);
    bool holds; /* references, on the stacks that go */
} kinds[] = {
    {"new", new_ones, false},
    {"dead", dead_ones, false},
    {"suspended", suspended_ones, false},
    {"deep", deep_ones, false},
    {"nested", nested_ones, false},
    {"special", special_ones, false},
    {"with locals", with_locals, false},
    {"made elsewhere", made_elsewhere, false},
    {"dropped elsewhere", dropped_elsewhere, false},
    {"refused to die", one_that_refused_to_die, false},
    {"in a kill", in_a_kill, true},
    {"in a last unref", in_a_last_unref, true},
    {"in hooks", in_hooks, true},
    {"in a tracer", in_a_tracer, true},
    {"in a destructor", in_a_destructor, true},
};

static int lanes; /* of the threads; -1: default */

static void *exits(void *at) {
    const struct kind *kind = at;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = lanes;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    main_here = greenlet_ref(greenlet_main());
    kind->make();
    return NULL;
}

/* Returns how many there were. */
static int check_left(void) {
    int n = left_n;
    greenlet_options o = GREENLET_OPTIONS_INIT;
    for (int i = 0; i < n; i++) {
        CHECK_EQ(greenlet_get_state(left[i]), GREENLET_DEAD);
        CHECK_MSG(go(left[i], 1), 0, -EOWNERDEAD);
        CHECK_MSG(greenlet_throw(left[i], 5, NULL), 0, -EOWNERDEAD);
        CHECK_EQ(greenlet_kill(left[i]).status, -EOWNERDEAD);
        CHECK_EQ(greenlet_set_parent(left[i], greenlet_main()), -EOWNERDEAD);
        o.parent = left[i];
        errno = 0;
        CHECK_PTR(greenlet_new(entry_stays, &o), NULL);
        CHECK_EQ(errno, EOWNERDEAD);
        if (greenlet_name(left[i])[0])
            CHECK(strcmp(greenlet_name(left[i]), "new") == 0 ||
                  strcmp(greenlet_name(left[i]), "special") == 0);
    }
    for (int i = 0; i < n; i++)
        greenlet_unref(left[i]);
    greenlet_unref(main_here);
    left_n = 0;
    return n;
}

static void exit_with(const struct kind *kind) {
    enum { ROUNDS = 6 };
    long blocks = 0, mapped = 0;
    int n = 0;
    for (int round = 0; round < ROUNDS; round++) {
        if (round == ROUNDS / 2) {
            blocks = faults_blocks();
            mapped = faults_mapped();
        }
        over = false;
        test_join(test_thread(exits, (void *)(uintptr_t)kind));
        over = true;
        n = check_left();
    }
    blocks = faults_blocks() - blocks;
    mapped = faults_mapped() - mapped;
    /* What is held: at most two slabs and a stack's record a thread, and some
     * blocks a greenlet; never a stack. */
    long most_mapped = kind->holds ? ROUNDS / 2 * 2 * 64 * 1024 : 0;
    long most_blocks = kind->holds ? ROUNDS / 2 * (2 + 3 * n) : 0;
    if (blocks > most_blocks || mapped > most_mapped)
        FAIL("%s, lanes %d: %ld blocks and %ld mapped bytes are left",
             kind->name, lanes, blocks, mapped);
}

TEST(contract_18_exit_with_greenlets_suspended_in_every_way) {
    CHECK_EQ(greenlet_key_create(&key, local_goes_to_main), 0);
    CHECK(greenlet_main() != NULL);
    for (lanes = -1; lanes <= 2; lanes++)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            if (lanes < 0 || test_is_copy())
                exit_with(&kinds[i]);
}

/* ---- References, counted by their maker while the greenlet runs -----------
 */

static int seen;
static atomic_bool finished;

static void count(greenlet_event event, greenlet *origin, greenlet *target,
                  void *data) {
    (void)event, (void)origin, (void)target, (void)data;
    seen++;
}

static void *runs_it(void *unused) {
    (void)unused;
    int n = (int)test_amount(2000, 100000);
    main_here = greenlet_ref(greenlet_main());
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    CHECK_EQ(greenlet_set_tracer(count, NULL, NULL, NULL), 0);
    for (int i = 0; i < n; i++)
        CHECK_MSG(go(left[0], i), i, 0);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
    CHECK_EQ(seen, 2 * n);
    atomic_store(&finished, true);
    gate_wait(&gate, 3);
    greenlet_drain();
    greenlet_unref(main_here);
    return NULL;
}

/* What is traced is held meanwhile, which must not look at the maker's own
 * count. (ThreadSanitizer tells.) */
TEST(contract_16_maker_counts_while_it_is_traced_at_home) {
    pthread_t home = test_thread(runs_it, NULL);
    gate_wait(&gate, 1);
    leave(spawn_under(entry_pump, main_here));
    gate_reach(&gate, 2);
    while (!atomic_load(&finished)) {
        greenlet_ref(left[0]);
        greenlet_unref(left[0]);
    }
    greenlet_unref(left[0]);
    gate_reach(&gate, 3);
    test_join(home);
}
