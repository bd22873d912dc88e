/* Reading suspended stacks. Contract 23; names of things.
 * SPDX-License-Identifier: MIT */
#include "test.h"

static greenlet *a, *b;
static unsigned char *address_a;
enum { BUFFER = 1500 };

static unsigned char pattern(intptr_t who, int i) {
    return (unsigned char)(who * 31 + i * 7 + (i >> 8));
}

__attribute__((noinline)) static void fill(volatile unsigned char *p,
                                           intptr_t who) {
    for (int i = 0; i < BUFFER; i++)
        p[i] = pattern(who, i);
}

TEST_REAL_STACK static greenlet_message entry_patterned(void *value) {
    volatile unsigned char buffer[BUFFER];
    intptr_t who = I(value);
    fill(buffer, who);
    if (who == 1)
        address_a = (unsigned char *)(uintptr_t)buffer;
    greenlet_message m = back(0);
    for (int i = 0; i < BUFFER; i++)
        CHECK_EQ(buffer[i], pattern(who, i));
    return m;
}

static void check_a_reads(void) {
    static unsigned char bytes[BUFFER];
    static greenlet_stack s;
    memset(bytes, 0, sizeof bytes);
    CHECK_EQ(greenlet_read_stack(a, address_a, bytes, BUFFER), 0);
    for (int i = 0; i < BUFFER; i++)
        CHECK_EQ(bytes[i], pattern(1, i));
    for (int i = 0; i < BUFFER; i += 97) { /* across the cut, if any */
        memset(bytes, 0, sizeof bytes);
        CHECK_EQ(greenlet_read_stack(a, address_a + i, bytes, 1), 0);
        CHECK_EQ(bytes[0], pattern(1, i));
        CHECK_EQ(bytes[1], 0);
    }
    CHECK_EQ(greenlet_get_stack(a, &s), 0);
    CHECK((uintptr_t)s.sp <= (uintptr_t)address_a);
    CHECK((uintptr_t)address_a + BUFFER <= (uintptr_t)s.base);
    CHECK(s.saved_bytes <= (size_t)((uintptr_t)s.base - (uintptr_t)s.sp));
    if (!test_is_copy())
        CHECK_EQ(s.saved_bytes, 0);
    const char *sp = (const char *)s.sp, *base = (const char *)s.base;
    CHECK_EQ(greenlet_read_stack(a, sp, bytes, 8), 0);
    CHECK_EQ(greenlet_read_stack(a, sp - 1, bytes, 1), -EFAULT);
    CHECK_EQ(greenlet_read_stack(a, sp - 8, bytes, 16), -EFAULT);
    CHECK_EQ(greenlet_read_stack(a, base - 8, bytes, 8), 0);
    CHECK_EQ(greenlet_read_stack(a, base - 8, bytes, 9), -EFAULT);
    CHECK_EQ(greenlet_read_stack(a, base, bytes, 1), -EFAULT);
    CHECK_EQ(greenlet_read_stack(a, sp, bytes, SIZE_MAX), -EFAULT);
    CHECK_EQ(greenlet_read_stack(a, NULL, bytes, 1), -EFAULT);
    CHECK_EQ(greenlet_read_stack(a, sp, bytes, 0), 0);
}

TEST(contract_23_reads_wherever_the_bytes_are) {
    a = spawn(entry_patterned);
    go(a, 1);
    check_a_reads();
    /* Push it out of every place, and look after each step. */
    static greenlet *others[12];
    static int i;
    for (i = 0; i < 12; i++) {
        others[i] = spawn(entry_patterned);
        go(others[i], 2 + i);
        check_a_reads();
    }
    for (i = 11; i >= 0; i--) {
        CHECK_MSG(go(others[i], 1), 1, 0);
        greenlet_unref(others[i]);
        check_a_reads();
    }
    CHECK_MSG(go(a, 1), 1, 0);
    greenlet_unref(a);
}

/* Displaced for certain: another greenlet on the same lane. */
static void *displaces(void *lanes) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    o.lanes = (int)I(lanes);
    CHECK_EQ(greenlet_thread_configure(&o), 0);
    a = spawn(entry_patterned);
    b = spawn(entry_patterned);
    go(a, 1);
    check_a_reads();
    go(b, 2);
    static greenlet_stack s;
    CHECK_EQ(greenlet_get_stack(a, &s), 0);
    if (test_is_copy())
        CHECK(s.saved_bytes > 0);
    else
        CHECK_EQ(s.saved_bytes, 0);
    check_a_reads();
    CHECK_MSG(go(a, 1), 1, 0);
    CHECK_MSG(go(b, 1), 1, 0);
    greenlet_unref(a);
    greenlet_unref(b);
    return NULL;
}

