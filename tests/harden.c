/* The build option `harden`: what a resume trusts is not trusted blindly.
 * Knows where in a header the backends keep it, as an overflow would.
 *
 * SPDX-License-Identifier: MIT */
#include <signal.h>

#include "test.h"

static greenlet *a, *b;

/* Whether a's bytes are away when it is overwritten. */
static void suspend(intptr_t displaced) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = test_in_place() ? 0 : 1;
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    a = spawn_named(entry_pump, "victim");
    b = spawn_named(entry_pump, "other");
    go(a, 1);
    if (displaced)
        go(b, 1);
}

static void overwrite(void *word, uintptr_t by) {
    uintptr_t now;
    memcpy(&now, word, sizeof now);
    now ^= by;
    memcpy(word, &now, sizeof now);
}

/* The first word of every backend's header: sp, or what leads to it. */
static void overwrites_sp(void *displaced) {
    suspend(I(displaced));
    overwrite(a, 64);
    go(a, 2);
}

/* As an attacker would: the header leads to a copy with another content. */
static void replaces_the_slice(void *unused) {
    static char copy[65536];
    greenlet_stack s;
    (void)unused;
    suspend(1);
    CHECK_EQ(greenlet_get_stack(a, &s), 0);
    CHECK(s.saved_bytes != 0 && s.saved_bytes <= sizeof copy);
    char **slice = (char **)(void *)a + 2;
    memcpy(copy, *slice, s.saved_bytes);
    *slice = copy;
    go(a, 2);
}

static void overwrites_the_resume_address(void *displaced) {
    greenlet_stack s;
    suspend(I(displaced));
    CHECK_EQ(greenlet_get_stack(a, &s), 0);
    overwrite(s.saved_bytes ? (void *)((char **)(void *)a)[2]
                            : (void *)(uintptr_t)s.sp,
              16);
    go(a, 2);
}

/* Found when others need its place, too. */
static void overwrites_sp_of_a_resident(void *unused) {
    (void)unused;
    suspend(0);
    overwrite(a, 64);
    go(b, 1);
    go(b, 2);
}

TEST(harden_sp) {
    EXPECT_ABORT(overwrites_sp, V(0), "'victim'", "was overwritten");
    EXPECT_ABORT(overwrites_sp, V(1), "'victim'", "was overwritten");
}

TEST(harden_resume_address) {
    if (!test_is_copy() && !test_is("private"))
        SKIP("the resume address is in the C library's own structure");
    EXPECT_ABORT(overwrites_the_resume_address, V(0), "'victim'",
                 "resume address", "was overwritten");
    EXPECT_ABORT(overwrites_the_resume_address, V(1), "'victim'",
                 "resume address", "was overwritten");
}

TEST(harden_slice) {
    if (!test_is_copy())
        SKIP("only the copy backend has slices");
    EXPECT_ABORT(replaces_the_slice, NULL, "'victim'", "was overwritten");
}

TEST(harden_sp_of_a_resident) {
    if (!test_is_copy() || test_in_place())
        SKIP("only on lanes are residents displaced");
    EXPECT_ABORT(overwrites_sp_of_a_resident, NULL, "'victim'",
                 "was overwritten");
}

/* What the library itself does to a suspended greenlet is no overwriting. */
TEST(harden_no_false_alarm) {
    suspend(1);
    for (int i = 0; i < 100; i++) {
        CHECK_MSG(go(a, i), i, 0);
        CHECK_MSG(go(b, i), i, 0);
    }
    greenlet_unref(a);
    greenlet_unref(b);
}
