/* Checks of stacks: what is corrupted, at which level it is found, and what
 * the finding says. docs/debugging.md has the table. Contract 28.
 *
 * Here, and only here, the library's own records are written to.
 *
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "backend.h"
#include "backend_layout.h"
#include "crc32c.h"
#include "faults.h"
#include "greenlet_debug.h"

static greenlet *victim, *twin;

/* ---- Findings ---------------------------------------------------------- */

static greenlet_finding last;
static char last_function[128];
static int findings;
static bool keep_report;
static char report[16384]; /* of the last one, as a program without a hook
                            * prints it */

static void print_report(const greenlet_finding *f) {
    int ends[2];
    size_t n = 0;
    ssize_t got;
    CHECK_EQ(pipe(ends), 0); /* holds 64 KiB */
    greenlet_print_finding(f, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], report + n, sizeof report - 1 - n)) > 0)
        n += (size_t)got;
    close(ends[0]);
    report[n] = 0;
}

static void note_finding(const greenlet_finding *f, void *data) {
    (void)data;
    last = *f;
    snprintf(last_function, sizeof last_function, "%s",
             f->function ? f->function : "");
    findings++;
    if (keep_report)
        print_report(f);
}

#ifdef __ARM_FEATURE_PAC_DEFAULT
static int look_at_frame(const greenlet_frame *f, void *data) {
    (void)f, (void)data;
    return 0;
}

/* A library that cannot read signed return addresses has found none wrong. */
static void need_frames(void) {
    greenlet *g = spawn(entry_pump);
    go(g, 1);
    int frames = greenlet_debug_walk(g, look_at_frame, NULL);
    greenlet_unref(g);
    CHECK(frames >= 0);
    if (frames < 3)
        SKIP("this libunwind (before 1.8) cannot read signed return addresses");
}
#else
static void need_frames(void) {}
#endif

static void need_library(void) {
    if (greenlet_debug_load() != 0) {
        static char why[600];
        snprintf(why, sizeof why, "no libgreenlet-debug: %s",
                 greenlet_debug_why());
        SKIP(why);
    }
    need_frames();
}

/* ---- The suspended ------------------------------------------------------ */

enum { DEPTH = 12 };

static char *local_of[2]; /* an address within a frame, by who */
static greenlet *shallow; /* whom `descend` starts half way; in place */

intptr_t checks_descend(intptr_t n, intptr_t who);
greenlet_message checks_victim(void *value);

static greenlet_message (*at_bottom)(void);

/* Each frame has its bytes, and is not the last thing that its caller does. */
TEST_REAL_STACK __attribute__((noinline)) intptr_t
checks_descend(intptr_t n, intptr_t who) {
    volatile char bytes[64];
    memset((char *)bytes, (int)n, sizeof bytes);
    if (n == DEPTH / 2) {
        local_of[who] = (char *)bytes;
        if (shallow)
            go(shallow, 1);
    }
    if (n == 0)
        return at_bottom().status + bytes[0];
    return checks_descend(n - 1, who) + bytes[n];
}

/* Frames of other sizes. */
#define OTHER(name, size)                                                      \
    intptr_t name(intptr_t n);                                                 \
    TEST_REAL_STACK __attribute__((noinline)) intptr_t name(intptr_t n) {      \
        volatile char bytes[size];                                             \
        memset((char *)bytes, (int)n, sizeof bytes);                           \
        return go(greenlet_main(), 0).status + bytes[7];                       \
    }
OTHER(checks_other_1, 400)
OTHER(checks_other_2, 440)

static greenlet_message to_parent(void) { return back(0); }

greenlet_message checks_victim(void *value) {
    intptr_t who = I(value);
    return val(checks_descend(DEPTH, who) > 0 ? 1 : 0);
}

static greenlet_message entry_other(void *value) {
    intptr_t n = I(value);
    return val(n == 1 ? checks_other_1(n) : checks_other_2(n));
}

/* Run, so that the victim's bytes go to the heap if they ever do. */
static void displace(void) {
    for (int i = 0; i < 10; i++)
        go(spawn(entry_pump), i);
}

static void suspend(void) {
    at_bottom = to_parent;
    victim = spawn_named(checks_victim, "victim");
    twin = spawn_named(checks_victim, "twin");
    CHECK_EQ(go(victim, 0).status, 0);
    CHECK_EQ(go(twin, 1).status, 0);
}

/* Both in the heap: always in place (main is on top of them), on lanes after
 * others have run. Where each has its own stack: on it. */
static void suspend_away(void) {
    suspend();
    displace();
    if (test_is_copy()) {
        greenlet_stack s;
        CHECK_EQ(greenlet_get_stack(victim, &s), 0);
        CHECK_EQ(s.saved_bytes, (uintptr_t)s.base - (uintptr_t)s.sp);
    }
}

/* ---- Corrupting --------------------------------------------------------- */

/* Where the byte is now that `g` will see at `at`. */
static char *byte_of(const greenlet *g, uintptr_t at) {
    greenlet_stack s;
    const void *saved;
    backend_describe(g, &s, &saved);
    uintptr_t offset = at - (uintptr_t)s.sp;
    return offset < s.saved_bytes ? (char *)(uintptr_t)saved + offset
                                  : (char *)at;
}

static uintptr_t word_at(const greenlet *g, uintptr_t at) {
    uintptr_t word;
    memcpy(&word, byte_of(g, at), sizeof word);
    return word;
}

static void set_word(const greenlet *g, uintptr_t at, uintptr_t word) {
    memcpy(byte_of(g, at), &word, sizeof word);
}

static uintptr_t sp_of(const greenlet *g) {
    greenlet_stack s;
    const void *saved;
    backend_describe(g, &s, &saved);
    return (uintptr_t)s.sp;
}

static uintptr_t base_of(const greenlet *g) {
    greenlet_stack s;
    const void *saved;
    backend_describe(g, &s, &saved);
    return (uintptr_t)s.base;
}

/* The slot on the stack that the call out of the frame `number` has left its
 * return address in: x86's are just below the next frame. */
struct slot {
    int number, found;
    uintptr_t address, ip;
    const char *function;
    char name[128];
};

static int find_slot(const greenlet_frame *f, void *data) {
    struct slot *s = data;
    if (s->address && !s->ip) {
        s->ip = (uintptr_t)f->ip;
        return 1;
    }
    if (!s->address && f->function && strstr(f->function, s->function) &&
        s->found++ == s->number) {
        s->address = (uintptr_t)f->end - sizeof(uintptr_t);
        snprintf(s->name, sizeof s->name, "%s", f->function);
    }
    return 0;
}

