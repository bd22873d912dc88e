/* What docs/performance.md says about counts, as counts: the bytes, the times
 * and the allocator calls of a switch, against exact numbers, against a model
 * of greenlet's own algorithm, and against throwing balls into bins.
 *
 * SPDX-License-Identifier: MIT */
#include "test.h"

/* An inline switch saves another frame than the call: these are counts of the
 * call, also where the suite is built with inline switches. */
#undef greenlet_switch

#include <alloca.h>

/* Runs `body` in a thread with so many lanes; not on other backends. */
static struct {
    int lanes;
    void (*body)(void);
} setting;

static void *set_lanes(void *unused) {
    (void)unused;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = setting.lanes;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    setting.body();
    CHECK_EQ(greenlet_thread_shutdown(), 0);
    return NULL;
}

static void on_lanes(int lanes, void (*body)(void)) {
    if (!test_is_copy())
        SKIP("nothing is copied on this backend");
    setting.lanes = lanes;
    setting.body = body;
    test_join(test_thread(set_lanes, NULL));
}

static greenlet_statistics counters(void) {
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    CHECK_EQ(greenlet_thread_statistics(&s), 0);
    return s;
}

static size_t live_bytes(greenlet *g) {
    greenlet_stack s;
    CHECK_EQ(greenlet_get_stack(g, &s), 0);
    return (size_t)((const char *)s.base - (const char *)s.sp);
}

/* ---- Exact numbers ------------------------------------------------------ */

enum { ROUNDS = 1000 };

static greenlet *left, *right;
static size_t payload_bytes;

static greenlet *spawn_on(greenlet_entry *entry, int lane) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.lane = lane;
    greenlet *g = greenlet_new(entry, &o);
    CHECK(g != NULL);
    return g;
}

static void resident(void) {
    greenlet *g = spawn(entry_pump);
    CHECK_MSG(go(g, 1), 1, 0);
    greenlet_statistics before = counters();
    for (int i = 0; i < ROUNDS; i++)
        CHECK_MSG(go(g, i), i, 0);
    greenlet_statistics now = counters();
    CHECK_EQ(now.switches - before.switches, 2 * ROUNDS);
    CHECK_EQ(now.hits - before.hits, 2 * ROUNDS);
    CHECK_EQ(now.misses, before.misses);
    CHECK_EQ(now.saved_bytes, before.saved_bytes);
    CHECK_EQ(now.filled_bytes, before.filled_bytes);
    CHECK_EQ(now.allocations, before.allocations);
    greenlet_kill(g);
    greenlet_unref(g);
}

TEST(limits_resident_switches_copy_nothing) {
    for (int lanes = 1; lanes <= 3; lanes++)
        on_lanes(lanes, resident);
}

/* Two on one lane: each switch evicts one and fills the other. How many bytes
 * that are, each says of the other when it has come from there. (They are the
 * same size on most CPUs; on i386 it depends on the way that a switch takes
 * through the library, whose frames are among the bytes.) */
static size_t left_bytes, right_bytes;
static uint64_t evicted_bytes, filled_bytes;
static bool from_main;

static void arrived_from(greenlet *opponent) {
    size_t *theirs = opponent == left ? &left_bytes : &right_bytes;
    size_t *ours = opponent == left ? &right_bytes : &left_bytes;
    if (!from_main) {
        *theirs = live_bytes(opponent);
        evicted_bytes += *theirs;
        filled_bytes += *ours;
    }
    from_main = false;
}

static greenlet_message duellist(void *value) {
    char *payload = alloca(payload_bytes);
    memset(payload, 0x5a, payload_bytes);
    greenlet *opponent = greenlet_current() == left ? right : left;
    greenlet_message m = greenlet_switch(greenlet_main(), value);
    for (int i = 0; m.status == 0; i++) {
        arrived_from(opponent);
        bool over = greenlet_current() == left && i == ROUNDS;
        i = over ? 0 : i;
        m = greenlet_switch(over ? greenlet_main() : opponent, NULL);
        for (size_t k = 0; k < payload_bytes; k++)
            CHECK(payload[k] == 0x5a);
    }
    return m;
}

static void go_left(void) {
    from_main = true;
    evicted_bytes = filled_bytes = 0;
    CHECK_MSG(go(left, 0), 0, 0);
}

