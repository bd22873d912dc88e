/* See memory.h.
 *
 * SPDX-License-Identifier: MIT */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The number behind `key` in a file of /proc, in bytes; 0 if it has none. */
static double field(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    char line[256];
    double result = 0;
    size_t length = strlen(key);
    while (fgets(line, sizeof line, file)) {
        double kib;
        if (strncmp(line, key, length) == 0 &&
            sscanf(line + length, "%lf", &kib) == 1) {
            result = kib * 1024;
            break;
        }
    }
    fclose(file);
    return result;
}

static double lines(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    double result = 0;
    int c;
    while ((c = getc(file)) != EOF)
        result += c == '\n';
    fclose(file);
    return result;
}

static bench_memory now(void) {
    return (bench_memory){field("/proc/self/smaps_rollup", "Rss:"),
                          field("/proc/self/status", "VmPTE:"),
                          lines("/proc/self/maps")};
}

int bench_memory_main(const bench_workload *workload, const char *count) {
    (void)now(); /* stdio's buffers are there from now on */
    const char *why_not = workload->memory(8);
    bench_memory before = now();
    if (!why_not)
        why_not = workload->memory(strtoul(count, NULL, 10));
    bench_memory after = now();
    if (why_not)
        printf("%s\n", why_not);
    else
        printf("= %.0f %.0f %.0f\n",
               after.resident_bytes - before.resident_bytes,
               after.page_table_bytes - before.page_table_bytes,
               after.maps - before.maps);
    (void)fflush(stdout);
    _exit(0); /* whatever is left need not be taken down */
}

bench_taken bench_measure_memory(const char *workload, size_t count) {
    bench_taken result = {false, "", {0, 0, 0}};
    char text[32], *self = "/proc/self/exe";
    snprintf(text, sizeof text, "%zu", count);
    char *argv[] = {self, BENCH_MEMORY_OPTION, (char *)workload, text, NULL};
    int ends[2], status = 0;
    pid_t child;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        snprintf(result.why_not, sizeof result.why_not, "pipe2: %s",
                 strerror(errno));
        return result;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    int failed = posix_spawn(&child, self, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *answer = fdopen(ends[0], "r");
    if (failed) {
        snprintf(result.why_not, sizeof result.why_not, "posix_spawn: %s",
                 strerror(failed));
    } else {
        char line[160] = "";
        if (answer && fgets(line, sizeof line, answer))
            line[strcspn(line, "\n")] = '\0';
        (void)waitpid(child, &status, 0);
        bench_memory *m = &result.taken;
        result.ok = sscanf(line, "= %lf %lf %lf", &m->resident_bytes,
                           &m->page_table_bytes, &m->maps) == 3;
        if (!result.ok && *line)
            snprintf(result.why_not, sizeof result.why_not, "%s", line);
        else if (!result.ok)
            snprintf(result.why_not, sizeof result.why_not,
                     "the measuring process died: %s",
                     WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                                         : "it said nothing");
    }
    if (answer)
        fclose(answer);
    return result;
}

void bench_count_memory(bench_state *state, const bench_taken *taken,
                        size_t count, const char *noun) {
    char name[80];
    double by = (double)count;
    snprintf(name, sizeof name, "rss/%s", noun);
    bench_counter(state, name, taken->taken.resident_bytes / by);
    snprintf(name, sizeof name, "page_tables/%s", noun);
    bench_counter(state, name, taken->taken.page_table_bytes / by);
    snprintf(name, sizeof name, "maps/%s", noun);
    bench_counter(state, name, taken->taken.maps / by);
}

bool bench_affordable(size_t count, size_t bytes) {
    double available = field("/proc/meminfo", "MemAvailable:");
    return available == 0 || (double)count * (double)bytes < available;
}