TEST(contract_23_reads_displaced_bytes) {
    test_join(test_thread(displaces, V(1)));
    if (!test_is_copy())
        return;
    test_join(test_thread(displaces, V(0)));
}

TEST_REAL_STACK static greenlet_message entry_reads_others(void *value) {
    static greenlet_stack s;
    (void)value;
    check_a_reads();
    /* The current one: sp within this very call. */
    CHECK_EQ(greenlet_get_stack(greenlet_current(), &s), 0);
    volatile int here = 1;
    CHECK(here == 1);
    CHECK((uintptr_t)s.sp <= (uintptr_t)&here);
    CHECK((uintptr_t)&here < (uintptr_t)s.base);
    CHECK_EQ(s.saved_bytes, 0);
    /* Main is suspended: its live range can be read. */
    CHECK_EQ(greenlet_get_stack(greenlet_main(), &s), 0);
    CHECK(s.sp != NULL);
    static unsigned char bytes[64];
    CHECK_EQ(greenlet_read_stack(greenlet_main(), s.sp, bytes, 64), 0);
    return val(1);
}

TEST(contract_23_from_within_a_greenlet) {
    a = spawn(entry_patterned);
    go(a, 1);
    b = spawn(entry_reads_others);
    CHECK_MSG(go(b, 0), 1, 0);
    greenlet_unref(b);
    greenlet_unref(a);
}

static void *reads_elsewhere(void *unused) {
    static greenlet_stack s;
    static char byte;
    (void)unused;
    CHECK_EQ(greenlet_get_stack(a, &s), -EPERM);
    CHECK_EQ(greenlet_read_stack(a, address_a, &byte, 1), -EPERM);
    return NULL;
}

TEST(contract_23_refusals) {
    static greenlet_stack s;
    static char byte;
    a = spawn(entry_patterned);
    memset(&s, 1, sizeof s);
    CHECK_EQ(greenlet_get_stack(a, &s), 0); /* new */
    CHECK_PTR(s.sp, NULL);
    CHECK_PTR(s.base, NULL);
    CHECK_EQ(s.saved_bytes, 0);
    CHECK_EQ(greenlet_read_stack(a, &byte, &byte, 1), -EFAULT);
    go(a, 1);
    CHECK_EQ(greenlet_get_stack(NULL, &s), -EINVAL);
    CHECK_EQ(greenlet_get_stack(a, NULL), -EINVAL);
    CHECK_EQ(greenlet_read_stack(NULL, address_a, &byte, 1), -EINVAL);
    CHECK_EQ(greenlet_read_stack(a, address_a, NULL, 1), -EINVAL);
    test_join(test_thread(reads_elsewhere, NULL));
    go(a, 0);
    CHECK_EQ(greenlet_read_stack(a, address_a, &byte, 1), -EFAULT); /* dead */
    greenlet_unref(a);
}

TEST(contract_23_names_of_statuses_and_build) {
    static const intptr_t known[] = {
        0,      GREENLET_EXIT, -EPERM,  -ENOMEM,  -EINVAL, -EBUSY,
        -ELOOP, -EOWNERDEAD,   -EFAULT, -ENOTSUP, -EAGAIN, -E2BIG};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *text = greenlet_strerror(known[i]);
        CHECK(text != NULL && *text);
        for (size_t j = 0; j < i; j++)
            CHECK(strcmp(text, greenlet_strerror(known[j])) != 0);
    }
    CHECK(greenlet_strerror(4711) != NULL);
    CHECK(greenlet_strerror(-4711) != NULL);
    CHECK(greenlet_strerror(INTPTR_MIN) != NULL);
    char version[40];
    snprintf(version, sizeof version, "%d.%d.%d", GREENLET_VERSION_MAJOR,
             GREENLET_VERSION_MINOR, GREENLET_VERSION_PATCH);
    CHECK_STR(greenlet_version(), version);
    CHECK(test_is("copy") || test_is("private") || test_is("ucontext") ||
          test_is("sigaltstack"));
}
