/* What libgcc's unwinder, which throws, cancels and makes backtraces, finds on
 * a greenlet's stack: every frame, and an end at the entry. Contract 36.
 * tests/unwind_suspended.c asks libunwind about those that are suspended.
 *
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <unwind.h>

enum { FRAMES = 64 };

/* The trampoline, in front of the next function of every port. */
extern const char arch_start[] __asm__("greenlet_arch_start")
    __attribute__((weak));
extern const char arch_after[] __asm__("greenlet_arch_after")
    __attribute__((weak));
extern const char arch_resume[] __asm__("greenlet_arch_resume")
    __attribute__((weak));

/* The section that lists resume addresses: each as its distance from there. */
extern const intptr_t listed[] __asm__("__start_greenlet_resume")
    __attribute__((weak));
extern const intptr_t listed_end[] __asm__("__stop_greenlet_resume")
    __attribute__((weak));

static uintptr_t found[FRAMES];
static int frames;
static _Unwind_Reason_Code ended;

/* A code address without the bit that says Thumb. */
static uintptr_t code(uintptr_t address) {
#ifdef __arm__
    return address & ~(uintptr_t)1;
#else
    return address;
#endif
}

static _Unwind_Reason_Code one_frame(struct _Unwind_Context *context,
                                     void *unused) {
    (void)unused;
    if (frames == FRAMES)
        return _URC_END_OF_STACK; /* enough */
    found[frames++] = code((uintptr_t)_Unwind_GetIP(context));
    return _URC_NO_REASON;
}

static __attribute__((noinline)) void look(void) {
    frames = 0;
    ended = _Unwind_Backtrace(one_frame, NULL);
    if (frames > 0 && found[frames - 1] == 0)
        frames--; /* how it shows that there is no return address */
}

/* Where the calls of the functions below return to, deepest first. */
enum { THIRD, SECOND, FIRST, ENTRY, CALLS };
static uintptr_t returns[CALLS], outside;

#define NOTE_RETURN(of)                                                        \
    (returns[of] = code((uintptr_t)__builtin_extract_return_addr(              \
         __builtin_return_address(0))))

static greenlet_message third(greenlet_message (*act)(void)) {
    NOTE_RETURN(THIRD);
    greenlet_message m = act();
    m.status += 0 * (intptr_t)returns[THIRD]; /* no tail call */
    return m;
}

static greenlet_message (*volatile call_third)(greenlet_message (*)(void)) =
    third;

/* Whose frame is found by a callee-saved register, where there is one. */
static __attribute__((noinline)) greenlet_message
second(greenlet_message (*act)(void), size_t n) {
    volatile char *bytes = __builtin_alloca(n);
    NOTE_RETURN(SECOND);
    bytes[0] = bytes[n - 1] = 1;
    greenlet_message m = call_third(act);
    m.status += bytes[0] - bytes[n - 1];
    return m;
}

static __attribute__((noinline)) greenlet_message
first(greenlet_message (*act)(void)) {
    NOTE_RETURN(FIRST);
    greenlet_message m = second(act, 100 + returns[FIRST] % 50);
    m.status += 0 * (intptr_t)returns[FIRST];
    return m;
}

static greenlet_message (*to_do)(void);

static greenlet_message entry_of_calls(void *value) {
    (void)value;
    NOTE_RETURN(ENTRY);
    return first(to_do);
}

/* All calls are among the frames, in order, and none of main's is. With the
 * assembly, the trampoline is the last; for EHABI's unwinder, which does not
 * show what it cannot leave, the frame before it. */
