/* libgreenlet-debug: unwinds images of stacks with libunwind's remote
 * interface, which reads memory only through the accessors below. They answer
 * for the ranges of the walk and for loaded files, and for nothing else, so
 * that no stack, however corrupt, can crash or hang a walk.
 *
 * Nothing here calls back into libgreenlet or the program but the visitor.
 *
 * SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#ifdef __powerpc64__
#include <asm/ptrace.h>
#endif

#include <libunwind.h>
#ifdef GREENLET_VALGRIND
#include <valgrind/memcheck.h>
#endif

#include "interface.h"
#include "symbols.h"

enum { FRAMES_MOST = 1000000, EMPTY_MOST = 16 };

/* ---- Loaded files ----------------------------------------------------- */

struct segment {
    uintptr_t low, high;
    unsigned module;
    bool runs, reads;
};

/* Of .eh_frame_hdr, as far as it concerns us: a sorted table of 4-byte
 * offsets from its own address. */
struct fde_table {
    uint8_t version, eh_frame_encoding, count_encoding, table_encoding;
    int32_t eh_frame;
    uint32_t count;
    struct {
        int32_t ip, fde;
    } rows[];
};

enum { FDE_COUNT_ENCODING = 0x03, FDE_TABLE_ENCODING = 0x3b };

/* A row of .ARM.exidx, which 32-bit ARM has instead (EHABI32 6): where a
 * function begins, as a distance of 31 bits from this word. It ends where the
 * next row's begins. */
struct exidx_row {
    uint32_t start, unwinding;
};

struct module {
    char *name;
    bool is_program;
    uintptr_t bias;
    const struct fde_table *table; /* NULL: none that we can read */
    const struct exidx_row *index; /* on ARM; NULL: none                */
    uint32_t index_n;
};

/* Immutable once published. */
struct modules {
    unsigned long long adds, subs;
    unsigned n_segments, n_modules;
    unsigned segments_room, modules_room;
    struct segment *segments;
    struct module *modules;
    bool failed;
};

static _Atomic(struct modules *) current_modules;
static _Atomic int readers;
static pthread_mutex_t refresh_lock = PTHREAD_MUTEX_INITIALIZER;
static unw_addr_space_t space;

static void free_modules(struct modules *m) {
    for (unsigned i = 0; i < m->n_modules; i++)
        free(m->modules[i].name);
    free(m->modules);
    free(m->segments);
    free(m);
}

/* Room for one more element. */
static void *grown(void *array, unsigned n, unsigned *room, size_t size) {
    if (n < *room)
        return array;
    unsigned more = *room ? 2 * *room : 64;
    void *bigger = realloc(array, more * size);
    if (bigger)
        *room = more;
    return bigger;
}

static const char PROGRAM[] = "/proc/self/exe";

static char *module_name(const char *name) {
    char path[4096];
    if (*name)
        return strdup(name);
    ssize_t n = readlink(PROGRAM, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return strdup(path);
}

static int add_module(struct dl_phdr_info *info, size_t size, void *arg) {
    struct modules *m = arg;
    (void)size;
    struct module *modules =
        grown(m->modules, m->n_modules, &m->modules_room, sizeof *m->modules);
    if (!modules) {
        m->failed = true;
        return 1;
    }
    m->modules = modules;
    struct module *module = &modules[m->n_modules];
    *module = (struct module){.name = module_name(info->dlpi_name),
                              .is_program = !*info->dlpi_name && !m->n_modules,
                              .bias = info->dlpi_addr};
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_GNU_EH_FRAME) {
            const struct fde_table *t = (const struct fde_table *)low;
            if (t->version == 1 && t->count_encoding == FDE_COUNT_ENCODING &&
                t->table_encoding == FDE_TABLE_ENCODING)
                module->table = t;
        }
#ifdef __arm__
        if (p->p_type == PT_ARM_EXIDX) {
            module->index = (const struct exidx_row *)low;
            module->index_n = (uint32_t)(p->p_memsz / sizeof *module->index);
        }
#endif
        if (p->p_type != PT_LOAD)
            continue;
        struct segment *segments = grown(m->segments, m->n_segments,
                                         &m->segments_room, sizeof *segments);
        if (!segments) {
            m->failed = true;
            return 1;
        }
        m->segments = segments;
        segments[m->n_segments++] = (struct segment){
            low, low + p->p_memsz, m->n_modules, (p->p_flags & PF_X) != 0,
            (p->p_flags & PF_R) != 0};
    }
    m->n_modules++;
    return 0;
}

