/* The harness; see test.h.
 *
 *   suite [--list] [--nofork] [--fail-each] [NAME...]
 *
 * With --fail-each every case is run again and again, the first, the second,
 * the third request of the library (faults.h) failing in turn. What the case
 * then finds does not matter; that it ends does: with any exit status, or with
 * an abort whose message is the library's. GREENLET_TEST_FAIL_AT=N with
 * --nofork is the N-th of these runs, for a debugger.
 *
 * A NAME is a part of a test's name, or a pattern with * and ?.
 * GREENLET_TEST_TIMEOUT_FACTOR, of the machine or the tool that it runs under,
 * and GREENLET_TEST_PATIENCE, of the setting, multiply the 60 seconds of each
 * test; GREENLET_TEST_TIMES=1 prints how long each took.
 *
 * SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "test.h"
#include "faults.h"

#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_SECONDS = 60, EXIT_SKIP = 77 };

static struct test_case *cases;
static bool in_child; /* else --nofork */

/* Sorted by name: the order of the contract. */
void test_register(struct test_case *c) {
    struct test_case **at = &cases;
    while (*at && strcmp((*at)->name, c->name) < 0)
        at = &(*at)->next;
    c->next = *at;
    *at = c;
}

/* ---- Checks ----------------------------------------------------------- */

static void write_all(int fd, const char *text, size_t n) {
    while (n) {
        ssize_t done = write(fd, text, n);
        if (done <= 0)
            return;
        text += done;
        n -= (size_t)done;
    }
}

static void say(const char *format, va_list list) {
    char text[512];
    int n = vsnprintf(text, sizeof text - 1, format, list);
    if (n < 0)
        return;
    size_t length = (size_t)n < sizeof text - 1 ? (size_t)n : sizeof text - 2;
    text[length] = '\n';
    write_all(STDERR_FILENO, text, length + 1);
}

void test_say(const char *format, ...) {
    va_list list;
    int saved = errno;
    va_start(list, format);
    say(format, list);
    va_end(list);
    errno = saved;
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...) {
    va_list list;
    const char *base = strrchr(file, '/');
    test_say("%s:%d: failed:", base ? base + 1 : file, line);
    va_start(list, format);
    say(format, list);
    va_end(list);
    if (!in_child)
        abort();
    _exit(1);
}

_Noreturn void test_skip(const char *reason) {
    test_say("SKIP %s", reason);
    _exit(EXIT_SKIP);
}

void test_check_eq(const char *file, int line, const char *text, intmax_t a,
                   intmax_t b) {
    if (a != b)
        test_fail(file, line, "%s: %jd against %jd", text, a, b);
}

void test_check_ptr(const char *file, int line, const char *text, const void *a,
                    const void *b) {
    if (a != b)
        test_fail(file, line, "%s: %p against %p", text, a, b);
}

void test_check_str(const char *file, int line, const char *text, const char *a,
                    const char *b) {
    if (!a || !b || strcmp(a, b) != 0)
        test_fail(file, line, "%s: \"%s\" against \"%s\"", text,
                  a ? a : "(null)", b ? b : "(null)");
}

void test_check_msg(const char *file, int line, const char *text,
                    greenlet_message m, intptr_t value, intptr_t status) {
    if (I(m.value) != value || m.status != status)
        test_fail(file, line, "%s: {%jd, %jd}, wanted {%jd, %jd}", text,
                  (intmax_t)I(m.value), (intmax_t)m.status, (intmax_t)value,
                  (intmax_t)status);
}

/* ---- Children --------------------------------------------------------- */

/* The factors of the machine (an emulator, a tool), and of the setting. */
static unsigned timeout_seconds(void) {
    uint64_t machine = test_env("GREENLET_TEST_TIMEOUT_FACTOR", 1);
    uint64_t setting = test_env("GREENLET_TEST_PATIENCE", 1);
    return (unsigned)(TIMEOUT_SECONDS * (machine ? machine : 1) *
                      (setting ? setting : 1));
}

#ifdef GREENLET_TEST_COVERAGE
#include <ucontext.h>

void __gcov_dump(void);
_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);

/* What a process that ends so has reached counts. On a stack that is large
 * enough, but no alternate one: tests look whether there is one. */
static void count_coverage(void) {
    static char stack[262144];
    static ucontext_t here, there;
    faults_disarm(); /* the counting itself wants memory */
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, __gcov_dump, 0);
    swapcontext(&here, &there);
}

