/* Unwinds greenlets with libunwind, from outside: suspended ones, wherever
 * their bytes are; and from inside: a running one, and in a tracer. Shows
 * that the call-frame information at the resume addresses finds every frame
 * and ends at the entry, for each CPU family that libunwind knows.
 *
 * A suspended greenlet is unwound as a process is: with accessors. They know
 * two registers, the stack pointer and the resume address at the top of the
 * image, and read the rest with greenlet_read_stack().
 *
 * SPDX-License-Identifier: MIT */
#include <libunwind.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greenlet.h"

enum { FRAMES = 64, MANY = 20 };

/* The trampoline, in front of the next function of every port. */
extern const char arch_start[] __asm__("greenlet_arch_start");
extern const char arch_after[] __asm__("greenlet_arch_after");

/* ---- What is unwound ------------------------------------------------------
 */

static uintptr_t code(uintptr_t address) {
#ifdef __arm__
    return address & ~(uintptr_t)1; /* which says Thumb */
#else
    return address;
#endif
}

/* Where the calls return to, deepest first. */
enum { THIRD, SECOND, FIRST, ENTRY, CALLS };
static uintptr_t returns[CALLS];

#define NOTE_RETURN(of)                                                        \
    (returns[of] = code((uintptr_t)__builtin_extract_return_addr(              \
         __builtin_return_address(0))))

static void (*act)(void);
static int sum;

static __attribute__((noinline)) void third(void) {
    NOTE_RETURN(THIRD);
    act();
    sum++;
}

/* Whose frame is found by a callee-saved register, where there is one. */
static __attribute__((noinline)) void second(size_t n) {
    volatile char *bytes = __builtin_alloca(n);
    NOTE_RETURN(SECOND);
    bytes[0] = bytes[n - 1] = 1;
    third();
    sum += bytes[0] - bytes[n - 1];
}

static __attribute__((noinline)) void first(void) {
    NOTE_RETURN(FIRST);
    second(100 + returns[FIRST] % 50);
    sum++;
}

static greenlet_message entry(void *value) {
    NOTE_RETURN(ENTRY);
    first();
    return (greenlet_message){value, 0};
}

static void waits(void) {
    greenlet_switch(greenlet_parent(greenlet_current()), NULL);
}

/* ---- What comes out -------------------------------------------------------
 */

static int failures, number;
static char why[200];

static bool broken(const char *format, long a, long b) {
    snprintf(why, sizeof why, format, a, b);
    return false;
}

static void result(bool good, const char *what) {
    printf("%s %d - %s\n", good ? "ok" : "not ok", ++number, what);
    if (!good) {
        printf("# %s\n", why);
        failures++;
    }
    fflush(stdout);
}

/* Follows a cursor to its end. `calls`: those above must all be found. */
static bool follow(unw_cursor_t *cursor, uintptr_t base, bool calls) {
    int call = calls ? THIRD : CALLS, frames = 0, status;
    unw_word_t ip = 0, sp = 0, last_sp = 0;
    do {
        if (unw_get_reg(cursor, UNW_REG_IP, &ip) != 0 ||
            unw_get_reg(cursor, UNW_REG_SP, &sp) != 0)
            return broken("frame %ld has no registers", frames, 0);
        ip = code((uintptr_t)ip);
        if (call < CALLS && ip == returns[call])
            call++;
        if (sp < last_sp || (base && sp > base))
            return broken("frame %ld: its stack pointer is %#lx", frames,
                          (long)sp);
        last_sp = sp;
        if (++frames == FRAMES)
            return broken("no end, at %#lx", (long)ip, 0);
    } while ((status = unw_step(cursor)) > 0);
    if (call < CALLS)
        return broken("call %ld is not among the %ld frames", call, frames);
    if (ip - (uintptr_t)arch_start >= (uintptr_t)(arch_after - arch_start))
        return broken("it ended at %#lx, not in the trampoline: %ld", (long)ip,
                      status);
    /* EXIDX has no other word for the end. */
    if (status < 0 && status != -UNW_ESTOPUNWIND)
        return broken("the end, in the trampoline, is error %ld", status, 0);
    return true;
}

/* ---- From outside ---------------------------------------------------------
 */

struct subject {
    greenlet *g;
    greenlet_stack stack;
    uintptr_t resume;
};

struct segment {
    uintptr_t address, bias;
    const ElfW(Phdr) * headers;
    int headers_n;
    uintptr_t low, high; /* of the segment found */
};