static int count_changes(struct dl_phdr_info *info, size_t size, void *arg) {
    struct modules *m = arg;
    if (size >=
        offsetof(struct dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs) {
        m->adds = info->dlpi_adds;
        m->subs = info->dlpi_subs;
    }
    return 1;
}

/* Sees libraries that were loaded or unloaded since. Without memory, what was
 * known goes on being used. */
static void refresh(void) {
    struct modules now = {0};
    dl_iterate_phdr(count_changes, &now);
    struct modules *old = atomic_load(&current_modules);
    if (old && old->adds == now.adds && old->subs == now.subs)
        return;
    pthread_mutex_lock(&refresh_lock);
    struct modules *m = calloc(1, sizeof *m);
    if (m) {
        dl_iterate_phdr(count_changes, m);
        dl_iterate_phdr(add_module, m);
        if (m->failed) {
            free_modules(m);
        } else {
            old = atomic_exchange(&current_modules, m);
            unw_flush_cache(space, 0, 0);
            /* A walk under way may look at the old list: then it stays. */
            if (old && atomic_load(&readers) == 0)
                free_modules(old);
        }
    }
    pthread_mutex_unlock(&refresh_lock);
}

/* What one walk needs at hand. */
struct view {
    struct debug_walk *w;
    const struct modules *m;
    const struct segment *last; /* that was asked for */
};

static const struct segment *segment_of(struct view *v, uintptr_t at) {
    if (v->last && at - v->last->low < v->last->high - v->last->low)
        return v->last;
    for (unsigned i = 0; v->m && i < v->m->n_segments; i++) {
        const struct segment *s = &v->m->segments[i];
        if (at - s->low < s->high - s->low)
            return v->last = s;
    }
    return NULL;
}

#ifdef __arm__

static uintptr_t exidx_start(const struct exidx_row *row) {
    return (uintptr_t)&row->start +
           (uintptr_t)(intptr_t)((int32_t)(row->start << 1) >> 1);
}

/* Is `ip` in a function that the index has, and which one? The index does not
 * mark signals' frames, and code addresses may say Thumb. */
static bool fde_of(struct view *v, uintptr_t ip, uintptr_t *start,
                   uintptr_t *end, bool *is_signal) {
    const struct segment *s = segment_of(v, ip);
    const struct module *m = s ? &v->m->modules[s->module] : NULL;
    *is_signal = false;
    if (!m || m->index_n == 0 || ip < exidx_start(m->index))
        return false;
    uint32_t low = 0, high = m->index_n; /* row `low` begins at ip or below */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (exidx_start(&m->index[middle]) <= ip)
            low = middle;
        else
            high = middle;
    }
    *start = exidx_start(&m->index[low]);
    *end = low + 1 < m->index_n ? exidx_start(&m->index[low + 1]) : s->high;
    return true;
}

#else

/* Does the CIE of a frame description mark signals' frames? Its augmentation
 * string then has an S (LSB 5.0, 10.6.1.1.1). */
static bool marks_signal(const char *fde, uint32_t cie_offset) {
    const char *cie = fde + 4 - cie_offset, *augmentation = cie + 9;
    return augmentation[0] == 'z' && strchr(augmentation, 'S') != NULL;
}