static void count_and_die(int signal_number) {
    count_coverage();
    signal(signal_number, SIG_DFL);
}

_Noreturn void __wrap__exit(int status) {
    count_coverage();
    __real__exit(status);
}

/* Where a stack overflow is reported, the library's handler calls this one
 * next. Not in the tests themselves: they look which handlers there are. */
static void count_faults(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_and_die;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
}
#endif

/* Forks; the child's output goes to `out`. Returns as fork does. */
static pid_t fork_into(FILE *out) {
    fflush(NULL);
    pid_t child = fork();
    if (child != 0)
        return child;
    in_child = true;
    if (dup2(fileno(out), STDOUT_FILENO) < 0 ||
        dup2(fileno(out), STDERR_FILENO) < 0)
        _exit(1);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    alarm(timeout_seconds());
#ifdef GREENLET_TEST_COVERAGE
    signal(SIGABRT, count_and_die);
#endif
    return 0;
}

static int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

void test_die(void (*run)(void *), void *arg, struct test_death *out) {
    FILE *file = tmpfile();
    if (!file)
        FAIL("tmpfile: %s", strerror(errno));
    pid_t child = fork_into(file);
    if (child < 0)
        FAIL("fork: %s", strerror(errno));
    if (child == 0) {
#ifdef GREENLET_TEST_COVERAGE
        count_faults();
#endif
        run(arg);
        fflush(NULL);
        _exit(0);
    }
    out->status = wait_for(child);
    rewind(file);
    out->length = fread(out->text, 1, sizeof out->text - 1, file);
    out->text[out->length] = 0;
    fclose(file);
}

static void describe_end(int status, char *text, size_t n) {
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(text, n, "died of SIG%s", name ? name : "?");
    } else {
        snprintf(text, n, "exited with %d", WEXITSTATUS(status));
    }
}

bool test_died_of(const struct test_death *d, int sig) {
    if (WIFSIGNALED(d->status))
        return WTERMSIG(d->status) == sig;
    /* Sanitizers turn a fatal signal into an exit. */
    return (test_has_asan() || test_has_tsan()) &&
           WEXITSTATUS(d->status) != 0 && sig != SIGABRT;
}

void test_check_dies(const char *file, int line, void (*run)(void *), void *arg,
                     int sig, const char *const texts[]) {
    static struct test_death death;
    char end[64];
    test_die(run, arg, &death);
    describe_end(death.status, end, sizeof end);
    if (!test_died_of(&death, sig)) {
        write_all(STDERR_FILENO, death.text, death.length);
        test_fail(file, line, "the child %s, wanted SIG%s", end,
                  sigabbrev_np(sig));
    }
    for (size_t i = 0; texts[i]; i++)
        if (!strstr(death.text, texts[i])) {
            write_all(STDERR_FILENO, death.text, death.length);
            test_fail(file, line, "the child's output lacks \"%s\"", texts[i]);
        }
}

/* ---- The configuration ------------------------------------------------- */

bool test_is(const char *backend) {
    return strcmp(greenlet_backend(), backend) == 0;
}

bool test_is_copy(void) { return test_is("copy"); }

uint64_t test_env(const char *name, uint64_t fallback) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : fallback;
}

int test_lanes(void) {
    return test_is_copy() ? (int)test_env("GREENLET_LANES", 8) : -1;
}

bool test_in_place(void) { return test_lanes() == 0; }

bool test_full(void) { return test_env("GREENLET_TEST_FULL", 0) != 0; }

unsigned test_amount(unsigned normal, unsigned full) {
    if (test_full())
        return full;
    const char *quick = getenv("GREENLET_TEST_QUICK");
    uint64_t share =
        test_env("GREENLET_TEST_SHARE", quick && *quick == '1' ? 4 : 1);
    return share && normal > 40 ? normal / (unsigned)share + 1 : normal;
}

#ifdef __has_feature
#define FEATURE(x) __has_feature(x)
#else
#define FEATURE(x) 0
#endif

bool test_tool(const char *name) {
    const char *tool = getenv("GREENLET_TEST_TOOL");
    return tool && strcmp(tool, name) == 0;
}

bool test_has_asan(void) {
#if defined(__SANITIZE_ADDRESS__) || FEATURE(address_sanitizer)
    return true;
#else
    return false;
#endif
}

