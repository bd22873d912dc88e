# SPDX-License-Identifier: MIT
"""tools/bench: the main job and the benchmarks, on every backend."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
import limits
from common import Problem, say

DOCUMENT = "/usr/share/mime/packages/freedesktop.org.xml"
FLOOR = "floor"
NOISY = 0.15  # what Result.spread() may be


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A backend and its lane setting."""

    name: str
    backend: str
    lanes: int | None = None

    def environment(self) -> dict[str, str]:
        if self.lanes is None:
            return common.clean_environment()
        return common.clean_environment(GREENLET_LANES=str(self.lanes))


def contestants() -> list[Contestant]:
    result = []
    for backend in common.backends():
        result.append(Contestant(backend, backend))
        if backend == "copy":
            result += [Contestant(f"copy-lanes{lanes}", backend, lanes)
                       for lanes in (0, 1)]
    order = ["copy", "copy-lanes0", "copy-lanes1", "private"]
    return sorted(result, key=lambda c: (order + [c.name]).index(c.name))


# ---- Progress ------------------------------------------------------------

class Progress:
    """One line that is rewritten on a terminal; else a line per round."""

    def __init__(self, total: int):
        self.total = total
        self.done = 0
        self.start = time.monotonic()
        self.live = sys.stdout.isatty()
        self.last = ""

    def step(self, stage: str, what: str) -> None:
        left = ""
        if self.done >= 5:
            seconds = ((time.monotonic() - self.start) / self.done
                       * (self.total - self.done))
            left = (f", {seconds / 60:.0f} min left" if seconds >= 90
                    else f", {seconds:.0f} s left")
        if self.live:
            line = f"[{self.done}/{self.total}] {stage}{left}: {what}"
            width = shutil.get_terminal_size().columns - 1
            print("\r\033[K" + line[:width], end="", flush=True)
        elif stage != self.last:
            say(f"[{self.done}/{self.total}] {stage}{left}")
        self.last = stage
        self.done += 1

    def clear(self) -> None:
        if self.live:
            print("\r\033[K", end="", flush=True)


# ---- Tables --------------------------------------------------------------

def table(rows: list[list[str]]) -> None:
    """Prints rows of cells; the first column to the left, others to the
    right. A row of one cell is a heading, an empty row an empty line."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[i]) for row in full if i < len(row))
              for i in range(max(map(len, full)))]
    for row in rows:
        if len(row) <= 1:
            say("".join(row))
            continue
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width)
                  for cell, width in zip(row[1:], widths[1:])]
        say("  ".join(cells).rstrip())


def figure(value: float) -> str:
    """Three digits that count, and all of those before the point."""
    if value == 0:
        return "0"
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:,.0f}"


# ---- The main job --------------------------------------------------------

@dataclasses.dataclass
class Job:
    """What expat-pull printed for one way of parsing."""

    events: int
    digest: str
    switches: int
    copied: int
    ms: float


def run_job(program: Path, contestant: Contestant,
            passes: int) -> dict[str, Job]:
    done = subprocess.run([str(program), "--passes", str(passes), DOCUMENT],
                          env=contestant.environment(), text=True,
                          errors="replace", capture_output=True)
    if done.returncode != 0:
        raise Problem(f"{contestant.name}: {program.name}: "
                      + common.describe_status(done.returncode)
                      + "".join("\n  " + line
                                for line in done.stderr.splitlines()))
    result = {}
    for line in done.stdout.splitlines()[1:]:
        name, events, digest, switches, copied, ms = line.split()
        result[name] = Job(int(events), digest, int(switches), int(copied),
                           float(ms))
    return result


def main_job(path: Path, chosen: list[Contestant], passes: int) -> list[str]:
    """Runs it everywhere, prints the table, returns what went wrong."""
    say(f"\nThe main job: expat as a pull parser, over {DOCUMENT}"
        f"\n({os.path.getsize(DOCUMENT):,} bytes; one switch per event and "
        f"one back; fastest of {passes} passes)\n")
    wrong: list[str] = []
    callback: Job | None = None
    found: dict[str, Job] = {}
    added_ms: dict[str, float] = {}
    for contestant in chosen:
        program = (path / "docs" / "examples"
                   / f"expat-pull-{contestant.backend}")
        try:
            jobs = run_job(program, contestant, passes)
        except (Problem, OSError, ValueError) as problem:
            wrong.append(f"main job: {problem}")
            continue
        found[contestant.name] = jobs["pull"]
        added_ms[contestant.name] = jobs["pull"].ms - jobs["callback"].ms
        if callback is None or jobs["callback"].ms < callback.ms:
            callback = jobs["callback"]
    if callback is None:
        return wrong
    rows = [["", "events", "digest", "switches", "bytes copied", "ms",
             "ns/switch"]]
    for name, job in [("plain callbacks", callback), *found.items()]:
        added = max(added_ms.get(name, 0), 0) * 1e6
        rows.append([name, f"{job.events:,}", job.digest, f"{job.switches:,}",
                     f"{job.copied:,}", f"{job.ms:.1f}",
                     f"{added / job.switches:.1f}" if job.switches else ""])
        if (job.events, job.digest) != (callback.events, callback.digest):
            wrong.append(f"main job: {name} delivers other events than the "
                         "plain callbacks do")
    table(rows)
    say("(ns/switch: the time beyond that of plain callbacks in the same "
        "process)")
    if not wrong:
        say("All deliver the same events.")
    return wrong


# ---- The benchmarks ------------------------------------------------------

@dataclasses.dataclass
class Result:
    """One benchmark's rounds. `vs_floor` are ratios within one process."""

    entries: list[dict]
    vs_floor: list[float]
    error: str = ""

    def median(self, field: str) -> float:
        return statistics.median(entry[field] for entry in self.entries)

    def spread(self) -> float:
        """How far the middle half of the rounds is apart, of the median."""
        times = [entry["cpu_time"] for entry in self.entries]
        middle = statistics.median(times)
        if len(times) < 2 or not middle:
            return 0.0
        low, _, high = statistics.quantiles(times, n=4, method="inclusive")
        return (high - low) / middle


