#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the examples and checks what they print and how they fail.

usage: check.py HELLO [EXPAT_PULL]

Prints TAP version 13, one case per behaviour.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile

DOCUMENT = "/usr/share/mime/packages/freedesktop.org.xml"

HELLO = "0 1 1 2 3 5 8 13 21 34 asked to end".replace(" ", "\n")
HELLO = HELLO.replace("asked\nto\nend", "asked to end") + "\n"

SMALL = """<?xml version="1.0"?>
<list kind='a "b"'>
<empty/>&#233;&amp;<![CDATA[<raw>]]>
</list>
"""
SMALL_EVENTS = """\
     1  start  list kind="a "b""
     2  text   "\\n"
     3  start  empty
     4  end    empty
     5  text   "\u00e9"
     6  text   "&"
     7  text   "<raw>"
     8  text   "\\n"
     9  end    list
    10  done  
"""

number = 0
failed = 0


def case(name: str, problem: str | None, skip: str = "") -> None:
    """Prints one result; `problem` is None when all is well."""
    global number, failed
    number += 1
    if skip:
        print(f"ok {number} - {name} # SKIP {skip}")
    elif problem is None:
        print(f"ok {number} - {name}")
    else:
        failed += 1
        print(f"not ok {number} - {name}")
        for line in problem.splitlines():
            print(f"# {line}")


def run(*command: str) -> tuple[int, str, str]:
    # Meson says how to run programs of another CPU.
    wrapper = shlex.split(os.environ.get("MESON_EXE_WRAPPER", ""))
    done = subprocess.run([*wrapper, *command], capture_output=True,
                          timeout=60)
    return (done.returncode, done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"))


def expect(got: tuple[int, str, str], status: int, out: str | None = None,
           err: str | None = None) -> str | None:
    """None, or what differs. `err` is a pattern, `out` the exact text."""
    if (got[0] == status and (out is None or got[1] == out)
            and (err is None or re.search(err, got[2]))):
        return None
    return (f"expected status {status}"
            + ("" if out is None else f", output {out!r}")
            + ("" if err is None else f", errors like {err!r}")
            + f"\ngot status {got[0]}, output {got[1]!r}, errors {got[2]!r}")


def check_pull(program: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        def file(name: str, text: str) -> str:
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
            return path

        small = file("small.xml", SMALL)
        got = run(program, "--print", "99", small)
        case("expat-pull: each event of a small document",
             expect(got, 0, SMALL_EVENTS))
        got = run(program, "--print", "3", small)
        case("expat-pull: closed in mid-document",
             expect(got, 0, "".join(SMALL_EVENTS.splitlines(True)[:3])))
        got = run(program, "--passes", "1", small)
        case("expat-pull: callbacks and pull agree", expect(got, 0))

        got = run(program, os.path.join(folder, "none.xml"))
        case("expat-pull: a missing file",
             expect(got, 1, "", r"none\.xml: No such file"))
        got = run(program, folder)
        case("expat-pull: a directory", expect(got, 1, "", "Is a directory"))
        got = run(program, file("bad.xml", "<a>\n<b>\n</a>\n"))
        case("expat-pull: malformed XML names the line",
             expect(got, 1, "", r"bad\.xml:3: mismatched tag"))
        got = run(program, file("cut.xml", "<a>\n<b>"))
        case("expat-pull: a document that ends early",
             expect(got, 1, "", r"cut\.xml:2: no element found"))
        got = run(program, file("empty.xml", ""))
        case("expat-pull: an empty file",
             expect(got, 1, "", r"empty\.xml:1: no element found"))
        case("expat-pull: a wrong option",
             expect(run(program, "--wrong"), 2, "", "usage"))

    name = "expat-pull: the real document"
    if os.path.exists(DOCUMENT):
        case(name, expect(run(program, "--passes", "1"), 0))
    else:
        case(name, None, skip=f"{DOCUMENT} (shared-mime-info) is missing")


def main() -> int:
    print("TAP version 13")
    case("hello", expect(run(sys.argv[1]), 0, HELLO))
    if len(sys.argv) > 2:
        check_pull(sys.argv[2])
    else:
        case("expat-pull", None,
             skip="not built: expat (libexpat1-dev) is missing")
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