/* Is there a frame description that covers `ip`, and what does it cover? */
static bool fde_of(struct view *v, uintptr_t ip, uintptr_t *start,
                   uintptr_t *end, bool *is_signal) {
    const struct segment *s = segment_of(v, ip);
    const struct fde_table *t = s ? v->m->modules[s->module].table : NULL;
    if (!t || t->count == 0)
        return false;
    intptr_t wanted = (intptr_t)(ip - (uintptr_t)t);
    if (wanted < t->rows[0].ip)
        return false;
    uint32_t low = 0, high = t->count; /* rows[low].ip <= wanted */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (t->rows[middle].ip <= wanted)
            low = middle;
        else
            high = middle;
    }
    const char *fde = (const char *)t + t->rows[low].fde;
    /* Length, CIE pointer, then start and length of the code: nearly always
     * as 4-byte offsets. In other encodings the next row is the end. */
    struct {
        uint32_t length, cie;
        int32_t start;
        uint32_t bytes;
    } head;
    memcpy(&head, fde, sizeof head);
    if (head.length == UINT32_MAX)
        return false; /* 64-bit DWARF: nobody needs it here */
    *start = (uintptr_t)t + (uintptr_t)(intptr_t)t->rows[low].ip;
    bool plain = (uintptr_t)fde + 8 + (uintptr_t)(intptr_t)head.start == *start;
    if (plain)
        *end = *start + head.bytes;
    else
        *end = low + 1 < t->count
                   ? (uintptr_t)t + (uintptr_t)(intptr_t)t->rows[low + 1].ip
                   : ip + 1;
    *is_signal = ip < *end && marks_signal(fde, head.cie);
    return ip < *end;
}

#endif

/* ---- Accessors -------------------------------------------------------- */

static int find_proc_info(unw_addr_space_t as, unw_word_t ip,
                          unw_proc_info_t *info, int need, void *arg) {
    struct view *v = arg;
#if defined(__arm__)
    /* EXIDX tables: only libunwind itself knows how to find them. */
    unw_accessors_t *local = unw_get_accessors(unw_local_addr_space);
    (void)v;
    return local->find_proc_info(as, ip, info, need, arg);
#else
    const struct segment *s = segment_of(v, (uintptr_t)ip);
    const struct fde_table *t = s ? v->m->modules[s->module].table : NULL;
    if (!t)
        return -UNW_ENOINFO;
    unw_dyn_info_t di;
    memset(&di, 0, sizeof di);
    di.format = UNW_INFO_FORMAT_REMOTE_TABLE;
    di.start_ip = s->low;
    di.end_ip = s->high;
    di.u.rti.segbase = (unw_word_t)(uintptr_t)t;
    di.u.rti.table_data = (unw_word_t)(uintptr_t)t->rows;
    di.u.rti.table_len = t->count * 8ul / sizeof(unw_word_t);
    /* Exported, but in no header. */
    extern int UNW_OBJ(dwarf_search_unwind_table)(
        unw_addr_space_t, unw_word_t, unw_dyn_info_t *, unw_proc_info_t *, int,
        void *);
    return UNW_OBJ(dwarf_search_unwind_table)(as, ip, &di, info, need, arg);
#endif
}

static void put_unwind_info(unw_addr_space_t as, unw_proc_info_t *info,
                            void *arg) {
    (void)as, (void)info, (void)arg;
}

static int no_dyn_info(unw_addr_space_t as, unw_word_t *list, void *arg) {
    (void)as, (void)list, (void)arg;
    return -UNW_ENOINFO;
}

/* Whether anybody has written there or not, which memcheck would report. */
static void read_word(unw_word_t *value, const void *at) {
#ifdef GREENLET_VALGRIND
    VALGRIND_DISABLE_ERROR_REPORTING;
#endif
    memcpy(value, at, sizeof *value);
#ifdef GREENLET_VALGRIND
    VALGRIND_MAKE_MEM_DEFINED(value, sizeof *value);
    VALGRIND_ENABLE_ERROR_REPORTING;
#endif
}

