#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tests that docs/contract.md names for each number are those that there
are, in TAP.

    contract.py SOURCE SUITE     compares the page with the sources, and both
                                 with what the built suite lists
    contract.py --write SOURCE   writes the names into the page
"""

import collections
import re
import subprocess
import sys
import textwrap
from pathlib import Path

NUMBERED = re.compile(r"^\*\*(\d+)\.(.*?)(?=^\*\*\d+\.|^## |\Z)", re.S | re.M)
TESTS = re.compile(r"^Tests `contract_(\d\d)_`: .*?(?=\n\n|\Z)", re.S | re.M)
CASE = re.compile(r"\bTEST\((\w+)\)")
NUMBERED_CASE = re.compile(r"contract_(\d\d)_(\w+)")


def from_sources(root):
    """{number: {file: names}}, and what has no number."""
    found = collections.defaultdict(lambda: collections.defaultdict(set))
    others = set()
    for path in sorted((root / "tests").glob("*.c*")):
        for name in CASE.findall(path.read_text()):
            if match := NUMBERED_CASE.fullmatch(name):
                found[int(match[1])][path.name].add(match[2])
            else:
                others.add(name)
    return found, others


def from_page(page):
    """{number: (its text, {file: names} or None)}"""
    numbers = {}
    for part in NUMBERED.finditer(page):
        number, text = int(part[1]), part[2]
        tests = TESTS.search(text)
        files = None
        if tests and int(tests[1]) == number:
            files = {}
            listed = tests[0].partition(":")[2].strip().rstrip(".")
            for group in listed.split(";"):
                file, _, names = group.partition(":")
                files[Path(file.strip().strip("`")).name] = {
                    name.strip() for name in names.split(",")}
        numbers[number] = text, files
    return numbers


def paragraph(number, files):
    groups = (f"`tests/{file}`: " + ", ".join(sorted(files[file]))
              for file in sorted(files))
    return textwrap.fill(
        f"Tests `contract_{number:02}_`: " + "; ".join(groups) + ".", 79,
        break_long_words=False, break_on_hyphens=False)


def write(root, path):
    found, _ = from_sources(root)
    page = path.read_text()

    def with_tests(part):
        number, text = int(part[1]), TESTS.sub("", part[2]).rstrip()
        if number in found:
            text += "\n\n" + paragraph(number, found[number])
        return f"**{number}.{text}\n\n"

    path.write_text(NUMBERED.sub(with_tests, page).rstrip() + "\n")


def pairs(files):
    return {(file, name) for file in files for name in files[file]}


def problems_of(number, text, listed, found):
    for file, name in sorted(pairs(found) - pairs(listed or {})):
        yield f"not on the page: contract_{number:02}_{name} of tests/{file}"
    for file, name in sorted(pairs(listed or {}) - pairs(found)):
        yield f"not in tests/{file}: contract_{number:02}_{name}"
    if found and "[not yet]" in text:
        yield "the page says that it is not there yet"
    if not found and "[not yet]" not in text:
        yield "no test has this number"


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    root = Path(arguments[1] if arguments[0] == "--write" else arguments[0])
    path = root / "docs" / "contract.md"
    if arguments[0] == "--write":
        write(root, path)
        return 0
    found, others = from_sources(root)
    numbers = from_page(path.read_text())
    done = subprocess.run([arguments[1], "--list"], check=True,
                          capture_output=True, text=True)
    built = set(done.stdout.split())
    results = []
    for number in sorted(set(numbers) | set(found)):
        text, listed = numbers.get(number, ("", {}))
        problems = list(problems_of(number, text, listed,
                                    found.get(number, {})))
        if number not in numbers:
            problems.append("the page has no such number")
        results.append((f"contract_{number:02}_names_its_tests", problems))
    numbered = {f"contract_{number:02}_{name}"
                for number, files in found.items() for _, name in pairs(files)}
    results.append(("every test is in the suite", [
        f"in the sources, not in the suite: {name}" for name in
        sorted(numbered - built)] + [
        f"in the suite, not in the sources: {name}" for name in
        sorted(built - numbered - others)]))
    last = max(numbers)
    results.append(("no number is missing", [
        f"the page lacks {number}" for number in range(1, last + 1)
        if number not in numbers]))
    print(f"TAP version 13\n1..{len(results)}")
    for i, (name, problems) in enumerate(results, 1):
        print(f"{'not ok' if problems else 'ok'} {i} - {name}")
        for problem in problems:
            print(f"# {problem}")
    if any(problems for _, problems in results):
        print("# tests/contract.py --write brings the page up to date")
    return any(problems for _, problems in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
