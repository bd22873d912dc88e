# SPDX-License-Identifier: MIT
"""tools/test --coverage: which lines of the core and the backends the suite
reaches, by gcov and gcovr, and which of the Python tools their tests reach, by
coverage.py."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import common
from common import Problem, say

MEASURED = ("src/", "backends/")
PYTHON = "/usr/bin/python3"  # Debian's, for which its modules are
# Tests of tools; those of the installation run copies, which do not count.
TOOL_SUITES = ("debuggers", "packaging")
# Link the library's archive themselves, without what counts; run no tool.
NO_TOOLS = ("install", "inline")


def ranges(lines: list[int]) -> str:
    """12, 13, 14, 20 as "12-14, 20"."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def table(files: dict[str, dict[int, int]]) -> str:
    """Markdown: of each file the lines, the reached ones, the others. `files`:
    of each line that counts, how often it was reached."""
    rows = ["| file | lines | reached | not reached |", "|---|---:|---:|---|"]
    total = reached = 0
    for name, lines in sorted(files.items()):
        missed = sorted(n for n, count in lines.items() if not count)
        hit = len(lines) - len(missed)
        total += len(lines)
        reached += hit
        if lines:
            rows.append(f"| {name} | {len(lines)} | "
                        f"{100 * hit / len(lines):.1f} % | {ranges(missed)} |")
    rows.append(f"| **all** | {total} | {100 * reached / max(total, 1):.1f} % "
                "| |")
    return "\n".join(rows)


def c_lines(path: Path) -> dict[str, dict[int, int]]:
    filters = [part for folder in MEASURED
               for part in ("--filter", str(common.ROOT / folder))]
    done = subprocess.run(
        ["gcovr", "--root", str(common.ROOT), *filters, "--json", "-",
         "--gcov-ignore-parse-errors", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Problem("gcovr failed:\n" + done.stderr)
    files: dict[str, dict[int, int]] = {}
    for file in json.loads(done.stdout)["files"]:
        lines = files.setdefault(file["file"], {})
        for line in file["lines"]:  # once per variant that has it
            if not line["gcovr/noncode"]:
                number = line["line_number"]
                lines[number] = max(lines.get(number, 0), line["count"])
    return files


def coverage_py(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "coverage", *arguments,
         f"--rcfile={folder / 'settings'}"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Problem(f"coverage {arguments[0]} failed:\n{done.stdout}")


def watch_python(folder: Path) -> dict[str, str]:
    """Settings for which every Python below, gdb's too, counts its lines."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "settings").write_text(
        "[run]\nparallel = true\n"
        f"data_file = {folder / 'data'}\n"
        f"include = {common.ROOT}/tools/*\n"
        "disable_warnings = no-data-collected, module-not-measured\n")
    (folder / "sitecustomize.py").write_text(
        "try:\n"
        "    import coverage\n"
        "    coverage.process_startup()\n"
        "except ImportError:\n"
        "    pass  # another Python than Debian's\n")
    return {"COVERAGE_PROCESS_START": str(folder / "settings"),
            "PYTHONPATH": str(folder)}


def python_lines(folder: Path) -> dict[str, dict[int, int]]:
    coverage_py(folder, "combine")
    coverage_py(folder, "json", "-o", "report.json")
    files = json.loads((folder / "report.json").read_text())["files"]
    return {str(Path(name).relative_to(common.ROOT)):
            {**dict.fromkeys(file["executed_lines"], 1),
             **dict.fromkeys(file["missing_lines"], 0)}
            for name, file in files.items()}


def run(options: argparse.Namespace, runner: type) -> list:
    """Runs the tests and prints the tables; returns the cases."""
    if not shutil.which("gcovr"):
        raise Problem("gcovr is missing (tools/setup coverage)")
    # The tests of the tools run the first python3 that there is.
    environment = {"PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}"}
    path = common.build("test-coverage", [
        "-Dvariants=true", "-Db_coverage=true", "-Dbenchmarks=disabled",
        "-Dexamples=disabled", "-Dvalgrind=disabled", "--buildtype=debug"],
        environment)
    for old in path.rglob("*.gcda"):
        old.unlink()
    cases = runner(path, "coverage, ", options, slow=True,
                   suite="suite").run()
    python = ""
    if not options.backend and not options.names:
        folder = path / "python"
        environment.update(watch_python(folder))
        for suite in TOOL_SUITES:
            tests = runner(path, "coverage, ", options, slow=True,
                           suite=suite, environment=environment)
            tests.tests = [test for test in tests.tests
                           if test["name"].split(" / ")[-1] not in NO_TOOLS]
            cases += tests.run()
        python = "\n\n" + table(python_lines(folder))
    text = table(c_lines(path)) + python
    (path / "coverage.md").write_text(text + "\n")
    say(f"\n{text}\n(also in {path.relative_to(common.ROOT)}/coverage.md)")
    return cases
