# SPDX-License-Identifier: MIT
"""tools/bench --only limits: ours, the floor and Boost, row by row.

A floor is the least that a program could do: bench/floor/, in the same
process as what it is compared with. docs/performance.md has the rows and what
limits each. With GREENLET_BENCH_LIMITS=full in the environment also ten
million greenlets, which take 2.2 GiB.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import common
from common import Problem, say

BOOST = "floor/boost-switch"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    ours      the benchmark, without its contestant
    floors    names of floors: the fastest counts
    target    nanoseconds that are to be reached
    of_floor  what target was to the floor on the machine that it was set on
              (one Zen 4 core); the same ratio is as good. 0: none
    """

    label: str
    backend: str
    ours: str
    floors: tuple[str, ...]
    target: float
    of_floor: float
    of_boost: float = 0


def copying(number: int, label: str, target: float, floor: float) -> Row:
    return Row(f"{label} on one lane", "copy", f"live/{number}",
               (f"floor/live/{number}", f"floor/exchange/{number}"), target,
               target / floor)


TIMES = (
    Row("resident, through the API", "copy", "switch", ("floor/switch",), 2.8,
        2.8 / 2.2, 2.8 / 5.7),
    Row("resident, inline", "copy", "inline", ("floor/inline",), 1.4,
        1.4 / 1.15, 1.4 / 5.7),
    copying(64, "64 B", 8, 5.7),
    copying(256, "256 B", 11, 8.9),
    copying(1024, "1 KiB", 25, 21.8),
    copying(4096, "4 KiB", 88, 78),
    copying(16384, "16 KiB", 350, 314),
    copying(65536, "64 KiB", 1400, 1255),
    Row("100,000 in order", "copy", "visit/in-order",
        ("floor/visit/in-order",), 8, 8 / 5),
    Row("100,000 shuffled", "copy", "visit/shuffled",
        ("floor/visit/shuffled",), 45, 45 / 26),
    Row("spawn, run, finish, free", "copy", "spawn", ("floor/spawn",), 12,
        12 / 7),
    Row("private: through the API", "private", "switch", ("floor/switch",),
        2.6, 2.6 / 2.2, 2.6 / 5.7),
    Row("private: inline", "private", "inline", ("floor/inline",), 1.4,
        1.4 / 1.15, 1.4 / 5.7),
    Row("private: 100,000 in order", "private", "visit/in-order",
        ("floor/visit-stacks/in-order",), 25, 25 / 28),
    Row("private: 100,000 shuffled", "private", "visit/shuffled",
        ("floor/visit-stacks/shuffled",), 60, 60 / 70),
)

PER_SWITCH = ("bytes", "evictions", "fills", "allocations")


class Figures:
    """What all rounds have measured."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], list[dict]] = {}
        self.errors: dict[tuple[str, str], str] = {}

    def add(self, backend: str, report: dict) -> None:
        for entry in report["benchmarks"]:
            key = (backend, re.sub(r"^(copy|private)/", "ours/",
                                   entry["name"]))
            if entry.get("error_occurred"):
                self.errors[key] = entry["error_message"]
            else:
                self.entries.setdefault(key, []).append(entry)

    def all(self, backend: str, name: str, field: str = "cpu_time"
            ) -> list[float]:
        return [entry[field] for entry in self.entries.get((backend, name), [])
                if field in entry]

    def median(self, backend: str, name: str, field: str = "cpu_time"
               ) -> float | None:
        found = self.all(backend, name, field)
        return statistics.median(found) if found else None

    def ratio(self, backend: str, name: str, base: str) -> float | None:
        """The median of the rounds' ratios."""
        pairs = list(zip(self.all(backend, name), self.all(backend, base)))
        return statistics.median(a / b for a, b in pairs) if pairs else None


