/* Stack overflow, and what the library does not install. Contract 27, 37.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend.h"
#include "clash_frames.h"

static greenlet *a, *b;

#ifndef NSIG
#define NSIG 65
#endif

/* Each frame is touched and used after the call: no tail call. */
__attribute__((noinline)) static intptr_t run_away(intptr_t n) {
    volatile char hole[400];
    __asm__ volatile("" : : "r"(hole) : "memory"); /* all of it is needed */
    hole[0] = (char)n;
    hole[399] = (char)n;
    if (n < 0)
        return 0;
    return run_away(n + 1) + hole[0] + hole[399];
}

static greenlet_message entry_runs_away(void *value) {
    return val(run_away(I(value)));
}

static void overflow_in_a_greenlet(void *named) {
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    a = spawn_named(entry_runs_away, (const char *)named);
    go(a, 0);
}

TEST(contract_27_reported_with_name_and_backtrace) {
    static char name[] = "runaway-greenlet";
    static struct test_death death;
    CHECK_DIES(overflow_in_a_greenlet, name, SIGSEGV, "runaway-greenlet",
               "overflow");
    /* Backtrace lines: an address each. */
    test_die(overflow_in_a_greenlet, name, &death);
    int lines = 0;
    char *message = strstr(death.text, "overflow");
    CHECK(message != NULL);
    for (const char *p = message; (p = strchr(p, '\n')) != NULL; p++)
        if (p[1] && strcspn(p + 1, "\n") != 0) {
            size_t n = strcspn(p + 1, "\n");
            for (size_t i = 1; i + 1 < n; i++)
                if (p[i] == '0' && p[i + 1] == 'x') {
                    lines++;
                    break;
                }
        }
    int wanted = 3;
#if defined(__ARM_EABI__) || defined(__ARM_FEATURE_PAC_DEFAULT)
    /* EHABI's tables hold at calls, not where a prologue faults; libunwind
     * before 1.8 cannot read signed return addresses. */
    wanted = 1;
#endif
    if (lines < wanted)
        FAIL("%d backtrace lines in: %s", lines, death.text);
}

/* One frame that is larger than all of the stack, and ends in the guard. */
__attribute__((noinline)) static intptr_t large_frame(intptr_t n) {
    volatile char hole[290000];
    hole[n] = 1;
    return hole[n] + n;
}

static greenlet_message entry_large_frame(void *value) {
    return val(large_frame(I(value)));
}

static void overflow_by_one_frame(void *unused) {
    (void)unused;
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    go(spawn_named(entry_large_frame, "large"), 0);
}

TEST(contract_27_one_large_frame_is_told_from_recursion) {
    static char name[] = "deep";
    static struct test_death death;
    unsigned long mark, use;
    if (test_has_asan())
        SKIP("AddressSanitizer touches all of a frame");
    if (test_in_place())
        SKIP("a thread's own stack is larger");
    test_die(overflow_by_one_frame, NULL, &death);
    const char *at = strstr(death.text, "high-water mark: ");
    if (!at || sscanf(at, "high-water mark: %lu bytes; in use now: %lu", &mark,
                      &use) != 2)
        FAIL("wait status %#x: %s", death.status, death.text);
    if (mark + 65536 >= use)
        SKIP("the compiler touches all of a frame (stack clash protection)");
    CHECK(strstr(death.text, "one large frame, most of which was never"));
    CHECK(!strstr(death.text, "less recursion"));
    test_die(overflow_in_a_greenlet, name, &death);
    CHECK(strstr(death.text, "less recursion"));
    CHECK(!strstr(death.text, "one large frame"));
}

TEST(contract_27_of_a_greenlet_without_a_name) {
    CHECK_DIES(overflow_in_a_greenlet, NULL, SIGSEGV, "overflow");
}

static void overflow_by_environment(void *unused) {
    (void)unused;
    setenv("GREENLET_OVERFLOW_HANDLER", "1", 1);
    a = spawn_named(entry_runs_away, "by-environment");
    go(a, 0);
}

