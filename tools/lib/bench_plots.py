# SPDX-License-Identifier: MIT
"""The report's pictures: matplotlib draws them as SVG; their colours become
the page's CSS variables, so that one drawing serves light, dark and paper."""

from __future__ import annotations

import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench_data import FLOOR, Data, Row, figure, quartiles
from bench_workloads import BY_LANES, family

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

# Colours that nothing else has, and the page's names of them.
INK, RULE, PAPER = "#010101", "#020202", "#030303"
COLOURS = 8
SERIES = [f"#0101{number:02x}" for number in range(0x10, 0x10 + COLOURS)]
VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)}
MARKERS = "osD^vPX*"
LINES = ("-", "--", ":")

# Inches, and how many names of the legend are side by side.
SIZES = {"wide": ((8.2, 4.4), 4), "narrow": ((3.5, 4.0), 2)}

STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": RULE,
    "axes.facecolor": "none", "figure.facecolor": "none",
    "savefig.facecolor": "none", "xtick.color": INK, "ytick.color": INK,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": RULE,
    "grid.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.6,
    "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 9.5,
    "xtick.minor.visible": False,
}


@dataclasses.dataclass
class Plot:
    """A drawing in both shapes. `text` says in words what there is to see."""

    name: str
    title: str
    text: str
    drawings: dict[str, str]  # by shape; SVG


def short(value: float, _: object = None) -> str:
    """65536 -> 64k, for numbers of bytes."""
    for unit, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= unit and value % unit == 0:
            return f"{value // unit:.0f}{letter}"
    return f"{value:g}"


def thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def style_of(number: int) -> dict[str, object]:
    colour = SERIES[number % COLOURS]
    return {"color": colour, "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINES[number // COLOURS % len(LINES)],
            "markerfacecolor": colour if number < COLOURS else PAPER}


def render(name: str, shape: str, draw: Callable[[Axes, str], None],
           rows: int) -> str:
    """One drawing as SVG that can stand in an HTML page beside others."""
    (width, height), columns = SIZES[shape]
    if rows:
        height = 0.8 + 0.28 * rows
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name + shape}):
        drawing = Figure(figsize=(width, height))
        axes = drawing.add_subplot()
        draw(axes, shape)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper center", bbox_to_anchor=(
                0.5, -0.75 / height),
                        ncol=columns, handlelength=2.6, columnspacing=1.2)
        out = io.StringIO()
        drawing.savefig(out, format="svg", bbox_inches="tight",
                       metadata={"Date": None})
    return embed(out.getvalue(), f"{name}-{shape}-")