static struct slot return_slot(greenlet *g, const char *function, int number) {
    struct slot s = {number, 0, 0, 0, function, ""};
    CHECK(greenlet_debug_walk(g, find_slot, &s) > 0);
    CHECK(s.address && s.ip);
    CHECK_EQ(word_at(g, s.address), s.ip);
    return s;
}

/* Rows of the table. They undo what they have done when called again. */
struct row {
    const char *name;
    void (*corrupt)(bool undo);
    /* What a check finds at each level: with a checksum (of level 1), and
     * without one; 0: nothing; -1: one of those that level 2 adds. */
    int at_0, at_1, unsealed_at_2;
};

static void flip(const greenlet *g, uintptr_t at) { *byte_of(g, at) ^= 0x10; }

static void bit_in_a_local(bool undo) {
    (void)undo;
    flip(victim, (uintptr_t)local_of[0] + 5);
}

static void bit_in_a_register(bool undo) {
    (void)undo;
    flip(victim, sp_of(victim) + 2 * sizeof(uintptr_t) + 1);
}

static uintptr_t kept[4];

static void change_return(bool undo, uintptr_t to, bool relative) {
    static struct slot s;
    if (undo) {
        set_word(victim, s.address, s.ip);
        return;
    }
    s = return_slot(victim, "checks_descend", 3);
    kept[0] = s.address;
    set_word(victim, s.address, relative ? s.ip + to : to);
}

static void return_to_nowhere(bool undo) { change_return(undo, 0x1234, 0); }

static void return_one_further(bool undo) { change_return(undo, 1, 1); }

/* The frame `number` of those of a function. */
struct one_frame {
    int number;
    const char *function;
    uintptr_t ip, bytes;
};

static int find_frame(const greenlet_frame *f, void *data) {
    struct one_frame *one = data;
    if (!f->function || !strstr(f->function, one->function) ||
        one->number-- > 0)
        return 0;
    one->ip = (uintptr_t)f->ip;
    one->bytes = (uintptr_t)f->end - (uintptr_t)f->sp;
    return 1;
}

static struct one_frame frame_of(greenlet *g, const char *function,
                                 int number) {
    struct one_frame one = {number, function, 0, 0};
    CHECK(greenlet_debug_walk(g, find_frame, &one) > 0);
    CHECK(one.ip && one.bytes);
    return one;
}

/* Where another function goes on after a call of its own. Not one whose frame
 * is as large as several of the victim's, which are all alike: from there it
 * would look like a stack that nobody has touched. */
static void return_elsewhere(bool undo) {
    static uintptr_t other;
    for (int i = 1; !other && i <= 2; i++) {
        greenlet *g = spawn_named(entry_other, "other");
        go(g, i);
        struct one_frame frame = frame_of(g, "checks_other", 0);
        if (frame.bytes % frame_of(victim, "checks_descend", 3).bytes)
            other = frame.ip;
    }
    CHECK(other != 0);
    change_return(undo, other, 0);
}

static void saved_ip(bool undo) {
    if (!undo) {
        kept[1] = word_at(victim, sp_of(victim));
        set_word(victim, sp_of(victim), kept[1] + 5);
    } else {
        set_word(victim, sp_of(victim), kept[1]);
    }
}

/* The stack pointer and where to go on, wherever the backend keeps them: as
 * debuggers are told. */
static uintptr_t *field(greenlet *g, int number) {
    static const struct layout_stack stack = BACKEND_LAYOUT_STACK;
    static const struct layout_register registers[] = BACKEND_LAYOUT_REGISTERS;
    if (stack.context == LAYOUT_NONE)
        return number == LAYOUT_SP ? (void *)((char *)g + stack.sp) : NULL;
    char *context;
    memcpy(&context, (char *)g + stack.context, sizeof context);
    for (const struct layout_register *r = registers; r->number != LAYOUT_END;
         r++)
        if (r->number == number)
            return (void *)(context + r->offset);
    return NULL;
}

static uintptr_t *sp_field(greenlet *g) { return field(g, LAYOUT_SP); }

static void move_sp(bool undo, intptr_t by) {
    uintptr_t *sp = sp_field(victim);
    *sp += (uintptr_t)(undo ? -by : by);
}

static void sp_8(bool undo) { move_sp(undo, 8); }
static void sp_64(bool undo) { move_sp(undo, 64); }
static void sp_less_256(bool undo) { move_sp(undo, -256); }

static void sp_to(bool undo, uintptr_t value) {
    uintptr_t *sp = sp_field(victim);
    if (!undo)
        kept[2] = *sp;
    *sp = undo ? kept[2] : value;
}

static void sp_wild(bool undo) { sp_to(undo, 0x123450); }
static void sp_near_base(bool undo) { sp_to(undo, base_of(victim) - 16); }

static void context_pc(bool undo) {
    uintptr_t *pc = field(victim, LAYOUT_PC);
    if (!undo)
        kept[2] = *pc;
    *pc = undo ? kept[2] : 0x1234;
}

static void context_wild(bool undo) {
    static const struct layout_stack stack = BACKEND_LAYOUT_STACK;
    uintptr_t *context = (void *)((char *)victim + stack.context);
    if (!undo)
        kept[2] = *context;
    *context = undo ? kept[2] : 0x123450;
}

static void over_the_top(bool undo) {
    (void)undo;
    flip(victim, base_of(victim) - sizeof(uintptr_t));
}

static const struct row rows[] = {
    {"one bit in a local", bit_in_a_local, 0, GREENLET_FOUND_CHECKSUM, 0},
    {"one bit in a saved register", bit_in_a_register, 0,
     GREENLET_FOUND_CHECKSUM, 0},
    {"a return address that is garbage", return_to_nowhere, 0,
     GREENLET_FOUND_CHECKSUM, GREENLET_FOUND_RETURN},
    {"a return address one too high", return_one_further, 0,
     GREENLET_FOUND_CHECKSUM, GREENLET_FOUND_RETURN},
    {"another function's return address", return_elsewhere, 0,
     GREENLET_FOUND_CHECKSUM, -1},
    {"an overflow at the top", over_the_top, GREENLET_FOUND_CANARY,
     GREENLET_FOUND_CANARY, GREENLET_FOUND_CANARY},
};

