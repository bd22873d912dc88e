# SPDX-License-Identifier: MIT
"""tools/bench: the main job and the benchmarks, on every backend."""

from __future__ import annotations

import argparse
import importlib
import shlex
import signal
import sys
from pathlib import Path

import bench_contestants
import bench_data
import bench_machine
import bench_tables
import bench_workloads
import common
from bench_contestants import Contestant
from bench_data import FLOOR
from bench_job import main_job
from bench_measure import Measurement
from common import Problem, say

# What --only may name that is not a family of benchmarks: a module beside
# this one, whose run(path, contestants, quick) prints what it finds and
# returns an exit status.
APART = {"limits": "limits"}

# A report's rounds may take this long, in minutes; the build and the main
# job come on top.
REPORT_MINUTES = 11.0
QUICK_REPORT_MINUTES = 1.0


def apart() -> list[str]:
    """The names of APART whose module there is."""
    folder = Path(__file__).resolve().parent
    return [name for name, module in APART.items()
            if (folder / f"{module}.py").is_file()]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Builds every backend, runs the main job on real input "
        "on each, then the benchmarks, contestants interleaved round by "
        "round, and prints tables: rows are workloads, columns backends. "
        "`tools/bench compare OLD.json NEW.json` says what changed between "
        "two runs.",
        epilog="Ctrl-C and SIGTERM end the rounds; what was measured is "
        "printed and written. The environment's CC and CXX choose the "
        "compiler. The build is in build/release.")
    known = bench_contestants.ours()
    names = [contestant.name for contestant in known]
    peers = bench_contestants.peer_names()
    groups = ["main", *bench_workloads.GROUPS, *apart()]
    parser.add_argument("--quick", action="store_true",
                        help="fewer and shorter rounds: half a minute "
                        "instead of some minutes")
    parser.add_argument("--all", action="store_true",
                        help="every workload on every contestant, peers and "
                        "many lanes included")
    parser.add_argument("--report", metavar="DIR",
                        help="the same, and write DIR/index.html with "
                        "DIR/results.json and results.csv, in less than 15 "
                        "minutes (2 with --quick)")
    parser.add_argument("--rounds", type=int, metavar="N",
                        help="how many rounds (5; 3 with --quick)")
    parser.add_argument("--minutes", type=float, metavar="M",
                        help="what the rounds may take: workloads that take "
                        "long get fewer (--report: "
                        f"{REPORT_MINUTES:g}; --quick: "
                        f"{QUICK_REPORT_MINUTES:g})")
    parser.add_argument("--json", metavar="FILE",
                        help="also write all results in Google Benchmark's "
                        "format, named backend/workload[/argument]")
    parser.add_argument("--backend", action="append", default=[], metavar="B",
                        help="only this one (may be repeated; copy stands "
                        "for all its settings, peers for all of them): "
                        + ", ".join(names) + "; peers: "
                        + (", ".join(peers) or "none"))
    parser.add_argument("--base", metavar="B", default="",
                        help="the contestant, or floor, that every row is "
                        "also given as a multiple of")
    parser.add_argument("--only", metavar="WHAT", default="",
                        help="only these workloads: names, or groups ("
                        + ", ".join(groups) + "), separated by commas; or a "
                        "regular expression that is found in the names "
                        "(^live/64$); the main job is left out")
    options = parser.parse_args(arguments)
    everyone = [*names, *peers]
    for backend in [*options.backend, *filter(None, [options.base])]:
        if backend not in everyone and not (
                backend == (FLOOR if backend is options.base else "peers")):
            parser.error(f"unknown backend \"{backend}\"; known: "
                         + ", ".join(names) + "; peers: "
                         + (", ".join(peers) or "none"))
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.minutes is not None and not options.minutes > 0:
        parser.error("--minutes: more than 0")
    options.all = options.all or bool(options.report)
    options.chosen = [c for c in known if (
        c.name in options.backend or c.backend in options.backend
        if options.backend
        else options.all or bench_contestants.in_main_tables(c))]
    options.peers = [name for name in peers if (
        name in options.backend or "peers" in options.backend
        if options.backend else options.all)]
    if options.base not in ("", FLOOR):
        # The base is measured even if it is not shown by itself.
        options.chosen += [c for c in known if c.name == options.base
                           and c not in options.chosen]
        if options.base in peers and options.base not in options.peers:
            options.peers.append(options.base)
    return options


def writable(options: argparse.Namespace) -> None:
    """Says now rather than after minutes what cannot be written."""
    try:
        if options.json:
            open(options.json, "a", encoding="utf-8").close()
    except OSError as error:
        raise Problem(f"--json: {error}") from None
    if options.report:
        # The packages, too.
        importlib.import_module("bench_report").prepare(options.report)


