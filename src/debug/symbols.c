/* Names of functions, from the symbol tables of files: of ELF, gABI chapter
 * 4. The file is read with open() and pread() alone, a piece at a time: that
 * may be done in a handler of a signal, in whatever state the heap is, and a
 * file that is cut short meanwhile is no more than a name less.
 *
 * SPDX-License-Identifier: MIT */
#include "symbols.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { SECTIONS_AT_ONCE = 32, SYMBOLS_AT_ONCE = 128 };

#if UINTPTR_MAX > 0xffffffffu
#define SYMBOL_TYPE(info) ELF64_ST_TYPE(info)
#define ELF_CLASS ELFCLASS64
#else
#define SYMBOL_TYPE(info) ELF32_ST_TYPE(info)
#define ELF_CLASS ELFCLASS32
#endif

static bool read_at(int file, void *to, size_t n, uint64_t at) {
    char *p = to;
    while (n) {
        ssize_t got = pread(file, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

/* The table with all symbols, or if the file was stripped the one with those
 * that others may use; and its names'. */
static bool find_tables(int file, ElfW(Shdr) * symbols, ElfW(Shdr) * names) {
    ElfW(Ehdr) head;
    ElfW(Shdr) some[SECTIONS_AT_ONCE];
    bool found = false;
    if (!read_at(file, &head, sizeof head, 0) ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] != ELF_CLASS ||
        head.e_shentsize != sizeof(ElfW(Shdr)))
        return false;
    for (unsigned i = 0; i < head.e_shnum; i += SECTIONS_AT_ONCE) {
        unsigned n = head.e_shnum - i;
        n = n < SECTIONS_AT_ONCE ? n : SECTIONS_AT_ONCE;
        if (!read_at(file, some, n * sizeof *some,
                     head.e_shoff + i * sizeof *some))
            return false;
        for (unsigned k = 0; k < n; k++)
            if (some[k].sh_type == SHT_SYMTAB ||
                (some[k].sh_type == SHT_DYNSYM && !found)) {
                *symbols = some[k];
                found = true;
            }
    }
    return found && symbols->sh_link < head.e_shnum &&
           read_at(file, names, sizeof *names,
                   head.e_shoff + symbols->sh_link * sizeof *names);
}

/* The function that begins nearest below `at` and does not end before it. */
static bool find_symbol(int file, const ElfW(Shdr) * table, uintptr_t at,
                        ElfW(Sym) * best) {
    ElfW(Sym) some[SYMBOLS_AT_ONCE];
    bool found = false;
    uint64_t count = table->sh_size / sizeof *some;
    for (uint64_t i = 0; i < count; i += SYMBOLS_AT_ONCE) {
        uint64_t n = count - i < SYMBOLS_AT_ONCE ? count - i : SYMBOLS_AT_ONCE;
        if (!read_at(file, some, (size_t)n * sizeof *some,
                     table->sh_offset + i * sizeof *some))
            break;
        for (uint64_t k = 0; k < n; k++) {
            ElfW(Sym) *s = &some[k];
            int type = SYMBOL_TYPE(s->st_info);
            if ((type != STT_FUNC && type != STT_GNU_IFUNC) ||
                s->st_shndx == SHN_UNDEF)
                continue;
#ifdef __arm__ /* the lowest bit says Thumb */
            s->st_value &= ~(ElfW(Addr))1;
#endif
            if (s->st_value <= at &&
                (s->st_size == 0 || at - s->st_value < s->st_size) &&
                (!found || s->st_value > best->st_value)) {
                *best = *s;
                found = true;
            }
        }
    }
    return found;
}

bool symbol_at(const char *path, uintptr_t at, char *name, size_t n,
               size_t *offset) {
    ElfW(Shdr) table, names;
    ElfW(Sym) symbol;
    bool found = false;
    int saved = errno, file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0 && n && find_tables(file, &table, &names) &&
        find_symbol(file, &table, at, &symbol) &&
        symbol.st_name < names.sh_size) {
        uint64_t room = names.sh_size - symbol.st_name;
        size_t length = room < n - 1 ? (size_t)room : n - 1;
        if (read_at(file, name, length, names.sh_offset + symbol.st_name)) {
            name[length] = 0;
            *offset = at - (uintptr_t)symbol.st_value;
            found = *name != 0;
        }
    }
    if (file >= 0)
        close(file);
    errno = saved;
    return found;
}
