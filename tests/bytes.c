/* Every byte of every frame, through any order of visits. Contract 11, 31.
 *
 * Frames of many sizes are filled with a pattern that is keyed by greenlet,
 * frame and address, and looked at after each switch.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <alloca.h>

enum { MANY = 40 };

static greenlet *all[MANY];
static uint64_t seed;

static unsigned char key_byte(uintptr_t address, uint64_t key) {
    uint64_t x = (address + key) * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned char)(x >> 56);
}

static void paint(volatile unsigned char *p, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++)
        p[i] = key_byte((uintptr_t)(p + i), key);
}

static void look(volatile unsigned char *p, size_t n, uint64_t key) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != key_byte((uintptr_t)(p + i), key))
            FAIL("byte %zu of %zu at %p is %#x", i, n,
                 (void *)(uintptr_t)(p + i), p[i]);
}

/* Recurses `deep` frames of alloca'd sizes, waits at the bottom and at each
 * frame on the way back. */
__attribute__((noinline)) static intptr_t descend(int deep, size_t size,
                                                  uint64_t key) {
    volatile unsigned char *p = (volatile unsigned char *)alloca(size);
    paint(p, size, key + (uint64_t)deep);
    intptr_t count = 0;
    if (deep > 0) {
        count = descend(deep - 1, (size * 7 + 13) % 700 + 1, key);
        look(p, size, key + (uint64_t)deep);
    }
    CHECK_EQ(back(count).status, 0);
    look(p, size, key + (uint64_t)deep);
    return count + 1;
}

static greenlet_message entry_descends(void *value) {
    intptr_t who = I(value);
    for (int n = 0; n < 2; n++)
        CHECK_EQ(descend((int)(who % 11), (size_t)(who * 37 % 500 + 1),
                         (uint64_t)who << 32),
                 who % 11 + 1);
    return val(-1);
}

static int alive;

static void visit_all(void) {
    static int i;
    static greenlet_message m;
    alive = MANY;
    for (i = 0; i < MANY; i++) {
        all[i] = spawn(entry_descends);
        m = go(all[i], i);
        CHECK_EQ(m.status, 0);
    }
    seed = 42;
    while (alive) {
        i = (int)(test_random(&seed) % MANY);
        if (greenlet_get_state(all[i]) == GREENLET_DEAD)
            continue;
        m = go(all[i], 1);
        CHECK_EQ(m.status, 0);
        if (I(m.value) == -1) {
            CHECK_EQ(greenlet_get_state(all[i]), GREENLET_DEAD);
            alive--;
        }
    }
    for (i = 0; i < MANY; i++)
        greenlet_unref(all[i]);
}

TEST(contract_31_frames_of_many_depths) {
    for (unsigned n = test_amount(3, 100); n; n--)
        visit_all();
}

static void *on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    for (unsigned n = test_amount(2, 50); n; n--)
        visit_all();
    return NULL;
}

TEST(contract_31_frames_of_many_depths_on_few_lanes) {
    for (int lanes = 0; lanes <= 3; lanes++)
        test_join(test_thread(on_lanes, V(lanes)));
}

/* ---- Big frames: 64 KiB and more on a stack that was asked for
 * ---------------- */

enum { BIG = 64 * 1024 };

__attribute__((noinline)) static void wait_big(uint64_t key) {
    volatile unsigned char big[BIG];
    paint(big, BIG, key);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(back(1).status, 0);
        look(big, BIG, key);
    }
}

__attribute__((noinline)) static void wait_small(uint64_t key) {
    volatile unsigned char small[64];
    paint(small, sizeof small, key);
    CHECK_EQ(back(1).status, 0);
    look(small, sizeof small, key);
}

static greenlet_message entry_big(void *value) {
    uint64_t key = (uint64_t)I(value) << 20;
    for (int i = 0; i < 3; i++) {
        wait_big(key);
        wait_small(key + 1);
    }
    return val(2);
}

static void visit_big(void) {
    enum { N = 6 };
    static greenlet *big[N];
    static int i, n;
    for (i = 0; i < N; i++) {
        greenlet_options o = GREENLET_OPTIONS_INIT;
        o.stack_bytes = 3 * BIG;
        big[i] = greenlet_new(entry_big, &o);
        if (!big[i])
            FAIL("greenlet_new: %s", strerror(errno));
    }
    for (n = 0; n < 13; n++)
        for (i = 0; i < N; i++)
            CHECK_MSG(go(big[i], i), n == 12 ? 2 : 1, 0);
    for (i = 0; i < N; i++) {
        CHECK_EQ(greenlet_get_state(big[i]), GREENLET_DEAD);
        greenlet_unref(big[i]);
    }
}