/* Where a register frame stands at sp. */
static const struct row frame_rows[] = {
    {"the resume address", saved_ip, GREENLET_FOUND_RESUME,
     GREENLET_FOUND_RESUME, GREENLET_FOUND_RESUME},
    {"sp + 8", sp_8, GREENLET_FOUND_SP, GREENLET_FOUND_SP, GREENLET_FOUND_SP},
    {"sp wild", sp_wild, GREENLET_FOUND_SP, GREENLET_FOUND_SP,
     GREENLET_FOUND_SP},
    {"sp = base - 16", sp_near_base, GREENLET_FOUND_SP, GREENLET_FOUND_SP,
     GREENLET_FOUND_SP},
};

/* Where a context of the C library says where to go on. */
static const struct row context_rows[] = {
    {"the context's program counter", context_pc, 0, GREENLET_FOUND_CHECKSUM,
     GREENLET_FOUND_RETURN},
    {"the context's sp, wild", sp_wild, GREENLET_FOUND_SP, GREENLET_FOUND_SP,
     GREENLET_FOUND_SP},
    {"the pointer to the context", context_wild, GREENLET_FOUND_HEADER,
     GREENLET_FOUND_HEADER, GREENLET_FOUND_HEADER},
};

/* Its level is the first that finds this kind; its report tells all that is in
 * it. */
static void check_report_is(const char *row) {
    int level = last.kind == GREENLET_FOUND_CHECKSUM ? 1
                : last.kind == GREENLET_FOUND_RETURN ||
                        last.kind == GREENLET_FOUND_FRAME ||
                        last.kind == GREENLET_FOUND_END
                    ? 2
                    : 0;
    char wanted[4][200];
    CHECK_EQ(last.level, level);
    snprintf(wanted[0], sizeof wanted[0], "greenlet: check: %s of 'victim' %p",
             greenlet_finding_name(last.kind), (void *)victim);
    snprintf(wanted[1], sizeof wanted[1], ": %s\n  at 0x%jx", last.what,
             (uintmax_t)(uintptr_t)last.address);
    snprintf(wanted[2], sizeof wanted[2], "found 0x%jx", (uintmax_t)last.found);
    snprintf(wanted[3], sizeof wanted[3],
             "\n  found by 'main' %p at level %d\n", (void *)greenlet_main(),
             level);
    for (int i = 0; i < 4; i++)
        if (!strstr(report, wanted[i]))
            FAIL("%s: no \"%s\" in: %s", row, wanted[i], report);
    snprintf(wanted[0], sizeof wanted[0], ", frame #%d (%s)", last.frame,
             last_function);
    if (*last_function && !strstr(report, wanted[0]))
        FAIL("%s: no \"%s\" in: %s", row, wanted[0], report);
}

static void check_is(const char *row, const char *when, int wanted, int n,
                     uintptr_t address) {
    if (wanted == 0) {
        if (n != 0)
            FAIL("%s, %s: found \"%s\"", row, when,
                 greenlet_finding_name(last.kind));
        return;
    }
    if (n != 1)
        FAIL("%s, %s: %d findings", row, when, n);
    bool right = wanted > 0 ? (int)last.kind == wanted
                            : last.kind == GREENLET_FOUND_RETURN ||
                                  last.kind == GREENLET_FOUND_FRAME ||
                                  last.kind == GREENLET_FOUND_END;
    if (!right)
        FAIL("%s, %s: found \"%s\"", row, when,
             greenlet_finding_name(last.kind));
    CHECK_PTR(last.g, victim);
    CHECK_PTR(last.by, greenlet_current());
    CHECK(last.what && *last.what);
    check_report_is(row);
    if (wanted == GREENLET_FOUND_RETURN && address) {
        CHECK_PTR(last.address, V(address));
        CHECK(last.frame > 0);
        CHECK(strstr(last_function, "checks_descend") != NULL);
        CHECK_EQ(word_at(victim, address), last.found);
        CHECK(strstr(report, "(checks_descend)") != NULL);
    } else if (last.kind != GREENLET_FOUND_HEADER) {
        CHECK(last.expected != last.found);
    }
}

/* Do the frames keep frame pointers? Then each begins where the one below it
 * says, whichever function a return address leads to: level 2 does not find
 * another one's. */
static bool has_frame_pointers(void) {
    const uintptr_t word = sizeof(uintptr_t);
    struct slot inner = return_slot(victim, "checks_descend", 3);
    struct slot outer = return_slot(victim, "checks_descend", 4);
    return word_at(victim, inner.address - word) == outer.address - word;
}

/* Every row once, with and without a checksum of the victim. `resuspend` runs
 * it, so that it is suspended anew at the current level. */
static void run_rows(const struct row *r, size_t n, void (*resuspend)(void)) {
    for (size_t i = 0; i < n; i++)
        for (int sealed = 0; sealed < 2; sealed++) {
            CHECK_EQ(greenlet_set_check_level(sealed ? 1 : 0), 0);
            resuspend();
            CHECK_EQ(greenlet_check(victim, 2), 0);
            findings = 0;
            kept[0] = 0;
            int unsealed_at_2 = r[i].unsealed_at_2;
            if (r[i].corrupt == return_elsewhere && has_frame_pointers())
                unsealed_at_2 = 0;
            r[i].corrupt(false);
            check_is(r[i].name, "level 0", r[i].at_0, greenlet_check(victim, 0),
                     0);
            check_is(r[i].name, sealed ? "level 1" : "level 1, no checksum",
                     sealed ? r[i].at_1 : r[i].at_0, greenlet_check(victim, 1),
                     0);
            check_is(r[i].name, sealed ? "level 2" : "level 2, no checksum",
                     sealed ? r[i].at_1 : unsealed_at_2,
                     greenlet_check(victim, 2), kept[0]);
            /* A switch at a level that finds it does not happen. */
            int level = r[i].at_0 ? 0 : sealed ? 1 : 2;
            int wanted = level == 0   ? r[i].at_0
                         : level == 1 ? r[i].at_1
                                      : unsealed_at_2;
            if (wanted) {
                struct greenlet_thread *t = core_self;
                int old = t->check;
                t->check = level; /* not by the call: it forgets checksums */
                CHECK_MSG(go(victim, 5), 0, -EFAULT);
                CHECK_EQ(greenlet_throw(victim, 5, NULL).status, -EFAULT);
                t->check = old;
            }
            r[i].corrupt(true);
            findings = 0;
            CHECK_EQ(greenlet_check(victim, 2), 0);
            CHECK_EQ(findings, 0);
        }
}

