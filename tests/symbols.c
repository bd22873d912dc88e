/* Names of functions, as libgreenlet-debug finds them in files. Contract 28.
 * SPDX-License-Identifier: MIT */
#include "test.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../src/debug/symbols.h"

/* The suite's own file. */
static const char self[] = "/proc/self/exe";

void symbols_landmark(void);
__attribute__((noinline)) void symbols_landmark(void) { note('m'); }

static uintptr_t in_file(void (*function)(void)) {
    Dl_info info;
    struct link_map *map = NULL;
    uintptr_t at = (uintptr_t)function;
#ifdef __arm__ /* the lowest bit says Thumb */
    at &= ~(uintptr_t)1;
#endif
    CHECK(dladdr1((void *)at, &info, (void **)&map, RTLD_DL_LINKMAP) != 0);
    return at - map->l_addr;
}

TEST(contract_28_names_of_functions) {
    char name[64];
    size_t offset = 99;
    uintptr_t at = in_file(symbols_landmark);
    for (size_t i = 0; i < 4; i++) {
        CHECK(symbol_at(self, at + i, name, sizeof name, &offset));
        CHECK_EQ(strcmp(name, "symbols_landmark"), 0);
        CHECK_EQ(offset, i);
    }
    CHECK(symbol_at(self, at, name, 9, &offset)); /* cut to what there is */
    CHECK_EQ(strcmp(name, "symbols_"), 0);
    CHECK(!symbol_at(self, 0, name, sizeof name, &offset));
    CHECK(!symbol_at(self, at, name, 0, &offset));
    CHECK(!symbol_at("/nowhere", at, name, sizeof name, &offset));
    CHECK(!symbol_at("/dev/null", at, name, sizeof name, &offset));
    CHECK(!symbol_at("/", at, name, sizeof name, &offset));
}

/* Whatever is in the file, and wherever it ends: an answer, and the name ends
 * where it was said to. */
TEST(contract_28_names_of_functions_in_damaged_files) {
    char path[64];
    char name[16 + 1];
    size_t offset;
    int in = open(TEST_PLUGIN, O_RDONLY | O_CLOEXEC),
        out = memfd_create("damaged", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", out);
    CHECK(in >= 0 && out >= 0);
    size_t bytes = (size_t)lseek(in, 0, SEEK_END);
    unsigned char *good = malloc(bytes), *bad = malloc(bytes);
    CHECK(good && bad && pread(in, good, bytes, 0) == (ssize_t)bytes);
    uint64_t state = test_env("GREENLET_TEST_SEED", 77);
    unsigned found = 0, n = test_amount(4000, 100000);
    for (unsigned i = 0; i < n; i++) {
        memcpy(bad, good, bytes);
        for (uint64_t k = test_random(&state) % 4; k-- > 0;) {
            /* Mostly where the tables are: first and last. */
            size_t place = (size_t)test_random(&state);
            size_t range = place & 1 ? 64 : place & 2 ? bytes : 4096;
            place = (place >> 2) % (range < bytes ? range : bytes);
            if (test_random(&state) & 1)
                place = bytes - 1 - place;
            bad[place] ^= (unsigned char)(1u << test_random(&state) % 8);
        }
        size_t length = test_random(&state) % 4
                            ? bytes
                            : (size_t)(test_random(&state) % bytes);
        CHECK(ftruncate(out, 0) == 0);
        CHECK(pwrite(out, bad, length, 0) == (ssize_t)length);
        name[sizeof name - 1] = '!';
        if (symbol_at(path, (uintptr_t)(test_random(&state) % bytes), name,
                      sizeof name - 1, &offset)) {
            CHECK(strnlen(name, sizeof name - 1) < sizeof name - 1);
            found++;
        }
        CHECK(name[sizeof name - 1] == '!');
    }
    test_say("%u files, %u times a name", n, found);
    CHECK(found > 0 && found < n);
    close(in);
    close(out);
    free(good);
    free(bad);
}