static int access_mem(unw_addr_space_t as, unw_word_t address,
                      unw_word_t *value, int write, void *arg) {
    struct view *v = arg;
    uintptr_t at = (uintptr_t)address;
    (void)as;
    if (write || at + sizeof *value < at)
        return -UNW_EINVAL;
    for (int i = 0; i < DEBUG_RANGES; i++) {
        const struct debug_range *r = &v->w->ranges[i];
        if (at >= r->low && at < r->high) {
            size_t n = r->high - at;
            if (n >= sizeof *value) {
                read_word(value, r->bytes + (at - r->low));
                return 0;
            }
            return -UNW_EINVAL;
        }
    }
    const struct segment *s = segment_of(v, at);
    if (!s || !s->reads || s->high - at < sizeof *value)
        return -UNW_EINVAL;
    read_word(value, (const void *)at);
    return 0;
}

/* A register of a ucontext_t; false: not one that we know. */
static bool context_register(const void *context, unw_regnum_t r,
                             uintptr_t *value) {
    const mcontext_t *m = &((const ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
    static const int8_t where[] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI,
                                   REG_RDI, REG_RBP, REG_RSP, REG_R8,  REG_R9,
                                   REG_R10, REG_R11, REG_R12, REG_R13, REG_R14,
                                   REG_R15, REG_RIP};
    if (r < 0 || r >= (int)sizeof where)
        return false;
    *value = (uintptr_t)m->gregs[where[r]];
    return true;
#elif defined(__i386__)
    static const int8_t where[] = {REG_EAX, REG_EDX, REG_ECX, REG_EBX, REG_ESI,
                                   REG_EDI, REG_EBP, REG_ESP, REG_EIP};
    if (r < 0 || r >= (int)sizeof where)
        return false;
    *value = (uintptr_t)m->gregs[where[r]];
    return true;
#elif defined(__aarch64__)
    if (r >= UNW_AARCH64_X0 && r <= UNW_AARCH64_X30)
        *value = m->regs[r - UNW_AARCH64_X0];
    else if (r == UNW_AARCH64_SP)
        *value = m->sp;
    else if (r == UNW_AARCH64_PC)
        *value = m->pc;
    else
        return false;
    return true;
#elif defined(__arm__)
    if (r < UNW_ARM_R0 || r > UNW_ARM_R15)
        return false;
    *value = (&m->arm_r0)[r - UNW_ARM_R0];
    return true;
#elif defined(__powerpc64__)
    if (r >= UNW_PPC64_R0 && r <= UNW_PPC64_R31)
        *value = m->gp_regs[r - UNW_PPC64_R0];
    else if (r == UNW_PPC64_NIP)
        *value = m->gp_regs[PT_NIP];
    else if (r == UNW_PPC64_LR)
        *value = m->gp_regs[PT_LNK];
    else
        return false;
    return true;
#elif defined(__s390x__)
    if (r >= UNW_S390X_R0 && r <= UNW_S390X_R15)
        *value = m->gregs[r - UNW_S390X_R0];
    else if (r == UNW_S390X_IP)
        *value = m->psw.addr;
    else
        return false;
    return true;
#else
    (void)m, (void)r, (void)value;
    return false;
#endif
}

/* The frame pointer's number, where backends without assembly save it. */
#if defined(__x86_64__)
#define FRAME_POINTER UNW_X86_64_RBP
#define PROGRAM_COUNTER UNW_REG_IP
#elif defined(__i386__)
#define FRAME_POINTER UNW_X86_EBP
#define PROGRAM_COUNTER UNW_REG_IP
#elif defined(__aarch64__)
#define FRAME_POINTER UNW_AARCH64_X29
#define PROGRAM_COUNTER UNW_AARCH64_PC /* UNW_REG_IP is the link register */
#elif defined(__loongarch64)
#define FRAME_POINTER UNW_LOONGARCH64_R22
#define PROGRAM_COUNTER UNW_LOONGARCH64_PC
#elif defined(__powerpc64__)
#define FRAME_POINTER UNW_PPC64_R31
#define PROGRAM_COUNTER UNW_REG_IP
#elif defined(__s390x__)
#define FRAME_POINTER UNW_S390X_R11
#define PROGRAM_COUNTER UNW_REG_IP
#elif defined(__arm__)
/* The compilers' in Thumb code, as the return address says, and elsewhere. */
#define FRAME_POINTER (w->ip & 1 ? UNW_ARM_R7 : UNW_ARM_R11)
#define PROGRAM_COUNTER UNW_REG_IP
#else
#define FRAME_POINTER (-1)
#define PROGRAM_COUNTER UNW_REG_IP
#endif

static int access_reg(unw_addr_space_t as, unw_regnum_t r, unw_word_t *value,
                      int write, void *arg) {
    const struct debug_walk *w = ((struct view *)arg)->w;
    uintptr_t found;
    (void)as;
    if (write)
        return -UNW_EREADONLYREG;
    if (w->ip && r == PROGRAM_COUNTER)
        *value = w->ip;
    else if (w->context && context_register(w->context, r, &found))
        *value = found;
    else if (w->context)
        return -UNW_EBADREG;
    else if (r == UNW_REG_IP)
        *value = w->ip;
    else if (r == UNW_REG_SP)
        *value = w->sp;
    else if (r == FRAME_POINTER && w->fp)
        *value = w->fp;
    else
        return -UNW_EBADREG;
    return 0;
}

static int no_fpreg(unw_addr_space_t as, unw_regnum_t r, unw_fpreg_t *value,
                    int write, void *arg) {
    (void)as, (void)r, (void)value, (void)write, (void)arg;
    return -UNW_EBADREG;
}

static int no_resume(unw_addr_space_t as, unw_cursor_t *cursor, void *arg) {
    (void)as, (void)cursor, (void)arg;
    return -UNW_EINVAL;
}

static int no_proc_name(unw_addr_space_t as, unw_word_t ip, char *text,
                        size_t n, unw_word_t *offset, void *arg) {
    (void)as, (void)ip, (void)text, (void)n, (void)offset, (void)arg;
    return -UNW_ENOINFO;
}

/* ---- Verdicts --------------------------------------------------------- */

static void wrong(struct debug_walk *w, greenlet_finding_kind kind, int frame,
                  uintptr_t address, uintptr_t expected, uintptr_t found,
                  const char *what) {
    if (w->kind)
        return;
    w->kind = (int)kind;
    w->at = frame;
    w->address = address;
    w->expected = expected;
    w->found = found;
    w->what = what;
}

/* Could the instruction before `ip` be a call? */
static bool follows_call(struct view *v, uintptr_t ip) {
    const struct segment *s = segment_of(v, ip - 1);
    if (!s || !s->reads || ip - s->low < 8)
        return true; /* cannot be read: no verdict */
    const uint8_t *at = (const uint8_t *)ip;
#if defined(__x86_64__) || defined(__i386__)
    /* Intel SDM 2A: E8 rel32; FF /2 with a ModRM byte and what it needs. */
    if (at[-5] == 0xe8)
        return true;
    for (int length = 2; length <= 7; length++) {
        if (at[-length] != 0xff || (at[1 - length] >> 3 & 7) != 2)
            continue;
        int mod = at[1 - length] >> 6, rm = at[1 - length] & 7, needs = 2;
        bool sib = mod != 3 && rm == 4;
        needs += sib ? 1 : 0;
        if (mod == 1)
            needs += 1;
        else if (mod == 2 || (mod == 0 && rm == 5) ||
                 (mod == 0 && sib && (at[2 - length] & 7) == 5))
            needs += 4;
        if (needs == length)
            return true;
    }
    return false;
#elif defined(__aarch64__)
    /* Arm ARM C6.2: BL; BLR, also with pointer authentication. */
    uint32_t word;
    if (ip & 3)
        return false;
    memcpy(&word, at - 4, sizeof word);
    return word >> 26 == 0x25 || (word & 0xfefff800u) == 0xd63f0000u ||
           (word & 0xfffffc00u) == 0xd63f0800u;
#else
    (void)at;
    return true;
#endif
}

/* Does the function put a signed return address on its stack before `ip`?
 * libunwind before 1.8 takes DW_CFA_AARCH64_negate_ra_state for another
 * CPU's, and every register of the frame for saved elsewhere. */
static bool signs(struct view *v, uintptr_t start, uintptr_t ip) {
#if defined(__aarch64__) && UNW_VERSION_MAJOR == 1 && UNW_VERSION_MINOR < 8
    const struct segment *s = segment_of(v, start);
    uint32_t word;
    if (!s || !s->reads || s->high < ip)
        return false;
    for (; start + sizeof word <= ip; start += sizeof word) {
        memcpy(&word, (const void *)start, sizeof word);
        if (word == 0xd503233fu || word == 0xd503237fu) /* PACIASP, PACIBSP */
            return true;
    }
#else
    (void)v, (void)start, (void)ip;
#endif
    return false;
}

/* Code that no loaded file has: that of a just-in-time compiler, if the
 * kernel says that it can be executed. */
static bool runs_elsewhere(uintptr_t ip) {
    char text[4096];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    bool runs = false;
    size_t have = 0;
    ssize_t n;
    if (fd < 0)
        return true; /* no verdict */
    while (!runs && (n = read(fd, text + have, sizeof text - 1 - have)) > 0) {
        have += (size_t)n;
        text[have] = 0;
        char *line = text, *end;
        for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            char *p;
            unsigned long long low = strtoull(line, &p, 16), high = 0;
            if (*p == '-')
                high = strtoull(p + 1, &p, 16);
            if (ip >= low && ip < high && strlen(p) > 4)
                runs = p[3] == 'x';
        }
        have -= (size_t)(line - text);
        memmove(text, line, have);
        if (have >= sizeof text - 1)
            have = 0; /* no line is that long */
    }
    close(fd);
    return runs;
}