bool test_has_tsan(void) {
#if defined(__SANITIZE_THREAD__) || FEATURE(thread_sanitizer)
    return true;
#else
    return false;
#endif
}

/* A kernel knows what advice there is; an emulator takes any. */
bool test_is_emulated(void) {
    static char byte;
    uintptr_t page = (uintptr_t)&byte & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    return syscall(SYS_madvise, page, (size_t)1, 0x7fffffff) == 0;
}

/* splitmix64 */
uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- Notes ------------------------------------------------------------- */

static char note_text[2][256];
static size_t note_count;

void note(char c) {
    if (note_count + 1 < sizeof note_text[0])
        note_text[0][note_count++] = c;
}

const char *notes(void) {
    memcpy(note_text[1], note_text[0], note_count);
    note_text[1][note_count] = 0;
    note_count = 0;
    return note_text[1];
}

/* ---- Threads ----------------------------------------------------------- */

pthread_t test_thread(void *(*run)(void *), void *arg) {
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, run, arg);
    if (failed)
        FAIL("pthread_create: %s", strerror(failed));
    return thread;
}

void *test_join(pthread_t thread) {
    void *result = NULL;
    int failed = pthread_join(thread, &result);
    if (failed)
        FAIL("pthread_join: %s", strerror(failed));
    return result;
}

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;

void gate_reach(struct test_gate *gate, int step) {
    pthread_mutex_lock(&gate_lock);
    gate->step = step;
    pthread_cond_broadcast(&gate_moved);
    pthread_mutex_unlock(&gate_lock);
}

void gate_wait(struct test_gate *gate, int step) {
    pthread_mutex_lock(&gate_lock);
    while (gate->step < step)
        pthread_cond_wait(&gate_moved, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

/* ---- Short names ------------------------------------------------------- */

greenlet *spawn_under(greenlet_entry *entry, greenlet *parent) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = parent;
    greenlet *g = greenlet_new(entry, &o);
    if (!g)
        FAIL("greenlet_new: %s", strerror(errno));
    return g;
}

greenlet *spawn(greenlet_entry *entry) {
    greenlet *g = greenlet_new(entry, NULL);
    if (!g)
        FAIL("greenlet_new: %s", strerror(errno));
    return g;
}

greenlet *spawn_named(greenlet_entry *entry, const char *name) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.name = name;
    greenlet *g = greenlet_new(entry, &o);
    if (!g)
        FAIL("greenlet_new: %s", strerror(errno));
    return g;
}

greenlet_message go(greenlet *to, intptr_t value) {
    return greenlet_switch(to, V(value));
}

greenlet_message back(intptr_t value) {
    return greenlet_switch(greenlet_parent(greenlet_current()), V(value));
}

greenlet_message entry_echo(void *value) { return val(I(value)); }

greenlet_message entry_pump(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0)
        m = back(I(m.value));
    return m;
}

/* ---- Running ----------------------------------------------------------- */

static bool chosen(const char *name, int n, char **patterns) {
    if (n == 0)
        return true;
    for (int i = 0; i < n; i++)
        if (strpbrk(patterns[i], "*?") ? fnmatch(patterns[i], name, 0) == 0
                                       : strstr(name, patterns[i]) != NULL)
            return true;
    return false;
}

static void print_captured(FILE *file) {
    char line[1024];
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        printf("# %s\n", line);
    }
}

/* The last line that test_skip wrote. */
static void skip_reason(FILE *file, char *reason, size_t n) {
    char line[1024];
    snprintf(reason, n, "no reason given");
    rewind(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "SKIP ", 5) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(reason, n, "%.200s", line + 5);
        }
}

/* Returns whether the test passed or was skipped. */
static bool run_case(struct test_case *c, unsigned number) {
    char end[256];
    FILE *file = tmpfile();
    if (!file) {
        printf("not ok %u - %s\n# tmpfile: %s\n", number, c->name,
               strerror(errno));
        return false;
    }
    pid_t child = fork_into(file);
    if (child == 0) {
        setpgid(0, 0);
        c->run();
        exit(0);
    }
    if (child < 0) {
        printf("not ok %u - %s\n# fork: %s\n", number, c->name,
               strerror(errno));
        fclose(file);
        return false;
    }
    setpgid(child, child);
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int status = wait_for(child);
    clock_gettime(CLOCK_MONOTONIC, &now);
    kill(-child, SIGKILL); /* what it may have left running */
    bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (passed) {
        printf("ok %u - %s\n", number, c->name);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
        skip_reason(file, end, sizeof end);
        printf("ok %u - %s # SKIP %s\n", number, c->name, end);
        passed = true;
    } else {
        printf("not ok %u - %s\n", number, c->name);
        print_captured(file);
        describe_end(status, end, sizeof end);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
            printf("# timed out after %u seconds\n", timeout_seconds());
        else
            printf("# the test %s\n", end);
    }
    if (test_env("GREENLET_TEST_TIMES", 0))
        printf("# %ld ms\n", (now.tv_sec - begin.tv_sec) * 1000L +
                                 (now.tv_nsec - begin.tv_nsec) / 1000000L);
    fclose(file);
    fflush(stdout);
    return passed;
}

