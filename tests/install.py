#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs into a temporary prefix and uses what is there, in TAP: the example
hello.c through pkg-config, as C and C++, shared and static; and the tools for
debugging, as far as they are built (--debug: libgreenlet-debug is).

    install.py BUILD SOURCE [--debug]    (MESON, CC, CXX, PKG_CONFIG: the tools)
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


MESON, PKG_CONFIG = tool("MESON", "meson"), tool("PKG_CONFIG", "pkg-config")
CC, CXX = tool("CC", "cc"), tool("CXX", "c++")
FIRST = ["0", "1", "1", "2", "3", "5", "8", "13", "21", "34", "asked to end"]
HEADERS = {"greenlet.h", "greenlet_debug.h", "greenlet_inline.h",
           "greenlet_inline_abi.h"}
CPP = """#include <greenlet.h>
static greenlet_message twice(void *value) {
    greenlet_message m = {static_cast<char *>(value) + 1, 0};
    return m;
}
int main() {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    greenlet *g = greenlet_new(twice, &o);
    char text[2] = "";
    bool good = greenlet_switch(g, text).value == text + 1;
    greenlet_unref(g);
    return good ? 0 : 1;
}
"""


class Failed(Exception):
    pass


def run(command, **more):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True,
                              text=True, timeout=300, **more)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise Failed(f"{shlex.join(map(str, command))}: {done.returncode}\n"
                     + done.stdout + done.stderr)
    return done.stdout


def install(build, root):
    """`meson install` without building; returns where the .pc file is."""
    run([*MESON, "install", "--no-rebuild", "-C", build, "--destdir", root])
    found = list(root.rglob("greenlet.pc"))
    if len(found) != 1:
        raise Failed(f"greenlet.pc: {found}")
    return found[0].parent


def pkg_config(pc, root, *options):
    # Prefix variables of the .pc file are those of the final place.
    env = dict(os.environ, PKG_CONFIG_PATH=str(pc), PKG_CONFIG_LIBDIR=str(pc),
               PKG_CONFIG_SYSROOT_DIR=str(root),
               PKG_CONFIG_ALLOW_SYSTEM_CFLAGS="1",
               PKG_CONFIG_ALLOW_SYSTEM_LIBS="1")
    return shlex.split(run([*PKG_CONFIG, *options, "greenlet"], env=env))


def files(pc, root, debug):
    names = {p.name for p in root.rglob("*") if not p.is_dir()}
    wanted = {"greenlet.h", "greenlet.pc", "libgreenlet.a", "libgreenlet.so",
              "libgreenlet.so.0", "greenlet-core", "greenlet-trace",
              "greenlet-gdb.py"}
    if debug:
        wanted.add("libgreenlet-debug.so.0")
    if wanted - names:
        raise Failed(f"not installed: {sorted(wanted - names)}")
    headers = {n for n in names if n.endswith(".h")}
    if headers != HEADERS:
        raise Failed(f"headers installed: {sorted(headers)}")


def build_and_run(pc, root, source, compiler, static, out):
    flags = pkg_config(pc, root, "--cflags", "--libs",
                       *(["--static"] if static else []))
    run([*compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, "-o",
         out, *(["-static"] if static else []), *flags])
    env = dict(os.environ, LD_LIBRARY_PATH=str(pc.parent))
    needs = run(["readelf", "-d", out])
    if static == ("libgreenlet.so.0" in needs):
        raise Failed(needs)
    return run([out], env=env).split("\n")


# What the dump of libgreenlet-debug says of a suspended greenlet.
DUMP = """#include <greenlet.h>
#include <greenlet_debug.h>
greenlet_message waits(void *value);
greenlet_message waits(void *value) {
    greenlet_message m = greenlet_switch(greenlet_main(), value);
    return m.status ? m : (greenlet_message){value, 0};
}
int main(void) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    greenlet *g = greenlet_new(waits, &o);
    greenlet_set_name(g, "sleeper");
    greenlet_switch(g, NULL);
    greenlet_debug_dump(1, 0);
    greenlet_unref(g);
    return 0;
}
"""


