#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Why an adapter does not compile: the compiler's first words about it.

usage: probe.py PKG-CONFIG-NAME|- COMPILER... FILE
"""

import subprocess
import sys


def main() -> None:
    package, command = sys.argv[1], sys.argv[2:]
    flags: list[str] = []
    if package != "-":
        flags = subprocess.run(["pkg-config", "--cflags", package], text=True,
                               capture_output=True, check=False).stdout.split()
    done = subprocess.run([*command[:-1], *flags, "-fsyntax-only",
                           command[-1]], text=True, errors="replace",
                          capture_output=True, check=False)
    lines = done.stderr.splitlines()
    words = next((line for line in lines if "error:" in line),
                 lines[0] if lines else "it does not compile")
    print(words.split("error:")[-1].strip())


main()