/* A part of the process's stack that is treated differently, here: is in no
 * core, is a mapping of its own, and glibc takes it or what is above for all
 * of the stack. */
static void overflow_of_a_stack_in_parts(void *unused) {
    (void)unused;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t here = (uintptr_t)__builtin_frame_address(0) & ~(page - 1);
    CHECK_EQ(madvise((void *)here, page, MADV_DONTDUMP), 0);
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    CHECK_EQ(greenlet_set_name(greenlet_current(), "in-parts"), 0);
    CHECK_EQ(run_away(0), 0);
}

TEST(contract_27_of_a_stack_that_is_several_mappings) {
    CHECK_DIES(overflow_of_a_stack_in_parts, NULL, SIGSEGV, "in-parts");
}

TEST(contract_27_asked_for_by_the_environment) {
    CHECK_DIES(overflow_by_environment, NULL, SIGSEGV, "by-environment",
               "overflow");
}

/* Resumed and displaced in between. */
static greenlet_message entry_waits_then_runs_away(void *value) {
    back(I(value));
    return val(run_away(0));
}

static void overflow_after_switches(void *unused) {
    static greenlet *all[12];
    (void)unused;
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    a = spawn_named(entry_waits_then_runs_away, "second-visit");
    go(a, 0);
    for (int i = 0; i < 12; i++) {
        all[i] = spawn(entry_pump);
        go(all[i], 1);
    }
    go(a, 0);
}

TEST(contract_27_after_being_resumed) {
    CHECK_DIES(overflow_after_switches, NULL, SIGSEGV, "second-visit",
               "overflow");
}

/* In a thread, whose alternate stack was made when it began. */
static void *thread_overflows(void *unused) {
    (void)unused;
    a = spawn_named(entry_runs_away, "in-a-thread");
    go(a, 0);
    return NULL;
}

static void overflow_in_a_thread(void *unused) {
    (void)unused;
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    test_join(test_thread(thread_overflows, NULL));
}

TEST(contract_27_in_a_thread) {
    CHECK_DIES(overflow_in_a_thread, NULL, SIGSEGV, "in-a-thread", "overflow");
}

/* The guard between neighbours stops it before anything else is touched. */
static void overflow_beside_neighbours(void *unused) {
    static greenlet *all[8];
    (void)unused;
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    for (int i = 0; i < 8; i++) {
        all[i] = spawn_named(i == 4 ? entry_waits_then_runs_away : entry_pump,
                             i == 4 ? "middle" : "neighbour");
        go(all[i], 1);
    }
    go(all[4], 1);
}

TEST(contract_27_beside_neighbours) {
    static struct test_death death;
    test_die(overflow_beside_neighbours, NULL, &death);
    CHECK(strstr(death.text, "middle") != NULL);
    CHECK(strstr(death.text, "overflow") != NULL);
}

/* A guard, handler or not: the process dies, no neighbour is overwritten. */
static void overflow_unhandled(void *unused) {
    (void)unused;
    a = spawn_named(entry_runs_away, "unhandled");
    go(a, 0);
    test_say("survived");
}

TEST(contract_27_guard_without_the_handler) {
    static struct test_death death;
    test_die(overflow_unhandled, NULL, &death);
    CHECK(strstr(death.text, "survived") == NULL);
    CHECK(test_died_of(&death, SIGSEGV) || test_died_of(&death, SIGBUS));
}

/* ---- Frames that could step over a guard ------------------------------- */

static size_t clash_bytes, clash_before;

/* Main's stack, on which in place all run, ends where its limit is. */
static void limit_own_stack(void) {
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_STACK, &limit), 0);
    if (limit.rlim_cur > (rlim_t)8 << 20)
        limit.rlim_cur = (rlim_t)8 << 20;
    CHECK_EQ(setrlimit(RLIMIT_STACK, &limit), 0);
}

#ifdef CLASH_HAVE_PROBED

static greenlet_message entry_fixed(void *value) {
    return val(I(value) + clash_fixed_probed());
}

static greenlet_message entry_sized(void *value) {
    return val(I(value) + clash_sized_probed(clash_bytes, 1));
}