def check_tools(pc, root, debug):
    """They find their own files, and libgreenlet its libgreenlet-debug."""
    (root / "dump.c").write_text(DUMP)
    out = root / "dump"
    run([*CC, root / "dump.c", "-rdynamic", "-o", out,
         *pkg_config(pc, root, "--cflags", "--libs")])
    env = dict(os.environ, LD_LIBRARY_PATH=str(pc.parent))
    for name in ("GREENLET_CHECK", "GREENLET_DEBUG_LIBRARY"):
        env.pop(name, None)
    said = run([out], env=env)
    for text in ["'sleeper'", "suspended"] + (["waits+"] if debug else []):
        if text not in said:
            raise Failed(f"no \"{text}\" in the dump:\n{said}")
    trace = next(root.rglob("bin/greenlet-trace"))
    said = run([trace, "-t", "-", out], env=env)
    if not any(all(w in line for w in ("start", "main", "sleeper"))
               for line in said.splitlines()):
        raise Failed(f"no start in the trace:\n{said}")
    core = next(root.rglob("bin/greenlet-core"))
    if "backtrace" not in run([core, "--help"]):
        raise Failed("greenlet-core --help")
    found = [p for p in root.rglob("*-gdb.py") if "auto-load" in p.parts]
    if len(found) != 1:
        raise Failed(f"for gdb to load: {found}")
    # Its name is that of the library's file, with all links followed.
    library = pc.parent / found[0].name.removesuffix("-gdb.py")
    if not library.is_file() or library.is_symlink():
        raise Failed(f"{found[0].name} is for no file that is installed")


def main(build, source, *options):
    debug = "--debug" in options
    names = ["installs", "everything is there, and no other header",
             "the version is the header's", "C, shared", "C, static",
             "C++, shared", "C++, static", "the headers as C++11 and as C99",
             "the tools for debugging, from there"]
    print(f"TAP version 13\n1..{len(names)}")
    if not shutil.which(PKG_CONFIG[0]):
        for number, name in enumerate(names, 1):
            print(f"ok {number} - {name} # SKIP pkg-config is missing")
        return 0
    hello = Path(source, "docs/examples/hello.c")
    state, failed = {}, 0

    def check_hello(pc, root, static):
        lines = build_and_run(pc, root, hello, CC, static, root / "hello")
        if lines[:len(FIRST)] != FIRST:
            raise Failed("\n".join(lines))

    def check_cpp(pc, root, static):
        (root / "use.cpp").write_text(CPP)
        build_and_run(pc, root, root / "use.cpp", CXX, static, root / "use")

    def check_version(pc, root):
        header = next(root.rglob("greenlet.h")).read_text().split()
        parts = [header[header.index(f"GREENLET_VERSION_{p}") + 1]
                 for p in ("MAJOR", "MINOR", "PATCH")]
        found = pkg_config(pc, root, "--modversion")
        if found != [".".join(parts)]:
            raise Failed(f"{found} against {parts}")

    def check_header(pc, root):
        strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
        for name in ("greenlet.h", "greenlet_inline.h"):
            header = next(root.rglob(name))
            run([*CXX, "-std=c++11", "-x", "c++", *strict, header])
            run([*CC, "-std=c99", "-x", "c", *strict, header])

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)

        def step_install():
            state["pc"] = install(build, root)

        steps = [step_install,
                 lambda: files(state["pc"], root, debug),
                 lambda: check_version(state["pc"], root),
                 lambda: check_hello(state["pc"], root, False),
                 lambda: check_hello(state["pc"], root, True),
                 lambda: check_cpp(state["pc"], root, False),
                 lambda: check_cpp(state["pc"], root, True),
                 lambda: check_header(state["pc"], root),
                 lambda: check_tools(state["pc"], root, debug)]
        for number, (name, step) in enumerate(zip(names, steps), 1):
            try:
                if number > 1 and "pc" not in state:
                    raise Failed("nothing was installed")
                step()
                print(f"ok {number} - {name}")
            except Failed as problem:
                failed += 1
                print(f"not ok {number} - {name}")
                for line in str(problem).splitlines()[:40]:
                    print(f"# {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[3:] not in ([], ["--debug"]):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