#define ROWS(array, resuspend)                                                 \
    run_rows(array, sizeof(array) / sizeof(*(array)), resuspend)

static void run_both(void (*resuspend)(void)) {
#if !defined(__x86_64__) && !defined(__i386__)
    SKIP("where return addresses are is known for x86 only");
#endif
    need_library();
    greenlet_set_finding_hook(note_finding, NULL);
    keep_report = true;
    ROWS(rows, resuspend);
    if (BACKEND_FRAME_BYTES)
        ROWS(frame_rows, resuspend);
    else
        ROWS(context_rows, resuspend);
}

TEST(contract_28_matrix_bytes_away) { run_both(suspend_away); }

static void suspend_resident(void) { suspend(); }

TEST(contract_28_matrix_bytes_where_they_were_left) {
    run_both(suspend_resident);
}

/* In place: half of the victim's bytes are above the base of who runs. */
static void (*rest)(void);
static void check_frames_of(greenlet *g);

static greenlet_message to_shallow(void) {
    return greenlet_switch(shallow, V(2));
}

static void partly(void) {
    greenlet_stack s;
    CHECK_EQ(greenlet_get_stack(victim, &s), 0);
    CHECK(s.saved_bytes > 0);
    CHECK(s.saved_bytes < (uintptr_t)s.base - (uintptr_t)s.sp);
}

static greenlet_message run_the_rest(void *value) {
    greenlet_switch(victim, value);
    rest();
    return greenlet_switch(greenlet_main(), NULL);
}

static struct {
    void (*corrupt)(bool undo);
    int kind;
} partly_rows[] = {
    {bit_in_a_local, GREENLET_FOUND_CHECKSUM},
    {bit_in_a_register, GREENLET_FOUND_CHECKSUM},
    {return_to_nowhere, GREENLET_FOUND_CHECKSUM},
    {over_the_top, GREENLET_FOUND_CANARY},
};

static void check_partly(void) {
    partly();
    CHECK_EQ(greenlet_check(victim, 2), 0);
    check_frames_of(victim);
    /* The local is in the part that is on the stack. */
    greenlet_stack s;
    CHECK_EQ(greenlet_get_stack(victim, &s), 0);
    CHECK((uintptr_t)local_of[0] >= (uintptr_t)s.sp + s.saved_bytes);
    for (size_t i = 0; i < sizeof partly_rows / sizeof *partly_rows; i++) {
        partly_rows[i].corrupt(false);
        CHECK_EQ(greenlet_check(victim, 1), 1);
        CHECK_EQ(last.kind, partly_rows[i].kind);
        CHECK_MSG(go(victim, 5), 0, -EFAULT);
        partly_rows[i].corrupt(true);
        CHECK_EQ(greenlet_check(victim, 2), 0);
    }
}

TEST(contract_28_matrix_bytes_partly_in_place) {
    if (!test_in_place())
        SKIP("only in place are bytes saved in part");
#if !defined(__x86_64__) && !defined(__i386__)
    SKIP("where return addresses are is known for x86 only");
#endif
    need_library();
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(1), 0);
    rest = check_partly;
    at_bottom = to_shallow;
    shallow = spawn_named(run_the_rest, "shallow");
    victim = spawn_named(checks_victim, "victim");
    go(victim, 0);
}

/* ---- Rows of copying alone ------------------------------------------------
 */

static void need_copy_frames(void) {
    if (!test_is_copy())
        SKIP("nothing is saved");
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(0), 0);
}

/* struct backend_greenlet of the copy backend, as far as it is written to:
 * this file is compiled for every backend. */
struct copy_view {
    void *sp;
    char *base;
    char *slice;
    greenlet *next;
    uint32_t saved;
};

static struct copy_view *copy_of(greenlet *g) {
    return (struct copy_view *)(void *)&g->b;
}

TEST(contract_28_matrix_slices_swapped) {
    need_copy_frames();
    suspend_away();
    struct copy_view *a = copy_of(victim), *b = copy_of(twin);
    CHECK_EQ(a->saved, b->saved);
    CHECK_EQ(greenlet_check_all(0), 0);
    char *slice = a->slice;
    a->slice = b->slice;
    b->slice = slice;
    CHECK_EQ(greenlet_check_all(0), 2);
    CHECK_EQ(last.kind, GREENLET_FOUND_CANARY);
    CHECK_MSG(go(victim, 1), 0, -EFAULT);
    b->slice = a->slice;
    a->slice = slice;
    CHECK_EQ(greenlet_check_all(0), 0);
}

TEST(contract_28_matrix_fewer_bytes_saved) {
    need_copy_frames();
    suspend_away();
    copy_of(victim)->saved -= 64;
    CHECK_EQ(greenlet_check(victim, 0), 1);
    CHECK_EQ(last.kind, GREENLET_FOUND_CANARY);
    copy_of(victim)->saved += 128;
    CHECK_EQ(greenlet_check(victim, 0), 1);
    CHECK(last.kind == GREENLET_FOUND_SAVED ||
          last.kind == GREENLET_FOUND_HEADER);
    copy_of(victim)->saved -= 64;
    CHECK_EQ(greenlet_check(victim, 0), 0);
}

TEST(contract_28_matrix_sp_moved_down) {
    if (BACKEND_FRAME_BYTES == 0)
        SKIP("sp is not in the record");
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    suspend_away();
    sp_less_256(false);
    CHECK_EQ(greenlet_check(victim, 0), 1);
    CHECK(last.kind == GREENLET_FOUND_CANARY ||
          last.kind == GREENLET_FOUND_RESUME);
    sp_less_256(true);
    CHECK_EQ(greenlet_check(victim, 0), 0);
}

TEST(contract_28_matrix_sp_moved_up) {
    if (BACKEND_FRAME_BYTES == 0)
        SKIP("sp is not in the record");
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    suspend();
    /* The word there is another one, whether or not its bytes are away. */
    sp_64(false);
    CHECK_EQ(greenlet_check(victim, 0), 1);
    CHECK(last.kind == GREENLET_FOUND_RESUME ||
          last.kind == GREENLET_FOUND_CANARY ||
          last.kind == GREENLET_FOUND_SAVED);
    sp_64(true);
    CHECK_EQ(greenlet_check(victim, 0), 0);
}

