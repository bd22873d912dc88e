/* The fuzzer's programs from clang's libFuzzer.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!check_program(data, n, stderr))
        abort();
    return 0;
}
