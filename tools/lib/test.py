# SPDX-License-Identifier: MIT
"""tools/test: builds every backend, runs the tests, counts single cases."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import common
import coverage
import fuzz
import sanitizers
import soak
import sysroot
from common import Problem, say

OUTPUT_LINES = 60  # of a failed case
# In an emulator the long tests make one in so many of their rounds.
SLOW, SLOW_AND_QUICK = "4", "16"

RESULT = re.compile(r"(not )?ok\b\s*\d*\s*(?:-\s*)?(.*?)"
                    r"(?:\s*#\s*(SKIP|TODO)\S*\s*(.*))?$", re.IGNORECASE)
PLAN = re.compile(r"1\.\.(\d+)")


@dataclasses.dataclass
class Case:
    """One test case. `test` is Meson's name of the program that ran it."""

    test: str
    name: str
    result: str  # "passed", "failed" or "skipped"
    detail: str = ""  # why skipped; output of a failure

    def __str__(self) -> str:
        return f"{self.test}: {self.name}" if self.name else self.test


def tail(text: str) -> str:
    lines = text.strip("\n").splitlines()
    if len(lines) > OUTPUT_LINES:
        lines = [f"({len(lines) - OUTPUT_LINES} lines before)",
                 *lines[-OUTPUT_LINES:]]
    return "\n".join(lines)


def read_tap(test: str, text: str) -> tuple[list[Case], int | None]:
    """The cases in the output of a TAP program, and how many it planned."""
    cases: list[Case] = []
    plan = None
    for line in text.splitlines():
        if match := PLAN.match(line):
            plan = int(match[1])
        elif match := RESULT.match(line):
            failed, name, directive, why = match.groups()
            if directive:
                result, detail = "skipped", why or "no reason given"
            else:
                result, detail = "failed" if failed else "passed", ""
            cases.append(Case(test, name or f"case {len(cases) + 1}", result,
                              detail))
        elif line.startswith("#") and cases and cases[-1].result == "failed":
            cases[-1].detail += line[1:].removeprefix(" ") + "\n"
    for case in cases:
        if case.result == "failed":
            case.detail = tail(case.detail)
    return cases, plan


def read_record(record: dict, tap: bool) -> list[Case]:
    """The cases of one line of Meson's testlog.json."""
    test = record["name"].split(" / ", 1)[-1]
    out, err = record.get("stdout") or "", record.get("stderr") or ""
    status = record.get("returncode") or 0
    result = record["result"]
    # Meson's own remark says what returncode says.
    err = re.sub(r"\n\(test program exited with status code -?\d+\)\n", "",
                 err)
    output = tail("\n".join(part for part in (out, err) if part.strip()))
    if result == "INTERRUPT":
        return [*read_tap(test, out)[0],
                Case(test, "", "skipped", "interrupted")]
    if not tap:
        if result in ("OK", "EXPECTEDFAIL"):
            return [Case(test, "", "passed")]
        if result == "SKIP":
            lines = output.splitlines()
            return [Case(test, "", "skipped",
                         lines[-1] if lines else "no reason given")]
        return [Case(test, "", "failed",
                     f"{result.lower()}, {common.describe_status(status)}\n"
                     + output)]

    cases, plan = read_tap(test, out)
    failed = any(case.result == "failed" for case in cases)
    problem = ""
    if result == "TIMEOUT":
        problem = "it took too long and was stopped"
    elif status < 0 or status > 1 or (status == 1 and not failed):
        problem = common.describe_status(status)
    elif plan is None:
        problem = "it printed no plan (1..N)"
    elif plan != len(cases):
        problem = f"it planned {plan} cases and reported {len(cases)}"
    if problem:
        cases.append(Case(test, "the program as a whole", "failed",
                          f"{problem}, after {len(cases)} cases\n" + tail(err)))
    return cases


