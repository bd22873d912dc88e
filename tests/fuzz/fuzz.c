/* The fuzzer's program: makes programs from seeds, or takes them from files,
 * and compares what the model and the library do.
 *
 *   fuzz --seeds FIRST COUNT [--save DIR]    random programs
 *   fuzz --time SECONDS FIRST [--save DIR]   as many as fit, seeds from FIRST
 *   fuzz --tap DIR                           each file is a test case
 *   fuzz --print FILE                        the operations and the trace
 *   fuzz --minimise FILE                     makes a failing one smaller
 *
 * The random ones run in a child process, which tells in shared memory what
 * it is doing: when it crashes or hangs, the parent knows the program. A
 * failing program is minimised and saved in DIR.
 *
 * SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum {
    PATIENCE_SECONDS = 20,
    PATIENCE_MINIMISING = 2,
    MOST_FAILURES = 10,
    BATCH = 2000
};

/* ---- Programs from seeds ------------------------------------------------ */

static uint64_t random_from(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Each program does without some of the operations: others then happen more
 * often, and in a row. */
static size_t generate(uint64_t seed, uint8_t *program) {
    uint64_t state = seed;
    size_t n = 8 + random_from(&state) % (random_from(&state) % 4 ? 120 : 500);
    uint64_t without = random_from(&state) & random_from(&state);
    if (random_from(&state) % 4 == 0)
        without = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = random_from(&state);
        unsigned code = r & 63;
        for (int k = 0; k < 4 && without >> code & 1; k++)
            code = random_from(&state) & 63;
        program[4 * i] = (uint8_t)code;
        program[4 * i + 1] = (uint8_t)(r >> 8);
        program[4 * i + 2] = (uint8_t)(r >> 16);
        program[4 * i + 3] = (uint8_t)(r >> 24);
    }
    return 4 * n;
}

/* ---- In a child --------------------------------------------------------- */

/* What the child tells. */
struct report {
    volatile uint64_t seed;        /* under way                       */
    volatile uint64_t done, bytes; /* programs that were all right    */
    volatile uint64_t events, hash, left_open;
};

static struct report *report;
static uint8_t program[PROGRAM_BYTES];

static void be_a_child(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGALRM, SIG_DFL);
}

static void run_batch(uint64_t first, uint64_t count, double until) {
    for (uint64_t i = 0; i < count; i++) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (until > 0 && (double)now.tv_sec >= until)
            break;
        report->seed = first + i;
        size_t n = generate(first + i, program);
        alarm(PATIENCE_SECONDS);
        if (!check_program(program, n, stderr))
            _exit(1);
        report->done++;
        report->bytes += n;
        report->events += check_events();
        report->left_open += check_was_left_open();
        report->hash = (report->hash ^ check_hash()) * 0x100000001b3u;
    }
    alarm(0);
    _exit(0);
}

static int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            exit(2);
    return status;
}

/* Runs the first n bytes of program[] in a child. */
static bool fails(const uint8_t *bytes, size_t n, unsigned patience) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        exit(2);
    if (child == 0) {
        be_a_child();
        if (!freopen("/dev/null", "w", stderr))
            _exit(0);
        alarm(patience);
        _exit(check_program(bytes, n, NULL) ? 0 : 1);
    }
    return wait_for(child) != 0;
}

/* ---- Minimising --------------------------------------------------------- */

/* Leaves out operations, the most at a time first, as long as it fails; then
 * makes arguments zero. */
static size_t minimise(uint8_t *bytes, size_t n) {
    static uint8_t less[PROGRAM_BYTES];
    n -= n % OP_BYTES;
    for (size_t chunk = n / 2; chunk >= OP_BYTES; chunk /= 2) {
        chunk -= chunk % OP_BYTES;
        if (chunk == 0)
            break;
        for (size_t at = 0; at + chunk <= n;) {
            memcpy(less, bytes, at);
            memcpy(less + at, bytes + at + chunk, n - at - chunk);
            if (fails(less, n - chunk, PATIENCE_MINIMISING)) {
                n -= chunk;
                memcpy(bytes, less, n);
            } else {
                at += chunk;
            }
        }
    }
    for (size_t at = 0; at < n; at++) {
        uint8_t old = bytes[at];
        if (at % OP_BYTES == 0 || old == 0)
            continue;
        bytes[at] = 0;
        if (!fails(bytes, n, PATIENCE_MINIMISING))
            bytes[at] = old;
    }
    return n;
}

static size_t read_program(const char *path, uint8_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    size_t n = fread(bytes, 1, PROGRAM_BYTES, file);
    fclose(file);
    return n;
}

static void write_program(const char *path, const uint8_t *bytes, size_t n) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
}

static void print_file(FILE *file) {
    char line[1024];
    rewind(file);
    while (fgets(line, sizeof line, file))
        printf("# %s", line);
}

