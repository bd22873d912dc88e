#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The USDT probes, in TAP: none in the default build; with -Dusdt=enabled all
are noted, with operands that can be fetched, and fire with sensible values.

    usdt.py SOURCE DEFAULT-LIBRARY      (MESON, NINJA, CC, READELF, GDB)
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from tap import Skipped, need, run_cases  # noqa: E402


def tool(variable, default):
    return shlex.split(os.environ.get(variable, default))


MESON, NINJA = tool("MESON", "meson"), tool("NINJA", "ninja")
CC, GDB = tool("CC", "cc"), tool("GDB", "gdb")
READELF, OBJDUMP = tool("READELF", "readelf"), tool("OBJDUMP", "objdump")
PROBES = {"switch", "start", "death", "evict", "fill"}


def run(command, **more):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=500,
                          errors="replace", **more)
    need(done.returncode == 0, f"{shlex.join(map(str, command))}: "
         f"{done.returncode}\n{done.stdout}")
    return done.stdout


def notes(path):
    """[(provider, name, arguments)]"""
    return re.findall(r"Provider: (\S+)\s+Name: (\S+)\s+Location: .*\s+"
                      r"Arguments: ?(.*)", run([*READELF, "-n", path]))


def test_default(state):
    need(notes(state["default"]) == [], str(notes(state["default"])))


def test_builds(state):
    done = subprocess.run([*CC, "-include", "sys/sdt.h", "-E", "-x", "c",
                           "/dev/null"], capture_output=True)
    if done.returncode:
        raise Skipped("sys/sdt.h is missing (Debian: systemtap-sdt-dev)")
    build = state["folder"] / "build"
    run([*MESON, "setup", build, state["source"], "-Dusdt=enabled",
         "-Dwerror=true", "-Dbenchmarks=disabled", "-Dexamples=disabled",
         "-Dstack_backend=copy", "--buildtype=debugoptimized"])
    run([*NINJA, "-C", build, "tests/traced-copy", "libgreenlet.so.0.1.0"])
    state["program"] = build / "tests" / "traced-copy"
    state["library"] = build / "libgreenlet.so.0.1.0"


def built(state):
    if "program" not in state:
        raise Skipped("not built")


def test_notes(state):
    built(state)
    found = notes(state["library"])
    need({name for _, name, _ in found} == PROBES, str(found))
    for provider, name, arguments in found:
        words = arguments.split()
        need(provider == "greenlet" and len(words) == 2, str(found))
        for word in words:  # SIZE@OPERAND
            need(re.match(r"-?[48]@\S+$", word), f"{name}: {word}")
    # The fast path, the slow one's commit, and the refill each have one.
    need(sum(name == "switch" for _, name, _ in found) >= 3, str(found))


def test_hot_path(state):
    """What a probe costs where every switch passes: a nop."""
    built(state)
    text = run([*OBJDUMP, "-d", "--no-show-raw-insn", state["library"]])
    match = re.search(r"<greenlet_switch[^>]*>:\n(.*?)<greenlet_arch_switch>",
                      text, re.S)
    if not match:
        raise Skipped("no tail call of arch_switch on this CPU")
    need(len(re.findall(r"\tnop\s*$", match[1], re.M)) == 1, match[1])


def gdb(state, *commands):
    if not shutil.which(GDB[0]):
        raise Skipped("gdb is missing")
    words = []
    for command in ("set width 0", "set pagination off", *commands):
        words += ["-ex", command]
    return run([*GDB, "-nx", "-batch", *words, "--args", state["program"], "1",
                "3"], env=dict(os.environ, GREENLET_LANES="1",
                               DEBUGINFOD_URLS=""))


def test_fires(state):
    built(state)
    listed = gdb(state, "info probes stap greenlet")
    need(PROBES == set(re.findall(r"stap +greenlet +(\w+)", listed)), listed)
    for probe, show, says in (
            ("start", "x/s $_probe_arg1", '"ping"'),
            ("death", "x/s $_probe_arg1", '"ping"'),
            ("evict", "print $_probe_arg1 > 63 && $_probe_arg1 < 4096",
             "= 1"),
            ("fill", "print $_probe_arg1 > 63 && $_probe_arg1 < 4096",
             "= 1"),
            ("switch", "print $_probe_arg0 != $_probe_arg1", "= 1")):
        text = gdb(state, f"break -probe-stap greenlet:{probe}", "run", show,
                   "delete", "continue")
        if "Cannot" in text and "ptrace" in text:
            raise Skipped("gdb cannot run programs here (ptrace)")
        need(says in text and "exited normally" in text, f"{probe}:\n{text}")


def test_counts(state):
    """As often as the library itself counts."""
    built(state)
    commands = []
    names = sorted(PROBES)
    for number, probe in enumerate(names, 1):
        commands += [f"break -probe-stap greenlet:{probe}",
                     f"ignore {number} 1000000"]
    text = gdb(state, *commands, "run", "info breakpoints")
    hits = {}
    for number, probe in enumerate(names, 1):
        match = re.search(rf"^{number} .*\n(?:.*\n)*?\tbreakpoint already hit "
                          r"(\d+) time", text, re.M)
        hits[probe] = int(match[1]) if match else 0
    counted = re.search(r"switches (\d+) evictions (\d+) fills (\d+)", text)
    need(counted, text)
    need((hits["switch"], hits["evict"], hits["fill"])
         == tuple(int(counted[i]) for i in (1, 2, 3))
         and hits["start"] == hits["death"] == 2, f"{hits}\n{text}")


CASES = [("none in the default build", test_default),
         ("-Dusdt=enabled builds", test_builds),
         ("all are noted", test_notes),
         ("one nop on the fast path", test_hot_path),
         ("they fire", test_fires),
         ("as often as things happen", test_counts)]


def main(source, library):
    with tempfile.TemporaryDirectory() as folder:
        return run_cases(CASES, {"folder": Path(folder), "source": source,
                                 "default": library})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