TEST(contract_28_matrix_record) {
    if (!test_is_copy())
        SKIP("of the copy backend's record");
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(0), 0);
    suspend_away();
    struct copy_view *v = copy_of(victim);
    char *slice = v->slice, *base = v->base;
    v->slice = (char *)(uintptr_t)0x5000;
    CHECK_MSG(go(victim, 1), 0, -EFAULT);
    CHECK_EQ(last.kind, GREENLET_FOUND_HEADER);
    v->slice = NULL;
    CHECK_EQ(greenlet_check(victim, 1), 1);
    CHECK_EQ(last.kind, GREENLET_FOUND_HEADER);
    v->slice = slice;
    v->base = base + 8192 + 8;
    CHECK_EQ(greenlet_check(victim, 0), 1);
    v->base = base;
    CHECK_MSG(greenlet_throw(victim, 1, NULL), 1, 0);
}

/* ---- What a program is told ------------------------------------------------
 */

static void die_of_a_scribble(void *unused) {
    (void)unused;
    need_library();
    CHECK_EQ(greenlet_set_check_level(2), 0);
    suspend_away();
    CHECK_EQ(greenlet_set_check_level(2), 0); /* its checksum is forgotten */
    return_to_nowhere(false);
    go(victim, 1);
}

TEST(contract_28_report_names_the_frame) {
#if !defined(__x86_64__) && !defined(__i386__)
    SKIP("where return addresses are is known for x86 only");
#endif
    need_library();
    EXPECT_ABORT(die_of_a_scribble, NULL, "check: return address of 'victim'",
                 "not in code", "(checks_descend)", "found 0x1234",
                 "found by 'main'", "at level 2", "checks_descend");
}

/* What was written there, as its writer may know it. */
static const char *said_of(uintptr_t word) {
    greenlet_finding f = last;
    f.kind = GREENLET_FOUND_RETURN;
    f.g = NULL;
    f.found = word;
    print_report(&f);
    return strstr(report, "found 0x");
}

TEST(contract_28_report_of_data) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#if UINTPTR_MAX > UINT32_MAX
    CHECK(strstr(said_of(0x206e616874207265), " (the text \"er than \")\n"));
    CHECK(strstr(said_of(0x0001117600011175), " (the ints 70005, 70006)\n"));
    CHECK(strstr(said_of(0xfffffffe00000001), " (the ints 1, -2)\n"));
#endif
    CHECK(strstr(said_of(0x6e616874), " (the text \"than\")\n"));
#endif
    CHECK(!strstr(said_of(0x1234), "("));
    /* An address, and no text: its lowest byte is 0. */
    CHECK(!strstr(said_of(((uintptr_t)report + 255) & ~(uintptr_t)255), "("));
}

static void die_of_a_canary(void *unused) {
    (void)unused;
    CHECK_EQ(greenlet_set_check_level(0), 0);
    suspend();
    over_the_top(false);
    go(victim, 1);
}

TEST(contract_28_report_of_a_canary) {
    EXPECT_ABORT(die_of_a_canary, NULL, "check: canary of 'victim'",
                 "word at the base of the stack was overwritten", "at level 0");
}

/* The library's first use in its process, which reads the environment. */
static void die_as_the_environment_says(void *level) {
    setenv("GREENLET_CHECK", level, 1);
    suspend();
    switch (*(const char *)level) {
    case '0':
        over_the_top(false);
        break;
    case '1':
        bit_in_a_local(false);
        break;
    default:
        core_self->epoch++; /* its checksum is forgotten */
        return_to_nowhere(false);
    }
    go(victim, 1);
}

TEST(contract_28_levels_by_the_environment) {
    EXPECT_ABORT(die_as_the_environment_says, "0", "canary of 'victim'",
                 "at level 0");
    EXPECT_ABORT(die_as_the_environment_says, "1", "checksum of 'victim'",
                 "at level 1");
#if defined(__x86_64__) || defined(__i386__)
    need_library();
    EXPECT_ABORT(die_as_the_environment_says, "2", "return address of 'victim'",
                 "at level 2");
#endif
}

/* Off again, nothing is looked at, and the fast path is open. */
TEST(contract_28_off_is_off) {
    for (int level = 0; level <= 1; level++) {
        CHECK_EQ(greenlet_set_check_level(level), 0);
        CHECK(core_self->slow & SLOW_CHECK);
        suspend();
        level == 0 ? over_the_top(false) : bit_in_a_local(false);
        CHECK_EQ(greenlet_set_check_level(-1), 0);
        CHECK_EQ(core_self->slow & SLOW_CHECK,
                 core_self->strict ? SLOW_CHECK : 0);
        CHECK_MSG(go(victim, 0), 1, 0);
    }
}

/* One that dies cannot be refused its heir: it is told, and goes on. */
static greenlet_message entry_scribbles_and_dies(void *value) {
    flip(victim, (uintptr_t)local_of[0]);
    return val(I(value));
}

TEST(contract_28_a_death_goes_on) {
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(1), 0);
    suspend();
    greenlet *g = spawn_under(entry_scribbles_and_dies, victim);
    findings = 0;
    CHECK_MSG(go(g, 1), 1, 0); /* the victim goes on, and returns */
    CHECK_EQ(findings, 1);
    CHECK_EQ(last.kind, GREENLET_FOUND_CHECKSUM);
}

/* ---- No false alarms
 * --------------------------------------------------------- */

static greenlet *switcher;

static int compare(const void *x, const void *y) {
    go(switcher, 1);
    return *(const int *)x - *(const int *)y;
}

static void on_signal(int sig) {
    (void)sig;
    go(switcher, 2);
}

#ifdef __arm__
static void on_signal_and_more(int sig, siginfo_t *info, void *context) {
    (void)info, (void)context;
    on_signal(sig);
}
#endif

static greenlet_message entry_sorts(void *value) {
    int numbers[50];
    uint64_t state = 1;
    for (int i = 0; i < 50; i++)
        numbers[i] = (int)(test_random(&state) % 1000);
    qsort(numbers, 50, sizeof *numbers, compare);
    for (int i = 1; i < 50; i++)
        CHECK(numbers[i - 1] <= numbers[i]);
    raise(SIGUSR2);
    return val(I(value));
}

static greenlet_message entry_checks(void *value) {
    greenlet_message m = val(I(value));
    while (m.status == 0) {
        CHECK_EQ(greenlet_check_all(2), 0);
        m = back(I(m.value));
    }
    return m;
}