/* Is `ip`, which the frame `number` returns to, one to go on at? Sets
 * w->cut when that cannot be told. */
static bool plausible(struct view *v, int number, uintptr_t ip, uintptr_t slot,
                      bool exempt) {
    struct debug_walk *w = v->w;
    const struct segment *s = segment_of(v, ip);
    if (s && !s->runs) {
        wrong(w, GREENLET_FOUND_RETURN, number, slot, 0, ip,
              "a return address that is not in code");
    } else if (!s) {
        if (runs_elsewhere(ip))
            w->cut = true;
        else
            wrong(w, GREENLET_FOUND_RETURN, number, slot, 0, ip,
                  "a return address that is not in code");
        return false;
    } else if (!exempt && !follows_call(v, ip)) {
        wrong(w, GREENLET_FOUND_RETURN, number, slot, 0, ip,
              "a return address that does not follow a call");
    }
    return w->kind == 0;
}

static bool is_resume_point(const struct debug_walk *w, uintptr_t ip) {
    for (const intptr_t *p = w->first_resume_point; p < w->last_resume_point;
         p++)
        if ((uintptr_t)p + (uintptr_t)*p == ip)
            return true;
    return false;
}

/* ---- The walk --------------------------------------------------------- */

#ifdef __arm__

/* The index does not mark signals' frames: their code tells. */
static bool is_signal_frame(unw_cursor_t *cursor, bool marked) {
    (void)marked;
    return unw_is_signal_frame(cursor) > 0;
}