static void failed_with(uint64_t seed, int status, const char *folder,
                        FILE *output) {
    char path[4096];
    size_t n = generate(seed, program);
    printf("# seed %ju: ", (uintmax_t)seed);
    if (WIFSIGNALED(status))
        printf("%s\n", WTERMSIG(status) == SIGALRM
                           ? "it hangs"
                           : strsignal(WTERMSIG(status)));
    else
        printf("another trace\n");
    print_file(output);
    if (!folder)
        return;
    size_t less =
        fails(program, n, PATIENCE_SECONDS) ? minimise(program, n) : n;
    snprintf(path, sizeof path, "%s/regress-%s-%jx", folder, check_backend(),
             (uintmax_t)seed);
    write_program(path, program, less);
    printf("# saved: %s (%zu operations of %zu)\n", path, less / OP_BYTES,
           n / OP_BYTES);
    fflush(stdout);
}

/* ---- Ways to run -------------------------------------------------------- */

static int run_random(uint64_t first, uint64_t count, double seconds,
                      const char *folder) {
    struct timespec begin, now;
    unsigned failures = 0;
    uint64_t next = first, left = count;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    double until = seconds > 0 ? (double)begin.tv_sec + seconds : 0;
    while (left && failures < MOST_FAILURES) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (until > 0 && (double)now.tv_sec >= until)
            break;
        uint64_t batch = left < BATCH ? left : BATCH;
        uint64_t before = report->done;
        FILE *output = tmpfile();
        fflush(NULL);
        pid_t child = output ? fork() : -1;
        if (child < 0) {
            perror("fuzz");
            return 2;
        }
        if (child == 0) {
            be_a_child();
            dup2(fileno(output), STDERR_FILENO);
            run_batch(next, batch, until);
        }
        int status = wait_for(child);
        uint64_t done = report->done - before;
        if (status != 0) {
            failures++;
            failed_with(report->seed, status, folder, output);
            done++;
        } else if (done < batch) {
            left = done; /* the time is over */
        }
        fclose(output);
        next += done;
        left -= done;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    double took = (double)(now.tv_sec - begin.tv_sec) +
                  1e-9 * (double)(now.tv_nsec - begin.tv_nsec);
    printf("%s: %ju programs (%ju operations, %ju events, each in %u settings) "
           "in %.1f s, %.0f/s, %ju left open, %u failed, hash %016jx\n",
           check_backend(), (uintmax_t)report->done,
           (uintmax_t)(report->bytes / OP_BYTES), (uintmax_t)report->events,
           check_settings(), took, (double)report->done / took,
           (uintmax_t)report->left_open, failures, (uintmax_t)report->hash);
    return failures != 0;
}

static int no_dots(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Each file of a folder is a test case, and then some random programs. */
static int run_tap(const char *folder) {
    struct dirent **names;
    int failed = 0, n = scandir(folder, &names, no_dots, alphasort);
    if (n < 0) {
        perror(folder);
        return 2;
    }
    printf("TAP version 13\n1..%d\n", n + 1);
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        size_t bytes = read_program(path, program);
        bool good = !fails(program, bytes, PATIENCE_SECONDS);
        printf("%s %d - contract_model_%s\n", good ? "ok" : "not ok", i + 1,
               names[i]->d_name);
        if (!good)
            printf("# see %s\n", path);
        fflush(stdout);
        failed |= !good;
        free(names[i]);
    }
    free(names);
    const char *seeds = getenv("GREENLET_TEST_FULL")    ? "20000"
                        : getenv("GREENLET_TEST_QUICK") ? "100"
                                                        : "400";
    printf("# ");
    bool good = run_random(1, strtoull(seeds, NULL, 10), 0, NULL) == 0;
    printf("%s %d - contract_model_random_programs\n", good ? "ok" : "not ok",
           n + 1);
    return failed || !good;
}

static int usage(void) {
    fprintf(stderr, "usage: fuzz --seeds FIRST COUNT | --time SECONDS FIRST "
                    "[--save DIR] | --tap DIR | --print FILE | "
                    "--minimise FILE\n");
    return 2;
}

int main(int argc, char **argv) {
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED)
        return 2;
    const char *what = argc > 1 ? argv[1] : "";
    if (argc == 3 && strcmp(what, "--tap") == 0)
        return run_tap(argv[2]);
    if (argc == 3 && strcmp(what, "--print") == 0) {
        size_t n = read_program(argv[2], program);
        return check_print(program, n, stdout) ? 0 : 1;
    }
    if (argc == 3 && strcmp(what, "--minimise") == 0) {
        size_t n = read_program(argv[2], program);
        if (!fails(program, n, PATIENCE_SECONDS)) {
            printf("%s does not fail\n", argv[2]);
            return 1;
        }
        size_t less = minimise(program, n);
        write_program(argv[2], program, less);
        printf("%s: %zu operations of %zu\n", argv[2], less / OP_BYTES,
               n / OP_BYTES);
        return 0;
    }
    const char *folder = NULL;
    if (argc == 6 && strcmp(argv[4], "--save") == 0)
        folder = argv[5];
    else if (argc != 4)
        return usage();
    uint64_t x = strtoull(argv[2], NULL, 0), y = strtoull(argv[3], NULL, 0);
    if (strcmp(what, "--seeds") == 0)
        return run_random(x, y, 0, folder);
    if (strcmp(what, "--time") == 0)
        return run_random(y, UINT64_MAX, (double)x, folder);
    return usage();
}
