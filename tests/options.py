#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Choosing the backend, in TAP: what `meson setup` says and does.

    options.py SOURCE                                     (MESON, CC: the tools)
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MESON = shlex.split(os.environ.get("MESON", "meson"))
CC = shlex.split(os.environ.get("CC", "cc"))
QUIET = ["-Dtests=false", "-Dbenchmarks=disabled", "-Dexamples=disabled"]
# A CPU that has no folder in arch/; the compiler is the machine's own, so
# that probes work.
CROSS = """[binaries]
c = {compiler}
ar = 'ar'
strip = 'strip'
[host_machine]
system = 'linux'
cpu_family = 'alpha'
cpu = 'ev67'
endian = 'little'
[properties]
skip_sanity_check = true
"""


def setup(source, *options):
    """Returns whether it succeeded, and all that it said."""
    with tempfile.TemporaryDirectory() as build:
        env = {k: v for k, v in os.environ.items() if k not in ("CC", "CFLAGS")}
        env["CC"] = shlex.join(CC)
        done = subprocess.run([*MESON, "setup", build, source, *QUIET,
                               *options], stdout=subprocess.PIPE, env=env,
                              stderr=subprocess.STDOUT, text=True, timeout=300)
        return done.returncode == 0, done.stdout


def main(source):
    with tempfile.TemporaryDirectory() as temporary:
        cross = Path(temporary, "cross.ini")
        cross.write_text(CROSS.format(compiler=CC))
        foreign = ["--cross-file", str(cross)]
        have_arch = Path(source, "arch", os.uname().machine).is_dir()
        native = "copy" if have_arch else "ucontext"
        # name, options, succeeds, what it must say
        cases = [
            ("auto takes the first that works", [], True,
             ["usable backends", native]),
            ("each usable one can be chosen",
             ["-Dstack_backend=sigaltstack"], True, ["sigaltstack"]),
            ("a bad value is refused, with the choices",
             ["-Dstack_backend=fast"], False, ["fast", "ucontext"]),
            ("an unusable one stops with the list of usable ones",
             [*foreign, "-Dstack_backend=copy"], False,
             ["stack_backend=copy cannot be used",
              "there is no arch/alpha folder",
              "usable here: ucontext, sigaltstack"]),
            ("so does private", [*foreign, "-Dstack_backend=private"], False,
             ["stack_backend=private cannot be used",
              "usable here: ucontext, sigaltstack"]),
            ("auto falls back, and says so", foreign, True,
             ["there is no arch/alpha folder",
              "falling back to the ucontext backend"]),
            ("side by side: only the usable ones",
             [*foreign, "-Dvariants=true"], True, ["ucontext, sigaltstack"]),
        ]
        print(f"TAP version 13\n1..{len(cases)}", flush=True)
        failed = 0
        for number, (name, options, wanted, texts) in enumerate(cases, 1):
            good, said = setup(source, *options)
            joined = " ".join(said.split())
            missing = [t for t in texts if t not in joined]
            if good == wanted and not missing:
                print(f"ok {number} - {name}", flush=True)
                continue
            failed += 1
            print(f"not ok {number} - {name}")
            print(f"# setup {'succeeded' if good else 'failed'}; not said:"
                  f" {missing}")
            for line in said.splitlines()[-30:]:
                print(f"# {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if not shutil.which(MESON[0]):
        print("TAP version 13\n1..0 # SKIP meson is missing")
        sys.exit(0)
    sys.exit(main(sys.argv[1]))