class Run:
    """One build folder's tests."""

    def __init__(self, path: Path, prefix: str, options: argparse.Namespace,
                 slow: bool = False, suite: str = "",
                 environment: dict[str, str] | None = None,
                 wrapper: str = ""):
        self.path = path
        self.prefix = prefix
        self.options = options
        self.slow = slow  # emulated, or under a tool
        self.suite = suite  # only the tests of this one
        self.environment = environment or {}
        self.wrapper = wrapper  # command that runs the tests
        self.interrupted = False
        listed = subprocess.run(["meson", "introspect", "--tests", str(path)],
                                stdout=subprocess.PIPE, text=True, check=True)
        self.tests = [test for test in json.loads(listed.stdout)
                      if self.wanted(test)]
        self.tap = {test["name"] for test in self.tests
                    if test.get("protocol") == "tap"}

    def wanted(self, test: dict) -> bool:
        suites = {suite.split(":")[-1] for suite in test["suite"]}
        if "full" in suites and not self.options.full:
            return False
        if self.suite not in suites and (self.suite or "seeded" in suites):
            return False
        return not self.options.backend or bool(
            suites & set(self.options.backend))

    def matches(self, name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern)
                   if re.search(r"[*?]", pattern) else pattern in name
                   for pattern in self.options.names)

    def meson_test(self, log: str, names: list[str],
                   arguments: list[str]) -> list[Case]:
        """Runs the named tests and returns their cases."""
        environment = common.clean_environment(**self.environment)
        if self.options.quick:
            environment["GREENLET_TEST_QUICK"] = "1"
        if self.options.full:
            environment["GREENLET_TEST_FULL"] = "1"
        command = ["meson", "test", "-C", str(self.path), "--no-rebuild",
                   "--logbase", log]
        if self.wrapper:
            command.append("--wrapper=" + self.wrapper)
        if arguments:
            command.append("--test-args=" + shlex.join(arguments))
        if self.options.full or self.slow:
            command.append("--timeout-multiplier=10")
        if self.slow:
            environment.setdefault("GREENLET_TEST_TIMEOUT_FACTOR", "10")
            # In a forked child, qemu-user 7.2 may wait for ever for a lock of
            # GLib's own allocator, which another thread had.
            environment.setdefault("G_SLICE", "always-malloc")
            environment.setdefault(
                "GREENLET_TEST_SHARE",
                SLOW_AND_QUICK if self.options.quick else SLOW)
        logs = self.path / "meson-logs"
        tool = "-" + Path(self.wrapper.split()[0]).name if self.wrapper else ""
        file = logs / f"{log}{tool}.json"  # so Meson calls it
        file.unlink(missing_ok=True)
        status = self.wait(subprocess.Popen(command + names, env=environment))
        cases: list[Case] = []
        if file.is_file():
            for line in file.read_text(errors="replace").splitlines():
                record = json.loads(line)
                name = record["name"].split(" / ", 1)[-1]
                cases += read_record(record, name in self.tap)
        if self.interrupted:
            cases.append(Case("tools/test", "", "skipped",
                              "interrupted: not all tests were run"))
        elif status != 0 and not any(case.result == "failed" for case in cases):
            cases.append(Case("meson test", "", "failed",
                              common.describe_status(status)))
        for case in cases:
            case.test = self.prefix + case.test
        return cases

    def wait(self, meson: subprocess.Popen) -> int:
        """On Ctrl-C, Meson ends its tests and writes its log; let it."""
        while True:
            try:
                return meson.wait()
            except KeyboardInterrupt:
                self.interrupted = True

    def run(self) -> list[Case]:
        if not self.options.names:
            return self.meson_test("testlog",
                                   [test["name"] for test in self.tests], [])
        # The suites choose among their cases; other tests are run whole.
        suites, others = [], []
        for test in self.tests:
            if Path(test["cmd"][0]).name.startswith("suite-"):
                suites.append(test["name"])
            elif self.matches(test["name"]):
                others.append(test["name"])
        cases: list[Case] = []
        if suites:
            cases += [case for case in self.meson_test(
                "testlog-chosen", suites, self.options.names)
                if "no test of that name" not in case.detail]
        if others and not self.interrupted:
            cases += self.meson_test("testlog-others", others, [])
        return cases


def mutate(path: Path, prefix: str) -> list[Case]:
    """Is the register test any good? The switch, broken in one register at a
    time, must be caught."""
    say(f"{prefix}breaking the switch in one register at a time")
    done = subprocess.run(
        [sys.executable, "-B", str(common.ROOT / "tests" / "mutate.py"),
         str(path)], stdout=subprocess.PIPE, text=True,
        env=common.clean_environment(GREENLET_TEST_TIMEOUT_FACTOR="10"))
    cases, plan = read_tap(prefix + "mutate", done.stdout)
    if plan != len(cases) or (done.returncode and not any(
            case.result == "failed" for case in cases)):
        cases.append(Case(prefix + "mutate", "the program as a whole",
                          "failed", tail(done.stdout)))
    say(f"  {len(cases)} done")
    return cases


