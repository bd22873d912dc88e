# SPDX-License-Identifier: MIT
"""The report: one HTML page that needs nothing else, and what it was drawn
from, as JSON and CSV."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bench_data
import bench_workloads
from bench_data import (FLOOR, MEANINGLESS, NOISY, TIME, Data, Notes, figure)
from common import Problem

CLASSES = {"": "", "~": "noisy", "!": "meaningless"}


@dataclasses.dataclass
class Cell:
    name: str = ""
    quantity: str = TIME
    text: str = ""
    title: str = ""
    noise: str = ""
    ratio: str = ""
    error: str = ""
    note: int = 0


@dataclasses.dataclass
class Line:
    title: str
    unit: str
    cells: list[Cell | None]


@dataclasses.dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[Line]


@dataclasses.dataclass
class Section:
    name: str
    title: str
    tables: list[Table]


def prepare(folder: str) -> None:
    """Makes the folder, and says what is missing before anything is run."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder, ".writable")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Problem(f"--report: {error}") from None
    environment()
    plots_module()


def environment():
    """Jinja, set up for our template."""
    try:
        import jinja2
    except ImportError:
        raise Problem("--report needs Jinja (Debian: python3-jinja2)"
                      ) from None
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True, undefined=jinja2.StrictUndefined)


def plots_module():
    try:
        import bench_plots
    except ImportError as error:
        raise Problem("--report needs matplotlib (Debian: python3-matplotlib)"
                      f": {error}") from None
    return bench_plots


class Page:
    """What the template shows. Cells are made of the CSV's rows, so that the
    page cannot say anything else than the CSV does."""

    def __init__(self, data: Data):
        self.data = data
        self.notes = Notes()
        self.figures = {(line["contestant"], line["workload"],
                         line["quantity"]): line for line in data.table()}

    def cell(self, contestant: str, workload: str,
             quantity: str) -> Cell | None:
        line = self.figures.get((contestant, workload, quantity))
        if not line:
            return None
        name = f"{contestant}/{workload}"
        if "median" not in line:
            return Cell(name, error=line["error"], note=self.notes.number(
                self.data.rows[name]))
        low, high, least, most = (
            figure(float(line[key])) for key in
            ("quarter", "three_quarters", "least", "most"))
        ratio = line.get("times_base", "")
        return Cell(
            name, quantity, figure(float(line["median"])),
            f"{name}, {line['unit']}: middle half {low} to {high}, all "
            f"{least} to {most}, {line['rounds']} rounds",
            CLASSES[line["noise"]] if quantity == TIME else "",
            f"{float(ratio):.2f}"
            if ratio and contestant != self.data.base else "")

    def table(self, title: str, workloads: list[tuple[str, str]],
              columns: list[str], beside: list[str] = []) -> Table | None:
        """One table, or None if it would be empty.

        workloads  and the quantity that is shown of each
        beside     columns that are shown to compare with
        """
        rows = []
        for workload, quantity in workloads:
            cells = [self.cell(column, workload, quantity)
                     for column in columns]
            if any(cells):
                cells[:0] = [self.cell(column, workload, quantity)
                             for column in beside]
                rows.append(([workload, quantity], cells))
        columns = beside + columns
        # Who has nothing of all this needs no column.
        used = [place for place in range(len(columns))
                if any(cells[place] for _, cells in rows)]
        if not rows:
            return None
        units = {line["workload"]: line["unit"].removeprefix("ns/")
                 for line in self.figures.values()
                 if line["quantity"] == TIME}
        return Table(
            title, [columns[place] for place in used],
            [Line(workload, f"per {units.get(workload, 'iteration')}"
                  if quantity == TIME else quantity,
                  [cells[place] for place in used])
             for (workload, quantity), cells in rows])

    def sections(self) -> list[Section]:
        data = self.data
        ours = [each for each in data.contestants if each not in data.peers]
        # For comparison, beside the peers.
        known = [each for each in dict.fromkeys(["copy", data.base])
                 if each in ours]
        others = list(dict.fromkeys(
            row.contestant for row in data.rows.values()
            if row.contestant not in (*data.contestants, FLOOR)))
        result = []
        groups = dict.fromkeys([*bench_workloads.GROUPS,
                                bench_workloads.OTHERS])
        for group in groups:
            workloads = [each for each in data.workloads()
                         if bench_workloads.group(each) == group]
            times = [(each, TIME) for each in workloads]
            counters = [
                (each, quantity) for each in workloads
                for quantity in dict.fromkeys(
                    quantity for row in data.rows.values()
                    if row.workload == each for quantity in row.quantities())
                if quantity != TIME]
            tables = [
                self.table("Time, ns", times, [*ours, FLOOR]),
                self.table("Time of peers, ns", times, data.peers, known),
                self.table("Counted", counters, ours),
                self.table("Counted of peers", counters, data.peers, known),
                self.table("Counted, by lanes", counters, others)]
            tables = [each for each in tables if each]
            if tables:
                result.append(Section(group, bench_workloads.title(group),
                                      tables))
        return result

    def facts(self) -> list[tuple[str, str]]:
        context = self.data.context
        result = list(context.get("machine", {}).items()) or [
            ("machine", "not recorded")]
        for name, key in (("compiler", "compiler"),
                          ("pinned to CPU", "pinned_to_cpu"),
                          ("command", "command")):
            if key in context:
                result.append((name, str(context[key])))
        versions: dict[str, list[str]] = {}
        for name, version in context.get("versions", {}).items():
            if name in self.data.peers:
                result.append((name, version))
            else:
                versions.setdefault(version, []).append(name)
        return result + [("libgreenlet", version) for version in versions]


def page(data: Data) -> str:
    """The HTML."""
    plots = plots_module()
    content = Page(data)
    sections = content.sections()
    drawings = plots.draw_all(data)
    for plot in drawings:
        for shape, drawing in plot.drawings.items():
            plot.drawings[shape] = drawing.replace(
                "<svg ", f'<svg class="{shape}" ', 1)
    facts = content.facts() + [("plots", plots.library())]
    return environment().get_template("bench_report.html").render(
        data=data, sections=sections, notes=content.notes.texts(), facts=facts,
        date=data.context.get("machine", {}).get("date", ""), plots=drawings,
        left_out=list(data.left_out.items()), remarks=[],
        base=data.base, meaningless=data.meaningless(), noisy_limit=NOISY,
        meaningless_limit=MEANINGLESS) + "\n"


def write(data: Data, folder: str) -> list[str]:
    """Writes all three; returns their names. The data come first: should the
    page fail, they are there."""
    files = [str(Path(folder, name)) for name in
             ("results.json", "results.csv", "index.html")]
    bench_data.save(data, files[0])
    bench_data.replace_file(files[1], data.to_csv())
    bench_data.replace_file(files[2], page(data))
    return files