static uintptr_t code_address(unw_word_t ip) {
    return ip & ~(uintptr_t)1; /* which says Thumb */
}

#else

static bool is_signal_frame(unw_cursor_t *cursor, bool marked) {
    (void)cursor;
    return marked;
}

static uintptr_t code_address(unw_word_t ip) { return (uintptr_t)ip; }

#endif

/* Stripped files make names up from what they export: then better none. */
static const char *name_of(struct view *v, uintptr_t ip, char *text, size_t n,
                           size_t *offset) {
    const struct segment *s = segment_of(v, ip);
    const struct module *m = s ? &v->m->modules[s->module] : NULL;
    size_t distance;
    uintptr_t start, end;
    bool is_signal;
    /* The program's file may have another name now, or none. */
    if (!m || !symbol_at(m->is_program ? PROGRAM : m->name, ip - m->bias, text,
                         n, &distance))
        return NULL;
    /* (Entry trampolines have an instruction before their symbol.) */
    if (fde_of(v, ip, &start, &end, &is_signal) && ip - distance - start > 4)
        return NULL;
    *offset = distance;
    return text;
}

static bool visit(struct view *v, int number, bool is_signal, bool after_call,
                  uintptr_t ip, uintptr_t sp, uintptr_t end) {
    char text[256];
    if (number >= v->w->skip_from && number < v->w->skip_to)
        return false;
    greenlet_frame f = {sizeof f,
                        number,
                        is_signal,
                        (const void *)ip,
                        (const void *)sp,
                        (const void *)end,
                        NULL,
                        0,
                        NULL,
                        0};
    const struct segment *s = segment_of(v, ip);
    if (s) {
        f.module = v->m->modules[s->module].name;
        f.module_offset = ip - v->m->modules[s->module].bias;
        if (v->w->names) {
            f.function = name_of(v, ip - (after_call ? 1 : 0), text,
                                 sizeof text, &f.offset);
            f.offset += f.function && after_call ? 1 : 0;
        }
    }
    return v->w->visit(&f, v->w->data) != 0;
}