def report(cases: list[Case]) -> int:
    """Prints what is worth knowing; the count is the last line."""
    count = {result: [case for case in cases if case.result == result]
             for result in ("passed", "failed", "skipped")}
    reasons: dict[tuple[str, str], list[str]] = {}
    for case in count["skipped"]:
        reasons.setdefault((case.name, case.detail), []).append(case.test)
    if reasons:
        say("\nskipped:")
        for (name, why), tests in reasons.items():
            where = ", ".join(tests)
            say(f"  {name} ({where}): {why}" if name else f"  {where}: {why}")
    if count["failed"]:
        say("\nfailed:")
        for case in count["failed"]:
            say(f"  {case}")
            for line in case.detail.splitlines():
                say(f"    | {line}")
    if not cases:
        say("no test was run")
    say(f"\n{len(count['passed'])} passed, {len(count['failed'])} failed, "
        f"{len(count['skipped'])} skipped")
    return 1 if count["failed"] or not count["passed"] else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/test",
        description="Builds every backend and runs the tests on each, the "
        "copy backend with lanes 0, 1, 2 and the default. The last line "
        "counts single cases.",
        epilog="The environment's CC and CXX choose the compiler. The build "
        "is in build/test.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true",
                     help="the long tests make fewer rounds")
    how.add_argument("--full", action="store_true",
                     help="they make many more, and all is repeated with "
                     "clang as the compiler")
    how.add_argument("--fuzz", type=float, metavar="SECONDS",
                     help="instead of the tests: random programs for so long, "
                     "on a model of the contract and on every backend")
    how.add_argument("--soak", type=float, metavar="MINUTES",
                     help="instead of the tests: greenlets without end for so "
                     "long, every byte of their stacks looked at")
    parser.add_argument("--switches", type=float, metavar="N",
                        help="with --soak, which is ignored then: so many in "
                        "all")
    parser.add_argument("--seed", type=int, metavar="N",
                        help="with --fuzz: the first program")
    parser.add_argument("--backend", action="append", default=[], metavar="B",
                        help="only this backend (may be repeated): "
                        + ", ".join(common.backends()))
    parser.add_argument("--coverage", action="store_true",
                        help="count the lines that the suite reaches")
    parser.add_argument("--sanitizer", action="append", default=[],
                        metavar="S", choices=[*sanitizers.TOOLS, "all"],
                        help="under this tool, built by gcc and by clang "
                        "where both have it (may be repeated): all, "
                        + ", ".join(sanitizers.TOOLS))
    parser.add_argument("--arch", action="append", default=[], metavar="A",
                        help="for another CPU family, with Debian's cross "
                        "compiler and qemu-user, and the mutation of "
                        "its assembly, but in an emulator not with --quick "
                        "(may be repeated; native: this machine's): native, "
                        "all, "
                        + ", ".join(common.ARCHITECTURES))
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="only cases whose name contains NAME, or "
                        "matches it if it has * or ?")
    options = parser.parse_args(arguments)
    for backend in options.backend:
        if backend not in common.backends():
            parser.error(f"unknown backend \"{backend}\"; known: "
                         + ", ".join(common.backends()))
    if "all" in options.arch:
        options.arch = list(common.ARCHITECTURES)
    for arch in options.arch:
        if arch not in (*common.ARCHITECTURES, "native"):
            parser.error(f"unknown architecture \"{arch}\"; known: native, all, "
                         + ", ".join(common.ARCHITECTURES))
    return options


def cross_file(arch: str) -> Path:
    return (common.ROOT / "tools" / "cross"
            / (common.ARCHITECTURES[arch] + ".ini"))


def emulated(arch: str) -> bool:
    """Do its programs run in an emulator? Those of 32-bit x86 need none."""
    return re.search(r"^exe_wrapper\b", cross_file(arch).read_text(),
                     re.MULTILINE) is not None


def cross_options(arch: str, cases: list[Case]) -> list[str]:
    """Meson's options to build for another CPU family and run the result."""
    triplet = common.ARCHITECTURES[arch]
    if not shutil.which(triplet + "-gcc"):
        raise Problem(f"{triplet}-gcc is missing (tools/setup arch-{arch})")
    files = [cross_file(arch)]
    try:
        files.append(sysroot.cross_file(arch, files[0]))
    except Problem as problem:
        cases.append(Case(f"{arch}, libunwind and expat", "", "skipped",
                          str(problem)))
    return [*(f"--cross-file={file}" for file in files),
            "-Dbenchmarks=disabled"]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        if options.fuzz is not None:
            return fuzz.fuzz(options.fuzz, options.backend, options.seed)
        if options.soak is not None:
            return soak.soak(options.soak, options.switches, options.backend)
    except Problem as problem:
        say(f"tools/test: {problem}")
        return 1
    if options.sanitizer:
        return report(sanitizers.run(options, Run, Case))
    if options.coverage:
        try:
            return report(coverage.run(options, Run))
        except Problem as problem:
            return report([Case("coverage", "", "failed", str(problem))])
    setup = ["-Dvariants=true", "-Dwerror=true", "--buildtype=debugoptimized"]
    builds: list[tuple[str, str, dict[str, str]]] = [("test", "", {})]
    cases: list[Case] = []
    if options.arch:
        builds = [(f"test-{arch}", arch + ", ", {}) if arch != "native"
                  else builds[0] for arch in options.arch]
    elif options.full:
        if shutil.which("clang"):
            builds.append(("test-clang", "clang, ",
                           {"CC": "clang", "CXX": "clang++"}))
        else:
            cases.append(Case("clang", "", "skipped", "clang is missing"))
    interrupted = False
    for folder, prefix, compilers in builds:
        try:
            arch = folder.removeprefix("test-") if prefix.rstrip(
                ", ") in common.ARCHITECTURES else ""
            cross = cross_options(arch, cases) if arch else []
            path = common.build(folder, setup + cross, compilers)
            run = Run(path, prefix, options,
                      slow=bool(arch) and emulated(arch))
            cases += run.run()
            interrupted = run.interrupted
            if (options.full or options.arch) and not (
                    options.names or interrupted
                    or set(options.backend) - {"copy"}):
                if run.slow and options.quick:
                    cases.append(Case(prefix + "mutate", "", "skipped",
                                      "not with --quick in an emulator"))
                else:
                    cases += mutate(path, prefix)
        except Problem as problem:
            cases.append(Case(prefix + "build", "", "failed", str(problem)))
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            break
    status = report(cases)
    return 130 if interrupted else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