def measure(path: Path, backend: str, names: list[str], seconds: float,
            limits: str, figures: Figures) -> None:
    """One process."""
    pattern = "|".join(re.escape(name).replace("\\-", "-") for name in names)
    program = path / "bench" / f"bench-{backend}"
    done = subprocess.run(
        [str(program), "--benchmark_format=json",
         f"--benchmark_min_time={seconds}",
         f"--benchmark_filter=^({pattern})$"],
        env=common.clean_environment(GREENLET_BENCH_LIMITS=limits), text=True,
        errors="replace", capture_output=True)
    try:
        if done.returncode not in (0, 3):
            raise ValueError(common.describe_status(done.returncode))
        figures.add(backend, json.loads(done.stdout))
    except ValueError as error:
        for name in names:
            figures.errors[backend, re.sub(r"^(copy|private)/", "ours/",
                                           name)] = str(error)


def number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    return f"{value:,.{digits}f}" if value < 99.95 else f"{value:,.0f}"


def verdict(ours: float | None, target: float, ratio: float | None,
            of_floor: float) -> str:
    if ours is None:
        return "-"
    if ours <= target:
        return "reached"
    if ratio is not None and of_floor and ratio <= of_floor:
        return "reached, as a ratio"
    return "NOT reached"


def table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [
            cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1])]
        say("  ".join([*cells, row[-1]]).rstrip())


def times(figures: Figures, backends: set[str]) -> None:
    rows = [["", "ours", "floor", "ratio", "target", "same ratio", "to Boost",
             ""]]
    counts = [["per switch", *PER_SWITCH, ""]]
    for row in TIMES:
        if row.backend not in backends:
            continue
        name = f"ours/{row.ours}"
        ours = figures.median(row.backend, name)
        floors = {floor: figures.median(row.backend, floor)
                  for floor in row.floors}
        known = {f: v for f, v in floors.items() if v is not None}
        floor = min(known, key=lambda f: known[f]) if known else None
        ratio = figures.ratio(row.backend, name, floor) if floor else None
        boost = (figures.ratio(row.backend, name, BOOST)
                 if row.of_boost else None)
        text = verdict(ours, row.target, ratio, row.of_floor)
        if text.startswith("NOT") and boost is not None \
                and boost <= row.of_boost:
            text = "reached, as a ratio to Boost"
        if ours is None:
            text = figures.errors.get((row.backend, name), "not measured")
        rows.append([row.label, number(ours), number(known.get(floor or "")),
                     number(ratio), number(row.target, 1),
                     number(row.target * known[floor] * row.of_floor
                            / row.target) if floor and row.of_floor else "-",
                     number(boost) if row.of_boost else "", text])
        if row.ours == "spawn":
            continue
        found = [figures.median(row.backend, name, f"{what}/switch")
                 for what in PER_SWITCH]
        if found[0] is not None:
            counts.append([row.label, number(found[0], 1),
                           *(number(value or 0, 3) for value in found[1:]),
                           ""])
    say("\nNanoseconds, the median of the rounds. Ratios are within a round "
        "and a process.\n\"same ratio\": what the target would be here, were "
        "this the machine that it was\nset on.\n")
    table(rows)
    boost = figures.median("copy", BOOST)
    say(f"\nBoost's jump_fcontext: {number(boost)}" if boost is not None else
        "\nBoost's jump_fcontext: not here (libboost-context-dev)")
    say()
    table(counts)