static int find_segment(struct dl_phdr_info *info, size_t size, void *arg) {
    struct segment *s = arg;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + header->p_vaddr;
        if (header->p_type != PT_LOAD || s->address - low >= header->p_memsz)
            continue;
        s->bias = info->dlpi_addr;
        s->headers = info->dlpi_phdr;
        s->headers_n = info->dlpi_phnum;
        s->low = low;
        s->high = low + header->p_memsz;
        return 1;
    }
    return 0;
}

static int access_mem(unw_addr_space_t space, unw_word_t address,
                      unw_word_t *word, int write, void *arg) {
    struct subject *s = arg;
    struct segment found = {.address = (uintptr_t)address};
    (void)space;
    if (write)
        return -UNW_EINVAL;
    uintptr_t at = (uintptr_t)address, value;
    if (greenlet_read_stack(s->g, (void *)at, &value, sizeof value) != 0) {
        if (!dl_iterate_phdr(find_segment, &found) ||
            found.high - at < sizeof value)
            return -UNW_EINVAL;
        memcpy(&value, (void *)at, sizeof value);
    }
    *word = value;
    return 0;
}

static int access_reg(unw_addr_space_t space, unw_regnum_t number_of,
                      unw_word_t *word, int write, void *arg) {
    struct subject *s = arg;
    (void)space;
    if (write)
        return -UNW_EREADONLYREG;
    if (number_of == UNW_REG_SP)
        *word = (uintptr_t)s->stack.sp;
    else if (number_of == UNW_REG_IP)
        *word = s->resume;
#ifdef __aarch64__ /* where that is the link register's */
    else if (number_of == UNW_AARCH64_PC)
        *word = s->resume;
#endif
    else
        return -UNW_EBADREG;
    return 0;
}

static int access_fpreg(unw_addr_space_t space, unw_regnum_t number_of,
                        unw_fpreg_t *value, int write, void *arg) {
    (void)space, (void)number_of, (void)value, (void)write, (void)arg;
    return -UNW_EBADREG;
}

static int dyn_info_list(unw_addr_space_t space, unw_word_t *list, void *arg) {
    (void)space, (void)list, (void)arg;
    return -UNW_ENOINFO;
}

#ifdef __arm__ /* the index of the exception tables: libunwind's own way */

static int find_proc_info(unw_addr_space_t space, unw_word_t ip,
                          unw_proc_info_t *info, int need, void *arg) {
    (void)space;
    return unw_get_accessors(unw_local_addr_space)
        ->find_proc_info(unw_local_addr_space, ip, info, need, arg);
}

#else

int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t space, unw_word_t ip,
                                       unw_dyn_info_t *table,
                                       unw_proc_info_t *info, int need,
                                       void *arg);

/* The sorted table in .eh_frame_hdr: LSB 5.0, 10.6.2. */
static int find_proc_info(unw_addr_space_t space, unw_word_t ip,
                          unw_proc_info_t *info, int need, void *arg) {
    struct segment found = {.address = (uintptr_t)ip};
    unw_dyn_info_t table = {.format = UNW_INFO_FORMAT_REMOTE_TABLE};
    if (!dl_iterate_phdr(find_segment, &found))
        return -UNW_ENOINFO;
    for (int i = 0; i < found.headers_n; i++) {
        if (found.headers[i].p_type != PT_GNU_EH_FRAME)
            continue;
        uintptr_t at = found.bias + found.headers[i].p_vaddr;
        const unsigned char *header = (const unsigned char *)at;
        uint32_t count;
        /* Version 1; the frame's address and the count take 4 bytes each, and
         * the table's words are 4-byte offsets from the header. */
        if (header[0] != 1 || (header[1] & 0x0f) != 0x0b ||
            (header[2] & 0x0f) != 0x03 || header[3] != 0x3b)
            return -UNW_ENOINFO;
        memcpy(&count, header + 8, sizeof count);
        table.start_ip = found.low;
        table.end_ip = found.high;
        table.u.rti.segbase = at;
        table.u.rti.table_data = at + 12;
        table.u.rti.table_len = count * 8 / sizeof(unw_word_t);
        return UNW_OBJ(dwarf_search_unwind_table)(space, ip, &table, info, need,
                                                  arg);
    }
    return -UNW_ENOINFO;
}

#endif