static void walk(struct debug_walk *w) {
    struct view v = {w, NULL, NULL};
    unw_cursor_t cursor;
    unw_word_t ip, sp, next;
    uintptr_t start, end, tramp_start = 0, tramp_end = 0;
    /* The innermost ip is where a switch goes on, or where a signal came. */
    bool exempt = !w->after_call, is_signal;

    if (w->fresh)
        refresh();
    atomic_fetch_add(&readers, 1);
    v.m = atomic_load(&current_modules);
    if (w->trampoline)
        (void)fde_of(&v, (uintptr_t)w->trampoline, &tramp_start, &tramp_end,
                     &is_signal);
#ifdef __aarch64__
    /* swapcontext() of a glibc with BTI goes on in itself, and then returns to
     * what it has put into x1. */
    if (w->context && w->after_call && !follows_call(&v, w->ip))
        w->ip = ((const ucontext_t *)w->context)->uc_mcontext.regs[1];
#endif
    if (unw_init_remote(&cursor, space, &v) != 0) {
        w->cut = true;
        goto out;
    }
    uintptr_t slot = w->sp; /* where the ip was found, or near it */
    int empty = 0;
    for (int number = 0;; number++) {
        unw_get_reg(&cursor, UNW_REG_IP, &ip);
        unw_get_reg(&cursor, UNW_REG_SP, &sp);
        /* Nor does a call lead to the kernel's frame of a signal. */
        is_signal = false;
        (void)fde_of(&v, code_address(ip), &start, &end, &is_signal);
        is_signal = is_signal_frame(&cursor, is_signal);
        exempt |= is_signal || is_resume_point(w, (uintptr_t)ip);
        if (!plausible(&v, number ? number - 1 : 0, (uintptr_t)ip, slot,
                       exempt)) {
            if (w->cut && w->visit)
                visit(&v, number, false, false, (uintptr_t)ip, (uintptr_t)sp,
                      0);
            w->frames += w->cut ? 1 : 0;
            break;
        }
        bool after_call = !exempt;
        uintptr_t lookup = code_address(ip) - (after_call ? 1 : 0);
        bool known = fde_of(&v, lookup, &start, &end, &is_signal) &&
                     !signs(&v, start, lookup);
        is_signal = is_signal_frame(&cursor, is_signal);
        bool at_end = known && w->trampoline && start == tramp_start;
        int moved = 0;
        next = 0;
        if (known && !at_end) {
            moved = unw_step(&cursor);
            if (moved > 0)
                unw_get_reg(&cursor, UNW_REG_SP, &next);
        }
        w->frames++;
        if (w->visit && visit(&v, number, is_signal, after_call, (uintptr_t)ip,
                              (uintptr_t)sp, (uintptr_t)next)) {
            w->stopped = true;
            break;
        }
        if (at_end) {
            w->complete = true;
            if (sp < w->end_low || sp > w->end_high)
                wrong(w, GREENLET_FOUND_END, number, (uintptr_t)sp, w->end_high,
                      (uintptr_t)sp,
                      "the outermost frame is not where it was built");
            break;
        }
        /* Code without unwinding tables has a row in ARM's index, too. */
        if (!known || moved == -UNW_ESTOPUNWIND || number + 1 == FRAMES_MOST) {
            w->cut = true;
            break;
        }
        if (moved == 0) {
            w->complete = !w->trampoline;
            if (w->trampoline)
                wrong(w, GREENLET_FOUND_END, number, (uintptr_t)sp,
                      (uintptr_t)w->trampoline, (uintptr_t)ip,
                      "the frames end before the greenlet's beginning");
            break;
        }
        if (moved < 0) {
            wrong(w, GREENLET_FOUND_FRAME, number, (uintptr_t)sp, 0,
                  (uintptr_t)ip,
                  "a frame that leads out of the stack or nowhere");
            break;
        }
        /* One that only passes control on is empty: arch_after's. */
        empty += next == sp;
        if (next < sp || empty > EMPTY_MOST || next > w->base) {
            wrong(w, GREENLET_FOUND_FRAME, number, (uintptr_t)sp, w->base,
                  (uintptr_t)next, "a frame that ends outside the stack");
            break;
        }
        slot = (uintptr_t)next - sizeof(void *);
        exempt = is_signal;
    }
out:
    atomic_fetch_sub(&readers, 1);
}

