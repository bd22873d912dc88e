#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests the test of registers: breaks the switch in one register at a time.

    mutate.py [--list] [--jobs N] BUILD [NAME...]

BUILD is a Meson build folder that has suite-copy (-Dvariants=true). For each
register and each place where the CPU's assembly saves or restores it, this
assembles a copy of arch/CPU with an instruction there that overwrites the
register, links suite-copy with it, and runs the cases of contract 30. They
must fail. It does the same for the floating-point control words, with a
fpu_set() that forgets one. registers_direct.c puts sentinels right around the
switch, besides those of the cases. Without a mutation they must pass. A NAME selects
mutants by a part of their names. The report is TAP.

registers_CPU.ini describes a CPU:

    [places]     what is wrong = before|after FILE REGEX
                 each matching line of arch/CPU/FILE gets the instruction
    [registers]  register = the instruction that overwrites it
    [registers ifdef MACRO], [registers ifndef MACRO]
                 more, where the compiler does or does not define MACRO
    [words]      control word = its index in src/fpu.h
    [direct]     flags = the compiler's, for registers_direct.c
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import configparser
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
CASES = "contract_30"
SECONDS = 300  # for one mutant; a broken switch may never return

# Sets all control words but one.
FORGETFUL = """
static inline void forgetful_set(const uint32_t words[2]) {{
    uint32_t now[2];
    fpu_get(now);
    now[{other}] = words[{other}];
    fpu_set(now);
}}
#define fpu_set forgetful_set
"""


class Problem(Exception):
    """Something to tell the user, without a traceback."""


@dataclasses.dataclass
class Mutant:
    name: str
    file: str = ""  # of arch/CPU
    where: str = "before"
    line: re.Pattern[str] = re.compile("")
    instruction: str = ""
    word: int = -1


def ini(path: Path, delimiters: tuple[str, ...] = ("=",)) -> (
        configparser.ConfigParser):
    parser = configparser.ConfigParser(interpolation=None,
                                       delimiters=delimiters)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