static void *fixed_in_a_thread(void *unused) {
    (void)unused;
    clash_fixed_probed();
    return NULL;
}

/* Does -fstack-clash-protection touch frames whose size is known? (GCC 12,
 * 3.12: "Most targets do not fully support stack clash protection.") */
static bool probes_fixed_frames(void) {
    const size_t bytes = 2 * CLASH_FIXED_BYTES;
    pthread_attr_t attributes;
    pthread_t thread;
    char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    madvise(stack, bytes, MADV_NOHUGEPAGE); /* may be unknown */
    CHECK_EQ(pthread_attr_init(&attributes), 0);
    CHECK_EQ(pthread_attr_setstack(&attributes, stack, bytes), 0);
    CHECK_EQ(pthread_create(&thread, &attributes, fixed_in_a_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    /* The middle of the frame; thread and callers have far less above it. */
    bool touched = memory_resident(stack + bytes - CLASH_FIXED_BYTES / 2,
                                   memory_page()) != 0;
    munmap(stack, bytes);
    return touched;
}

/* Between neighbours, into one of which an unprobed frame would go. */
static void among_neighbours(void *entry) {
    static greenlet *all[8];
    limit_own_stack();
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    for (int i = 0; i < 8; i++) {
        all[i] = i == 4 ? spawn_named(*(greenlet_entry **)entry, "large-frame")
                        : spawn_named(entry_pump, "neighbour");
        if (i != 4)
            CHECK_MSG(go(all[i], 1), 1, 0);
    }
    go(all[4], 1);
    test_say("survived");
}

#endif

/* Frames that are larger than stack and guard together, compiled with
 * -fstack-clash-protection. */
TEST(contract_27_a_frame_larger_than_the_guard) {
#ifndef CLASH_HAVE_PROBED
    SKIP("this compiler has no -fstack-clash-protection");
#else
    static greenlet_entry *entry = entry_fixed;
    if (test_in_place())
        SKIP("it fits on main's stack");
    if (!probes_fixed_frames())
        SKIP("for this CPU the compiler probes what alloca() gets only");
    CHECK_DIES(among_neighbours, &entry, SIGSEGV, "stack overflow in",
               "'large-frame'");
#endif
}

TEST(contract_27_an_alloca_larger_than_the_guard) {
#ifndef CLASH_HAVE_PROBED
    SKIP("this compiler has no -fstack-clash-protection");
#else
    static greenlet_entry *entry = entry_sized;
    const size_t sizes[] = {(size_t)1 << 20, ((size_t)3 << 20) + 4000,
                            (size_t)64 << 20};
    for (size_t i = test_in_place() ? 2 : 0; i < 3; i++) {
        clash_bytes = sizes[i];
        CHECK_DIES(among_neighbours, &entry, SIGSEGV, "stack overflow in",
                   "'large-frame'");
    }
#endif
}

static greenlet_message entry_within(void *value) {
    intptr_t n = clash_sized_plain(clash_before, 1);
    return val(I(value) + n + clash_sized_plain(clash_bytes, 1 << 20));
}

static void frames_within(void *unused) {
    (void)unused;
    limit_own_stack();
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    a = spawn_named(entry_within, "within");
    go(a, 1);
    test_say("survived");
}

/* Without it: frames that are no larger than the guard, of which only the
 * lowest byte is touched, wherever the first of them begins. */
TEST(contract_27_frames_no_larger_than_the_guard) {
    static size_t guard;
    uintptr_t low, high;
    a = spawn(entry_pump);
    go(a, 1);
    backend_bounds(core_self, a, &low, &high, &guard);
    if (test_in_place())
        guard = 65536; /* the kernel's gap is larger */
    CHECK(guard >= 16384);
    const size_t words = 512; /* the call and saved registers of a frame */
    for (size_t i = 0; i < 8; i++) {
        clash_before = 0;
        clash_bytes = guard - words - i * 1040;
        CHECK_DIES(frames_within, NULL, SIGSEGV, "stack overflow in",
                   "'within'");
        clash_before = 1000 + i * 7 * 1024;
        clash_bytes = guard - words;
        CHECK_DIES(frames_within, NULL, SIGSEGV, "stack overflow in",
                   "'within'");
    }
}

/* ---- Chaining
 * ----------------------------------------------------------------- */

static void write_text(const char *text) {
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

static void previous(int sig, siginfo_t *info, void *context) {
    (void)sig;
    (void)context;
    write_text(info->si_addr ? "previous handler called\n"
                             : "previous handler called for null\n");
    _exit(23);
}

static void install_previous(int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = previous;
    action.sa_flags = SA_SIGINFO | flags;
    CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
    CHECK_EQ(sigaction(SIGBUS, &action, NULL), 0);
}

static void overflow_chained(void *unused) {
    (void)unused;
    install_previous(SA_ONSTACK);
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    CHECK_EQ(greenlet_install_overflow_handler(), 0); /* once is enough */
    a = spawn_named(entry_runs_away, "chained");
    go(a, 0);
}

TEST(contract_27_previous_handler_is_chained_to) {
    static struct test_death death;
    test_die(overflow_chained, NULL, &death);
    if (!WIFEXITED(death.status) || WEXITSTATUS(death.status) != 23)
        FAIL("wait status %#x: %s", death.status, death.text);
    CHECK(strstr(death.text, "chained") != NULL);
    CHECK(strstr(death.text, "overflow") != NULL);
    CHECK(strstr(death.text, "previous handler called\n") != NULL);
}

static volatile int *volatile nowhere;

TEST_FAULTS static greenlet_message entry_reads_null(void *value) {
    return val(I(value) + *nowhere);
}

static void plain_fault(void *unused) {
    (void)unused;
    install_previous(SA_ONSTACK);
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    a = spawn_named(entry_reads_null, "reader");
    go(a, 0);
}

/* A fault that is no overflow goes to the previous handler, unremarked. */
TEST(contract_37_other_faults_are_not_called_overflows) {
    if (test_tool("valgrind"))
        SKIP("Valgrind reports the fault, as it should");
    static struct test_death death;
    test_die(plain_fault, NULL, &death);
    CHECK(WIFEXITED(death.status) && WEXITSTATUS(death.status) == 23);
    CHECK(strstr(death.text, "stack overflow in") == NULL);
    CHECK(strstr(death.text, "previous handler called for null") != NULL);
}

static void plain_fault_default(void *unused) {
    (void)unused;
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    a = spawn(entry_reads_null);
    go(a, 0);
}

TEST(contract_37_default_disposition_is_chained_to) {
    if (test_tool("valgrind"))
        SKIP("Valgrind reports the fault, as it should");
    static struct test_death death;
    CHECK_DIES(plain_fault_default, NULL, SIGSEGV, "");
    test_die(plain_fault_default, NULL, &death);
    if (!test_has_asan() && !test_has_tsan())
        CHECK(strstr(death.text, "stack overflow in") == NULL);
}

/* ---- 37: nothing unless asked
 * ---------------------------------------------------- */

static void disposition(int sig, struct sigaction *out) {
    memset(out, 0, sizeof *out);
    if (sigaction(sig, NULL, out) != 0)
        memset(out, 0, sizeof *out);
}

/* SA_RESTORER: the C library's own, it shows once a disposition was set. */
#define OURS(flags) ((flags) & ~0x04000000)

/* Field by field: the padding may differ. */
static void check_same(int sig, const struct sigaction *x,
                       const struct sigaction *y) {
    bool same = OURS(x->sa_flags) == OURS(y->sa_flags) &&
                (x->sa_flags & SA_SIGINFO ? x->sa_sigaction == y->sa_sigaction
                                          : x->sa_handler == y->sa_handler);
    for (int s = 1; s < NSIG && same; s++)
        same = sigismember(&x->sa_mask, s) == sigismember(&y->sa_mask, s);
    if (!same)
        FAIL("the disposition of signal %d has changed", sig);
}

static struct sigaction before[NSIG], after;
static stack_t stack_before, stack_after;
static sigset_t mask_before, mask_after;

static void remember(void) {
    for (int s = 1; s < NSIG; s++)
        disposition(s, &before[s]);
    CHECK_EQ(sigaltstack(NULL, &stack_before), 0);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask_before), 0);
}

static void check_unchanged(void) {
    for (int s = 1; s < NSIG; s++) {
        disposition(s, &after);
        check_same(s, &before[s], &after);
    }
    CHECK_EQ(sigaltstack(NULL, &stack_after), 0);
    CHECK_EQ(stack_after.ss_flags, stack_before.ss_flags);
    if (!(stack_before.ss_flags & SS_DISABLE)) {
        CHECK_PTR(stack_after.ss_sp, stack_before.ss_sp);
        CHECK_EQ(stack_after.ss_size, stack_before.ss_size);
    }
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask_after), 0);
    for (int s = 1; s < NSIG; s++)
        if (sigismember(&mask_before, s) != sigismember(&mask_after, s))
            FAIL("signal %d is %s now", s,
                 sigismember(&mask_after, s) ? "blocked" : "unblocked");
}

