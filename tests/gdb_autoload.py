#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds, installs into a temporary prefix, and lets gdb find greenlet-gdb.py
by itself when a program loads the library, in TAP. Also the installed
greenlet-core.

    gdb_autoload.py SOURCE            (MESON, NINJA, CC, GDB: the tools)
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def tool(variable, default):
    return shlex.split(os.environ.get(variable, default))


MESON, NINJA = tool("MESON", "meson"), tool("NINJA", "ninja")
CC, GDB = tool("CC", "cc"), tool("GDB", "gdb")
NAMES = ["installs", "the script is named after the library's real path",
         "gdb loads it by itself", "only if gdb looks there",
         "the installed greenlet-core"]


class Failed(Exception):
    pass


def run(command, **more):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=500,
                          errors="replace", **more)
    if done.returncode:
        raise Failed(f"{shlex.join(map(str, command))}: {done.returncode}\n"
                     + done.stdout)
    return done.stdout


def gdb(program, *options, commands=("greenlet list",)):
    words = ["-ex", "set width 0", "-ex", "break inspected_stop", "-ex", "run"]
    for command in commands:
        words += ["-ex", command]
    return run([*GDB, "-nx", "-batch", *options, *words, program],
               env=dict(os.environ, DEBUGINFOD_URLS=""))


def main(source):
    print(f"TAP version 13\n1..{len(NAMES)}", flush=True)
    if not shutil.which(GDB[0]):
        for number, name in enumerate(NAMES, 1):
            print(f"ok {number} - {name} # SKIP gdb is missing")
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        prefix, build, program = root / "usr", root / "build", root / "program"
        look = ["-iex", f"add-auto-load-scripts-directory {prefix}/share/gdb/"
                "auto-load", "-iex", f"add-auto-load-safe-path {prefix}"]

        def installs():
            run([*MESON, "setup", build, source, f"--prefix={prefix}",
                 "-Dtests=false", "-Dbenchmarks=disabled",
                 "-Dexamples=disabled"])
            run([*NINJA, "-C", build, "install"])
            library = next(prefix.rglob("libgreenlet.so"))
            run([*CC, "-g", Path(source, "tests/inspected.c"), "-o", program,
                 f"-I{prefix}/include", library,
                 f"-Wl,-rpath,{library.parent}", "-pthread"])

        def named():
            real = next(prefix.rglob("libgreenlet.so")).resolve()
            script = Path(f"{prefix}/share/gdb/auto-load{real}-gdb.py")
            if not script.is_file():
                raise Failed(f"no {script}:\n" + "\n".join(
                    map(str, prefix.rglob("*gdb.py"))))

        def loads():
            text = gdb(program, *look, commands=(
                "greenlet list", "greenlet bt deep",
                f"greenlet gcore {root}/core"))
            for wanted in ("descend (n=5)", "entry_deep", "Saved corefile"):
                if wanted not in text:
                    raise Failed(f"no {wanted} in\n{text}")

        def only():
            done = subprocess.run(
                [*GDB, "-nx", "-batch", "-ex", "break inspected_stop", "-ex",
                 "run", "-ex", "greenlet list", str(program)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if 'Undefined command: "greenlet"' not in done.stdout:
                raise Failed(done.stdout)

        def core():
            text = run([prefix / "bin" / "greenlet-core", "list",
                        root / "core"])
            for wanted in ("backend copy", "deep", "unborn"):
                if wanted not in text:
                    raise Failed(f"no {wanted} in\n{text}")

        steps = [installs, named, loads, only, core]
        for number, (name, step) in enumerate(zip(NAMES, steps), 1):
            try:
                step()
                print(f"ok {number} - {name}", flush=True)
            except (Failed, OSError, StopIteration,
                    subprocess.SubprocessError) as problem:
                failed += 1
                print(f"not ok {number} - {name}", flush=True)
                for line in str(problem).splitlines()[:60]:
                    print(f"# {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