TEST(contract_28_no_alarm_for_callbacks_and_signals) {
    need_library();
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_NODEFER;
#ifdef __arm__
    /* Linux marks a signal's frame that has no siginfo; qemu-user 7.2 does
     * not, and libunwind takes it for that of an older kernel. */
    if (test_is_emulated()) {
        action.sa_sigaction = on_signal_and_more;
        action.sa_flags |= SA_SIGINFO;
    }
#endif
    CHECK_EQ(sigaction(SIGUSR2, &action, NULL), 0);
    CHECK_EQ(greenlet_set_check_level(2), 0);
    switcher = NULL;
    greenlet *sorter = spawn_named(entry_sorts, "sorter");
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = sorter;
    switcher = greenlet_new(entry_checks, &o);
    CHECK_MSG(go(sorter, 3), 3, 0);
    CHECK_EQ(greenlet_get_state(switcher), GREENLET_ACTIVE);
}

/* ---- Backtraces
 * ---------------------------------------------------------------- */

static int count_frames(const greenlet_frame *f, void *data) {
    int *counts = data;
    counts[0]++;
    if (f->function && strstr(f->function, "checks_descend"))
        counts[1]++;
    if (f->function && strstr(f->function, "checks_victim"))
        counts[2]++;
    return 0;
}

static void check_frames_of(greenlet *g) {
    int counts[3] = {0, 0, 0};
    CHECK(greenlet_debug_walk(g, count_frames, counts) > DEPTH);
    CHECK_EQ(counts[1], DEPTH + 1);
    CHECK_EQ(counts[2], 1);
}

static greenlet_message entry_looks(void *value) {
    check_frames_of(victim);
    check_frames_of(twin);
    CHECK(greenlet_debug_walk(greenlet_main(), count_frames, (int[3]){0}) >= 2);
    return val(I(value));
}

TEST(contract_28_backtrace_from_everywhere) {
    need_library();
    suspend();
    check_frames_of(victim); /* in place, where there is such a thing */
    check_frames_of(twin);
    go(spawn(entry_looks), 1);
    displace();
    check_frames_of(victim); /* in the heap */
    go(spawn(entry_looks), 1);
    int counts[3] = {0, 0, 0};
    CHECK(greenlet_debug_walk(greenlet_current(), count_frames, counts) >= 2);
    CHECK_EQ(greenlet_debug_walk(NULL, count_frames, counts), -EINVAL);
    CHECK_EQ(greenlet_debug_walk(spawn(entry_echo), count_frames, counts), 0);
}

static int crash_counts[2][3];

static void crash_handler(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info;
    greenlet_debug_walk(victim, count_frames, crash_counts[0]);
    greenlet_debug_walk_context(context, count_frames, crash_counts[1]);
    greenlet_debug_dump(STDERR_FILENO, GREENLET_DUMP_PROCESS);
    _exit(crash_counts[0][1] == DEPTH + 1 && crash_counts[1][1] == 1 ? 42 : 43);
}

static volatile int *volatile nowhere;

TEST_FAULTS __attribute__((noinline)) static greenlet_message crash(void) {
    return val(*nowhere);
}

static greenlet_message entry_crashes(void *value) {
    at_bottom = crash;
    return val(checks_descend(0, I(value)));
}

static void crash_and_look(void *unused) {
    (void)unused;
    static char stack[1 << 17];
    stack_t alternate;
    struct sigaction action;
    memset(&alternate, 0, sizeof alternate);
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    CHECK_EQ(greenlet_debug_load(), 0);
    suspend_away();
    CHECK_EQ(sigaltstack(&alternate, NULL), 0);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = crash_handler;
    action.sa_flags = SA_ONSTACK | SA_SIGINFO;
    CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
    go(spawn_named(entry_crashes, "crasher"), 1);
}

TEST(contract_28_backtrace_from_a_crash_handler) {
    if (test_has_asan())
        SKIP("AddressSanitizer's handler takes the signal");
    if (test_tool("valgrind"))
        SKIP("memcheck reports the access that crashes");
    need_library();
    static struct test_death death;
    test_die(crash_and_look, NULL, &death);
    if (!WIFEXITED(death.status) || WEXITSTATUS(death.status) != 42)
        FAIL("wait status %#x: %s", death.status, death.text);
    CHECK(strstr(death.text, "'crasher'") && strstr(death.text, ", current"));
    CHECK(strstr(death.text, "'victim'") && strstr(death.text, "suspended"));
    CHECK(strstr(death.text, "checks_descend"));
}

/* ---- Dumps
 * ------------------------------------------------------------------- */

static struct test_gate gate;

static void *thread_with_a_greenlet(void *unused) {
    (void)unused;
    go(spawn_named(entry_pump, "elsewhere"), 1);
    gate_reach(&gate, 1);
    gate_wait(&gate, 2);
    return NULL;
}

static void dump_everything(void *unused) {
    (void)unused;
    suspend_away();
    pthread_t thread = test_thread(thread_with_a_greenlet, NULL);
    gate_wait(&gate, 1);
    CHECK(greenlet_debug_dump(STDOUT_FILENO, GREENLET_DUMP_PROCESS) >= 5);
    gate_reach(&gate, 2);
    test_join(thread);
    CHECK_EQ(greenlet_debug_dump(STDOUT_FILENO, 0x80), -EINVAL);
}

TEST(contract_28_dump_shows_all_threads) {
    static struct test_death death;
    need_library();
    test_die(dump_everything, NULL, &death);
    CHECK_EQ(death.status, 0);
    const char *const wanted[] = {
        "thread 1",      "thread 2",   "(this one)",
        "'victim'",      "'twin'",     "'elsewhere'",
        "parent 'main'", "bytes live", "checks_victim",
        "entry_pump",    NULL};
    for (int i = 0; wanted[i]; i++)
        if (!strstr(death.text, wanted[i]))
            FAIL("no \"%s\" in: %s", wanted[i], death.text);
    if (test_lanes() > 0)
        CHECK(strstr(death.text, ", lane ") != NULL);
}

/* ---- Strict
 * ---------------------------------------------------------------------- */

static volatile intptr_t *shared;
intptr_t checks_waits(intptr_t n);
intptr_t checks_culprit(intptr_t n);

__attribute__((noinline)) intptr_t checks_waits(intptr_t n) {
    volatile intptr_t numbers[16];
    numbers[7] = n;
    shared = &numbers[7];
    back(0);
    return numbers[7];
}

