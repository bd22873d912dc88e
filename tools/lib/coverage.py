# SPDX-License-Identifier: MIT
"""tools/test --coverage: which lines of the core and the backends the suite
reaches, by gcov and gcovr."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess

import common
from common import Problem, say

MEASURED = ("src/", "backends/")


def ranges(lines: list[int]) -> str:
    """12, 13, 14, 20 as "12-14, 20"."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def table(report: dict) -> str:
    """Markdown: of each file the lines, the reached ones, the others."""
    rows = ["| file | lines | reached | not reached |", "|---|---:|---:|---|"]
    total = reached = 0
    for file in sorted(report["files"], key=lambda f: f["file"]):
        lines: dict[int, int] = {}
        for line in file["lines"]:  # once per variant that has it
            if not line["gcovr/noncode"]:
                number = line["line_number"]
                lines[number] = max(lines.get(number, 0), line["count"])
        missed = sorted(n for n, count in lines.items() if not count)
        hit = len(lines) - len(missed)
        total += len(lines)
        reached += hit
        if lines:
            rows.append(f"| {file['file']} | {len(lines)} | "
                        f"{100 * hit / len(lines):.1f} % | {ranges(missed)} |")
    rows.append(f"| **all** | {total} | {100 * reached / max(total, 1):.1f} % "
                "| |")
    return "\n".join(rows)


def run(options: argparse.Namespace, runner: type) -> list:
    """Runs the suite and prints the table; returns the cases."""
    if not shutil.which("gcovr"):
        raise Problem("gcovr is missing (tools/setup coverage)")
    path = common.build("test-coverage", [
        "-Dvariants=true", "-Db_coverage=true", "-Dbenchmarks=disabled",
        "-Dexamples=disabled", "-Dvalgrind=disabled", "--buildtype=debug"])
    for old in path.rglob("*.gcda"):
        old.unlink()
    cases = runner(path, "coverage, ", options, slow=True,
                   suite="suite").run()
    filters = [part for folder in MEASURED
               for part in ("--filter", str(common.ROOT / folder))]
    done = subprocess.run(
        ["gcovr", "--root", str(common.ROOT), *filters, "--json", "-",
         "--gcov-ignore-parse-errors", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Problem("gcovr failed:\n" + done.stderr)
    text = table(json.loads(done.stdout))
    (path / "coverage.md").write_text(text + "\n")
    say(f"\n{text}\n(also in {path.relative_to(common.ROOT)}/coverage.md)")
    return cases
