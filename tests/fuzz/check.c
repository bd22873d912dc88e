/* See check.h.
 *
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include <string.h>

#include "../faults.h"
#include "fuzz.h"
#include "greenlet.h"

enum { SHOWN_BEFORE = 12, SHOWN_AFTER = 3 };

static struct trace of_model, of_library;
static bool left_open;

const char *check_backend(void) { return greenlet_backend(); }

static bool is_copy(void) { return strcmp(greenlet_backend(), "copy") == 0; }

static const struct setting settings[] = {{0}, {1}, {2}, {8}};

unsigned check_settings(void) { return is_copy() ? 4 : 1; }

uint64_t check_hash(void) { return of_model.hash; }
bool check_was_left_open(void) { return left_open; }
uint64_t check_events(void) { return of_model.n; }

static size_t recorded(const struct trace *t) {
    return t->n < TRACE_EVENTS ? t->n : TRACE_EVENTS;
}

static void print_event(FILE *out, const char *whose, const struct trace *t,
                        size_t i) {
    if (i >= recorded(t)) {
        fprintf(out, "%s %5zu the end\n", whose, i);
        return;
    }
    const struct event *e = &t->events[i];
    fprintf(out, "%s %5zu %-14s %4d %4d %jd\n", whose, i, e->what, e->who,
            e->other, (intmax_t)e->value);
}

static bool same_event(const struct event *a, const struct event *b) {
    return strcmp(a->what, b->what) == 0 && a->who == b->who &&
           a->other == b->other && a->value == b->value;
}

static void print_difference(FILE *out, const struct setting *s) {
    size_t i = 0;
    while (i < recorded(&of_model) && i < recorded(&of_library) &&
           same_event(&of_model.events[i], &of_library.events[i]))
        i++;
    fprintf(out, "%s, lanes %d: event %zu differs\n", greenlet_backend(),
            s->lanes, i);
    for (size_t k = i > SHOWN_BEFORE ? i - SHOWN_BEFORE : 0; k < i; k++)
        print_event(out, "both   ", &of_model, k);
    for (size_t k = i; k < i + SHOWN_AFTER; k++)
        print_event(out, "model  ", &of_model, k);
    for (size_t k = i; k < i + SHOWN_AFTER; k++)
        print_event(out, "library", &of_library, k);
}

bool check_program(const uint8_t *program, size_t n, FILE *out) {
    static const struct setting none = {-1};
    run_program_on_model(program, n, &none, &of_model);
    left_open = model_left_open();
    bool leaky = model_reset() != 0;
    for (unsigned i = 0; i < check_settings(); i++) {
        const struct setting *s = is_copy() ? &settings[i] : &none;
        long blocks = faults_blocks(), mapped = faults_mapped();
        run_program_on_library(program, n, s, &of_library);
        if (left_open) /* all that can be asked is that it ends */
            continue;
        if (of_library.n != of_model.n || of_library.hash != of_model.hash) {
            if (out)
                print_difference(out, s);
            return false;
        }
        if (leaky)
            continue;
        blocks = faults_blocks() - blocks;
        mapped = faults_mapped() - mapped;
        if (blocks != 0 || mapped != 0) {
            if (out)
                fprintf(out,
                        "%s, lanes %d: %ld blocks, %ld mapped bytes left\n",
                        greenlet_backend(), s->lanes, blocks, mapped);
            return false;
        }
    }
    return true;
}

bool check_print(const uint8_t *program, size_t n, FILE *out) {
    static const struct setting none = {-1};
    run_program_on_model(program, n, &none, &of_model);
    model_reset();
    for (size_t i = 0; i < recorded(&of_model); i++)
        print_event(out, "model  ", &of_model, i);
    fflush(out);
    return check_program(program, n, out);
}