__attribute__((noinline)) intptr_t checks_culprit(intptr_t n) {
    *shared = n;
    return *shared + 1;
}

static greenlet_message entry_waits(void *value) {
    return val(checks_waits(I(value)));
}

static greenlet_message entry_does_it(void *value) {
    return val(checks_culprit(I(value)));
}

static void use_an_absent_stack(void *unused) {
    (void)unused;
    setenv("GREENLET_CHECK", "strict", 1);
    victim = spawn_named(entry_waits, "waiter");
    go(victim, 3);
    go(spawn_named(entry_does_it, "culprit"), 4);
}

TEST(contract_28_strict_names_both_sides) {
    if (test_has_asan())
        SKIP("AddressSanitizer's handler takes the signal");
    static struct test_death death;
    test_die(use_an_absent_stack, NULL, &death);
    if (!test_died_of(&death, SIGSEGV))
        FAIL("wait status %#x: %s", death.status, death.text);
    const char *const wanted[] = {
        "strict: 'culprit'", "the stack of suspended",     "'waiter'",
        "the access:",       "the owner is suspended in:", NULL};
    for (int i = 0; wanted[i]; i++)
        if (!strstr(death.text, wanted[i]))
            FAIL("no \"%s\" in: %s", wanted[i], death.text);
#ifdef __s390x__ /* its CPUs tell the page */
    CHECK(strstr(death.text, "this CPU does not say where") != NULL);
    need_library();
    CHECK(strstr(death.text, "there: frame #") != NULL);
    CHECK(strstr(death.text, " checks_waits+") != NULL);
#else
    need_library();
    CHECK(strstr(death.text, "(checks_waits), ") != NULL);
#endif
    CHECK(strstr(death.text, " checks_culprit+") != NULL);
}

/* The same, where the owner lives in another thread, which has made it or not;
 * and where it lives in this one, and the other has made it. */
enum strict_owner { MADE_THERE, MADE_HERE_FOR_THERE, MADE_THERE_FOR_HERE };
static struct test_gate strict_gate;
static greenlet *strict_main[2], *strict_given; /* here, there */

static greenlet *waiter_of(greenlet *parent) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    o.parent = parent;
    o.name = "waiter";
    greenlet *g = greenlet_new(entry_waits, &o);
    CHECK(g != NULL);
    return g;
}

static void *strict_there(void *how) {
    strict_main[1] = greenlet_current();
    if (I(how) == MADE_THERE)
        strict_given = waiter_of(NULL);
    else if (I(how) == MADE_THERE_FOR_HERE)
        strict_given = waiter_of(strict_main[0]);
    gate_reach(&strict_gate, 1);
    gate_wait(&strict_gate, 2);
    if (I(how) != MADE_THERE_FOR_HERE)
        go(strict_given, 3);
    gate_reach(&strict_gate, 3);
    for (;;)
        pause();
    return NULL;
}

static void use_another_threads_stack(void *how) {
    setenv("GREENLET_CHECK", "strict", 1);
    strict_main[0] = greenlet_current();
    test_thread(strict_there, how);
    gate_wait(&strict_gate, 1);
    if (I(how) == MADE_HERE_FOR_THERE)
        strict_given = waiter_of(strict_main[1]);
    gate_reach(&strict_gate, 2);
    gate_wait(&strict_gate, 3);
    if (I(how) == MADE_THERE_FOR_HERE)
        go(strict_given, 3);
    go(spawn_named(entry_does_it, "culprit"), 4);
}

TEST(contract_28_strict_names_owners_of_other_threads) {
    if (test_has_asan())
        SKIP("AddressSanitizer's handler takes the signal");
    for (intptr_t how = MADE_THERE; how <= MADE_THERE_FOR_HERE; how++)
        CHECK_DIES(use_another_threads_stack, V(how), SIGSEGV,
                   "strict: 'culprit'", "the stack of suspended 'waiter'");
}

static void note_accesses(void *unused) {
    (void)unused;
    setenv("GREENLET_CHECK", "strict", 1);
    greenlet_set_finding_hook(note_finding, NULL);
    victim = spawn_named(entry_waits, "waiter");
    go(victim, 3);
    greenlet *g = spawn_named(entry_does_it, "culprit");
    CHECK_MSG(go(g, 4), 5, 0);
    CHECK_EQ(findings, 1); /* open since, until the waiter has run again */
    CHECK_EQ(last.kind, GREENLET_FOUND_ACCESS);
    CHECK_PTR(last.g, victim);
    CHECK_PTR(last.by, g);
    uintptr_t at = (uintptr_t)shared;
#ifdef __s390x__ /* its CPUs tell the page */
    at &= ~(uintptr_t)4095;
#endif
    CHECK_PTR(last.address, V(at));
    CHECK_MSG(go(victim, 0), 4, 0);
    test_say("went on");
}

TEST(contract_28_strict_goes_on_after_a_hook) {
    if (test_has_asan())
        SKIP("AddressSanitizer's handler takes the signal");
    static struct test_death death;
    test_die(note_accesses, NULL, &death);
    if (death.status)
        FAIL("wait status %#x: %s", death.status, death.text);
    CHECK(strstr(death.text, "went on") != NULL);
}

/* A program without the bug: many lives, many switches, all kinds of deaths;
 * what the library itself reads of absent stacks is no access. */
static greenlet_message entry_works(void *value) {
    intptr_t n = I(value);
    volatile intptr_t local = n;
    while (local < n + 5) {
        greenlet_message m = back(local);
        if (m.status)
            return m;
        local++;
    }
    return val(local);
}

static void *leave_some(void *unused) {
    for (int i = 0; i < 20; i++)
        CHECK_MSG(go(spawn(entry_works), i), i, 0);
    return unused;
}

static void live_strictly(void *unused) {
    static greenlet *all[40];
    (void)unused;
    setenv("GREENLET_CHECK", "strict", 1);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 40; i++) {
            all[i] = spawn(entry_works);
            CHECK_MSG(go(all[i], i), i, 0);
        }
        for (int step = 0; step < 3; step++)
            for (int i = 0; i < 40; i++)
                CHECK_MSG(go(all[(i * 7) % 40], 0), (i * 7) % 40 + 1 + step, 0);
        CHECK_EQ(greenlet_check_all(1), 0);
        greenlet_stack s;
        intptr_t word;
        CHECK_EQ(greenlet_get_stack(all[3], &s), 0);
        CHECK_EQ(greenlet_read_stack(all[3], s.sp, &word, sizeof word), 0);
        for (int i = 0; i < 40; i++)
            greenlet_unref(all[i]);
    }
    test_join(test_thread(leave_some, NULL)); /* which ends them */
    test_say("lived");
}

