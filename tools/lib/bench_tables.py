# SPDX-License-Identifier: MIT
"""The tables that tools/bench prints."""

from __future__ import annotations

from bench_data import (FLOOR, MEANINGLESS, NOISY, TIME, Data, Notes, Row,
                        figure, noise)
from bench_workloads import family
from common import say


PEERS_BESIDE = 5  # so many in one table


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


class Tables:
    """Those of one run; footnotes and remarks are collected on the way."""

    def __init__(self, data: Data):
        self.data = data
        self.notes = Notes()

    def cell(self, row: Row | None) -> str:
        if row and row.values():
            return figure(row.median()) + (noise(row.values()) or " ")
        if row and row.error:
            return f"[{self.notes.number(row)}] "
        return "" if row and row.contestant == FLOOR else "- "

    def ratio(self, row: Row | None, base: str) -> str:
        value = self.data.ratio(row, base) if row else None
        return f"{value:.2f} " if value is not None else "- "

    def times(self, columns: list[str], workloads: list[str], base: str,
              floored: bool) -> list[list[str]]:
        """Rows of times, with ratios below them; a gap between families."""
        data = self.data
        rows: list[list[str]] = []
        floored = floored and any(data.row(FLOOR, each) for each in workloads)
        last = ""
        for workload in workloads:
            found = [data.row(column, workload) for column in columns]
            if family(workload) != last:
                rows.append([])
                last = family(workload)
            unit = next(row.unit for row in data.rows.values()
                        if row.workload == workload)
            floor = data.row(FLOOR, workload) if floored else None
            rows.append([f"{workload}, ns/{unit}",
                         *(self.cell(row) for row in found),
                         *([self.cell(floor) if floor else ""]
                           if floored else [])])
            bases = [FLOOR] if floor else []
            if base:
                bases += [base] if base != FLOOR else []
            elif workload == "switch":
                bases += ["private"]
            for each in bases:
                if each == FLOOR or data.row(each, workload):
                    rows.append([f"  times {'the ' * (each == FLOOR)}{each}",
                                 *(self.ratio(row, each) for row in found)])
        heading = ["", *(name + " " for name in columns)]
        if floored:
            heading.append(FLOOR + " ")
        return [heading, *rows]

    def counters(self, columns: list[str], wanted: str) -> list[list[str]]:
        """What workloads count (only `wanted`, unless that is ""), but for
        rows of zeros and dashes."""
        data, rows = self.data, []
        for workload in data.workloads():
            found = [data.row(column, workload) for column in columns]
            quantities = dict.fromkeys(
                quantity for row in found if row
                for quantity in row.quantities()
                if quantity != TIME and wanted in ("", quantity))
            for quantity in quantities:
                cells = [figure(row.median(quantity))
                         if row and row.values(quantity) else "-"
                         for row in found]
                if any(cell not in ("-", "0") for cell in cells):
                    rows.append((quantity, [workload, *cells]))
        result: list[list[str]] = []
        for quantity in dict.fromkeys(quantity for quantity, _ in rows):
            if result:
                result.append([])
            result += [[quantity]] if quantity != "bytes/switch" else []
            result += [row for each, row in rows if each == quantity]
        return [["", *columns], *result] if result else []


def show(data: Data, base: str, everything: bool = True) -> None:
    """Prints all tables of a run; peers have one of their own.

    base        of the ratios; "": private, and only below the plain switch
    everything  all that was counted; else only the bytes that were copied
    """
    tables = Tables(data)
    ours = [each for each in data.contestants if each not in data.peers]
    theirs = data.peers
    workloads = [each for each in data.workloads()
                 if any(data.row(one, each)
                        for one in data.contestants)]
    rounds = max((len(row.samples) for row in data.rows.values()
                  if row.contestant != FLOOR), default=0)
    pinned = data.context.get("pinned_to_cpu", "-1")
    say("\nTime: nanoseconds of CPU time, the median of "
        f"{rounds} round{'s' * (rounds != 1)}; "
        f"{data.context.get('compiler', 'unknown compiler')}, release "
        "build, "
        + (f"on CPU {pinned}" if pinned != "-1" else "not pinned to a CPU")
        + "\n")
    if ours:
        table(tables.times(ours, [each for each in workloads if any(
            data.row(one, each) for one in ours)], base, True))
    beside = [each for each in (base, "copy", "private") if each in ours][:2]
    for first in range(0, len(theirs), PEERS_BESIDE):
        some = theirs[first:first + PEERS_BESIDE]
        if not first:
            say("\nPeers, which do the same work")
        say()
        table(tables.times([*beside, *some], [each for each in workloads if any(
            data.row(one, each) for one in some)], base, False))
    counted = tables.counters(ours, "" if everything else "bytes/switch")
    if counted:
        say("\nCopied: bytes per switch, saved and filled"
            + ("; live/N: twice N, or twice what\nthe library's frames "
               "alone take" if any(family(each) == "live"
                                   for each in workloads) else "") + "\n")
        table(counted)
    footer(tables)


def footer(tables: Tables) -> None:
    data = tables.data
    sizes = [row.label for row in data.rows.values()
             if row.workload == "sizes" and row.label]
    say()
    if sizes:
        say(f"Sizes in {sizes[0]}")
    if any(row.contestant == FLOOR for row in data.rows.values()):
        say("floor: switch is a bare push-six/pop-and-jump switch, expat "
            "the plain callbacks,\n  measured in each contestant's "
            "process; ratios are within a process.")
    marks = {noise(row.values()) for row in data.rows.values()}
    if "~" in marks:
        say(f"~ the middle half of the rounds spans more than {NOISY:.0%}: "
            "take such figures\n  with care")
    if "!" in marks:
        names = data.meaningless()
        say(f"! WARNING: it spans more than {MEANINGLESS:.0%}; these figures "
            "say nothing:\n  " + ", ".join(names[:8])
            + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            + ";\n  run again with more rounds, or when the machine has less "
            "to do")
    for number, note in enumerate(tables.notes.texts(), 1):
        say(f"[{number}] {note}")
    for name, why in data.left_out.items():
        say(f"left out: {name}: {why}")
