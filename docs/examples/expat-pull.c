/* Parses an XML file twice, by expat's callbacks and by the pull parser of
 * pull.c, and compares the events that both deliver.
 *
 *     expat-pull [--passes N] [--print N] [FILE]
 *
 * Prints for each the number of events, a digest of all of them (FNV-1a, 64
 * bits, over kinds, names, attributes and text), the switches and the bytes
 * of stack that one pass took, and the time of the fastest pass. Exits with 0
 * if the two agree, 1 if they do not or the file is missing or malformed, 2
 * if the command line is wrong.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "greenlet.h"
#include "pull.h"

#define DEFAULT_FILE "/usr/share/mime/packages/freedesktop.org.xml"

/* What a pass over the document comes to. */
typedef struct tally {
    uint64_t events;
    uint64_t digest;
    bool done;
    char error[256];
} tally;

static const tally tally_start = {0, UINT64_C(0xcbf29ce484222325), false, ""};

static void digest(tally *t, const char *bytes, size_t count) {
    uint64_t hash = t->digest;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    t->digest = hash;
}

static void digest_string(tally *t, const char *s) {
    digest(t, s, strlen(s) + 1);
}

static void count(const pull_event *e, void *data) {
    tally *t = data;
    if (e->kind == PULL_ERROR) {
        snprintf(t->error, sizeof t->error, "%s", e->text);
        return;
    }
    if (e->kind == PULL_DONE) {
        t->done = true;
        return;
    }
    t->events++;
    digest(t, &"??set"[e->kind], 1);
    if (e->name)
        digest_string(t, e->name);
    for (const char *const *a = e->attributes; a && *a; a++)
        digest_string(t, *a);
    digest(t, e->text, e->text_bytes);
}

static int push_pass(const char *file, tally *t) {
    *t = tally_start;
    return pull_push(file, count, t);
}

static int pull_pass(const char *file, tally *t) {
    *t = tally_start;
    pull *p = pull_open(file);
    if (!p)
        return -1;
    const pull_event *e;
    do {
        e = pull_next(p);
        count(e, t);
    } while (e->kind > PULL_DONE);
    pull_close(p);
    return 0;
}

static void print_event(uint64_t number, const pull_event *e) {
    static const char *const kinds[] = {"error", "done", "start", "end",
                                        "text"};
    printf("%6" PRIu64 "  %-5s ", number, kinds[e->kind]);
    if (e->name)
        printf(" %s", e->name);
    for (const char *const *a = e->attributes; a && *a; a += 2)
        printf(" %s=\"%s\"", a[0], a[1]);
    if (e->text) {
        printf(" \"");
        for (size_t i = 0; i < e->text_bytes; i++)
            if (e->text[i] == '\n')
                printf("\\n");
            else
                putchar(e->text[i]);
        putchar('"');
    }
    putchar('\n');
}

/* Prints the first events and closes the parser in mid-document. */
static int print_events(const char *file, uint64_t wanted) {
    pull *p = pull_open(file);
    if (!p)
        return -1;
    for (uint64_t n = 1; n <= wanted; n++) {
        const pull_event *e = pull_next(p);
        print_event(n, e);
        if (e->kind <= PULL_DONE)
            break;
    }
    pull_close(p);
    return 0;
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int out_of_memory(void) {
    fprintf(stderr, "expat-pull: no memory\n");
    return 1;
}

static int compare(const char *file, unsigned passes) {
    tally push = tally_start, pulled = tally_start;
    double push_ms = 1e300, pull_ms = 1e300;
    greenlet_statistics before = GREENLET_STATISTICS_INIT;
    greenlet_statistics after = GREENLET_STATISTICS_INIT;

    for (unsigned pass = 0; pass < passes; pass++) {
        double start = now_ms();
        if (push_pass(file, &push) != 0)
            return out_of_memory();
        double middle = now_ms();
        greenlet_thread_statistics(&before);
        if (pull_pass(file, &pulled) != 0)
            return out_of_memory();
        greenlet_thread_statistics(&after);
        double end = now_ms();
        push_ms = middle - start < push_ms ? middle - start : push_ms;
        pull_ms = end - middle < pull_ms ? end - middle : pull_ms;
    }
    if (!push.done || !pulled.done) {
        fprintf(stderr, "expat-pull: %s\n",
                *pulled.error ? pulled.error : push.error);
        return 1;
    }
    printf("%-9s %10s %18s %10s %14s %10s\n", "", "events", "digest",
           "switches", "bytes copied", "ms");
    printf("%-9s %10" PRIu64 "   %016" PRIx64 " %10d %14d %10.2f\n", "callback",
           push.events, push.digest, 0, 0, push_ms);
    printf("%-9s %10" PRIu64 "   %016" PRIx64 " %10" PRIu64 " %14" PRIu64
           " %10.2f\n",
           "pull", pulled.events, pulled.digest,
           after.switches - before.switches,
           after.saved_bytes - before.saved_bytes + after.filled_bytes -
               before.filled_bytes,
           pull_ms);
    if (push.events != pulled.events || push.digest != pulled.digest) {
        fprintf(stderr, "expat-pull: the events differ\n");
        return 1;
    }
    return 0;
}

static int usage(void) {
    fprintf(stderr, "usage: expat-pull [--passes N] [--print N] [FILE]\n");
    return 2;
}

int main(int argc, char **argv) {
    const char *file = NULL;
    unsigned long passes = 5, print = 0;
    for (int i = 1; i < argc; i++) {
        unsigned long *number = strcmp(argv[i], "--passes") == 0  ? &passes
                                : strcmp(argv[i], "--print") == 0 ? &print
                                                                  : NULL;
        if (number) {
            char *end = NULL;
            if (i + 1 < argc)
                *number = strtoul(argv[++i], &end, 10);
            if (!end || *end || *number == 0 || *number > 1000000)
                return usage();
        } else if (argv[i][0] == '-' || file) {
            return usage();
        } else {
            file = argv[i];
        }
    }
    file = file ? file : DEFAULT_FILE;
    if (print)
        return print_events(file, print) == 0 ? 0 : out_of_memory();
    return compare(file, (unsigned)passes);
}
