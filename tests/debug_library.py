#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""libgreenlet-debug leaves the process alone, in TAP: it exports one symbol,
and while C++ exceptions are thrown at check level 2, nothing but itself is
bound to libunwind, which has _Unwind_* and backtrace() too. Without the
library, GREENLET_CHECK=2 says so and checks at level 1.

    debug_library.py LIBRARY CORE SUITE          (NM, READELF: the tools)
"""

import os
import re
import subprocess
import sys
from functools import partial

sys.dont_write_bytecode = True
from tap import need, run_cases  # noqa: E402

NM = os.environ.get("NM", "nm").split()
READELF = os.environ.get("READELF", "readelf").split()
BINDING = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: "
                     r"\w+ symbol `(\w+)'")
THROWS = "contract_35_exceptions_on_few_lanes"


def run(command, **env):
    return subprocess.run(command, capture_output=True, text=True,
                          errors="replace", timeout=300,
                          env={**os.environ, **env})


def exports(library):
    lines = run([*NM, "-D", "--defined-only", library]).stdout.splitlines()
    names = [line.split()[-1].split("@")[0] for line in lines
             if line.split()[-2] != "A"]
    return [] if names == ["greenlet_debug_library"] else [str(names)]


def core_needs_no_unwinder(core):
    text = run([*READELF, "-d", core]).stdout
    return [line for line in text.splitlines() if "unwind" in line]


def bindings(suite):
    done = run([suite, "--nofork", THROWS], LD_DEBUG="bindings",
               GREENLET_CHECK="2")
    if done.returncode:
        return [f"{suite} exited with {done.returncode}",
                *done.stdout.splitlines()[-5:]]
    found = BINDING.findall(done.stderr)
    problems = []
    if not any("libunwind" in to for _, to, _ in found):
        problems.append("libunwind was not loaded: nothing was tested")
    if not any(symbol.startswith("_Unwind_") for _, _, symbol in found):
        problems.append("no exception was thrown: nothing was tested")
    for who, to, symbol in found:
        ours = re.search(r"/lib(unwind|greenlet-debug)[-.\w]*$", who)
        if "libunwind" in os.path.basename(to) and not ours:
            problems.append(f"{who} uses {symbol} of {to}")
    return problems


def without_it(suite):
    done = run([suite, "--nofork", "contract_04"], GREENLET_CHECK="2",
               GREENLET_DEBUG_LIBRARY="/nonexistent/library.so")
    # A child process, which asks for the lanes, says it before the first test.
    said = done.stderr.partition("# contract_04")[2]
    lines = [line for line in said.splitlines()
             if line.startswith("greenlet: GREENLET_CHECK=2 needs")]
    if done.returncode or len(lines) != 1 or "level 1" not in lines[0]:
        return [f"exit status {done.returncode}", *done.stderr.splitlines()]
    return []


def main(library, core, suite):
    def none(find, *arguments):
        problems = find(*arguments)
        need(not problems, "\n".join(problems))

    return run_cases(
        [("exports one symbol", partial(none, exports, library)),
         ("libgreenlet does not need libunwind",
          partial(none, core_needs_no_unwinder, core)),
         ("nothing of the process is bound to libunwind",
          partial(none, bindings, suite)),
         ("its absence is told in one line", partial(none, without_it, suite))],
        # Binutils and the loader's log are the host's.
        skip="needs programs that run without an emulator"
        if "MESON_EXE_WRAPPER" in os.environ else "")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