def build(chosen: list[Contestant]) -> tuple[Path, list[Contestant]]:
    """Builds all backends; returns where, and those of the chosen that there
    are."""
    path = common.build("release", [
        "-Dvariants=true", "-Dtests=false", "--buildtype=release",
        "-Dbenchmarks=enabled", "-Dexamples=enabled"])
    there = [c for c in chosen if (path / c.program).exists()]
    for contestant in chosen:
        if contestant not in there:
            say(f"{contestant.name}: not usable on this machine, left out")
    return path, there


def stop(signum: int, frame: object) -> None:
    """SIGTERM is as good as Ctrl-C."""
    raise KeyboardInterrupt(signum)


def keep(measurement: Measurement, options: argparse.Namespace) -> list[str]:
    """Writes what there is, whole or not; returns the names of the files."""
    files = []
    if options.json:
        bench_data.save(measurement.data, options.json)
        files.append(options.json)
    if options.report:
        file = Path(options.report, "results.json")
        bench_data.save(measurement.data, file)
        files.append(str(file))
    return files


def wants_http(options: argparse.Namespace) -> bool:
    """The servers are programs of their own, which http_bench starts."""
    names = options.only.split(",")
    return (Path(__file__).with_name("http_bench.py").is_file()
            and (options.all and not options.only
                 or any(name == "real" or name.startswith("http")
                        for name in names)))


def measure(measurement: Measurement, options: argparse.Namespace) -> int:
    """The rounds, and what follows them. Returns 0 or the status of an
    interruption."""
    rounds = options.rounds or (3 if options.quick else 5)
    minutes = options.minutes
    if minutes is None and options.report:
        minutes = QUICK_REPORT_MINUTES if options.quick else REPORT_MINUTES
    try:
        measurement.run(rounds, 0.01 if options.quick else 0.1,
                        minutes and minutes * 60,
                        lambda: keep(measurement, options))
        if wants_http(options):
            measurement.http(options.quick)
        if options.report and not options.backend:
            for family in bench_workloads.BY_LANES:
                measurement.count(bench_contestants.sweep(), family)
    except KeyboardInterrupt as stopped:
        say("interrupted: what was measured so far")
        measurement.data.complete = False
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    return 0


def run(options: argparse.Namespace) -> int:
    writable(options)
    path, chosen = build(options.chosen)
    peers, absent = bench_contestants.peers(path, options.peers)
    say("\n" + bench_machine.line())
    for name, why in absent.items():
        say(f"{name}: {why}; left out")
    if options.only in apart():
        return importlib.import_module(APART[options.only]).run(
            path, chosen, options.quick)
    if not chosen and not peers:
        raise Problem("nothing to measure")
    base = options.base or ("private" if options.report else "")
    measurement = Measurement(path, chosen + peers, base)
    data = measurement.data
    data.left_out |= absent
    data.context |= {"machine": bench_machine.describe(),
                     "command": shlex.join(["tools/bench", *sys.argv[1:]])}
    wrong: list[str] = []
    if options.only and wants_http(options) and all(
            name.startswith("http") for name in options.only.split(",")):
        measurement.keep([])
    elif options.only:
        measurement.choose(options.only)
    else:
        if not options.all:
            measurement.choose("main")
        elif options.quick:
            measurement.keep([each for each in measurement.workloads
                              if not bench_workloads.NOT_QUICK.search(each)])
        if chosen:
            wrong = main_job(path, chosen, 2 if options.quick else 5)
    say()
    status = measure(measurement, options)
    # From here on what was measured is brought into safety.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    files = keep(measurement, options)
    if data.rows:
        bench_tables.show(data, options.base,
                          everything=options.all or bool(options.only))
    if options.report and data.rows:
        files = [file for file in files
                 if Path(file).parent != Path(options.report)]
        files += importlib.import_module("bench_report").write(
            data, options.report)
    for file in files:
        say(f"written: {file}")
    wrong += measurement.wrong
    for problem in wrong:
        say(f"WRONG: {problem}")
    return status or (1 if wrong else 0)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["compare"]:
        return importlib.import_module("bench_compare").main(arguments[1:])
    options = parse(arguments)
    signal.signal(signal.SIGTERM, stop)
    return run(options)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Problem as problem:
        print(f"tools/bench: {problem}", file=sys.stderr)
        sys.exit(2 if sys.argv[1:2] == ["compare"] else 1)
    except KeyboardInterrupt as stopped:
        sys.exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT))