class Build:
    """What a Meson build folder knows about compiling, linking, running."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        try:
            text = (self.folder / "compile_commands.json").read_text()
        except OSError as error:
            raise Problem(f"{folder} is no configured build folder: {error}")
        self.compile = {}
        for entry in json.loads(text):
            if entry["output"].startswith("libgreenlet-copy.a.p"):
                source = Path(entry["directory"], entry["file"]).resolve()
                self.compile[source] = shlex.split(entry["command"])
        commands = subprocess.run(
            ["ninja", "-C", str(self.folder), "-t", "commands", "suite-copy"],
            stdout=subprocess.PIPE, text=True)
        lines = commands.stdout.splitlines()
        if commands.returncode or not self.compile or not lines:
            raise Problem(f"{folder} does not build suite-copy")
        self.link = shlex.split(lines[-1])
        folders = {path.parent for path in self.compile
                   if path.name == "switch_copy.S"}
        if len(folders) != 1:
            raise Problem(f"the copy backend of {folder} has no assembly")
        self.arch = folders.pop()
        self.wrapper = self.find_wrapper()
        self.description = (SOURCE / "tests"
                            / f"registers_{self.arch.name}.ini")
        known = ini(self.description)
        self.direct = known.has_section("direct")
        self.direct_flags = known.get("direct", "flags", fallback="").split()

    def find_wrapper(self) -> list[str]:
        """The exe_wrapper of the cross file."""
        known = ini(self.folder / "meson-private" / "cmd_line.txt",
                    ("=", ":"))
        files = ast.literal_eval(
            known.get("properties", "cross_file", fallback="[]"))
        for file in files:
            value = ini(Path(file)).get("binaries", "exe_wrapper",
                                        fallback="")
            if value:
                found = ast.literal_eval(value)
                return found if isinstance(found, list) else [found]
        return []

    def compiler(self, source: Path) -> list[str]:
        """The command for `source`, without input, output and dependencies."""
        words = iter(self.compile[source])
        kept = []
        for word in words:
            if word in ("-MQ", "-MF", "-o", "-c"):
                next(words)
            elif word != "-MD":
                kept.append(word)
        return kept

    def defines(self, macro: str) -> bool:
        command = self.compiler(self.arch / "switch.S")
        text = self.run([*command, "-dM", "-E", "-x", "c", "/dev/null"])
        return re.search(rf"^#define {macro}\b", text, re.M) is not None

    def run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.folder, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise Problem(f"{shlex.join(command)}:\n{done.stdout}")
        return done.stdout

    def make(self, sources: dict[Path, Path], scratch: Path) -> Path:
        """Links suite-copy with other sources in place of some of its own."""
        objects = []
        for own, other in sources.items():
            # Objects come before the library, so that its members stay out.
            objects.append(str(scratch / (other.name + ".o")))
            self.run([*self.compiler(own), "-c", str(other),
                      "-o", objects[-1]])
        if self.direct:
            objects.append(str(scratch / "direct.o"))
            self.run([*self.compiler(SOURCE / "src" / "switch.c"),
                      *self.direct_flags, "-I", str(SOURCE / "tests"), "-c",
                      str(SOURCE / "tests" / "registers_direct.c"),
                      "-o", objects[-1]])
            objects += [f"-Wl,--wrap=greenlet_{name}"
                        for name in ("arch_switch", "arch_switch_copy")]
        at = self.link.index("-o")
        suite = scratch / "suite"
        self.run([*self.link[:at], "-o", str(suite), *objects,
                  *self.link[at + 2:]])
        return suite

    def passes(self, suite: Path) -> tuple[bool, str]:
        """Whether the cases pass, and the names of those that do not."""
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("GREENLET_")}
        child = subprocess.Popen(
            [*self.wrapper, str(suite), CASES], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True)
        try:
            output, _ = child.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.communicate()
            return False, "it never ended"
        if re.search(r"^1\.\.0\b", output, re.M) or "1.." not in output:
            raise Problem(f"the suite has no cases named {CASES}:\n{output}")
        failed = re.findall(r"^not ok \d+ - (?:contract_30_)?(\S+)", output,
                            re.M)
        return child.returncode == 0, ", ".join(failed)


def mutants(build: Build) -> list[Mutant]:
    path = build.description
    known = ini(path)
    if not known.has_section("places"):
        raise Problem(f"{path} does not describe this CPU")
    registers: dict[str, str] = {}
    for section in known.sections():
        kind, *condition = section.split()
        if kind != "registers":
            continue
        if condition:
            wanted = {"ifdef": True, "ifndef": False}[condition[0]]
            if build.defines(condition[1]) != wanted:
                continue
        registers.update(known.items(section))
    found = []
    for place, text in known.items("places"):
        where, file, line = text.split(None, 2)
        if where not in ("before", "after"):
            raise Problem(f"{path}: neither before nor after: {text}")
        for register, instruction in registers.items():
            found.append(Mutant(f"{register}: {place}", file, where,
                                re.compile(line), instruction))
    if known.has_section("words"):
        for word, index in known.items("words"):
            found.append(Mutant(f"{word}: not set for a greenlet",
                                word=int(index)))
    return found


def sources_of(build: Build, mutant: Mutant | None,
               scratch: Path) -> dict[Path, Path]:
    if mutant is None:
        return {}
    if mutant.word >= 0:
        own = SOURCE / "src" / "switch.c"
        text = own.read_text()
        include = '#include "fpu.h"\n'
        if include not in text:
            raise Problem(f"{own} does not include fpu.h")
        other = scratch / own.name
        other.write_text(text.replace(
            include, include + FORGETFUL.format(other=1 - mutant.word)))
        return {own: other}

    copy = scratch / "arch"
    shutil.copytree(build.arch, copy)
    file = copy / mutant.file
    lines, matches = [], 0
    for line in file.read_text().splitlines(keepends=True):
        hit = mutant.line.search(line) is not None
        matches += hit
        extra = [f"        {mutant.instruction}\n"] if hit else []
        lines += (extra + [line] if mutant.where == "before"
                  else [line] + extra)
    if not matches:
        raise Problem(f"{mutant.name}: no line of {mutant.file} matches "
                      + mutant.line.pattern)
    file.write_text("".join(lines))
    return {build.arch / name: copy / name
            for name in ("switch.S", "switch_copy.S")}


def judge(build: Build, mutant: Mutant | None) -> tuple[bool, str]:
    """Is it as it must be? And a remark."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        try:
            suite = build.make(sources_of(build, mutant, scratch), scratch)
            passed, failed = build.passes(suite)
        except Problem as problem:
            return False, str(problem)
    if mutant is None:
        return passed, failed
    return not passed, f"caught by {failed}" if not passed else (
        f"the cases of {CASES} did not notice")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="mutate.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1,
                        metavar="N", help="so many at a time")
    parser.add_argument("build", type=Path, metavar="BUILD",
                        help="a Meson build folder with suite-copy")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="only mutants whose name contains NAME")
    options = parser.parse_args()
    try:
        build = Build(options.build)
        all_mutants: list[Mutant | None] = [None]
        all_mutants += [
            mutant for mutant in mutants(build)
            if not options.names
            or any(name in mutant.name for name in options.names)]
    except Problem as problem:
        print(f"Bail out! {problem}")
        return 2
    names = [mutant.name if mutant else "no mutation"
             for mutant in all_mutants]
    if options.list:
        print("\n".join(names))
        return 0

    print(f"TAP version 13\n1..{len(names)}", flush=True)
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda mutant: judge(build, mutant), all_mutants)
        for number, (name, (good, remark)) in enumerate(
                zip(names, results), 1):
            failures += not good
            print(f"{'ok' if good else 'not ok'} {number} - {name}")
            for line in remark.splitlines():
                print(f"# {line}")
            sys.stdout.flush()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
