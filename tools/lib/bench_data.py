# SPDX-License-Identifier: MIT
"""What tools/bench measured: rows, their statistics, and the JSON and CSV
that they are kept in. Nothing here runs or prints anything."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import statistics
from pathlib import Path

from common import Problem

FLOOR = "floor"
TIME = "time"
VS_FLOOR = "vs_floor"  # a ratio within one process
FORMAT = 2  # of the JSON; 1 had the rounds of the times only

# How far the middle half of the rounds may be apart, of the median.
NOISY = 0.15
MEANINGLESS = 0.5


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The quarter, the half and the three quarters of some values."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: list[float]) -> float:
    """How far the middle half is apart, of the median."""
    if not values:
        return 0.0
    low, middle, high = quartiles(values)
    return (high - low) / abs(middle) if middle else 0.0


def noise(values: list[float]) -> str:
    """"", "~" (with care) or "!" (the figure says nothing)."""
    width = spread(values)
    return "!" if width > MEANINGLESS else "~" if width > NOISY else ""


class Notes:
    """What gave itself up, once for each reason."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def number(self, row: Row) -> int:
        """Of the footnote, which is made if there is none yet."""
        names = self.found.setdefault(row.error, [])
        if row.name not in names:
            names.append(row.name)
        return list(self.found).index(row.error) + 1

    def texts(self) -> list[str]:
        return [", ".join(names[:3])
                + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                + f": {why}" for why, names in self.found.items()]


def figure(value: float) -> str:
    """Three digits that count, and all of those before the point."""
    if value == 0:
        return "0"
    if abs(value) < 0.00995:
        return f"{value:.2g}"
    if abs(value) < 9.995:
        return f"{value:.2f}"
    if abs(value) < 99.95:
        return f"{value:.1f}"
    return f"{value:,.0f}"


@dataclasses.dataclass
class Row:
    """One workload (with its argument) on one contestant.

    samples  one for each round (the floor: for each process): "round", its
             number; "time", ns per unit; and the workload's counters
    error    why the workload gave itself up, then samples may be empty
    """

    contestant: str
    workload: str
    unit: str = "iteration"
    samples: list[dict[str, float]] = dataclasses.field(default_factory=list)
    iterations: int = 0
    label: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        return f"{self.contestant}/{self.workload}"

    def quantities(self) -> list[str]:
        found = dict.fromkeys(key for sample in self.samples for key in sample)
        return [key for key in found if key not in ("round", VS_FLOOR)]

    def values(self, quantity: str = TIME) -> list[float]:
        return [sample[quantity] for sample in self.samples
                if quantity in sample]

    def median(self, quantity: str = TIME) -> float | None:
        values = self.values(quantity)
        return statistics.median(values) if values else None

    def unit_of(self, quantity: str) -> str:
        return f"ns/{self.unit}" if quantity == TIME else quantity