class Measurement:
    """All of what was measured, round by round."""

    def __init__(self, path: Path, chosen: list[Contestant]):
        self.path = path
        self.chosen = chosen
        self.context: dict = {}
        self.results: dict[str, Result] = {}
        self.wrong: list[str] = []
        self.broken: set[tuple[str, str]] = set()
        # workload/argument -> those who have it, in the order of the lists
        self.workloads: dict[str, list[str]] = {}
        for contestant in chosen:
            for name in self.listed(contestant):
                owner, workload = name.split("/", 1)
                self.workloads.setdefault(workload, []).append(owner)

    def program(self, contestant: Contestant) -> Path:
        return self.path / "bench" / f"bench-{contestant.backend}"

    def listed(self, contestant: Contestant) -> list[str]:
        try:
            done = subprocess.run(
                [str(self.program(contestant)), "--benchmark_list_tests"],
                env=contestant.environment(), text=True, capture_output=True)
        except OSError as error:
            self.wrong.append(f"{contestant.name}: {error}")
            return []
        if done.returncode != 0:
            self.wrong.append(
                f"{contestant.name}: the list of benchmarks: "
                + common.describe_status(done.returncode))
            return []
        return done.stdout.split()

    def choose(self, pattern: str) -> None:
        """Keeps the workloads that the pattern is found in."""
        try:
            kept = {workload: owners
                    for workload, owners in self.workloads.items()
                    if re.search(pattern, workload)
                    or any(re.search(pattern, f"{owner}/{workload}")
                           for owner in owners)}
        except re.error as error:
            raise Problem(f"--only {pattern}: {error}") from None
        if not kept:
            raise Problem(f"--only {pattern}: no such workload; known: "
                          + " ".join(self.workloads))
        self.workloads = kept

    def families(self) -> dict[str, list[str]]:
        """Workloads by the word before their argument."""
        result: dict[str, list[str]] = {}
        for workload in self.workloads:
            result.setdefault(workload.split("/")[0], []).append(workload)
        return result

    def run(self, rounds: int, seconds: float) -> None:
        families = self.families()
        progress = Progress(rounds * len(families) * len(self.chosen))
        try:
            for number in range(1, rounds + 1):
                for family, workloads in families.items():
                    for contestant in self.chosen:
                        progress.step(f"round {number} of {rounds}",
                                      f"{contestant.name}/{family}")
                        if (contestant.name, family) not in self.broken:
                            self.measure(contestant, family, workloads,
                                         seconds)
        finally:
            progress.clear()

    def measure(self, contestant: Contestant, family: str,
                workloads: list[str], seconds: float) -> None:
        """One process: a family of workloads, and their floor."""
        names = "|".join(re.escape(workload).replace("\\-", "-")
                         for workload in workloads)
        done = subprocess.run(
            [str(self.program(contestant)), "--benchmark_format=json",
             f"--benchmark_min_time={seconds}",
             f"--benchmark_filter=^({contestant.name}|{FLOOR})/({names})$"],
            env=contestant.environment(), text=True, errors="replace",
            capture_output=True)
        try:
            # 3: some cases gave themselves up, which they say themselves
            if done.returncode not in (0, 3):
                raise ValueError(common.describe_status(done.returncode))
            report = json.loads(done.stdout)
        except ValueError as error:
            self.broken.add((contestant.name, family))
            self.wrong.append(
                f"{contestant.name}/{family}: {error}"
                + "".join("\n    " + line
                          for line in done.stderr.splitlines()[-5:]))
            return
        self.context = self.context or report["context"]
        entries = {entry["name"]: entry for entry in report["benchmarks"]}
        for name, entry in entries.items():
            result = self.results.setdefault(name, Result([], []))
            if entry.get("error_occurred"):
                result.error = entry["error_message"]
                continue
            result.entries.append(entry)
            floor = entries.get(FLOOR + "/" + name.split("/", 1)[1])
            if floor and floor is not entry and floor["cpu_time"] > 0:
                result.vs_floor.append(entry["cpu_time"] / floor["cpu_time"])

    # ---- What comes out --------------------------------------------------

    def versus(self, name: str, base: str) -> float | None:
        """The median ratio of two benchmarks, round by round."""
        ours, theirs = self.results.get(name), self.results.get(base)
        if not ours or not theirs:
            return None
        ratios = [a["cpu_time"] / b["cpu_time"]
                  for a, b in zip(ours.entries, theirs.entries)
                  if b["cpu_time"] > 0]
        return statistics.median(ratios) if ratios else None

    def print(self) -> None:
        columns = [contestant.name for contestant in self.chosen]
        has_floor = any(FLOOR in owners for owners in self.workloads.values())
        everyone = columns + ([FLOOR] if has_floor else [])
        notes: list[str] = []
        rows: list[list[str]] = []
        units = {key.removeprefix("unit:"): value
                 for key, value in self.context.items()
                 if key.startswith("unit:")}
        noisy = False
        for family, workloads in self.families().items():
            rows.append([])
            for workload in workloads:
                label = f"{workload}, ns/{units.get(family, 'iteration')}"
                row = [label]
                for column in everyone:
                    result = self.results.get(f"{column}/{workload}")
                    if result and result.entries:
                        mark = "~" if result.spread() > NOISY else " "
                        noisy = noisy or mark == "~"
                        row.append(figure(result.median("cpu_time")) + mark)
                    elif result and result.error:
                        notes.append(f"{column}/{workload}: {result.error}")
                        row.append(f"[{len(notes)}] ")
                    elif column == FLOOR:
                        row.append("")
                    else:
                        row.append("- ")
                rows.append(row)
                if f"{FLOOR}/{workload}" in self.results:
                    row = ["  times the floor"]
                    for column in columns:
                        result = self.results.get(f"{column}/{workload}")
                        row.append(
                            f"{statistics.median(result.vs_floor):.2f} "
                            if result and result.vs_floor else "- ")
                    rows.append(row)
                if workload == "switch" and "private" in columns:
                    row = ["  times private"]
                    for column in columns:
                        ratio = self.versus(f"{column}/switch",
                                            "private/switch")
                        row.append(f"{ratio:.2f} " if ratio else "- ")
                    rows.append(row)
        rounds = max(len(result.entries)
                     for name, result in self.results.items()
                     if not name.startswith(FLOOR + "/"))
        pinned = self.context.get("pinned_to_cpu", "-1")
        say("\nTime: nanoseconds of CPU time, the median of "
            f"{rounds} round{'s' * (rounds > 1)}; "
            f"{self.context.get('compiler', 'unknown compiler')}, release "
            "build, "
            + (f"on CPU {pinned}" if pinned != "-1" else "not pinned to a CPU")
            + "\n")
        table([["", *(name + " " for name in everyone)], *rows])

        copied: list[list[str]] = []
        for workload in self.workloads:
            row = [workload]
            for column in columns:
                result = self.results.get(f"{column}/{workload}")
                ok = (result and result.entries
                      and "bytes/switch" in result.entries[0])
                row.append(figure(result.median("bytes/switch"))
                           if ok else "-")
            if any(cell not in ("-", "0") for cell in row[1:]):
                copied.append(row)
        if copied:
            say("\nCopied: bytes per switch, saved and filled"
                + ("; live/N: twice N, or twice what\nthe library's frames "
                   "alone take" if "live" in self.families() else "") + "\n")
            table([["", *columns], *copied])

        sizes = [result.entries[0].get("label", "")
                 for name, result in self.results.items()
                 if name.endswith("/sizes") and result.entries]
        say()
        if sizes:
            say(f"Sizes in {sizes[0]}")
        if has_floor:
            say("floor: switch is a bare push-six/pop-and-jump switch, expat "
                "the plain callbacks,\n  measured in each contestant's "
                "process; ratios are within a process.")
        if noisy:
            say(f"~ the middle half of the rounds spans more than {NOISY:.0%}: "
                "take such figures\n  with care")
        for number, note in enumerate(notes, 1):
            say(f"[{number}] {note}")

    def write_json(self, file: str) -> None:
        """Google Benchmark's format; each benchmark once, its medians."""
        benchmarks = []
        for name, result in self.results.items():
            if result.entries:
                entry = dict(result.entries[0])
                for field, value in entry.items():
                    if isinstance(value, float):
                        entry[field] = result.median(field)
                entry["iterations"] = sum(each["iterations"]
                                          for each in result.entries)
                entry["cpu_time_rounds"] = [each["cpu_time"]
                                            for each in result.entries]
                if result.vs_floor:
                    entry["vs_floor"] = statistics.median(result.vs_floor)
            else:
                entry = {"name": name, "run_name": name,
                         "run_type": "iteration", "error_occurred": True,
                         "error_message": result.error}
            for index in ("family_index", "per_family_instance_index"):
                entry.pop(index, None)
            benchmarks.append(entry)
        context = {key: value for key, value in self.context.items()
                   if key not in ("executable", "host_name", "contestant")}
        context["executable"] = "tools/bench"
        with open(file, "w", encoding="utf-8") as out:
            json.dump({"context": context, "benchmarks": benchmarks}, out,
                      indent=1)
            out.write("\n")