static void put_proc_info(unw_addr_space_t space, unw_proc_info_t *info,
                          void *arg) {
    (void)space, (void)arg;
    free(info->unwind_info);
    info->unwind_info = NULL;
}

static unw_addr_space_t space;

static bool unwind(greenlet *g) {
    struct subject s = {.g = g};
    unw_cursor_t cursor;
    if (greenlet_get_stack(g, &s.stack) != 0 ||
        greenlet_read_stack(g, s.stack.sp, &s.resume, sizeof s.resume) != 0)
        return broken("its stack cannot be read", 0, 0);
    int status = unw_init_remote(&cursor, space, &s);
    if (status != 0)
        return broken("unw_init_remote: %ld", status, 0);
    return follow(&cursor, (uintptr_t)s.stack.base, true);
}

/* ---- From inside ----------------------------------------------------------
 */

static bool inside_good;

static void look_inside(bool calls) {
    unw_context_t context;
    unw_cursor_t cursor;
    if (unw_getcontext(&context) != 0)
        abort();
    int status = unw_init_local(&cursor, &context);
    inside_good = status == 0 ? follow(&cursor, 0, calls)
                              : broken("unw_init_local: %ld", status, 0);
}

static void looks(void) { look_inside(true); }

static greenlet *traced;
static bool tracer_good[2];
static int seen;

static void tracer(greenlet_event event, greenlet *origin, greenlet *target,
                   void *data) {
    (void)event, (void)origin, (void)data;
    if (target != traced || seen == 2)
        return;
    look_inside(seen > 0);
    tracer_good[seen++] = inside_good;
}

/* ---- The cases ------------------------------------------------------------
 */

static greenlet *many[MANY];

static greenlet *made(void) {
    greenlet *g = greenlet_new(entry, NULL);
    if (!g)
        abort();
    return g;
}

#if defined(__ARM_FEATURE_PAC_DEFAULT) && UNW_VERSION_MAJOR == 1 &&            \
    UNW_VERSION_MINOR < 8
#define CANNOT "this libunwind (before 1.8) cannot read signed return addresses"
#endif

int main(void) {
    printf("TAP version 13\n");
#ifdef CANNOT
    printf("1..1\nok 1 - unwinding by libunwind # SKIP " CANNOT "\n");
    return 0;
#endif
    static unw_accessors_t accessors = {
        .find_proc_info = find_proc_info,
        .put_unwind_info = put_proc_info,
        .get_dyn_info_list_addr = dyn_info_list,
        .access_mem = access_mem,
        .access_reg = access_reg,
        .access_fpreg = access_fpreg,
    };
    space = unw_create_addr_space(&accessors, 0);
    if (!space)
        abort();
    unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
    printf("1..6\n");

    act = waits;
    bool good = true, away = false;
    size_t in_heap = 0;
    many[0] = made();
    greenlet_switch(many[0], NULL);
    result(unwind(many[0]), "a suspended one");

    for (int i = 1; i < MANY; i++)
        greenlet_switch(many[i] = made(), NULL);
    for (int i = 0; i < MANY; i++) {
        greenlet_stack stack;
        greenlet_get_stack(many[i], &stack);
        in_heap += stack.saved_bytes > 0;
        good = good && unwind(many[i]);
    }
    printf("# %zu of %d have bytes in the heap\n", in_heap, MANY);
    result(good, "many, wherever their bytes are");
    away = strcmp(greenlet_backend(), "copy") != 0 || in_heap >= MANY / 2;
    if (!away)
        broken("only %ld of %ld have bytes in the heap", (long)in_heap, MANY);
    result(away, "most of them have bytes in the heap, if this copies");
    for (int i = 0; i < MANY; i++) {
        greenlet_switch(many[i], NULL);
        greenlet_unref(many[i]);
    }

    act = looks;
    greenlet *g = made();
    greenlet_switch(g, NULL);
    greenlet_unref(g);
    result(inside_good, "a running one");

    act = waits;
    traced = made();
    greenlet_set_tracer(tracer, NULL, NULL, NULL);
    greenlet_switch(traced, NULL);
    greenlet_switch(traced, NULL);
    greenlet_set_tracer(NULL, NULL, NULL, NULL);
    result(seen == 2 && tracer_good[0], "in a tracer, at the start");
    result(seen == 2 && tracer_good[1], "in a tracer, later");
    greenlet_unref(traced);
    unw_destroy_addr_space(space);
    return failures ? 1 : 0;
}