static void duel(void) {
    left = spawn_on(duellist, 0);
    right = spawn_on(duellist, 0);
    CHECK_MSG(go(left, 0), 0, 0);
    CHECK_MSG(go(right, 0), 0, 0);
    left_bytes = live_bytes(left);
    right_bytes = live_bytes(right);
    go_left(); /* once, for what is made once */
    greenlet_statistics before = counters();
    go_left();
    greenlet_statistics now = counters();
    /* main -> left, which is resident; then right and left in turns; the last
     * of them goes back to main, and is resident again. */
    uint64_t turns = now.switches - before.switches - 2;
    CHECK(turns >= 2 * ROUNDS - 2);
    CHECK(evicted_bytes >= turns * payload_bytes);
    CHECK_EQ(now.misses - before.misses, turns);
    CHECK_EQ(now.evictions - before.evictions, turns);
    CHECK_EQ(now.fills - before.fills, turns);
    CHECK_EQ(now.saved_bytes - before.saved_bytes, evicted_bytes);
    CHECK_EQ(now.filled_bytes - before.filled_bytes, filled_bytes);
    CHECK_EQ(now.allocations, before.allocations);
    greenlet_kill(left);
    greenlet_kill(right);
    greenlet_unref(left);
    greenlet_unref(right);
}

TEST(limits_equal_sizes_copy_each_byte_once_each_way) {
    static const size_t sizes[] = {1, 200, 1000, 4000, 16000, 60000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        payload_bytes = sizes[i];
        on_lanes(1, duel);
    }
}

/* ---- In place: greenlet's algorithm, as a model --------------------------
 *
 * python-greenlet's slp_save_state() and slp_restore_state(), on intervals:
 * before a switch to T, each owner from the current one up whose stop is
 * below T's is saved entirely, the next one up to T's stop; what is saved
 * already is not saved again. Then T's saved bytes come back, and its
 * previous owner is the first one with a higher stop. The intervals are those
 * that our stacks really have, so that the two differ in the algorithm only.
 */

enum { MODELS = 12 };

static struct model {
    greenlet *g;
    uintptr_t start, stop;
    size_t saved;
    struct model *prev;
} models[MODELS], *model_now;
static uint64_t model_bytes, our_start, model_switches;

static uint64_t our_bytes(void) {
    greenlet_statistics s = counters();
    return s.saved_bytes + s.filled_bytes;
}

static struct model *model_of(greenlet *g) {
    struct model *m = models;
    while (m->g != g)
        m++;
    return m;
}

static void model_save(struct model *m, uintptr_t stop) {
    if (stop > m->start && stop - m->start > m->saved) {
        model_bytes += stop - m->start - m->saved;
        m->saved = stop - m->start;
    }
}

/* Called by whoever runs now, after each switch and at each start. */
static void arrived(void) {
    struct model *from = model_now, *to = model_of(greenlet_current());
    greenlet_stack s;
    if (from == to)
        return;
    model_switches++;
    CHECK_EQ(greenlet_get_stack(from->g, &s), 0);
    from->start = (uintptr_t)s.sp;
    CHECK_EQ(greenlet_get_stack(to->g, &s), 0);
    to->stop = (uintptr_t)s.base;
    struct model *owner = from;
    for (; owner->stop < to->stop; owner = owner->prev)
        model_save(owner, owner->stop);
    if (owner != to)
        model_save(owner, to->stop);
    model_bytes += to->saved;
    to->saved = 0;
    for (owner = from; owner && owner->stop <= to->stop;)
        owner = owner->prev;
    to->prev = owner;
    model_now = to;
}

static greenlet_message pass(greenlet *to) {
    greenlet_message m = greenlet_switch(to, NULL);
    if (m.status == 0)
        arrived();
    return m;
}

static greenlet *add_model(greenlet_entry *entry) {
    struct model *m = models;
    while (m->g)
        m++;
    return m->g = spawn(entry);
}

static void model_begin(void) {
    memset(models, 0, sizeof models);
    models[0].g = greenlet_main();
    models[0].stop = UINTPTR_MAX;
    model_now = &models[0];
    model_bytes = model_switches = 0;
    our_start = our_bytes();
}

static void model_end(const char *pattern) {
    uint64_t ours = our_bytes() - our_start;
    test_say("%s: %llu switches; ours %llu bytes, greenlet's algorithm %llu",
             pattern, (unsigned long long)model_switches,
             (unsigned long long)ours, (unsigned long long)model_bytes);
    CHECK(model_switches > 100);
    CHECK(ours > 0);
    CHECK(ours <= model_bytes);
    for (int i = 1; i < MODELS; i++)
        if (models[i].g) {
            greenlet_kill(models[i].g);
            greenlet_unref(models[i].g);
        }
}