static void check_frames(bool calls) {
    bool assembly = test_is("copy") || test_is("private");
    int at = 0, shown = CALLS;
#ifdef __ARM_EABI__
    shown = assembly ? ENTRY : CALLS;
#endif
    CHECK(frames > 0 && frames < FRAMES);
    for (int call = calls ? THIRD : shown; call < shown; call++) {
        while (at < frames && found[at] != returns[call])
            at++;
        if (at == frames)
            FAIL("call %d is not among the %d frames", call, frames);
    }
    for (int i = 0; i < frames; i++)
        CHECK(found[i] != outside);
    /* Its run() and begin(); annotate.c's enter(). */
    if (calls && test_is("sigaltstack"))
        CHECK(frames <= at + (test_has_asan() ? 3 : 2));
#ifndef __ARM_EABI__ /* where this is a failure as well */
    CHECK_EQ(ended, _URC_END_OF_STACK);
#endif
    if (assembly) {
        uintptr_t start = (uintptr_t)arch_start;
        uintptr_t bytes = (uintptr_t)arch_after - start;
        uintptr_t last = found[--frames];
#ifndef __ARM_EABI__
        CHECK(last - start < bytes);
#else
        if (calls)
            CHECK(last == returns[FIRST]);
        else /* a few instructions */
            CHECK(last - (uintptr_t)arch_after < 32);
#endif
        for (int i = 0; i < frames; i++)
            CHECK(found[i] - start >= bytes);
    }
}

static __attribute__((noinline)) void go_from_outside(greenlet *g) {
    outside = code(
        (uintptr_t)__builtin_extract_return_addr(__builtin_return_address(0)));
    go(g, 1);
    CHECK(g != NULL);
}

static greenlet_message looks(void) {
    look();
    return val(1);
}

TEST(contract_36_backtrace_ends_at_the_entry) {
    to_do = looks;
    greenlet *g = spawn(entry_of_calls);
    go_from_outside(g);
    check_frames(true);
    greenlet_unref(g);
}

static greenlet_message waits_once(void) { return back(1); }

static greenlet *traced;
static int seen;

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    (void)event, (void)origin, (void)data;
    if (target != traced)
        return;
    look();
    check_frames(seen++ > 0);
}

/* The tracer is called from arch_after: at the start there is only the
 * trampoline above it, later the whole suspended stack. */
TEST(contract_36_backtrace_in_a_tracer) {
    to_do = waits_once;
    traced = spawn(entry_of_calls);
    CHECK_EQ(greenlet_set_tracer(tracer, NULL, NULL, NULL), 0);
    go_from_outside(traced);
    go_from_outside(traced);
    CHECK_EQ(seen, 2);
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
    greenlet_unref(traced);
}

static greenlet *displaced[20];

/* Those whose bytes were away and came back. */
TEST(contract_36_backtrace_after_a_fill) {
    to_do = waits_once;
    CHECK_EQ(greenlet_set_tracer(tracer, NULL, NULL, NULL), 0);
    for (int i = 0; i < 20; i++)
        go_from_outside(displaced[i] = spawn(entry_of_calls));
    for (int i = 0; i < 20; i++) {
        seen = 1;
        traced = displaced[i];
        go_from_outside(traced);
        CHECK_EQ(seen, 2);
        CHECK_EQ(greenlet_get_state(traced), GREENLET_DEAD);
        greenlet_unref(traced);
    }
    CHECK_EQ(greenlet_set_tracer(NULL, NULL, NULL, NULL), 0);
}

static bool is_listed(uintptr_t address) {
    for (const intptr_t *entry = listed; entry < listed_end; entry++)
        if (code((uintptr_t)entry + (uintptr_t)*entry) == code(address))
            return true;
    return false;
}

TEST(contract_36_resume_addresses_are_listed) {
    if (!test_is("copy") && !test_is("private"))
        SKIP("this backend resumes by the C library's own means");
    CHECK(is_listed((uintptr_t)arch_start));
    CHECK(is_listed((uintptr_t)arch_after));
    CHECK(is_listed((uintptr_t)arch_resume));
    CHECK(!is_listed((uintptr_t)arch_resume + 4));
    to_do = waits_once;
    for (int i = 0; i < 20; i++) {
        displaced[i] = spawn(entry_of_calls);
        go(displaced[i], 1);
    }
    for (int i = 0; i < 20; i++) {
        greenlet_stack stack;
        uintptr_t address;
        CHECK_EQ(greenlet_get_stack(displaced[i], &stack), 0);
        CHECK_EQ(greenlet_read_stack(displaced[i], stack.sp, &address,
                                     sizeof address),
                 0);
        CHECK(is_listed(address));
        greenlet_unref(displaced[i]);
    }
}