static void use_everything(void) {
    for (int i = 0; i < 20; i++) {
        a = spawn(entry_pump);
        b = spawn_named(entry_echo, "b");
        CHECK_MSG(go(a, i), i, 0);
        CHECK_MSG(go(b, i), i, 0);
        CHECK_MSG(greenlet_throw(a, 3, V(i)), i, 3);
        greenlet_unref(a);
        greenlet_unref(b);
    }
}

TEST(contract_37_no_handler_unless_asked) {
    remember();
    use_everything();
    check_unchanged();
}

static void *uses_everything(void *unused) {
    (void)unused;
    stack_t stack;
    CHECK_EQ(sigaltstack(NULL, &stack), 0);
    use_everything();
    CHECK_EQ(sigaltstack(NULL, &stack_after), 0);
    CHECK_EQ(stack_after.ss_flags, stack.ss_flags);
    return NULL;
}

TEST(contract_37_no_handler_in_threads_either) {
    remember();
    for (int i = 0; i < 3; i++)
        test_join(test_thread(uses_everything, NULL));
    check_unchanged();
}

static void never_called(int sig) {
    (void)sig;
    FAIL("the application's handler was called");
}

/* The application's own dispositions, alternate stack and mask are kept. */
TEST(contract_37_the_applications_own_are_kept) {
    enum { STACK = 64 * 1024 };
    static const int sigs[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGURG, SIGWINCH};
    struct sigaction action;
    stack_t stack;
    sigset_t block;
    alarm(0);
    memset(&action, 0, sizeof action);
    action.sa_handler = never_called;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGHUP);
    for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++)
        CHECK_EQ(sigaction(sigs[i], &action, NULL), 0);
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = malloc(STACK);
    stack.ss_size = STACK;
    CHECK(stack.ss_sp != NULL);
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    sigaddset(&block, SIGTERM);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &block, NULL), 0);
    remember();
    use_everything();
    check_unchanged();
    memset(&stack, 0, sizeof stack);
    stack.ss_flags = SS_DISABLE;
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    free(stack_before.ss_sp);
}

/* Asked for: SIGSEGV and SIGBUS only; the application's stack stays. */
TEST(contract_37_asked_for_changes_only_what_it_says) {
    enum { STACK = 64 * 1024 };
    stack_t stack;
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = malloc(STACK);
    stack.ss_size = STACK;
    CHECK(stack.ss_sp != NULL);
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    remember();
    CHECK_EQ(greenlet_install_overflow_handler(), 0);
    use_everything();
    disposition(SIGSEGV, &before[SIGSEGV]);
    disposition(SIGBUS, &before[SIGBUS]);
    CHECK(before[SIGSEGV].sa_flags & SA_ONSTACK);
    check_unchanged();
    memset(&stack, 0, sizeof stack);
    stack.ss_flags = SS_DISABLE;
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    free(stack_before.ss_sp);
}
