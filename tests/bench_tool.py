#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/bench itself, in TAP: its statistics, `compare`, what it does when it
is stopped, what it says to bad input, and the report as far as no browser is
needed. Nothing here is timed: the programs that it runs print figures of
their own.

    bench_tool.py LIB                                        (LIB: tools/lib)
"""

import contextlib
import copy
import csv
import importlib.util
import io
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import textwrap
import traceback
import xml.etree.ElementTree as ElementTree
from pathlib import Path

LIB = sys.argv[1] if len(sys.argv) > 1 else "tools/lib"
sys.path[:0] = [LIB, str(Path(__file__).resolve().parent)]
sys.dont_write_bytecode = True

import bench_compare  # noqa: E402
import bench_contestants  # noqa: E402
import bench_data  # noqa: E402
import bench_measure  # noqa: E402
import bench_progress  # noqa: E402
import bench_sample  # noqa: E402
import bench_tables  # noqa: E402
import bench_workloads  # noqa: E402
import common  # noqa: E402
from bench_data import TIME, Data  # noqa: E402

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def needs(**modules):
    """The test is skipped unless these modules are there; the values are
    Debian's names."""
    def decorate(function):
        function.missing = [package for name, package in modules.items()
                            if importlib.util.find_spec(name) is None]
        return function
    return decorate


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def contains(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in:\n{text}")


def problem(function, *arguments):
    """The words of the Problem that the call ends in."""
    try:
        function(*arguments)
    except common.Problem as error:
        return str(error)
    raise AssertionError("no Problem was raised")


# ---- Programs that play a part ---------------------------------------------

# As a bench-<backend>: lists its tests, or prints figures as Google Benchmark
# does. What it does is in a file beside it.
PROGRAM = """\
#!{python}
import json, os, signal, sys, time
part = json.load(open(__file__ + ".json"))
option = dict(each.lstrip("-").split("=", 1) if "=" in each
              else (each.lstrip("-"), "") for each in sys.argv[1:])
name = part["name"]
lanes = os.environ.get("GREENLET_LANES")
if lanes and name == "copy":
    name += "-lanes" + lanes
if "benchmark_list_tests" in option:
    for each in part["tests"]:
        print(name + "/" + each)
    sys.exit(part.get("list_status", 0))
log = __file__ + ".runs"
runs = len(open(log).read()) if os.path.exists(log) else 0
open(log, "a").write(".")
chosen = [each for each in part["tests"]
          if "/" + each in option["benchmark_filter"].replace("\\\\", "")]
if part.get("dies_at") == runs:
    print("the last words", file=sys.stderr)
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGSEGV)
if part.get("stops_parent_at") == runs:
    parent = os.getppid()
    os.kill(parent, getattr(signal, part["signal"]))
    while os.getppid() == parent:  # who has to end this
        time.sleep(0.01)
    sys.exit()
print(json.dumps({{
    "context": {{"contestant": name, "greenlet_version": "9.9.9",
                "compiler": "gcc 1", "unit:switch": "switch",
                "pinned_to_cpu": "1", "host_name": "somewhere"}},
    "benchmarks": [{{
        "name": name + "/" + each, "iterations": 10, "time_unit": "ns",
        "cpu_time": part["time"] + runs, "real_time": 1e9,
        "bytes/switch": 64.0}} for each in chosen]}}))
"""


class Stage:
    """A build folder with such programs, and tools/bench to run in it."""

    def __init__(self, **parts):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        (self.path / "bench").mkdir()
        for name, part in parts.items():
            name = name.replace("_", "-")
            file = self.path / "bench" / f"bench-{name}"
            file.write_text(PROGRAM.format(python=sys.executable))
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
            Path(f"{file}.json").write_text(json.dumps({
                "name": name.removeprefix("peer-"), "time": 100,
                "tests": ["switch", "live/64", "live/4096"]} | part))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def bench(self, *arguments, peers=()):
        """tools/bench in a process of its own, with this as its build
        folder. Returns the status, and all that was said."""
        script = textwrap.dedent(f"""\
            import sys
            sys.path[:0] = [{LIB!r}]
            sys.dont_write_bytecode = True
            from pathlib import Path
            import bench, bench_contestants
            here = Path({str(self.path)!r})
            bench.build = lambda chosen: (here, [
                c for c in chosen if (here / c.program).exists()])
            bench.main_job = lambda *_: []
            bench_contestants.peer_names = lambda: {list(peers)!r}
            bench_contestants.peers = lambda path, names: ([
                bench_contestants.Contestant(n, "bench/bench-peer-" + n)
                for n in names], {{}})
            try:
                sys.exit(bench.main({list(arguments)!r}))
            except bench.Problem as error:
                sys.exit(f"tools/bench: {{error}}")
            """)
        done = subprocess.run([sys.executable, "-c", script], text=True,
                              stdout=subprocess.PIPE, timeout=120,
                              stderr=subprocess.STDOUT)
        return done.returncode, done.stdout


def command(*arguments):
    """tools/bench as it is, for what ends before anything is built."""
    done = subprocess.run([sys.executable, "-B", str(Path(LIB, "bench.py")),
                           *arguments], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    return done.returncode, done.stdout


# ---- Statistics --------------------------------------------------------------

@test
def quartiles_and_spread():
    equal(bench_data.quartiles([1, 2, 3, 4, 5]), (2, 3, 4))
    equal(bench_data.quartiles([7]), (7, 7, 7))
    equal(bench_data.spread([90, 100, 100, 100, 110]), 0)
    equal(bench_data.spread([8, 9, 10, 11, 12]), 0.2)
    equal(bench_data.spread([]), 0)
    equal(bench_data.spread([0, 0, 0]), 0)


@test
def noise_marks():
    equal([bench_data.noise(values) for values in
           ([100, 101, 102], [80, 100, 120], [30, 100, 170])],
          ["", "~", "!"])


@test
def figures_have_three_digits():
    equal([bench_data.figure(value) for value in
           (0, 0.00123, 0.456, 9.994, 9.996, 99.94, 99.96, 1234567.8)],
          ["0", "0.0012", "0.46", "9.99", "10.0", "99.9", "100",
           "1,234,568"])


@test
def ratios_are_of_the_same_rounds():
    data = Data(contestants=["a", "b"])
    a, b = data.add("a", "switch"), data.add("b", "switch")
    a.samples = [{"round": n, TIME: float(t)} for n, t in
                 ((1, 10), (2, 40), (4, 90))]
    b.samples = [{"round": n, TIME: float(t)} for n, t in
                 ((1, 5), (3, 1), (4, 30))]
    equal(data.ratios(a, "b"), [2, 3])  # round 2 is a's alone, 3 is b's
    equal(data.ratio(a, "b"), 2.5)
    equal(data.ratio(a, "nobody"), None)


@test
def the_floor_is_of_the_same_process():
    data = bench_sample.data()
    row = data.row("copy", "switch")
    equal(data.ratios(row, "floor"),
          [sample["vs_floor"] for sample in row.samples])


@test
def a_run_survives_its_json():
    data = bench_sample.data()
    again = Data.from_json(json.loads(json.dumps(data.to_json())))
    equal(again, data)


@test
def json_of_before_can_be_read():
    data = Data.from_json({"context": {}, "benchmarks": [
        {"name": "copy/ring/16", "cpu_time": 2.0, "iterations": 3,
         "cpu_time_rounds": [1.0, 2.0, 3.0]}]})
    equal(data.row("copy", "ring/16").values(), [1, 2, 3])
    equal(data.contestants, ["copy"])


@test
def rounds_that_fit_into_a_time():
    plan = bench_measure.plan
    equal(plan({"a": 1, "b": 10}, 4, None), {"a": 4, "b": 4})
    equal(plan({"a": 1, "b": 10}, 4, 1000), {"a": 4, "b": 4})
    equal(plan({"a": 1, "b": 10}, 4, 25), {"a": 4, "b": 2})
    equal(plan({"a": 1, "b": 10}, 4, -5), {"a": 0, "b": 0})


@test
def an_estimate_knows_what_steps_take():
    estimate = bench_progress.Estimate(["a", "b"] * 3)
    equal(estimate.seconds(), None)
    estimate.done("a", 1)
    estimate.done("b", 10)
    equal(estimate.seconds(), 22)
    estimate.done("a", 2)
    equal(estimate.seconds(), 22)
    estimate.drop("b")
    equal(estimate.seconds(), 2)


# ---- What --only means ---------------------------------------------------------

NAMES = ["switch", "ring/2", "ring/1000000", "live/64", "live/4096", "spawn",
         "new-one"]


def only(pattern):
    return bench_workloads.choose(pattern, NAMES, {
        name: [f"copy/{name}"] for name in NAMES})


@test
def only_takes_workloads_groups_and_patterns():
    equal(only("ring"), ["ring/2", "ring/1000000"])
    equal(only("ring/2"), ["ring/2"])
    equal(only("copying"), ["live/64", "live/4096"])
    equal(only("spawn,live/64"), ["live/64", "spawn"])
    equal(only("main"), ["switch", "ring/2", "live/64", "live/4096", "spawn"])
    equal(only("^live/4"), ["live/4096"])
    equal(only("copy/sw"), ["switch"])


@test
def only_lists_what_is_known():
    contains(problem(only, "rong"), "rong", "switch ring/2", "copying")
    contains(problem(only, "ring("), "--only ring(")


@test
def a_new_workload_is_in_the_report():
    equal(bench_workloads.group("new-one"), bench_workloads.OTHERS)
    equal(bench_workloads.group("live/64"), "copying")


# ---- compare -------------------------------------------------------------------

def runs(old, new, quantity=TIME):
    return bench_compare.judge("a", quantity, [float(v) for v in old],
                               [float(v) for v in new])


SCIPY = {"scipy": "python3-scipy"}


@test
@needs(**SCIPY)
def compare_sees_what_is_beyond_noise():
    change = runs([100, 101, 102, 103, 104], [120, 121, 122, 123, 124])
    equal(change.verdict, bench_compare.WORSE)
    equal(round(change.probability, 4), round(2 / 252, 4))
    equal(runs([120, 121, 122, 123, 124],
               [100, 101, 102, 103, 104]).verdict, bench_compare.BETTER)


@test
@needs(**SCIPY)
def compare_takes_noise_for_noise():
    # One round of the new run is as fast as the old one's.
    equal(runs([100, 101, 102, 103, 104],
               [101.5, 121, 122, 123, 124]).verdict, bench_compare.SAME)
    # Certain, but too small to matter.
    equal(runs([100, 100.1, 100.2, 100.3, 100.4],
               [102, 102.1, 102.2, 102.3, 102.4]).verdict,
          bench_compare.SAME)


@test
@needs(**SCIPY)
def compare_says_when_rounds_are_too_few():
    equal(runs([100, 101, 102], [200, 201, 202]).verdict,
          bench_compare.UNKNOWN)
    equal(runs([100], [200]).verdict, bench_compare.UNKNOWN)


@test
def compare_takes_counts_as_they_are():
    equal(runs([64, 64, 64], [128, 128, 128], "bytes/switch").verdict,
          bench_compare.WORSE)
    equal(runs([64], [32], "bytes/switch").verdict, bench_compare.BETTER)
    equal(runs([1000], [1001], "bytes/switch").verdict, bench_compare.SAME)
    equal(runs([0], [5], "bytes/switch").verdict, bench_compare.WORSE)
    equal(runs([0], [0], "bytes/switch").verdict, bench_compare.SAME)
    equal(runs([9000], [12000], "requests/s").verdict, bench_compare.BETTER)


@contextlib.contextmanager
def files(*runs_):
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, run in enumerate(runs_):
            name = str(Path(folder, f"{number}.json"))
            if isinstance(run, Data):
                bench_data.save(run, name)
            else:
                Path(name).write_bytes(run)
            names.append(name)
        yield names


def slower(factor, only_contestant=None):
    data = bench_sample.data()
    for row in data.rows.values():
        if only_contestant in (None, row.contestant):
            for sample in row.samples:
                if TIME in sample:
                    sample[TIME] *= factor
    return data


@test
@needs(**SCIPY)
def compare_of_a_run_with_itself_is_silent():
    with files(bench_sample.data(), bench_sample.data()) as names:
        status, said = command("compare", *names)
    equal(status, 0)
    contains(said, "0 worse, 0 better")


@test
@needs(**SCIPY)
def compare_exits_with_1_if_something_is_worse():
    with files(bench_sample.data(), slower(1.5, "copy")) as names:
        status, said = command("compare", *names)
        equal(status, 1)
        contains(said, "copy/switch", "+50.0%", "worse")
        if "private/switch" in said:
            raise AssertionError(said)
        status, said = command("compare", *reversed(names))
    equal(status, 0)
    contains(said, "better", "-33.3%")


@test
@needs(**SCIPY)
def compare_with_a_base_cancels_the_machine():
    with files(bench_sample.data(), slower(1.5)) as names:
        status, said = command("compare", *names)
        equal(status, 1)
        contains(said, "+50.0%", "--base")
        status, said = command("compare", "--base", "private", *names)
    equal(status, 0)
    contains(said, "0 worse, 0 better")


@test
@needs(**SCIPY)
def compare_names_what_is_gone():
    data = bench_sample.data()
    del data.rows["copy/live/64"]
    with files(bench_sample.data(), data) as names:
        status, said = command("compare", *names)
    equal(status, 1)
    contains(said, "gone: copy/live/64")


@test
@needs(**SCIPY)
def compare_says_that_a_run_was_interrupted():
    data = bench_sample.data()
    data.complete = False
    with files(bench_sample.data(), data) as names:
        contains(command("compare", *names)[1], "interrupted")


@test
def compare_of_what_is_not_json_is_one_line():
    good = bench_sample.data()
    for bad in (b"{\"benchmarks\": [", b"", b"\xff\xfe\x00", b"[]",
                b"{\"benchmarks\": 3}", b"{\"benchmarks\": [{}]}",
                b"{\"benchmarks\": [{\"name\": \"x\"}]}",
                b"{\"benchmarks\": [{\"name\": \"a/b\", \"rounds\": [3]}]}",
                b"{\"benchmarks\": [{\"name\": \"a/b\", "
                b"\"rounds\": [{\"time\": 3}]}]}",
                b"{\"bench\": {\"format\": 99}, \"benchmarks\": []}"):
        with files(good, bad) as names:
            said = problem(bench_compare.main, names)
            contains(said, names[1])
            if "\n" in said:
                raise AssertionError(f"{bad}: {said}")
    status, said = command("compare", "/nonexistent/a", "/nonexistent/b")
    equal((status, said.count("\n")), (2, 1))
    contains(said, "/nonexistent/a")


@test
def compare_of_strangers_says_so():
    with files(bench_sample.data(), Data()) as names:
        status, said = command("compare", *reversed(names))
        equal(status, 2)
        contains(said, "no benchmark in common")
        status, said = command("compare", "--base", "nobody", *names)
    equal(status, 2)
    contains(said, "nobody", "private")


# ---- Runs ----------------------------------------------------------------------

@test
def a_run_measures_all_rounds():
    with Stage(copy={}, private={"time": 50}) as stage:
        file = stage.path / "out.json"
        status, said = stage.bench("--only", "switch,live", "--rounds", "4",
                                   "--json", str(file), "--base", "private")
        equal((status, said if status else ""), (0, ""))
        data = bench_data.load(str(file))
    equal(data.complete, True)
    equal(sorted(data.contestants),
          ["copy", "copy-lanes0", "copy-lanes1", "private"])
    equal([len(row.samples) for row in data.rows.values()], [4] * 12)
    contains(said, "times private", "round 4 of 4", "bytes/switch"[:5])
    equal(data.context.get("host_name"), None)


def interrupted(signal_name):
    with Stage(copy={"stops_parent_at": 7, "signal": signal_name},
               private={}) as stage:
        file = stage.path / "out.json"
        status, said = stage.bench("--only", "switch", "--rounds", "5",
                                   "--json", str(file))
        return status, said, bench_data.load(str(file))


@test
def ctrl_c_loses_nothing():
    status, said, data = interrupted("SIGINT")
    equal(status, 130)
    contains(said, "interrupted", "switch, ns/switch", "written:")
    equal(data.complete, False)
    # 7 of copy's processes had ended: two rounds of three, and one.
    equal(sum(len(row.samples) for name, row in data.rows.items()
              if name.startswith("copy")), 7)


@test
def sigterm_loses_nothing():
    status, said, data = interrupted("SIGTERM")
    equal(status, 143)
    contains(said, "interrupted", "written:")
    equal((data.complete, bool(data.rows)), (False, True))


@test
def sigkill_loses_the_last_round_only():
    with Stage(copy={"stops_parent_at": 7, "signal": "SIGKILL"}) as stage:
        file = stage.path / "out.json"
        status, _ = stage.bench("--only", "switch", "--rounds", "5",
                                "--json", str(file))
        equal(status, -9)
        data = bench_data.load(str(file))
    equal([len(row.samples) for row in data.rows.values()], [2, 2, 2])
    equal(data.complete, False)


@test
def a_backend_that_dies_is_wrong():
    with Stage(copy={"dies_at": 2}, private={}) as stage:
        status, said = stage.bench("--only", "switch", "--rounds", "2")
    equal(status, 1)
    contains(said, "WRONG: copy", "killed by SIGSEGV", "the last words",
             "private")


@test
def a_peer_that_dies_is_left_out():
    with Stage(copy={}, peer_sick={"dies_at": 0}) as stage:
        status, said = stage.bench("--only", "switch", "--rounds", "2",
                                   "--backend", "copy", "--backend", "sick",
                                   peers=["sick"])
    equal(status, 0)
    contains(said, "left out: sick/switch", "killed by SIGSEGV",
             "the last words")


@test
def a_peer_that_does_not_start_is_left_out():
    with Stage(copy={}, peer_sick={"list_status": 4}) as stage:
        (stage.path / "bench" / "bench-peer-dead").write_text("no program")
        status, said = stage.bench(
            "--only", "switch", "--backend", "copy", "--backend", "peers",
            peers=["sick", "dead"])
    equal(status, 0)
    contains(said, "left out: sick", "exit status 4", "left out: dead",
             "Permission denied")


@test
def a_peer_that_is_absent_says_why():
    with Stage() as stage:
        folder = stage.path / "bench" / "peers"
        names = ["near", "far", "new"]
        contains(bench_contestants.peers(stage.path, names)[1]["near"],
                 "No such file")
        folder.mkdir()
        Path(folder, "peers.json").write_text(json.dumps([
            {"name": "near", "built": True, "program": "bench/peers/near"},
            {"name": "far", "built": False,
             "why_not": "does not compile: far.h: no such thing"}]))
        found, absent = bench_contestants.peers(stage.path, names)
        equal(found, [bench_contestants.Contestant("near",
                                                   "bench/peers/near")])
        equal(absent["far"], "does not compile: far.h: no such thing")
        contains(absent["new"], "bench/peers/meson.build")
        equal(bench_contestants.peers(stage.path, []), ([], {}))
        Path(folder, "peers.json").write_text("[{}]")
        contains(problem(bench_contestants.peers, stage.path, names),
                 "peers.json", "name")


@test
def an_unknown_backend_lists_the_known():
    status, said = command("--backend", "fast")
    equal(status, 2)
    contains(said, "fast", "copy", "copy-lanes0", "copy-lanes64",
             "sigaltstack", "peers:")
    status, said = command("--base", "fast")
    equal(status, 2)
    contains(said, "fast", "private")


@test
def an_unknown_workload_lists_the_known():
    with Stage(copy={}) as stage:
        status, said = stage.bench("--only", "swotch")
    equal(status, 1)
    contains(said, "swotch", "switch live/64 live/4096")


@test
def senseless_numbers_are_refused():
    for arguments in (["--rounds", "0"], ["--minutes", "0"],
                      ["--rounds", "x"], ["compare", "a", "b", "--alpha", "2"],
                      ["compare", "a"]):
        equal((arguments, command(*arguments)[0]), (arguments, 2))


@test
def a_file_that_cannot_be_written_is_said_at_once():
    with Stage(copy={}) as stage:
        status, said = stage.bench("--only", "switch", "--json",
                                   "/nonexistent/x.json")
        ran = list(stage.path.glob("bench/*.runs"))
    equal((status, ran), (1, []))
    contains(said, "/nonexistent/x.json")


@test
def a_warning_names_the_meaningless():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        bench_tables.show(bench_sample.data(), "private")
    contains(out.getvalue(), "WARNING", "copy/spawn", "times private",
             "left out: ruby-fiber: Ruby", "not enough memory")


# ---- The report ------------------------------------------------------------------

PAGE = {"matplotlib": "python3-matplotlib", "jinja2": "python3-jinja2"}
written = {}


def report():
    """The sample's page, CSV and JSON, written once."""
    if not written:
        import bench_report
        with tempfile.TemporaryDirectory() as folder:
            bench_report.prepare(folder)
            for file in bench_report.write(bench_sample.data(), folder):
                written[Path(file).name] = Path(file).read_text()
    return written


def elements():
    root = ElementTree.fromstring(report()["index.html"])
    return [(element, element.tag.split("}")[-1]) for element in root.iter()]


@test
@needs(**PAGE)
def the_page_is_well_formed():
    tags = [tag for _, tag in elements()]
    equal(tags[0], "html")
    for wanted in ("title", "table", "svg", "figcaption"):
        equal((wanted, wanted in tags), (wanted, True))


@test
@needs(**PAGE)
def the_page_needs_nothing_else():
    for element, tag in elements():
        if tag in ("script", "iframe", "object", "embed", "img"):
            raise AssertionError(f"a {tag}")
        for key, value in element.attrib.items():
            if key.split("}")[-1] in ("src", "href", "srcset", "action",
                                      "data", "poster"):
                if not re.match(r"#|data:,", value):
                    raise AssertionError(f"{tag} {key}={value}")
            for url in re.findall(r"url\(([^)]*)", value):
                if not url.startswith("#"):
                    raise AssertionError(f"{tag} {key}={value}")
    style = "".join(element.text or "" for element, tag in elements()
                    if tag == "style")
    if "url(" in style or "@import" in style:
        raise AssertionError("the style sheet asks for more")


@test
@needs(**PAGE)
def what_the_page_refers_to_is_there_once():
    ids = [element.get("id") for element, _ in elements() if element.get("id")]
    equal(sorted(ids), sorted(set(ids)))
    for element, tag in elements():
        for key, value in element.attrib.items():
            for name in re.findall(r"url\(#([^)]*)\)", value) + (
                    [value[1:]] if value.startswith("#") else []):
                if name not in ids:
                    raise AssertionError(f"{tag} {key}: no {name}")


@test
@needs(**PAGE)
def page_csv_and_json_agree():
    lines = list(csv.DictReader(io.StringIO(report()["results.csv"])))
    table = {(f"{line['contestant']}/{line['workload']}", line["quantity"]):
             line for line in lines}
    equal(len(table), len(lines))
    document = json.loads(report()["results.json"])
    counted = 0
    for entry in document["benchmarks"]:
        for quantity in {key for sample in entry.get("rounds", [])
                         for key in sample} - {"round", "vs_floor"}:
            value = entry["cpu_time" if quantity == TIME else quantity]
            equal(float(table[entry["name"], quantity]["median"]), value)
            counted += 1
    figures = [line for line in lines if line["median"]]
    equal(len(figures), counted)
    shown = {}
    for element, tag in elements():
        if tag == "td" and element.get("data-name"):
            key = element.get("data-name"), element.get("data-quantity")
            # Ours are beside the peers once more: then with the same figure.
            equal(element.text, shown.setdefault(key, element).text)
    equal(sorted(shown), sorted(key for key, line in table.items()
                                if line["median"]))
    for key, element in shown.items():
        equal((key, element.text.strip()),
              (key, bench_data.figure(float(table[key]["median"]))))
        ratio = "".join(child.text for child in element).strip("×")
        if key[1] == TIME and table[key]["times_base"] and \
                table[key]["contestant"] != "private":
            equal(ratio, f"{float(table[key]['times_base']):.2f}")


@test
@needs(**PAGE)
def the_page_has_all_pictures_in_two_shapes():
    found = [element.get("class") for element, tag in elements()
             if tag == "svg"]
    equal(found, ["wide", "narrow"] * 4)
    text = report()["index.html"]
    contains(text, "plot-live", "plot-lanes", "plot-population",
             "var(--series-0)")
    if re.search(r"#0101\w\w|#0[123]0[123]0[123]", text.split("</style>")[1]):
        raise AssertionError("a colour of the drawing was left")


@test
@needs(**PAGE)
def the_page_says_what_is_missing_and_noisy():
    text = report()["index.html"]
    contains(text, "Ruby (ruby-dev) was not found", "error: &lt;pth.h&gt;",
             "not enough memory for &lt;1,000,000&gt; &amp; more",
             "copy/spawn (", "A processor &lt;of&gt;")
    if 'id="incomplete"' in text:
        raise AssertionError("it says that it was interrupted")


@test
@needs(**PAGE)
def an_interrupted_report_says_so():
    with Stage(copy={"stops_parent_at": 9, "signal": "SIGTERM"},
               private={}) as stage:
        folder = stage.path / "report"
        status, said = stage.bench("--report", str(folder), "--rounds", "5")
        equal((status, said if status != 143 else ""), (143, ""))
        contains((folder / "index.html").read_text(), 'id="incomplete"',
                 "copy-lanes64")
        equal(bench_data.load(str(folder / "results.json")).complete, False)


@test
@needs(**PAGE)
def a_report_of_next_to_nothing_can_be_written():
    import bench_report
    data = Data(contestants=["copy"])
    row = data.add("copy", "switch")
    row.samples = [{"round": 1, TIME: 2.5}]
    ElementTree.fromstring(bench_report.page(data))
    empty = copy.deepcopy(data)
    empty.rows.clear()
    ElementTree.fromstring(bench_report.page(empty))


@test
def a_report_without_its_packages_names_them():
    with Stage(copy={}) as stage:
        for name in ("matplotlib", "jinja2"):
            (stage.path / f"{name}.py").write_text(
                "raise ImportError('not here')")
        os.environ["PYTHONPATH"] = str(stage.path)
        try:
            status, said = stage.bench("--report", str(stage.path / "r"))
        finally:
            del os.environ["PYTHONPATH"]
    equal(status, 1)
    contains(said, "Debian: python3-jinja2")


def main():
    print(f"TAP version 13\n1..{len(TESTS)}", flush=True)
    failed = 0
    for number, function in enumerate(TESTS, 1):
        name = function.__name__.replace("_", " ")
        missing = getattr(function, "missing", [])
        if missing:
            print(f"ok {number} - {name} # SKIP needs {', '.join(missing)}",
                  flush=True)
            continue
        try:
            function()
            print(f"ok {number} - {name}", flush=True)
        except Exception:  # whatever it is, the other tests are run
            failed += 1
            print(f"not ok {number} - {name}")
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main())