TEST(contract_28_strict_leaves_the_innocent_alone) {
    static struct test_death death;
    test_die(live_strictly, NULL, &death);
    if (death.status)
        FAIL("wait status %#x: %s", death.status, death.text);
    CHECK(strstr(death.text, "lived") != NULL);
}

/* Requests of a switch to a closed one: to open it for a look, to close it
 * again, to open it. */
static void refuse_while_switching(void *request) {
    setenv("GREENLET_CHECK", "strict", 1);
    greenlet *g = spawn_named(entry_works, "closed");
    CHECK_MSG(go(g, 0), 0, 0);
    faults_arm((unsigned long)I(request), FAULTS_ONCE);
    CHECK_MSG(go(g, 0), 1, 0);
    CHECK_EQ(faults_disarm(), 1);
    CHECK_MSG(go(g, 0), 2, 0);
    test_say("went on");
}

TEST(contract_28_strict_when_the_kernel_refuses) {
    static struct test_death death;
    for (intptr_t open = 1; open <= 3; open += 2)
        CHECK_DIES(refuse_while_switching, V(open), SIGABRT,
                   "refuses to open a stack: greenlet 'closed'");
    test_die(refuse_while_switching, V(2), &death);
    if (death.status)
        FAIL("wait status %#x: %s", death.status, death.text);
    CHECK(strstr(death.text, "refuses to close more stacks") != NULL);
    CHECK(strstr(death.text, "went on") != NULL);
}

/* ---- Bad input
 * ------------------------------------------------------------------ */

/* Random bytes over the stack, the stack pointer and the record: a check, a
 * walk and a dump end, and do no harm. */
TEST(contract_28_checks_survive_anything) {
    if (test_has_asan())
        SKIP("AddressSanitizer reports what this does to stacks");
    if (test_tool("valgrind"))
        SKIP("memcheck reports what is read through damaged pointers");
    need_library();
    unsigned n = test_amount(4000, 100000);
    uint64_t state = test_env("GREENLET_TEST_SEED", 12345);
    static char record[sizeof(greenlet)], stack[65536], side[1024];
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(nothing >= 0);
    greenlet_set_finding_hook(note_finding, NULL);
    CHECK_EQ(greenlet_set_check_level(1), 0);
    CHECK(sizeof *victim->side <= sizeof side);
    suspend();
    displace();
    greenlet *const pick[] = {victim, twin, spawn_named(entry_pump, "small")};
    go(pick[2], 1);
    unsigned caught = 0;
    for (unsigned i = 0; i < n; i++) {
        greenlet *g = pick[test_random(&state) % 3];
        greenlet_stack s;
        const void *saved;
        backend_describe(g, &s, &saved);
        size_t bytes = (uintptr_t)s.base - (uintptr_t)s.sp;
        CHECK(bytes <= sizeof stack);
        char *where = byte_of(g, (uintptr_t)s.sp);
        bool split = s.saved_bytes && s.saved_bytes < bytes;
        CHECK(!split);
        memcpy(record, g, sizeof record);
        memcpy(stack, where, bytes);
        memcpy(side, g->side, sizeof *g->side);

        unsigned what = (unsigned)(test_random(&state) % 6);
        unsigned times = 1 + (unsigned)(test_random(&state) % 24);
        for (unsigned k = 0; k < times; k++) {
            uint64_t r = test_random(&state);
            if (what == 0) /* a word of the stack */
                memcpy(where + r % (bytes - 7), &(uint64_t){r ^ r >> 23}, 8);
            else if (what == 1) /* a pointer into the stack or code, changed */
                where[r % bytes] ^= (char)(1 << (r >> 40) % 8);
            else if (what == 2) /* a byte of the backend's record */
                ((char *)&g->b)[r % sizeof g->b] = (char)(r >> 32);
            else if (what == 3) /* a bit of the whole record */
                ((char *)g)[r % sizeof *g] ^= (char)(1 << (r >> 40) % 8);
            else if (what == 4) /* a small number for a pointer */
                memcpy((char *)&g->b + r % (sizeof g->b / sizeof(uintptr_t)) *
                                           sizeof(uintptr_t),
                       &(uintptr_t){8 * (r >> 32 & 511)}, sizeof(uintptr_t));
            else /* of the side record */
                ((char *)g->side)[r % sizeof *g->side] ^= (char)(r >> 32);
        }
        int answer = greenlet_check(g, 2);
        caught += answer != 0;
        if (i % 4 == 0)
            greenlet_check_all(2);
        if (i % 8 == 0) {
            CHECK_EQ(core_self->check, 1);
            core_self->epoch++; /* without the checksum: to the frames */
            greenlet_check(g, 2);
            core_self->epoch--;
        }
        if (i % 64 == 0) {
            greenlet_debug_backtrace(g, nothing);
            greenlet_debug_dump(nothing, 0);
            if (last.g == g)
                greenlet_print_finding(&last, nothing);
        }
        memcpy(g, record, sizeof record);
        memcpy(where, stack, bytes);
        memcpy(g->side, side, sizeof *g->side);
    }
    close(nothing);
    CHECK_EQ(greenlet_check_all(2), 0);
    CHECK_MSG(greenlet_throw(victim, 1, NULL), 1, 0);
    /* Not all that is changed matters; most does. */
    CHECK(caught > n / 2);
}

/* ---- The checksum itself
 * ---------------------------------------------------------- */

TEST(contract_28_checksum_is_crc32c) {
    static const char digits[] = "123456789";
    unsigned char zero[32] = {0};
    /* RFC 3720 B.4; theirs are inverted before and after. */
    CHECK_EQ(~crc32c(~0u, zero, 32), 0x8a9136aa);
    CHECK_EQ(~crc32c_by_table(~0u, zero, 32), 0x8a9136aa);
    CHECK_EQ(~crc32c(~0u, digits, 9), 0xe3069283);
    CHECK_EQ(~crc32c_by_table(~0u, digits, 9), 0xe3069283);
    uint64_t state = 7;
    static unsigned char bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)test_random(&state);
    for (size_t n = 0; n < sizeof bytes; n += 37)
        CHECK_EQ(crc32c(5, bytes + n % 8, n / 2),
                 crc32c_by_table(5, bytes + n % 8, n / 2));
}