TEST(contract_31_big_frames) { visit_big(); }

static void *big_on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    o.lane_bytes = 4 * BIG;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    visit_big();
    return NULL;
}

TEST(contract_31_big_frames_on_few_lanes) {
    for (int lanes = 0; lanes <= 2; lanes++)
        test_join(test_thread(big_on_lanes, V(lanes)));
}

/* ---- Big and small in turn: what is saved shrinks and grows
 * -------------------- */

__attribute__((noinline)) static void wait_with(size_t size, uint64_t key) {
    volatile unsigned char *p = (volatile unsigned char *)alloca(size);
    paint(p, size, key);
    CHECK_EQ(back(0).status, 0);
    look(p, size, key);
}

static greenlet_message entry_breathes(void *value) {
    uint64_t state = (uint64_t)I(value) + 1;
    for (unsigned n = test_amount(200, 5000); n; n--) {
        uint64_t r = test_random(&state);
        wait_with((size_t)1 + (size_t)(r % (r & 64 ? 8000 : 200)), r);
    }
    return val(1);
}

static void *breathe(void *lanes) {
    enum { N = 7 };
    static greenlet *some[N];
    static int i;
    static intptr_t done;
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    for (i = 0; i < N; i++)
        some[i] = spawn(entry_breathes);
    for (done = 0; !done;)
        for (i = 0; i < N; i++)
            done += I(go(some[i], i).value);
    CHECK_EQ(done, N);
    for (i = 0; i < N; i++)
        greenlet_unref(some[i]);
    return NULL;
}

TEST(contract_31_sizes_go_up_and_down) {
    for (int lanes = -1; lanes <= 2; lanes++)
        test_join(test_thread(breathe, V(lanes)));
}

/* ---- Sideways among many, without main
 * ------------------------------------------ */

static greenlet_message entry_ring(void *value) {
    intptr_t me = I(greenlet_user_data(greenlet_current()));
    volatile unsigned char frame[300];
    uint64_t key = (uint64_t)me << 24;
    paint(frame, sizeof frame, key);
    greenlet_message m = val(I(value));
    while (m.status == 0 && I(m.value) > 0) {
        m = go(all[(me + 1) % MANY], I(m.value) - 1);
        look(frame, sizeof frame, key);
    }
    if (m.status == 0)
        m = greenlet_switch(greenlet_main(), m.value);
    look(frame, sizeof frame, key);
    return m;
}

static void run_ring(void) {
    static int i;
    for (i = 0; i < MANY; i++) {
        greenlet_options o = GREENLET_OPTIONS_INIT;
        o.user_data = V(i);
        all[i] = greenlet_new(entry_ring, &o);
        CHECK(all[i] != NULL);
    }
    CHECK_MSG(go(all[0], (intptr_t)test_amount(5000, 500000)), 0, 0);
    for (i = 0; i < MANY; i++) {
        CHECK_MSG(greenlet_kill(all[i]), 0, 0);
        greenlet_unref(all[i]);
    }
}

TEST(contract_11_ring_of_greenlets) { run_ring(); }

static void *ring_on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    run_ring();
    return NULL;
}

TEST(contract_31_ring_on_few_lanes) {
    for (int lanes = 0; lanes <= 3; lanes++)
        test_join(test_thread(ring_on_lanes, V(lanes)));
}

/* ---- Many at once
 * ------------------------------------------------------------- */

TEST(contract_31_very_many_greenlets) {
    static greenlet **lot;
    static unsigned n, i, round;
    n = test_amount(2000, 20000);
    lot = (greenlet **)calloc(n, sizeof *lot);
    CHECK(lot != NULL);
    for (i = 0; i < n; i++) {
        lot[i] = spawn(entry_pump);
        CHECK_MSG(go(lot[i], (intptr_t)i), i, 0);
    }
    for (round = 0; round < 3; round++)
        for (i = 0; i < n; i++)
            CHECK_MSG(go(lot[(i * 7919u) % n], (intptr_t)round), round, 0);
    for (i = 0; i < n; i++)
        greenlet_unref(lot[i]);
    free(lot);
}

/* ---- Memory goes back after deep use ---------------------------------- */

