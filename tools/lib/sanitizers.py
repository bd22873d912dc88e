# SPDX-License-Identifier: MIT
"""tools/test --sanitizer: the suite under tools that watch memory and
threads, and the bugs that each must find (tests/seeded.c)."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil

import common
from common import Problem, say


@dataclasses.dataclass(frozen=True)
class Tool:
    """How to run the suite under it. Each of `settings` is one run."""

    compilers: tuple[str, ...]
    meson: tuple[str, ...]  # options
    settings: tuple[tuple[str, dict[str, str]], ...]
    wrapper: str = ""  # command that runs a program under it
    share: int = 10  # the long tests make one in so many of their rounds


# Strict mode resumes an access that it was told of: with all registers.
VALGRIND = ("valgrind -q --error-exitcode=99 --num-callers=24"
            " --vex-iropt-register-updates=allregs-at-mem-access")
# A thread's own stack may be this large without being taken for another.
MEMCHECK = VALGRIND + " --leak-check=no --max-stackframe=3000000"
HELGRIND = VALGRIND + " --tool=helgrind --history-level=approx"

# clang's runtimes take signals, to report them; the tests look at them.
OWN = "handle_segv=0:handle_sigbus=0:handle_abort=0"
# clang's, alone: else it has one frame of an allocation on a stack that is not
# the thread's, and takes it for the loader's, which is never lost.
SLOWLY = ":fast_unwind_on_malloc=0"
ASAN = "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return="
TOOLS = {
    "asan": Tool(("gcc", "clang"), ("-Db_sanitize=address",), (
        ("", {"ASAN_OPTIONS": ASAN + "0"}),
        ("use after return, ", {"ASAN_OPTIONS": ASAN + "1"}))),
    "lsan": Tool(("gcc", "clang"), ("-Db_sanitize=leak",), (
        ("", {"LSAN_OPTIONS": OWN + SLOWLY}),)),
    "ubsan": Tool(("gcc", "clang"), ("-Db_sanitize=undefined",), (
        ("", {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:"
              + OWN}),)),
    # At each exit it waits a second for other threads to race.
    "tsan": Tool(("gcc", "clang"), ("-Db_sanitize=thread",), (
        ("", {"TSAN_OPTIONS": "atexit_sleep_ms=20"}),)),
    "msan": Tool(("clang",), ("-Db_sanitize=memory", "--optimization=1"),
                 (("", {"MSAN_OPTIONS": OWN}),)),
    "hardened": Tool(("gcc", "clang"), ("-Dharden=true",), (("", {}),)),
    "valgrind": Tool(("gcc",), ("-Dvalgrind=enabled",), (("", {}),),
                     wrapper=MEMCHECK, share=40),
    "helgrind": Tool(("gcc",), ("-Dvalgrind=enabled",), (("", {}),),
                     wrapper=HELGRIND, share=40),
}
BOTH = {"gcc": "g++", "clang": "clang++"}


def run_tool(name: str, compiler: str, options: argparse.Namespace,
             runner: type, case: type) -> list:
    """The suite and the seeded bugs; returns their cases."""
    tool = TOOLS[name]
    # Valgrind's two tools share a build.
    folder = "test-valgrind" if tool.wrapper else f"test-{name}-{compiler}"
    path = common.build(
        folder, ["-Dvariants=true", "-Dwerror=true", "-Dbenchmarks=disabled",
                 "-Dexamples=disabled", "-Db_lundef=false",
                 "--buildtype=debugoptimized", *tool.meson],
        {"CC": compiler, "CXX": BOTH[compiler]}, ("suites",))
    cases = []
    for label, settings in tool.settings:
        prefix = f"{name}, {compiler}, {label}"
        say(f"{prefix.rstrip(', ')}:")
        environment = {**settings, "GREENLET_TEST_TOOL": name,
                       "GREENLET_TEST_SHARE": str(tool.share),
                       "GREENLET_TEST_TIMEOUT_FACTOR": "20"}
        suite = runner(path, prefix, options, slow=True, suite="suite",
                       environment=environment, wrapper=tool.wrapper)
        cases += suite.run()
        if options.names or suite.interrupted:
            continue
        wrapper = {"GREENLET_TEST_WRAPPER": tool.wrapper}
        cases += runner(path, prefix, options, slow=True, suite="seeded",
                        environment={**environment, **wrapper}).run()
    return cases


def run(options: argparse.Namespace, runner: type, case: type) -> list:
    """All that --sanitizer asks for, with the environment's CC only if there
    is one. `runner` and `case` are test.py's Run and Case."""
    names = list(TOOLS) if "all" in options.sanitizer else options.sanitizer
    cases: list = []
    for name in names:
        for compiler in TOOLS[name].compilers:
            if os.environ.get("CC", compiler) != compiler:
                continue
            where = f"{name}, {compiler}"
            if not shutil.which(compiler) or not shutil.which(BOTH[compiler]):
                cases.append(case(where, "", "skipped",
                                  f"{compiler} is missing"))
                continue
            if TOOLS[name].wrapper and not shutil.which("valgrind"):
                cases.append(case(where, "", "skipped",
                                  "valgrind is missing"))
                continue
            try:
                cases += run_tool(name, compiler, options, runner,
                                  case)
            except Problem as problem:
                cases.append(case(where + ", build", "", "failed",
                                  str(problem)))
    return cases
