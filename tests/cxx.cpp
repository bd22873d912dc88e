/* A C++ consumer: exceptions inside greenlets, destructors, forced unwinding.
 * Compiled as C++11 with -pedantic. Contract 15, 35, 36 as C++ sees them.
 *
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <stdexcept>
#include <string>
#include <vector>

namespace {

greenlet *a, *b;
int alive;

/* Counts itself. */
struct counted {
    counted() { alive++; }
    ~counted() { alive--; }
    counted(const counted &) = delete;
    counted &operator=(const counted &) = delete;
};

/* What a C++ wrapper would do: statuses become exceptions on arrival, and
 * leave the entry as statuses again. */
struct thrown {
    greenlet_message m;
};

greenlet_message deliver(greenlet_message m) {
    if (m.status != 0)
        throw thrown{m};
    return m;
}

greenlet_message give_back(intptr_t value) { return deliver(back(value)); }

template <greenlet_message (*body)(void *)>
greenlet_message guarded(void *value) {
    try {
        return body(value);
    } catch (const thrown &t) {
        return t.m;
    }
}

greenlet_message body_holds(void *value) {
    counted one;
    std::string text(100, 'x');
    {
        counted two;
        give_back(I(value));
    }
    give_back(I(value) + 1);
    CHECK(text == std::string(100, 'x'));
    return val(alive);
}

} // namespace

TEST(contract_15_destructors_run_on_exit) {
    a = spawn(guarded<body_holds>);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_EQ(alive, 2);
    greenlet_unref(a);
    CHECK_EQ(alive, 0);
    a = spawn(guarded<body_holds>);
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(go(a, 1), 2, 0);
    CHECK_EQ(alive, 1);
    CHECK_MSG(greenlet_throw(a, 9, V(5)), 5, 9);
    CHECK_EQ(alive, 0);
    greenlet_unref(a);
}

namespace {

__attribute__((noinline)) int throws_deep(int n) {
    counted here;
    if (n == 0)
        throw std::runtime_error("deep");
    return throws_deep(n - 1) + 1;
}

greenlet_message body_catches(void *value) {
    intptr_t caught = 0;
    for (int i = 0; i < 10; i++) {
        try {
            counted here;
            throws_deep(i);
        } catch (const std::runtime_error &e) {
            CHECK_STR(e.what(), "deep");
            caught++;
        }
        give_back(caught); /* not inside a catch block */
    }
    return val(I(value) + caught);
}

} // namespace

static void need_instrumented() {
    if (test_tool("msan"))
        SKIP("MemorySanitizer wants a C++ library that was built with it");
}

TEST(contract_35_exceptions_thrown_and_caught_inside) {
    need_instrumented();
    a = spawn(guarded<body_catches>);
    b = spawn(guarded<body_catches>);
    for (int i = 1; i <= 10; i++) {
        CHECK_MSG(go(a, 0), i, 0);
        CHECK_MSG(go(b, 0), i, 0);
        try { /* and in main */
            throws_deep(i);
            FAIL("not thrown");
        } catch (const std::exception &e) {
            CHECK_STR(e.what(), "deep");
        }
    }
    CHECK_MSG(go(a, 0), 10, 0);
    CHECK_MSG(go(b, 0), 10, 0);
    CHECK_EQ(alive, 0);
    greenlet_unref(a);
    greenlet_unref(b);
}

/* Exceptions in every place of evictions and fills. */
namespace {

void *on_lanes(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = static_cast<int>(I(lanes));
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    static greenlet *all[6];
    static int i, n;
    for (i = 0; i < 6; i++)
        all[i] = spawn(guarded<body_catches>);
    for (n = 1; n <= 11; n++)
        for (i = 0; i < 6; i++)
            CHECK_MSG(go(all[i], 0), n > 10 ? 10 : n, 0);
    CHECK_EQ(alive, 0);
    for (i = 0; i < 6; i++)
        greenlet_unref(all[i]);
    return nullptr;
}

} // namespace