static long resident_bytes(void) {
    static char text[64];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    long pages = -1;
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return -1;
    text[n] = 0;
    sscanf(text, "%*d %ld", &pages);
    return pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

static greenlet_message entry_wide(void *value) {
    enum { WIDE = 180 * 1024 };
    volatile char *bytes = __builtin_alloca(WIDE);
    for (size_t i = 0; i < WIDE; i += 512)
        bytes[i] = (char)i;
    greenlet_message m = back(I(value));
    bytes[0] = 0;
    return m;
}

TEST(contract_17_memory_goes_back_after_deep_use) {
    if (test_has_tsan())
        SKIP("ThreadSanitizer keeps memory about memory that is gone");
    enum { N = 300 };
    static greenlet *wide[N];
    for (int round = 0; round < 2; round++) {
        static long before, peak, after;
        before = resident_bytes();
        if (before < 0)
            SKIP("no /proc/self/statm");
        if (test_tool("msan"))
            SKIP("MemorySanitizer's shadow of a stack stays in memory");
        for (int i = 0; i < N; i++) {
            wide[i] = spawn(entry_wide);
            go(wide[i], i);
        }
        peak = resident_bytes();
        for (int i = 0; i < N; i++) {
            CHECK_MSG(go(wide[i], 7), 7, 0);
            greenlet_unref(wide[i]);
        }
        after = resident_bytes();
        CHECK(peak - before > N * 128L * 1024); /* or this proves nothing */
        CHECK(after - before < (peak - before) / 4);
    }
}

/* ---- Any size, in any order ------------------------------------------- */

/* Greenlets of very different live sizes hand over to each other at random,
 * start, die and are killed; each looks at its frames when it is resumed.
 * Sizes are chosen around those at which the copy backend changes its way. */
enum { CROWD = 24 };

static greenlet *crowd[CROWD];
static bool living[CROWD];
static uint64_t crowd_seed;

static unsigned below(unsigned n) {
    return (unsigned)(test_random(&crowd_seed) % n);
}

static size_t any_size(void) {
    switch (below(6)) {
    case 0:
        return below(200);
    case 1:
        return below(2000);
    case 2:
        return 7000 + below(3000);
    case 3:
        return 15000 + below(20000);
    case 4:
        return below(60000);
    default:
        return 64 + below(64);
    }
}

static greenlet *somebody_else(void) {
    for (int i = 0; i < 20; i++) {
        unsigned k = below(CROWD);
        if (living[k] && crowd[k] != greenlet_current())
            return crowd[k];
    }
    return greenlet_main();
}

/* Returns whether it has been killed. */
__attribute__((noinline)) static bool crowd_frame(int depth) {
    size_t n = any_size() % (depth > 2 ? 4000 : 80000) + 1;
    uint64_t key = test_random(&crowd_seed);
    volatile unsigned char *p = (volatile unsigned char *)alloca(n);
    bool killed = false;
    paint(p, n, key);
    for (int i = 0; i < 3 && !killed; i++) {
        greenlet *to = below(3) ? somebody_else() : greenlet_main();
        killed = greenlet_switch(to, NULL).status == GREENLET_EXIT;
        look(p, n, key);
        if (!killed && depth < 5 && below(3) == 0)
            killed = crowd_frame(depth + 1);
    }
    return killed;
}

static greenlet_message entry_of_the_crowd(void *value) {
    bool killed = false;
    for (int i = 0; i < 3 && !killed; i++)
        killed = crowd_frame(0);
    living[I(value)] = false;
    return val(0);
}

static void *run_crowd(void *lanes) {
    greenlet_thread_options t = GREENLET_THREAD_OPTIONS_INIT;
    t.lanes = (int)I(lanes);
    t.lane_bytes = t.stack_bytes = 1 << 20;
    CHECK_EQ(greenlet_thread_configure(&t), 0);
    crowd_seed = 4711;
    for (unsigned i = test_amount(6000, 200000); i--;) {
        unsigned k = below(CROWD);
        if (!crowd[k]) {
            greenlet_options o = GREENLET_OPTIONS_INIT;
            o.flags = below(8) ? 0 : GREENLET_STATS | GREENLET_FPU;
            crowd[k] = greenlet_new(entry_of_the_crowd, &o);
            CHECK(crowd[k] != NULL);
            living[k] = true;
            greenlet_switch(crowd[k], V(k));
        } else if (!living[k] || below(20) == 0) {
            living[k] = false;
            greenlet_kill(crowd[k]);
            living[k] = greenlet_get_state(crowd[k]) != GREENLET_DEAD;
            if (!living[k]) {
                greenlet_unref(crowd[k]);
                crowd[k] = NULL;
            }
        } else {
            greenlet_switch(crowd[k], NULL);
        }
    }
    for (int k = 0; k < CROWD; k++) {
        greenlet_unref(crowd[k]);
        crowd[k] = NULL;
    }
    return NULL;
}

TEST(contract_31_any_size_in_any_order) {
    for (int lanes = 0; lanes <= (test_is_copy() ? 3 : 0); lanes++)
        test_join(test_thread(run_crowd, V(lanes)));
}