@dataclasses.dataclass
class Data:
    """All rows of a run, and what must be known to read them.

    context   Google Benchmark's, with ours: machine, versions, the command
    peers     those of the contestants that are not ours
    left_out  contestants (or contestant/workload) and why they are missing
    complete  False: interrupted, and `rounds` were not all made
    """

    context: dict = dataclasses.field(default_factory=dict)
    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    contestants: list[str] = dataclasses.field(default_factory=list)
    peers: list[str] = dataclasses.field(default_factory=list)
    base: str = ""
    rounds: int = 0
    complete: bool = True

    def row(self, contestant: str, workload: str) -> Row | None:
        return self.rows.get(f"{contestant}/{workload}")

    def add(self, contestant: str, workload: str) -> Row:
        """The row of that name, made if it is not there yet."""
        return self.rows.setdefault(f"{contestant}/{workload}",
                                    Row(contestant, workload))

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(row.workload for row in self.rows.values()))

    def ratios(self, row: Row, base: str) -> list[float]:
        """Times of `row` by those of the base, each within one round (for
        the floor: within one process)."""
        if base == FLOOR:
            return row.values(VS_FLOOR)
        other = self.row(base, row.workload)
        theirs = {sample["round"]: sample[TIME] for sample in other.samples
                  if sample.get(TIME, 0) > 0} if other else {}
        return [sample[TIME] / theirs[sample["round"]]
                for sample in row.samples
                if TIME in sample and sample["round"] in theirs]

    def ratio(self, row: Row, base: str) -> float | None:
        ratios = self.ratios(row, base)
        return statistics.median(ratios) if ratios else None

    def meaningless(self) -> list[str]:
        return [f"{row.name} ({spread(row.values()):.0%})"
                for row in self.rows.values() if noise(row.values()) == "!"]

    # ---- JSON ------------------------------------------------------------

    def to_json(self) -> dict:
        """Google Benchmark's format; each benchmark once, its medians."""
        benchmarks = []
        for row in self.rows.values():
            entry: dict = {"name": row.name, "run_name": row.name,
                           "run_type": "iteration", "unit": row.unit}
            if row.label:
                entry["label"] = row.label
            if row.error:
                entry |= {"error_occurred": True, "error_message": row.error}
            if row.samples:
                entry |= {"iterations": row.iterations, "time_unit": "ns"}
                for quantity in row.quantities():
                    name = "cpu_time" if quantity == TIME else quantity
                    entry[name] = row.median(quantity)
                entry["spread"] = spread(row.values())
                entry["rounds"] = row.samples
                if (ratio := self.ratio(row, FLOOR)) is not None:
                    entry["vs_floor"] = ratio
                if self.base and (ratio := self.ratio(row, self.base)):
                    entry["vs_base"] = ratio
            benchmarks.append(entry)
        bench = {"format": FORMAT, "complete": self.complete,
                 "rounds": self.rounds, "base": self.base,
                 "contestants": self.contestants, "peers": self.peers,
                 "left_out": self.left_out}
        return {"context": self.context, "bench": bench,
                "benchmarks": benchmarks}

    @classmethod
    def from_json(cls, document: object) -> Data:
        """The opposite. Raises ValueError with what is wrong."""
        if not isinstance(document, dict) or not isinstance(
                document.get("benchmarks"), list):
            raise ValueError("not a result of tools/bench: it has no list "
                             "\"benchmarks\"")
        bench = document.get("bench", {})
        if not isinstance(bench, dict):
            raise ValueError("\"bench\" is no object")
        if bench.get("format", 1) not in (1, FORMAT):
            raise ValueError(f"its format is {bench['format']}, this "
                             f"tools/bench knows 1 and {FORMAT}")
        data = cls(context=document.get("context", {}),
                   left_out=bench.get("left_out", {}),
                   contestants=bench.get("contestants", []),
                   peers=bench.get("peers", []),
                   base=bench.get("base", ""),
                   rounds=bench.get("rounds", 0),
                   complete=bench.get("complete", True))
        for number, entry in enumerate(document["benchmarks"], 1):
            try:
                contestant, workload = entry["name"].split("/", 1)
                row = data.add(contestant, workload)
                row.unit = entry.get("unit", row.unit)
                row.label = entry.get("label", "")
                row.error = entry.get("error_message", "")
                row.iterations = entry.get("iterations", 0)
                samples = entry.get("rounds") or [
                    {"round": i, TIME: value} for i, value in
                    enumerate(entry.get("cpu_time_rounds", []), 1)]
                row.samples = [{key: float(value)
                                for key, value in sample.items()}
                               for sample in samples]
                if any("round" not in sample for sample in row.samples):
                    raise ValueError("a round without its number")
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"benchmark {number} cannot be read: "
                                 f"{type(error).__name__}: {error}") from None
        if not data.contestants:
            data.contestants = list(dict.fromkeys(
                row.contestant for row in data.rows.values()
                if row.contestant != FLOOR))
        return data

    # ---- CSV -------------------------------------------------------------

    def table(self) -> list[dict[str, str]]:
        """One row for each figure, as the CSV has it and the page shows."""
        result = []
        for row in self.rows.values():
            common = {"contestant": row.contestant, "workload": row.workload}
            if not row.samples:
                result.append(common | {"quantity": TIME,
                                        "unit": row.unit_of(TIME),
                                        "rounds": "0", "error": row.error})
            for quantity in row.quantities():
                values = row.values(quantity)
                low, middle, high = quartiles(values)
                ratio = (self.ratio(row, self.base)
                         if quantity == TIME and self.base else None)
                result.append(common | {
                    "quantity": quantity, "unit": row.unit_of(quantity),
                    "median": repr(middle), "quarter": repr(low),
                    "three_quarters": repr(high), "least": repr(min(values)),
                    "most": repr(max(values)), "rounds": str(len(values)),
                    "noise": noise(values), "error": row.error}
                    | ({"base": self.base, "times_base": repr(ratio)}
                       if ratio is not None else {}))
        return result

    def to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.DictWriter(out, [
            "contestant", "workload", "quantity", "unit", "median", "quarter",
            "three_quarters", "least", "most", "rounds", "noise", "base",
            "times_base", "error"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table())
        return out.getvalue()


def load(file: str) -> Data:
    """Reads a JSON file of tools/bench; a Problem of one line if it cannot."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        return Data.from_json(json.loads(text))
    except OSError as error:
        raise Problem(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Problem(f"{file}: not JSON: not even text") from None
    except json.JSONDecodeError as error:
        raise Problem(f"{file}: not JSON: {error}") from None
    except ValueError as error:
        raise Problem(f"{file}: {error}") from None


def replace_file(file: str | Path, text: str) -> None:
    """Writes all of a file or nothing, so that a stop leaves the old one."""
    new = Path(f"{file}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)


def save(data: Data, file: str | Path) -> None:
    replace_file(file, json.dumps(data.to_json(), indent=1) + "\n")
