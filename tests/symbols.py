#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the built libraries show to the world, in TAP: exported symbols equal
src/greenlet.map, no text relocation, no executable stack, full RELRO, no
global name of the static library without our prefix.

    symbols.py [--without=PATTERN] MAP SHARED STATIC [STATIC...]
                                                 (NM, READELF: the tools)

    --without  what this build has not, of the map
"""

import fnmatch
import os
import re
import subprocess
import sys

NM = os.environ.get("NM", "nm").split()
READELF = os.environ.get("READELF", "readelf").split()
# What assembly and the compiler may add to an object.
ALLOWED = re.compile(r"^(greenlet_\w+|_DYNAMIC|__x86\.get_pc_thunk\.\w+"
                     r"|DW\.ref\.\w+)$")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True,
                          text=True).stdout


def version_script(path):
    text = re.sub(r"/\*.*?\*/", "", open(path).read(), flags=re.S)
    body = re.search(r"global:(.*?)local:", text, re.S)[1]
    return {name for name in re.findall(r"[\w*]+", body)}


def unmatched(names, patterns):
    return [name for name in sorted(names)
            if not any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def exported(library):
    names = set()
    for line in run(*NM, "-D", "--defined-only", library).splitlines():
        name, _, version = line.split()[-1].partition("@")
        if line.split()[-2] != "A":
            names.add(name)
    return names


def differences(found, wanted):
    """A pattern of the map must stand for one symbol at least."""
    return ([f"exported, but not in the map: {n}" for n in
             unmatched(found, wanted)]
            + [f"in the map, but not exported: {p}" for p in sorted(wanted)
               if not fnmatch.filter(found, p)])


def dynamic(library):
    return run(*READELF, "-W", "-d", library)


def segments(library):
    return run(*READELF, "-W", "-l", library)


def stack_flags(library):
    match = re.search(r"GNU_STACK(?:\s+0x\w+){5}\s+(\S+)", segments(library))
    return match[1] if match else "no GNU_STACK header"


def executable_notes(archive):
    """Members whose .note.GNU-stack is missing or executable."""
    bad, member = [], "?"
    seen = {}
    for line in run(*READELF, "-W", "-S", archive).splitlines():
        if line.startswith("File:"):
            member = line.split()[-1]
            seen[member] = None
        elif match := re.search(r"\.note\.GNU-stack\s+PROGBITS(?:\s+\w+){4}"
                                r"\s+([A-Z]*)\s+\d+\s+\d+\s+\d+$", line):
            seen[member] = match[1]
    for member, flags in seen.items():
        if flags is None or "X" in flags:
            bad.append(f"{member}: stack note: {flags}")
    return bad


def archive_names(archive):
    bad = []
    for line in run(*NM, "-g", "--defined-only", archive).splitlines():
        parts = line.split()
        if len(parts) == 3 and not ALLOWED.match(parts[2]):
            bad.append(line.strip())
    return bad


def main(map_file, shared, *archives, without=""):
    flags = dynamic(shared)
    wanted = {name for name in version_script(map_file)
              if not fnmatch.fnmatchcase(name, without)}
    checks = [
        ("exported symbols equal greenlet.map",
         differences(exported(shared), wanted)),
        ("no text relocation", ["TEXTREL"] if "TEXTREL" in flags else []),
        ("no executable stack",
         [] if stack_flags(shared) == "RW" else [stack_flags(shared)]),
        ("a RELRO segment",
         [] if "GNU_RELRO" in segments(shared) else ["none"]),
        ("bound at load (BIND_NOW)",
         [] if re.search(r"BIND_NOW|FLAGS_1.*\bNOW\b", flags) else [flags]),
        ("never unloaded (NODELETE)",
         [] if "NODELETE" in flags else [flags]),
        ("no promise of shadow stacks",
         [line for line in run(*READELF, "-W", "-n", shared).splitlines()
          if re.search("SHSTK|GCS", line)]),
        ("SONAME libgreenlet.so.0",
         [] if "[libgreenlet.so.0]" in flags else [flags]),
        ("needs no library but the C library's",
         [line for line in flags.splitlines() if "(NEEDED)" in line
          and not re.search(r"\[(lib(c|pthread|gcc_s)|ld-[\w-]+)\.", line)]),
    ]
    if os.environ.get("GREENLET_TEST_HARDENED"):
        imported = run(*NM, "-D", "--undefined-only", shared)
        checks += [(f"compiled with {flag}",
                    [] if re.search(symbol, imported) else [imported])
                   for flag, symbol in [
                       ("a stack protector", r"\b__stack_chk_fail\b"),
                       ("fortified calls", r"\b__\w+_chk\b")]]
    for archive in archives:
        name = os.path.basename(archive)
        checks += [(f"{name}: only greenlet_* is global",
                    archive_names(archive)),
                   (f"{name}: each member has a non-executable stack note",
                    executable_notes(archive))]
    print("TAP version 13")
    print(f"1..{len(checks)}")
    failed = 0
    for number, (name, problems) in enumerate(checks, 1):
        print(f"{'not ok' if problems else 'ok'} {number} - {name}")
        for problem in problems:
            for line in problem.splitlines():
                print(f"# {line}")
        failed += bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    options = [a[len("--without="):] for a in sys.argv[1:]
               if a.startswith("--without=")]
    files = [a for a in sys.argv[1:] if not a.startswith("--")]
    if len(files) < 2:
        sys.exit(__doc__)
    sys.exit(main(*files, without="".join(options)))