def embed(svg: str, prefix: str) -> str:
    """Makes ids unique in the page, and colours those of the page."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for child in root.findall(f"{{{SVG}}}metadata"):
        root.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                value = prefix + value
            elif key == f"{{{XLINK}}}href":
                value = "#" + prefix + value.removeprefix("#")
            value = value.replace("url(#", f"url(#{prefix}")
            for colour, variable in VARIABLES.items():
                value = value.replace(colour, variable)
            element.set(key, value)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    # The drawing's words are in the text beside it and in the tables.
    root.set("aria-hidden", "true")
    text = ElementTree.tostring(root, encoding="unicode")
    return text.replace("\n", " ")


def argument(workload: str) -> float | None:
    """The number at the end of live/4096."""
    match = re.search(r"/(\d+)$", workload)
    return float(match[1]) if match else None


def lines_by_argument(data: Data, wanted: Callable[[Row], float | None]
                      ) -> dict[str, list[tuple[float, float]]]:
    """Contestant -> points, of the rows that `wanted` has a value for."""
    found: dict[str, list[tuple[float, float]]] = {}
    for contestant in data.contestants:
        points = [(x, y) for row in data.rows.values()
                  if row.contestant == contestant
                  and (x := argument(row.workload)) is not None
                  and (y := wanted(row)) is not None]
        if len(points) > 1:
            found[contestant] = sorted(points)
    return found


def draw_lines(axes: Axes, data: Data,
               lines: dict[str, list[tuple[float, float]]]) -> None:
    for contestant, points in lines.items():
        axes.plot(*zip(*points), label=contestant,
                  **style_of(data.contestants.index(contestant)))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))
    axes.yaxis.set_minor_locator(NullLocator())
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())


def both(name: str, title: str, text: str, draw: Callable[[Axes, str], None],
         rows: int = 0) -> Plot:
    return Plot(name, title, text, {shape: render(name, shape, draw, rows)
                                    for shape in SIZES})


def switch(data: Data) -> Plot | None:
    """Bars: the flat switch of everyone."""
    rows = [row for row in data.rows.values()
            if row.workload == "switch" and row.values()
            and row.contestant in (FLOOR, *data.contestants)]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: -row.median())

    def draw(axes: Axes, shape: str) -> None:
        for kind, label in enumerate(("libgreenlet", "peers", "floor")):
            places = [place for place, row in enumerate(rows)
                      if kind == (2 if row.contestant == FLOOR else
                                  row.contestant in data.peers)]
            parts = [quartiles(rows[place].values()) for place in places]
            if places:
                axes.errorbar(
                    [middle for _, middle, _ in parts], places,
                    xerr=[[middle - low for low, middle, _ in parts],
                          [high - middle for _, middle, high in parts]],
                    fmt=MARKERS[kind], color=SERIES[kind], markersize=7,
                    label=label)
        for place, row in enumerate(rows):
            _, middle, high = quartiles(row.values())
            axes.annotate(figure(middle), (max(middle, high), place),
                          xytext=(7, 0), textcoords="offset points",
                          va="center", fontsize=9.5)
        axes.set_yticks(range(len(rows)), [row.contestant for row in rows])
        axes.set_xscale("log")
        axes.set_xlim(right=3 * max(row.median() for row in rows))
        axes.xaxis.set_major_formatter(FuncFormatter(thousands))
        axes.set_xlabel("ns per switch")

    return both("switch", "A switch, to and fro",
                "Nanoseconds per switch between the main flow and one other, "
                "on a logarithmic scale: the flattest case there is. The "
                "line through a dot is the middle half of the rounds.", draw, len(rows))


def live(data: Data) -> Plot | None:
    lines = lines_by_argument(data, lambda row: row.median()
                              if family(row.workload) == "live" else None)
    if not lines:
        return None

    def draw(axes: Axes, shape: str) -> None:
        draw_lines(axes, data, lines)
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.set_xlabel("live bytes of each stack")
        axes.set_ylabel("ns per switch")

    return both("live", "Latency by live bytes",
                "Two that share one lane and hand over to each other: on the "
                "copy backend each switch saves one stack and fills the "
                "other, whatever the number of lanes; the others copy "
                "nothing. Both scales are logarithmic.", draw)


def lanes(data: Data) -> Plot | None:
    patterns: dict[str, dict[int, float]] = {}
    for row in data.rows.values():
        match = re.fullmatch(r"copy-lanes(\d+)", row.contestant)
        value = row.median("bytes/switch")
        if match and family(row.workload) in BY_LANES and value is not None:
            patterns.setdefault(row.workload, {})[int(match[1])] = value
    counts = sorted({count for points in patterns.values()
                     for count in points})
    if len(counts) < 2:
        return None

    def draw(axes: Axes, shape: str) -> None:
        for number, (pattern, points) in enumerate(patterns.items()):
            axes.plot([counts.index(count) for count in sorted(points)],
                      [points[count] for count in sorted(points)],
                      label=pattern, **style_of(number))
        axes.set_xticks(range(len(counts)), [str(each) for each in counts])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(thousands))
        axes.set_xlabel("lanes (0: in place)")
        axes.set_ylabel("bytes copied per switch")

    return both("lanes", "Bytes copied by lanes",
                "What the copy backend saves and fills, per switch, by the "
                "number of lanes and by who switches to whom. Counted, not "
                "timed.", draw)


def resident(row: Row) -> float | None:
    """Bytes per greenlet, with the kernel's tables of them."""
    found = [row.median(quantity) for quantity in row.quantities()
             if quantity.split("/")[0] in ("rss", "page_tables")]
    return sum(found) if any(found) else None


def population(data: Data) -> Plot | None:
    lines = lines_by_argument(data, resident)
    if not lines:
        return None

    def draw(axes: Axes, shape: str) -> None:
        draw_lines(axes, data, lines)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(
            lambda value, _: f"{value / 1e6:g}M" if value >= 1e6 else
            f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"))
        axes.set_xlabel("suspended at once")
        axes.set_ylabel("bytes for each")

    return both("population", "Memory by population",
                "Resident bytes and page tables per suspended greenlet or "
                "coroutine. Both scales are logarithmic.", draw)


def draw_all(data: Data) -> list[Plot]:
    """The pictures that there are figures for."""
    return [plot for make in (switch, live, lanes, population)
            if (plot := make(data))]


def library() -> str:
    return f"matplotlib {matplotlib.__version__}"
