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

sys.dont_write_bytecode = True
from tap import Failed, need, run_cases  # noqa: E402


def tool(variable, default):
    return shlex.split(os.environ.get(variable, default))


MESON, NINJA = tool("MESON", "meson"), tool("NINJA", "ninja")
CC, GDB = tool("CC", "cc"), tool("GDB", "gdb")


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
            need(script.is_file(), f"no {script}:\n" + "\n".join(
                map(str, prefix.rglob("*gdb.py"))))

        def loads():
            text = gdb(program, *look, commands=(
                "greenlet list", "greenlet bt deep",
                f"greenlet gcore {root}/core"))
            for wanted in ("descend (n=5)", "entry_deep", "Saved corefile"):
                need(wanted in text, f"no {wanted} in\n{text}")

        def only():
            done = subprocess.run(
                [*GDB, "-nx", "-batch", "-ex", "break inspected_stop", "-ex",
                 "run", "-ex", "greenlet list", str(program)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            need('Undefined command: "greenlet"' in done.stdout, done.stdout)

        def core():
            text = run([prefix / "bin" / "greenlet-core", "list",
                        root / "core"])
            for wanted in ("backend copy", "deep", "unborn"):
                need(wanted in text, f"no {wanted} in\n{text}")

        return run_cases(
            [("installs", installs),
             ("the script is named after the library's real path", named),
             ("gdb loads it by itself", loads),
             ("only if gdb looks there", only),
             ("the installed greenlet-core", core)],
            skip="" if shutil.which(GDB[0]) else "gdb is missing")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