static bool says(FILE *file, const char *text) {
    char line[1024];
    bool found = false;
    rewind(file);
    while (!found && fgets(line, sizeof line, file))
        found = strstr(line, text) != NULL;
    return found;
}

/* One run of a case, request n failing. Returns whether it ended well. */
static bool run_failing(struct test_case *c, unsigned long n,
                        _Atomic unsigned long *requests) {
    FILE *file = tmpfile();
    pid_t child = file ? fork_into(file) : -1;
    if (child == 0) {
        setpgid(0, 0);
        faults_arm_library(n, requests);
        c->run();
        exit(0);
    }
    if (child < 0) {
        printf("# %s: %s\n", c->name, strerror(errno));
        return false;
    }
    setpgid(child, child);
    int status = wait_for(child);
    kill(-child, SIGKILL);
    bool good = WIFEXITED(status) ||
                (WTERMSIG(status) == SIGABRT && says(file, "greenlet: "));
    if (!good) {
        char end[64];
        describe_end(status, end, sizeof end);
        printf("# with request %lu failing, the test %s\n", n, end);
        print_captured(file);
    }
    fclose(file);
    return good;
}

static bool run_failing_each(struct test_case *c, unsigned number) {
    static _Atomic unsigned long *requests;
    if (!requests)
        requests = mmap(NULL, sizeof *requests, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned long n = 0, most = test_amount(40, 2000);
    bool good = requests != MAP_FAILED;
    time_t end = time(NULL) + (time_t)test_amount(3, 600);
    do {
        atomic_store(requests, 0);
        good = good && run_failing(c, ++n, requests);
    } while (good && atomic_load(requests) >= n && n < most &&
             time(NULL) < end);
    printf("%s %u - %s\n# %lu of its requests failed%s\n",
           good ? "ok" : "not ok", number, c->name,
           good && atomic_load(requests) < n ? n - 1 : n,
           good && atomic_load(requests) >= n ? ", and it makes more" : "");
    fflush(stdout);
    return good;
}

int main(int argc, char **argv) {
    bool list = false, nofork = false, fail_each = false;
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--list") == 0) {
            list = true;
        } else if (strcmp(argv[at], "--nofork") == 0) {
            nofork = true;
        } else if (strcmp(argv[at], "--fail-each") == 0) {
            fail_each = true;
        } else {
            fprintf(stderr,
                    "usage: %s [--list] [--nofork] [--fail-each] [NAME...]\n",
                    argv[0]);
            return 2;
        }
    }
    unsigned count = 0, number = 0, failed = 0;
    for (struct test_case *c = cases; c; c = c->next)
        if (chosen(c->name, argc - at, argv + at))
            count++;
    if (!list)
        printf("TAP version 13\n1..%u\n# backend %s, lanes %d\n", count,
               greenlet_backend(), test_lanes());
    for (struct test_case *c = cases; c; c = c->next) {
        if (!chosen(c->name, argc - at, argv + at))
            continue;
        number++;
        if (list) {
            printf("%s\n", c->name);
        } else if (nofork) {
            static _Atomic unsigned long requests;
            faults_arm_library(
                (unsigned long)test_env("GREENLET_TEST_FAIL_AT", 0), &requests);
            fprintf(stderr, "# %s\n", c->name);
            c->run();
            printf("ok %u - %s\n", number, c->name);
        } else if (!(fail_each ? run_failing_each : run_case)(c, number)) {
            failed++;
        }
    }
    if (count == 0 && !list) {
        fprintf(stderr, "no test of that name\n");
        return 2;
    }
    if (failed)
        printf("# failed %u of %u\n", failed, count);
    return failed ? 1 : 0;
}
