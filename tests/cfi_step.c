/* Single-steps a program through every instruction of the switches and
 * unwinds it from outside at each: proves the CFI of the assembly.
 *
 * The child switches between greenlets in all ways that the backend has; the
 * parent steps it (PTRACE_SINGLESTEP). Whenever the child is in one of the
 * library's functions on a switch's way, libunwind-ptrace unwinds it. The
 * way must end
 *   - cleanly: no error, no more than FRAMES_MOST frames; and
 *   - in the child's main() for the main greenlet, in the start trampoline
 *     (nothing above an entry of ours) for another; or early, but only in
 *     arch_switch, arch_leave, arch_switch_copy or below (the return address is
 *     undefined while the stack is not whole).
 * Each frame of a function of ours that it shows must be of those that are
 * really there: known by name.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <libunwind-ptrace.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "greenlet.h"

enum { FRAMES_MOST = 40, ROUNDS = 3 };

/* ---- The child ---------------------------------------------------------- */

/* As the library's own names.h calls it; linked statically, it is here. */
extern const char greenlet_arch_start[];

static greenlet *one, *two;

__attribute__((noinline)) static void child_tracer(greenlet_event event,
                                                   greenlet *origin,
                                                   greenlet *target,
                                                   void *data) {
    (void)event, (void)origin, (void)target, (void)data;
    __asm__ volatile("");
}

greenlet_message child_inner(void *value);
greenlet_message child_entry(void *value);

__attribute__((noinline)) greenlet_message child_inner(void *value) {
    greenlet_message m = {value, 0};
    for (int i = 0; i < ROUNDS && m.status == 0; i++)
        m = greenlet_switch(greenlet_parent(greenlet_current()), value);
    return m;
}

greenlet_message child_entry(void *value) {
    greenlet_message m = child_inner(value);
    __asm__ volatile("");
    return m;
}

__attribute__((noinline)) static void child_work(void) {
    for (int traced = 0; traced < 2; traced++) {
        if (traced)
            greenlet_set_tracer(child_tracer, NULL, NULL, NULL);
        one = greenlet_new(child_entry, NULL);
        two = greenlet_new(child_entry, NULL);
        for (int i = 0; i <= ROUNDS; i++) { /* the last one is its death */
            greenlet_switch(one, NULL);
            greenlet_switch(two, NULL);
        }
        greenlet_unref(one);
        greenlet_unref(two);
        one = greenlet_new(child_entry, NULL);
        greenlet_switch(one, NULL);
        greenlet_unref(one); /* killed */
    }
}

int child_main(void);
__attribute__((noinline)) int child_main(void) {
    greenlet_current();
    /* What binds lazily does so before. */
    one = greenlet_new(child_entry, NULL);
    greenlet_switch(one, NULL);
    greenlet_unref(one);
    raise(SIGSTOP);
    child_work();
    raise(SIGSTOP);
    return 0;
}

/* ---- The parent --------------------------------------------------------- */

static unsigned long steps, looked, whole, early, bad;

static bool is(const char *name, const char *const names[]) {
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

static bool starts(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* The functions of a switch's way; the core's own are in it as they call
 * these, and their CFI is the compiler's. */
static bool interesting(const char *name) {
    return starts(name, "greenlet_arch_");
}

static void complain(const char *what, char names[][64], int n, unw_word_t ip,
                     unw_word_t offset) {
    if (++bad > 10)
        return;
    printf("# %s, at %s+%#lx (%#lx):\n", what, names[0], (long)offset,
           (long)ip);
    for (int i = 0; i < n; i++)
        printf("#   %s\n", names[i]);
}

static void look(unw_addr_space_t space, void *peek) {
    static const char *const ends[] = {"child_main", NULL};
    static char names[FRAMES_MOST][64];
    unw_cursor_t cursor;
    unw_word_t ip = 0, offset = 0, first_offset = 0;
    int n = 0, status = 1;
    bool entry = false, main_seen = false, started = false, at_start = false;

    if (unw_init_remote(&cursor, space, peek) < 0)
        return;
    for (;;) {
        if (unw_get_proc_name(&cursor, names[n], sizeof names[n], &offset) != 0)
            strcpy(names[n], "?");
        if (n == 0) {
            first_offset = offset;
            unw_get_reg(&cursor, UNW_REG_IP, &ip);
            if (!interesting(names[0]))
                return;
            looked++;
        }
        main_seen = main_seen || is(names[n], ends);
        entry = entry || strcmp(names[n], "child_entry") == 0;
        /* One that arch_after is about to start has not begun the trampoline:
         * libunwind for i386 names its first instruction after the function
         * before it, looking up the address less one. */
        unw_word_t here = 0;
        unw_get_reg(&cursor, UNW_REG_IP, &here);
        at_start = strcmp(names[n], "greenlet_arch_start") == 0 ||
                   here == (uintptr_t)greenlet_arch_start;
        started = started || at_start;
        n++;
        if (main_seen || n == FRAMES_MOST)
            break;
        status = unw_step(&cursor);
        if (status <= 0)
            break;
    }
    const char *last = names[n - 1];
    if (status < 0)
        complain("error", names, n, ip, first_offset);
    else if (n == FRAMES_MOST)
        complain("no end", names, n, ip, first_offset);
    else if (main_seen || started)
        whole++;
    else if (starts(last, "greenlet_arch_switch") ||
             strcmp(last, "greenlet_arch_leave") == 0)
        early++;
    else
        complain("a strange end", names, n, ip, first_offset);
    if (main_seen && (entry || started))
        complain("an entry above main", names, n, ip, first_offset);
    if (started && !at_start)
        complain("beyond the trampoline", names, n, ip, first_offset);
    if (strcmp(last, "?") == 0)
        complain("an unknown frame", names, n, ip, first_offset);
}

static int follow(pid_t child) {
    unw_addr_space_t space = unw_create_addr_space(&_UPT_accessors, 0);
    unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
    void *peek = _UPT_create(child);
    int status, stops = 0;
    waitpid(child, &status, 0); /* its first SIGSTOP */
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 ||
            waitpid(child, &status, 0) < 0)
            return -1;
        if (WIFEXITED(status) || WIFSIGNALED(status))
            break;
        if (WSTOPSIG(status) == SIGSTOP && ++stops)
            break;
        steps++;
        look(space, peek);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    _UPT_destroy(peek);
    unw_destroy_addr_space(space);
    return stops;
}

int main(void) {
    printf("TAP version 13\n1..4\n");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        _exit(child_main());
    }
    int stops = follow(child);
    printf("# %lu steps, %lu in the switches: %lu unwound to the end,"
           " %lu stopped early\n",
           steps, looked, whole, early);
    printf("%s 1 - the child came through\n", stops == 1 ? "ok" : "not ok");
    printf("%s 2 - every way ends cleanly and where it should\n",
           bad == 0 ? "ok" : "not ok");
    /* The fewest instructions that have to stop early: those between the
     * first byte that moves and the new stack pointer. */
    printf("%s 3 - most instructions unwind to the end\n",
           whole > early ? "ok" : "not ok");
    printf("%s 4 - the assembly was seen\n", looked > 200 ? "ok" : "not ok");
    return stops == 1 && bad == 0 && looked > 200 && whole > early ? 0 : 1;
}
