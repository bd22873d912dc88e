/* The harness: each TEST runs in a child process of its own and is reported
 * in TAP. Everything here works on any greenlet's stack and in any thread; a
 * check that fails ends the child at once.
 *
 * What greenlets share must be static or on the heap, never a local: in
 * place (lanes = 0), the stack of whoever is suspended may be elsewhere.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_TEST_H
#define GREENLET_TEST_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greenlet.h"

#ifdef __cplusplus
extern "C" {
#define TEST_NORETURN [[noreturn]]
#else
#define TEST_NORETURN _Noreturn
#endif

/* ---- Cases ------------------------------------------------------------ */

struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
};

void test_register(struct test_case *c);

#define TEST(id)                                                               \
    static void test_##id(void);                                               \
    static struct test_case case_##id = {#id, test_##id, NULL};                \
    __attribute__((constructor)) static void register_##id(void) {             \
        test_register(&case_##id);                                             \
    }                                                                          \
    static void test_##id(void)

/* A function whose locals are on the stack that it runs on, and not where
 * AddressSanitizer keeps them to find uses after the return. */
#if defined(__clang__) || defined(__GNUC__)
#define TEST_REAL_STACK __attribute__((no_sanitize("address")))
/* One that reads where nothing is, for a handler of the fault to see. */
#define TEST_FAULTS __attribute__((no_sanitize("undefined")))
#endif

/* ---- Checks ----------------------------------------------------------- */

TEST_NORETURN void test_fail(const char *file, int line, const char *format,
                             ...) __attribute__((format(printf, 3, 4)));
TEST_NORETURN void test_skip(const char *reason);

/* A line for the report of this test; on little stack, in any thread. */
void test_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

void test_check_eq(const char *file, int line, const char *text, intmax_t a,
                   intmax_t b);
void test_check_ptr(const char *file, int line, const char *text, const void *a,
                    const void *b);
void test_check_str(const char *file, int line, const char *text, const char *a,
                    const char *b);
void test_check_msg(const char *file, int line, const char *text,
                    greenlet_message m, intptr_t value, intptr_t status);

#define CHECK(cond)                                                            \
    ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, "CHECK(%s)", #cond))
#define CHECK_EQ(a, b)                                                         \
    test_check_eq(__FILE__, __LINE__, #a " == " #b, (intmax_t)(a),             \
                  (intmax_t)(b))
#define CHECK_PTR(a, b)                                                        \
    test_check_ptr(__FILE__, __LINE__, #a " == " #b, (a), (b))
#define CHECK_STR(a, b)                                                        \
    test_check_str(__FILE__, __LINE__, #a " == " #b, (a), (b))
/* The message `m` is {(void *)value, status}. */
#define CHECK_MSG(m, value, status)                                            \
    test_check_msg(__FILE__, __LINE__, #m, (m), (intptr_t)(value), (status))
#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(reason) test_skip(reason)

/* ---- Deaths ----------------------------------------------------------- */

/* Runs run(arg) in a forked child and waits for its end: `status` as of
 * waitpid, `text` what it wrote to stdout and stderr. A child whose `run`
 * returns exits with 0. */
struct test_death {
    int status;
    size_t length;
    char text[65536];
};

void test_die(void (*run)(void *), void *arg, struct test_death *out);
bool test_died_of(const struct test_death *d, int sig);
void test_check_dies(const char *file, int line, void (*run)(void *), void *arg,
                     int sig, const char *const texts[]);

/* run(arg) dies of `sig`, its output contains each of the texts. */
#define CHECK_DIES(run, arg, sig, ...)                                         \
    do {                                                                       \
        static const char *const texts_[] = {__VA_ARGS__, NULL};               \
        test_check_dies(__FILE__, __LINE__, (run), (arg), (sig), texts_);      \
    } while (0)
#define EXPECT_ABORT(run, arg, ...) CHECK_DIES(run, arg, SIGABRT, __VA_ARGS__)

/* ---- The configuration under test -------------------------------------- */

bool test_is(const char *backend);
bool test_is_copy(void);
/* Lanes of a thread by default; 0: in place; -1: not the copy backend. */
int test_lanes(void);
bool test_in_place(void);
bool test_full(void);
/* `normal`, or `full` when GREENLET_TEST_FULL=1, or one in
 * GREENLET_TEST_SHARE (4 when GREENLET_TEST_QUICK=1) of `normal`. */
unsigned test_amount(unsigned normal, unsigned full);
/* Of the environment; `fallback` if it is not set. */
uint64_t test_env(const char *name, uint64_t fallback);
/* Is this run under that tool? (GREENLET_TEST_TOOL) */
bool test_tool(const char *name);
bool test_has_asan(void);
bool test_has_tsan(void);
/* Is this process run by an emulator of user programs (qemu-user)? */
bool test_is_emulated(void);

/* Deterministic random numbers. */
uint64_t test_random(uint64_t *state);

/* ---- Notes: what happened, in order, a letter each ---------------------- */

void note(char c);
const char *notes(void); /* since the last call; static storage */

/* ---- Threads ------------------------------------------------------------ */

pthread_t test_thread(void *(*run)(void *), void *arg);
void *test_join(pthread_t thread);

/* Steps that threads wait for each other with. Zero at first. */
struct test_gate {
    int step;
};
void gate_reach(struct test_gate *gate, int step);
void gate_wait(struct test_gate *gate, int step);

/* ---- Short names of what every test does -------------------------------- */

#define V(i) ((void *)(intptr_t)(i))
#define I(p) ((intptr_t)(p))

static inline greenlet_message err(intptr_t value, intptr_t status) {
    greenlet_message m;
    m.value = V(value);
    m.status = status;
    return m;
}

static inline greenlet_message val(intptr_t value) { return err(value, 0); }

/* A greenlet, or the test fails. */
greenlet *spawn(greenlet_entry *entry);
greenlet *spawn_under(greenlet_entry *entry, greenlet *parent);
greenlet *spawn_named(greenlet_entry *entry, const char *name);

greenlet_message go(greenlet *to, intptr_t value);
/* To the current greenlet's parent. */
greenlet_message back(intptr_t value);

/* Entries: return the argument; hand each value back until one is thrown,
 * then return it as thrown. */
greenlet_message entry_echo(void *value);
greenlet_message entry_pump(void *value);

#ifdef __cplusplus
}
#endif
#endif
