#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the worked cases of docs/debugging.md, in TAP: each bug shows as the
page says, on every backend, and what the page prints is what is printed.

usage: check.py PAGE ABSENT OVERFLOW SCRIBBLE

The page's text is compared where it was made: x86-64, the copy backend, its
default lanes. Addresses, offsets, and the frames of libgreenlet and of the C
library are not. What a write to the wrong place meets is another matter on
CPUs that keep the return address below a function's locals.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys

number = 0
failed = 0


def case(name: str, problem: str | None, skip: str = "") -> None:
    global number, failed
    number += 1
    if skip:
        print(f"ok {number} - {name} # SKIP {skip}")
        return
    print(f"{'not ok' if problem else 'ok'} {number} - {name}")
    failed += bool(problem)
    for line in (problem or "").splitlines():
        print(f"# {line}")


def run(program: str, **env: str) -> tuple[int, str]:
    wrapper = shlex.split(os.environ.get("MESON_EXE_WRAPPER", ""))
    done = subprocess.run([*wrapper, program], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          timeout=600 if wrapper else 60,
                          env={**os.environ, **env})
    return done.returncode, done.stdout.decode("utf-8", "replace")


def plain(text: str) -> list[str]:
    """What does not differ from machine to machine."""
    lines = []
    for line in text.strip().splitlines():
        if re.search(r"#\d+ .*(libc\.so|_start\+|libc_start| greenlet_"
                     r"| walk_current| switch_slow)", line):
            continue
        if line.strip() == "Segmentation fault":
            continue  # the shell's
        line = re.sub(r"0x[0-9a-f]+", "0x", line.strip())
        line = re.sub(r"-(copy|private|ucontext|sigaltstack)\b", "", line)
        line = re.sub(r"#\d+\s+", "# ", line)
        line = re.sub(r"\b\d{3,}\b|\b\d+(?= bytes above)", "N", line)
        lines.append(line)
    return lines


def blocks(page: str) -> dict[str, str]:
    """Indented blocks that begin with a command line, by that line."""
    found = {}
    with open(page, encoding="utf-8") as file:
        text = file.read()
    for match in re.finditer(r"(?:^    .*\n|^[ ]*\n(?=    ))+", text, re.M):
        lines = [line[4:] for line in match[0].splitlines()]
        while lines and not lines[0].strip():
            lines.pop(0)
        if lines and lines[0].startswith("$ "):
            found[lines[0][2:]] = "\n".join(lines[1:])
    return found


def has_64_bits(program: str) -> bool:
    with open(program, "rb") as file:
        return file.read(5)[4] == 2  # EI_CLASS: ELFCLASS64


def main(page: str, *programs: str) -> int:
    print("TAP version 13")
    shown = blocks(page)
    here = not os.environ.get("MESON_EXE_WRAPPER")
    crash = {-11, -7, -4, -6}
    comparable = (platform.machine() == "x86_64" and here
                  and has_64_bits(programs[0])
                  and all(program.endswith("-copy") for program in programs)
                  and "GREENLET_LANES" not in os.environ)
    copies = programs[0].endswith("-copy")
    in_place = os.environ.get("GREENLET_LANES") == "0"
    expected = [
        ("absent", {}, {0} if not copies else ({0, 1} if in_place else {1})
         | (set() if here else crash), []),
        ("absent", {"GREENLET_CHECK": "strict"}, {-11},
         ["'server'", "the stack of suspended 'client 0'",
          r"\(ask\), " if here else r"\(ask\), |this CPU does not say where",
          r" reply\+"]),
        ("overflow", {}, {-11}, []),
        ("overflow", {"GREENLET_OVERFLOW_HANDLER": "1"}, {-11},
         ["overflow in 'parser'", "high-water mark: ", "more stack: ",
          r" depth_of_list\+", r"\.\.\. \d+ more",
          # The outermost frames; of ARM's tables only assembly can end one.
          r" parser\+" if here else r" parser\+| begin\+"]),
        ("scribble", {}, crash, []),
        ("scribble", {"GREENLET_CHECK": "2"}, {-6},
         ["check: return address of 'reader'" if here
          else "check: (return address|frame) of 'reader'",
          r"\(read_line\)" if here else r"\(read_(line|message)\)",
          "found by 'main'"]),
    ]
    by_name = {os.path.basename(p).rsplit("-", 1)[0]: p for p in programs}
    for name, env, statuses, patterns in expected:
        status, out = run(by_name[name], **env)
        setting = " ".join(f"{k}={v}" for k, v in env.items())
        command = f"{setting} ./{os.path.basename(by_name[name])}".strip()
        missing = [p for p in patterns if not re.search(p, out)]
        problem = None
        if status not in statuses or missing:
            problem = f"status {status}, lacks {missing}\n{out}"
        elif comparable:
            if command not in shown:
                problem = f"the page does not show \"{command}\""
            elif plain(shown[command]) != plain(out):
                problem = "\n".join(["the page:", *plain(shown[command]),
                                     "the program:", *plain(out)])
        case(f"{command}: as the page says" if comparable else command,
             problem)
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