def park(figures: Figures, full: bool, backends: set[str]) -> None:
    wanted = [("copy", 1000000, 208), ("private", 100000, 4160)]
    if full:
        wanted.insert(1, ("copy", 10000000, 2.2 * 2**30 / 1e7))
    rows = [["made, started, waiting", "bytes each", "target", "ns each",
             "first touch", "above it", "target", "page tables", ""]]
    label = ""
    for backend, count, most in wanted:
        if backend not in backends:
            continue
        name = f"ours/parked/{count}"
        bytes_each = figures.median(backend, name, "rss/greenlet")
        if bytes_each is None:
            rows.append([f"{backend}, {count:,}", *["-"] * 7,
                         figures.errors.get((backend, name), "not measured")])
            continue
        touch = figures.median(backend, name, "first_touch_ns")
        above = [entry["cpu_time"] - entry["first_touch_ns"]
                 for entry in figures.entries[backend, name]]
        extra = statistics.median(above)
        good = [bytes_each <= most]
        if backend == "copy":
            good.append(extra <= 50)
        rows.append([f"{backend}, {count:,}", number(bytes_each, 1),
                     number(most, 0),
                     number(figures.median(backend, name)), number(touch),
                     number(extra), "50" if backend == "copy" else "",
                     number(figures.median(backend, name,
                                           "page_tables/greenlet")),
                     "reached" if all(good) else "NOT reached: " + " and ".join(
                         what for what, ok in zip(["bytes", "time"], good)
                         if not ok)])
        label = figures.entries[backend, name][0].get("label", label)
    say(f"\nMany that wait; {label}\n")
    table(rows)
    maps = figures.median("private", "ours/parked/100000", "maps")
    if maps is not None:
        try:
            most = Path("/proc/sys/vm/max_map_count").read_text().strip()
        except OSError:
            most = "unknown"
        say(f"\nprivate: mappings of a process with 100,000 guarded stacks: "
            f"{maps:,.0f}; the kernel's limit: {most}")
    rows = [["spawn to free while others wait", "ns", ""]]
    for count in (1000, 100000, 1000000, 10000000):
        value = figures.median("copy", f"ours/scale/{count}")
        if value is not None:
            rows.append([f"copy, {count:,}", number(value), ""])
    if len(rows) > 1:
        say()
        table(rows)


def run(path: Path, contestants: list, quick: bool) -> int:
    """Measures and prints. `contestants` have a name; other settings than the
    two backends' defaults have no row."""
    backends = {each.name for each in contestants} & {"copy", "private"}
    if not backends:
        raise Problem("--only limits: for the backends copy and private")
    full = os.environ.get("GREENLET_BENCH_LIMITS") == "full"
    figures = Figures()
    rounds, seconds = (3, 0.005) if quick else (9, 0.02)
    steps: list[tuple[str, Callable[[], None]]] = []

    def step(text: str, backend: str, names: list[str]) -> None:
        limits = "full" if full else "1"
        steps.append((text, lambda: measure(path, backend, names, seconds,
                                            limits, figures)))

    for count in range(1, rounds + 1):
        for backend in sorted(backends):
            names = [BOOST]
            for row in TIMES:
                if row.backend == backend and not row.ours.startswith("visit"):
                    names += [f"{backend}/{row.ours}", *row.floors]
            step(f"round {count} of {rounds}: {backend}", backend,
                 list(dict.fromkeys(names)))
        if count % 3 == 0:
            for backend in sorted(backends):
                for order in ("in-order", "shuffled"):
                    floor = "visit" if backend == "copy" else "visit-stacks"
                    step(f"round {count}: {backend}, 100,000 {order}", backend,
                         [f"{backend}/visit/{order}", f"floor/{floor}/{order}"])
                amount = 1000000 if backend == "copy" else 100000
                step(f"round {count}: {backend}, {amount:,} waiting", backend,
                     [f"{backend}/parked/{amount}"])
    if "copy" in backends:
        for count in (1000, 100000, 1000000) + ((10000000,) if full else ()):
            step(f"copy, spawn beside {count:,}", "copy",
                 [f"copy/scale/{count}"])
        if full:
            step("copy, 10,000,000 waiting", "copy", ["copy/parked/10000000"])
    last = ""
    try:
        for at, (text, action) in enumerate(steps, 1):
            if text.split(":")[0] != last:
                say(f"[{at}/{len(steps)}] {text}")
            last = text.split(":")[0]
            action()
    except KeyboardInterrupt:
        say("interrupted: what was measured so far")
    times(figures, backends)
    park(figures, full, backends)
    for (backend, name), why in figures.errors.items():
        say(f"{backend}: {name}: {why}")
    return 0