TEST(contract_35_exceptions_on_few_lanes) {
    need_instrumented();
    for (int lanes = 0; lanes <= 2; lanes++)
        test_join(test_thread(on_lanes, V(lanes)));
}

/* Containers and the like on greenlets' stacks, over displacement. */
namespace {

greenlet_message body_vector(void *value) {
    std::vector<std::string> words;
    std::string local; /* its buffer is in the frame: an interior pointer */
    for (int i = 0; i < 50; i++) {
        local = std::to_string(I(value));
        words.push_back(local);
        give_back(static_cast<intptr_t>(words.size()));
        CHECK(local == std::to_string(I(value)));
    }
    for (const std::string &w : words)
        CHECK(w == std::to_string(I(value)));
    return val(0);
}

} // namespace

TEST(contract_31_small_strings_point_into_their_frames) {
    need_instrumented();
    static greenlet *all[10];
    static int i, n;
    for (i = 0; i < 10; i++)
        all[i] = spawn(guarded<body_vector>);
    for (n = 1; n <= 51; n++)
        for (i = 0; i < 10; i++)
            CHECK_MSG(go(all[i], 1000 + i), n > 50 ? 0 : n, 0);
    for (i = 0; i < 10; i++)
        greenlet_unref(all[i]);
}

/* pthread_exit and cancellation unwind this greenlet, main's frames not. */
namespace {

int unwound_main, unwound_greenlet;

struct marks {
    int *counter;
    explicit marks(int *c) : counter(c) {}
    ~marks() { ++*counter; }
    marks(const marks &) = delete;
    marks &operator=(const marks &) = delete;
};

__attribute__((noinline)) void exits_below(void *value) {
    marks here(&unwound_greenlet);
    pthread_exit(value);
}

greenlet_message entry_exits(void *value) {
    marks here(&unwound_greenlet);
    exits_below(value);
    return val(0);
}

void *exits_in_greenlet(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = static_cast<int>(I(lanes));
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    marks here(&unwound_main);
    a = spawn(entry_exits);
    go(a, 77);
    FAIL("main has gone on");
    return nullptr;
}

} // namespace

TEST(contract_36_pthread_exit_unwinds_this_greenlet_only) {
    if (test_has_tsan())
        SKIP("ThreadSanitizer's pthread_exit does not work in a fiber");
    for (int lanes = -1; lanes <= 2; lanes++) {
        unwound_main = unwound_greenlet = 0;
        CHECK_PTR(test_join(test_thread(exits_in_greenlet, V(lanes))), V(77));
        CHECK_EQ(unwound_greenlet, 2);
        CHECK_EQ(unwound_main, 0);
        CHECK_EQ(greenlet_get_state(a), GREENLET_DEAD);
        greenlet_unref(a);
    }
}

namespace {

struct test_gate gate;

greenlet_message entry_cancelled(void *) {
    marks here(&unwound_greenlet);
    gate_reach(&gate, 1);
    for (;;)
        pthread_testcancel();
    return val(0);
}

void *cancelled_in_greenlet(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = static_cast<int>(I(lanes));
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    marks here(&unwound_main);
    a = spawn(entry_cancelled);
    go(a, 77);
    FAIL("main has gone on");
    return nullptr;
}

} // namespace

TEST(contract_36_cancellation_unwinds_this_greenlet_only) {
    for (int lanes = -1; lanes <= 2; lanes++) {
        unwound_main = unwound_greenlet = 0;
        gate.step = 0;
        pthread_t thread = test_thread(cancelled_in_greenlet, V(lanes));
        gate_wait(&gate, 1);
        CHECK_EQ(pthread_cancel(thread), 0);
        CHECK(test_join(thread) == PTHREAD_CANCELED);
        CHECK_EQ(unwound_greenlet, 1);
        CHECK_EQ(unwound_main, 0);
        greenlet_unref(a);
    }
}
