#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does the tool find the bugs of seeded.c? Prints TAP.

    seeded.py PROGRAM

GREENLET_TEST_TOOL is the tool, and GREENLET_TEST_WRAPPER the command that
runs the program under it, if one does."""

import os
import re
import shlex
import subprocess
import sys

# Of each tool: a bug, what the report says, and a place that it names.
BUGS = {
    "asan": [("overflow", r"AddressSanitizer: stack-buffer-overflow"),
             ("return", r"AddressSanitizer: stack-use-after-return"),
             ("leak", r"LeakSanitizer: detected memory leaks[\s\S]*1234 byte")],
    "lsan": [("leak", r"LeakSanitizer: detected memory leaks[\s\S]*1234 byte")],
    "tsan": [("race", r"ThreadSanitizer: data race[\s\S]*?#0 writes_shared")],
    "msan": [("uninitialised", r"MemorySanitizer: use-of-uninitialized-value")],
    "ubsan": [("undefined", r"runtime error: signed integer overflow")],
    "valgrind": [("uninitialised", r"depends on uninitialised value")],
    "helgrind": [("race", r"Possible data race[\s\S]*?at 0x\w+: writes_shared")],
}
# In no report: what a suspended greenlet holds is not lost.
NEVER = re.compile(r"4,?321 byte.*(lost|leak)|[Ll]eak of 4321")


def main(program):
    tool = os.environ.get("GREENLET_TEST_TOOL", "")
    wrapper = shlex.split(os.environ.get("GREENLET_TEST_WRAPPER", ""))
    print("TAP version 13")
    if tool not in BUGS:
        print(f"1..0 # SKIP no tool ({tool or 'GREENLET_TEST_TOOL not set'})")
        return 0
    lanes = ["0", "1", "2", "8"] if "copy" in os.path.basename(program) else [
        "8"]
    cases = [(bug, wanted, n) for bug, wanted in BUGS[tool] for n in lanes]
    cases += [("none", None, n) for n in lanes]
    print(f"1..{len(cases)}")
    failed = 0
    for number, (bug, wanted, n) in enumerate(cases, 1):
        name = f"{bug}, lanes {n}"
        if bug == "return" and "detect_stack_use_after_return=0" in (
                os.environ.get("ASAN_OPTIONS", "")):
            print(f"ok {number} - {name} # SKIP detect_stack_use_after_return"
                  " is off")
            continue
        done = subprocess.run([*wrapper, program, bug], text=True,
                              errors="replace", stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT,
                              env=dict(os.environ, GREENLET_LANES=n))
        if wanted:
            good = (re.search(wanted, done.stdout) and done.returncode != 0
                    and not NEVER.search(done.stdout))
        else:
            good = done.returncode == 0 and not done.stdout
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {name}")
        if not good:
            print(f"# exit status {done.returncode}, wanted: "
                  f"{wanted or 'no report'}")
            for line in done.stdout.splitlines()[:60]:
                print(f"# {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