/* Uses some stack, a different amount each time. */
static greenlet_message answering(void *value) {
    (void)value;
    arrived();
    volatile char some[600];
    some[0] = 1;
    for (;;) {
        greenlet_message m = pass(greenlet_main());
        if (m.status || some[0] != 1)
            return m;
    }
}

static greenlet_message deep_answering(void *value) {
    static int depth;
    volatile char some[2500];
    some[0] = 2;
    if (++depth % 3)
        return deep_answering(value);
    greenlet_message m = answering(value);
    return some[0] == 2 ? m : val(-1);
}

static void hub_with_one(void) {
    model_begin();
    greenlet *g = add_model(answering);
    for (int i = 0; i < 200; i++)
        CHECK_EQ(pass(g).status, 0);
    model_end("a hub with one");
}

static void hub_with_many(void) {
    model_begin();
    for (int i = 0; i < 8; i++)
        add_model(i % 2 ? deep_answering : answering);
    for (int i = 0; i < 400; i++)
        CHECK_EQ(pass(models[1 + i % 8].g).status, 0);
    model_end("a hub with many");
}

static int ring_turns;

static greenlet_message in_ring(void *value) {
    (void)value;
    arrived();
    for (;;) {
        volatile char some[300];
        some[0] = 3;
        struct model *next = model_now + 1;
        greenlet *to = next < models + 1 + 6 ? next->g : models[1].g;
        if (ring_turns-- <= 0)
            to = greenlet_main();
        greenlet_message m = pass(to);
        if (m.status || some[0] != 3)
            return m;
    }
}

static void sibling_ring(void) {
    model_begin();
    for (int i = 0; i < 6; i++)
        add_model(in_ring);
    ring_turns = 400;
    CHECK_EQ(pass(models[1].g).status, 0);
    model_end("a ring of siblings");
}

/* Each starts the next one from its own stack and asks it for a value; the
 * innermost answers by itself. */
static int nesting;

static greenlet_message nested(void *value) {
    (void)value;
    arrived();
    int level = (int)(model_now - models);
    volatile char some[200];
    some[0] = 4;
    for (;;) {
        if (level < nesting) {
            if (!models[level + 1].g)
                add_model(nested);
            greenlet_message inner = pass(models[level + 1].g);
            if (inner.status)
                return inner;
        }
        greenlet_message m = pass(models[level - 1].g);
        if (m.status || some[0] != 4)
            return m;
    }
}

static void nested_generators(void) {
    model_begin();
    nesting = 5;
    add_model(nested);
    for (int i = 0; i < 50; i++)
        CHECK_EQ(pass(models[1].g).status, 0);
    model_end("nested");
}

TEST(limits_in_place_a_hub_with_one) { on_lanes(0, hub_with_one); }
TEST(limits_in_place_a_hub_with_many) { on_lanes(0, hub_with_many); }
TEST(limits_in_place_a_ring_of_siblings) { on_lanes(0, sibling_ring); }
TEST(limits_in_place_nested) { on_lanes(0, nested_generators); }

/* ---- Which lane --------------------------------------------------------- */

enum { HOT_MOST = 16, COLD_MOST = 3000 };

static greenlet *hot[HOT_MOST], *cold[COLD_MOST];
static int n_cold;
static bool bound;

/* As many hot ones as lanes, whatever else waits: nothing is copied. */
static void hot_set(void) {
    int lanes = setting.lanes;
    for (int i = 0; i < n_cold; i++) {
        cold[i] = spawn(entry_pump);
        CHECK_MSG(go(cold[i], i), i, 0);
    }
    for (int i = 0; i < lanes; i++) {
        hot[i] = spawn_on(entry_pump, bound ? i : GREENLET_ANY_LANE);
        CHECK_MSG(go(hot[i], i), i, 0);
    }
    uint64_t before = our_bytes();
    for (int i = 0; i < 20 * lanes; i++)
        CHECK_MSG(go(hot[i * 7 % lanes], i), i, 0);
    CHECK_EQ(our_bytes(), before);
    for (int i = 0; i < lanes; i++)
        greenlet_unref(hot[i]);
    for (int i = 0; i < n_cold; i++)
        greenlet_unref(cold[i]);
}

TEST(limits_hot_ones_started_in_a_row_copy_nothing) {
    for (bound = false;; bound = true) {
        for (int lanes = 1; lanes <= HOT_MOST; lanes *= 2)
            for (n_cold = 0; n_cold <= COLD_MOST; n_cold = n_cold * 10 + 3)
                on_lanes(lanes, hot_set);
        if (bound)
            break;
    }
}