static const char *name(uintptr_t ip, char *text, size_t n, size_t *offset) {
    struct debug_walk w = {0};
    struct view v = {&w, NULL, NULL};
    atomic_fetch_add(&readers, 1);
    v.m = atomic_load(&current_modules);
    const char *found =
        segment_of(&v, ip) ? name_of(&v, ip, text, n, offset) : NULL;
    atomic_fetch_sub(&readers, 1);
    return found;
}

static void make_space(void) {
    static unw_accessors_t accessors;
    accessors.find_proc_info = find_proc_info;
    accessors.put_unwind_info = put_unwind_info;
    accessors.get_dyn_info_list_addr = no_dyn_info;
    accessors.access_mem = access_mem;
    accessors.access_reg = access_reg;
    accessors.access_fpreg = no_fpreg;
    accessors.resume = no_resume;
    accessors.get_proc_name = no_proc_name;
    space = unw_create_addr_space(&accessors, 0);
    if (space)
        unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
}

/* The cache of an address space has a lock, which another thread may hold
 * when the process forks: the child makes itself a new one. */
static void forking(enum debug_fork phase) {
    if (phase == DEBUG_FORK_PREPARE) {
        pthread_mutex_lock(&refresh_lock);
        return;
    }
    if (phase == DEBUG_FORK_CHILD) {
        atomic_store(&readers, 0);
        make_space();
    }
    pthread_mutex_unlock(&refresh_lock);
}

static const struct debug_library library = {DEBUG_VERSION, walk, name,
                                             forking};

__attribute__((visibility("default"))) const struct debug_library *
greenlet_debug_library(unsigned version) {
    if (version != DEBUG_VERSION)
        return NULL;
    pthread_mutex_lock(&refresh_lock);
    if (!space)
        make_space();
    pthread_mutex_unlock(&refresh_lock);
    if (!space)
        return NULL;
    refresh();
    return atomic_load(&current_modules) ? &library : NULL;
}