# ---- The machine ---------------------------------------------------------

def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for key in ("model name", "Model", "cpu", "uarch"):
        if match := re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE):
            return match[1].strip()
    return platform.machine()


def print_machine() -> None:
    say(f"\n{processor()}, {os.cpu_count()} CPUs, {platform.system()} "
        f"{platform.release()}, {datetime.date.today().isoformat()}")


# ---- The command ---------------------------------------------------------

def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Builds every backend, runs the main job on real input "
        "on each, then the benchmarks, contestants interleaved round by "
        "round, and prints tables: rows are workloads, columns backends.",
        epilog="Ctrl-C ends the rounds and prints what was measured. The "
        "environment's CC and CXX choose the compiler. The build is in "
        "build/release.")
    parser.add_argument("--quick", action="store_true",
                        help="fewer and shorter rounds: half a minute "
                        "instead of some minutes")
    parser.add_argument("--rounds", type=int, metavar="N",
                        help="how many rounds (5; 3 with --quick)")
    parser.add_argument("--json", metavar="FILE",
                        help="also write all results in Google Benchmark's "
                        "format, named backend/workload[/argument]")
    known = contestants()
    names = [contestant.name for contestant in known]
    parser.add_argument("--backend", action="append", default=[], metavar="B",
                        help="only this one (may be repeated; copy stands "
                        "for all its settings): " + ", ".join(names))
    parser.add_argument("--only", metavar="PATTERN", default="",
                        help="only the workloads that this regular "
                        "expression is found in: ring, ^live/64$, ...; "
                        "the main job is left out; limits: another table, "
                        "of the figures that docs/performance.md is about")
    options = parser.parse_args(arguments)
    for backend in options.backend:
        if backend not in names:
            parser.error(f"unknown backend \"{backend}\"; known: "
                         + ", ".join(names))
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    options.chosen = [c for c in known if not options.backend
                      or c.name in options.backend
                      or c.backend in options.backend]
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.json:
        try:  # now rather than after minutes
            open(options.json, "a", encoding="utf-8").close()
        except OSError as error:
            raise Problem(f"--json: {error}") from None
    rounds = options.rounds or (3 if options.quick else 5)
    path = common.build("release", [
        "-Dvariants=true", "-Dtests=false", "--buildtype=release",
        "-Dbenchmarks=enabled", "-Dexamples=enabled"])
    print_machine()
    absent = [c for c in options.chosen
              if not (path / "bench" / f"bench-{c.backend}").exists()]
    chosen = [c for c in options.chosen if c not in absent]
    for contestant in absent:
        say(f"{contestant.name}: not usable on this machine, left out")
    if not chosen:
        raise Problem("nothing to measure")
    if options.only == "limits":
        return limits.run(path, chosen, options.quick)
    measurement = Measurement(path, chosen)
    wrong: list[str] = []
    if options.only:
        measurement.choose(options.only)
    else:
        wrong = main_job(path, chosen, 2 if options.quick else 5)
    say()
    status = 0
    try:
        measurement.run(rounds, 0.01 if options.quick else 0.1)
    except KeyboardInterrupt:
        say("interrupted: what was measured so far")
        status = 130
    if measurement.results:
        measurement.print()
    if options.json:
        measurement.write_json(options.json)
        say(f"written: {options.json}")
    wrong += measurement.wrong
    for problem in wrong:
        say(f"WRONG: {problem}")
    return status or (1 if wrong else 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Problem as stop:
        sys.exit(f"tools/bench: {stop}")
    except KeyboardInterrupt:
        sys.exit(130)