/* A hot set picked at random from a large population. The expectation is what
 * the same sequence has when each of the hot ones is on a lane at random:
 * balls thrown into bins, many times. */
enum { POPULATION = 2000, SETS = 1000, THROWS = 5, ACCESSES = 64 };

static greenlet *people[POPULATION];
static int hot_count;
static bool zipf;
static uint64_t our_hits, bin_hits, accesses;

/* The i-th access is to which one of the hot ones. */
static int pick(int i, uint64_t *seed) {
    if (!zipf)
        return i % hot_count;
    /* Weights 1, 1/2, 1/3, ... in thousandths. */
    uint64_t sum = 0;
    for (int k = 1; k <= hot_count; k++)
        sum += 1000 / (uint64_t)k;
    uint64_t at = test_random(seed) % sum;
    int k = 1;
    for (; at >= 1000 / (uint64_t)k; k++)
        at -= 1000 / (uint64_t)k;
    return k - 1;
}

static void picked_sets(void) {
    uint64_t seed = 7, thrown = 0;
    for (int i = 0; i < POPULATION; i++) {
        people[i] = spawn(entry_pump);
        CHECK_MSG(go(people[i], i), i, 0);
    }
    our_hits = bin_hits = accesses = 0;
    for (int set = 0; set < SETS; set++) {
        static int sequence[ACCESSES];
        for (int i = 0; i < hot_count; i++) {
            /* Without repetition. */
            int k = i + (int)(test_random(&seed) % (uint64_t)(POPULATION - i));
            greenlet *g = people[k];
            people[k] = people[i];
            people[i] = g;
        }
        for (int i = 0; i < ACCESSES; i++)
            sequence[i] = pick(i, &seed);
        for (int lap = 0; lap < 2; lap++) { /* the first one warms up */
            uint64_t misses = counters().misses;
            for (int i = 0; i < ACCESSES; i++)
                CHECK_MSG(go(people[sequence[i]], i), i, 0);
            if (lap)
                our_hits += ACCESSES - (counters().misses - misses);
        }
        accesses += ACCESSES;
        for (int times = 0; times < THROWS; times++) {
            static int lane[HOT_MOST], owner[HOT_MOST];
            for (int i = 0; i < hot_count; i++)
                lane[i] = (int)(test_random(&seed) % (uint64_t)setting.lanes);
            for (int i = 0; i < setting.lanes; i++)
                owner[i] = -1;
            for (int i = 0; i < 2 * ACCESSES; i++) {
                int who = sequence[i % ACCESSES];
                thrown += i >= ACCESSES && owner[lane[who]] == who;
                owner[lane[who]] = who;
            }
        }
    }
    bin_hits = thrown / THROWS;
    for (int i = 0; i < POPULATION; i++)
        greenlet_unref(people[i]);
}

static void hit_ratio(bool as_zipf) {
    const char *check = getenv("GREENLET_CHECK");
    if (check && *check == '2' && test_is_emulated())
        SKIP("takes too long with every stack walked in an emulator; what is"
             " counted is the same at every level");
    double ours_sum = 0, bins_sum = 0;
    int n = 0;
    zipf = as_zipf;
    for (int lanes = 2; lanes <= HOT_MOST; lanes *= 2)
        for (hot_count = 2; hot_count <= HOT_MOST; hot_count *= 2, n++) {
            on_lanes(lanes, picked_sets);
            double ours = 100.0 * (double)our_hits / (double)accesses;
            double bins = 100.0 * (double)bin_hits / (double)accesses;
            test_say("%s, %2d lanes, %2d hot: %5.1f %% hits, balls in bins "
                     "%5.1f %%",
                     zipf ? "zipf" : "round robin", lanes, hot_count, ours,
                     bins);
            /* A thousand sets are a sample: one standard deviation of its
             * mean is up to 1.6 %, a quarter of that for all of them. */
            CHECK(ours >= bins - 5);
            ours_sum += ours;
            bins_sum += bins;
        }
    test_say("on average %.2f %%, balls in bins %.2f %%", ours_sum / n,
             bins_sum / n);
    CHECK(ours_sum / n >= bins_sum / n - 0.8);
}

TEST(limits_lanes_hit_as_balls_in_bins_round_robin) { hit_ratio(false); }
TEST(limits_lanes_hit_as_balls_in_bins_zipf) { hit_ratio(true); }
