# SPDX-License-Identifier: MIT
"""Runs the benchmarks: round by round, contestants interleaved."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import bench_workloads
import common
from bench_contestants import Contestant, last_words
from bench_data import FLOOR, TIME, VS_FLOOR, Data
from bench_progress import Estimate, Progress

# What Google Benchmark appends to a name, and what is no counter of ours.
SUFFIX = re.compile(r"/(process_time|real_time|manual_time)")
PLAIN = {"family_index", "per_family_instance_index", "repetitions",
         "repetition_index", "threads", "iterations", "real_time", "cpu_time"}
# What differs from process to process, or is nobody's business.
PRIVATE = {"contestant", "executable", "host_name", "load_avg",
           "greenlet_version", "peer_version"}


def plan(costs: dict[str, float], rounds: int,
         seconds: float | None) -> dict[str, int]:
    """How many more rounds of each batch fit into a time: all that are
    wanted, or fewer of those that take the longest.

    costs    seconds that one round of a batch takes
    seconds  that may be used; None: as many as it takes
    """
    result = {name: rounds for name in costs}
    if seconds is None:
        return result
    while (sum(costs[name] * count for name, count in result.items()) > seconds
           and any(result.values())):
        longest = max(result, key=lambda name: costs[name] * result[name])
        result[longest] -= 1
    return result


class Measurement:
    """A run: what shall be measured, and `data`, what was."""

    def __init__(self, path: Path, chosen: list[Contestant], base: str):
        self.path = path
        self.chosen = []
        self.data = Data(base=base)
        self.wrong: list[str] = []
        self.broken: set[tuple[str, str]] = set()
        # workload -> its contestants' names in full, in the order of the lists
        self.workloads: dict[str, list[str]] = {}
        # in full, without and with Google Benchmark's suffix
        self.names: dict[str, str] = {}
        for contestant in chosen:
            names = self.listed(contestant)
            if names is None:
                continue
            self.chosen.append(contestant)
            for listed in names:
                name = SUFFIX.sub("", listed)
                self.names[name] = listed
                workload = name.split("/", 1)[1]
                self.workloads.setdefault(workload, []).append(name)
        self.data.contestants = [each.name for each in self.chosen]
        self.data.peers = [each.name for each in self.chosen if each.is_peer]

    def fail(self, contestant: Contestant, what: str, why: str) -> None:
        """A peer that fails is left out; one of ours that does is wrong."""
        if contestant.is_peer:
            self.data.left_out[what] = why
        else:
            self.wrong.append(f"{what}: {why}")

    def command(self, contestant: Contestant, *options: str
                ) -> subprocess.CompletedProcess:
        return subprocess.run([str(self.path / contestant.program), *options], text=True,
                              errors="replace", capture_output=True,
                              env=contestant.environment())

    def listed(self, contestant: Contestant) -> list[str] | None:
        try:
            done = self.command(contestant, "--benchmark_list_tests")
        except OSError as error:
            self.fail(contestant, contestant.name, str(error))
            return None
        if done.returncode != 0:
            self.fail(contestant, contestant.name,
                      "the list of benchmarks: "
                      + common.describe_status(done.returncode)
                      + last_words(done.stderr))
            return None
        return done.stdout.split()

    def choose(self, pattern: str) -> None:
        """Keeps the workloads that --only means."""
        self.keep(bench_workloads.choose(pattern, list(self.workloads),
                                         self.workloads))

    def keep(self, workloads: list[str]) -> None:
        self.workloads = {each: self.workloads[each] for each in workloads}

    def batches(self) -> dict[str, list[str]]:
        """Workloads by what runs in one process; the long ones last."""
        result: dict[str, list[str]] = {}
        for workload in sorted(self.workloads, key=lambda each: bool(
                bench_workloads.LONG.search(each))):
            result.setdefault(bench_workloads.batch(workload),
                              []).append(workload)
        return result

    def has(self, contestant: Contestant, workloads: list[str]) -> bool:
        return any(f"{contestant.name}/{each}" in self.names
                   for each in workloads)

    def run(self, rounds: int, seconds: float, budget: float | None = None,
            after_round: Callable[[], None] = lambda: None) -> None:
        """Makes the rounds.

        seconds      that each workload is repeated for
        budget       seconds for all of it: what takes long gets fewer rounds,
                     but one; a long workload none, if the time is up
        after_round  called when another round is complete
        """
        start = time.monotonic()
        batches = self.batches()
        steps = [(batch, contestant)
                 for batch, workloads in batches.items()
                 for contestant in self.chosen
                 if self.has(contestant, workloads)]
        estimate = Estimate(steps * rounds)
        counts = {batch: rounds for batch in batches}
        progress = Progress()
        self.data.rounds, self.data.complete = rounds, False
        try:
            for number in range(1, rounds + 1):
                for batch, contestant in steps:
                    if number > counts[batch] or (
                            contestant.name, batch) in self.broken:
                        continue
                    if (budget is not None and bench_workloads.LONG.search(
                            batch) and time.monotonic() - start > budget):
                        counts[batch] = 0
                        self.data.left_out[batch] = "the time was up"
                        continue
                    progress.step(f"round {number} of {rounds}",
                                  f"{contestant.name}/{batch}",
                                  estimate.seconds())
                    before = time.monotonic()
                    self.measure(contestant, number, batches[batch], seconds)
                    estimate.done((batch, contestant),
                                  time.monotonic() - before)
                after_round()
                if number == 1 and budget is not None:
                    costs = {batch: sum(
                        estimate.took.get((batch, contestant), 0)
                        for contestant in self.chosen) for batch in batches}
                    more = plan(costs, rounds - 1,
                                budget - (time.monotonic() - start))
                    for step in steps:
                        if counts[step[0]]:
                            counts[step[0]] = 1 + more[step[0]]
                        estimate.left[step] = more[step[0]]
                # The first one of a round has the machine as the last round
                # left it: let that be another one each time.
                first = len(self.chosen) and number % len(self.chosen)
                turn = self.chosen[first:] + self.chosen[:first]
                steps.sort(key=lambda step: (list(batches).index(step[0]),
                                             turn.index(step[1])))
            self.data.complete = True
        finally:
            progress.clear()

    def measure(self, contestant: Contestant, number: int,
                workloads: list[str], seconds: float) -> None:
        """One process: a batch of workloads, and their floor."""
        names = []
        for workload in workloads:
            for owner in (contestant.name, FLOOR):
                if name := self.names.get(f"{owner}/{workload}"):
                    names.append(re.escape(name).replace("\\-", "-"))
        done = self.command(
            contestant, "--benchmark_format=json",
            f"--benchmark_min_time={seconds}",
            f"--benchmark_filter=^({'|'.join(names)})$")
        try:
            # 3: some cases gave themselves up, which they say themselves
            if done.returncode not in (0, 3):
                raise ValueError(common.describe_status(done.returncode))
            self.read(json.loads(done.stdout), number)
        except ValueError as error:
            batch = bench_workloads.batch(workloads[0])
            self.broken.add((contestant.name, batch))
            self.fail(contestant, f"{contestant.name}/{batch}",
                      str(error) + last_words(done.stderr))

    def read(self, report: dict, number: int) -> None:
        """Adds what one process printed."""
        context = report["context"]
        for key, value in context.items():
            if key not in PRIVATE:
                self.data.context.setdefault(key, value)
        versions = self.data.context.setdefault("versions", {})
        for key in ("greenlet_version", "peer_version"):
            if key in context:
                versions[context["contestant"]] = context[key]
        entries = {SUFFIX.sub("", entry["name"]): entry
                   for entry in report["benchmarks"]}
        for name, entry in entries.items():
            self.add(name, entry, number, context)
        # The floor of the same process, so that code placement, the clock and
        # the neighbours are the same.
        for name, entry in entries.items():
            owner, workload = name.split("/", 1)
            floor = entries.get(f"{FLOOR}/{workload}", {})
            if owner != FLOOR and "error_occurred" not in entry and floor.get(
                    "cpu_time", 0) > 0:
                self.data.rows[name].samples[-1][VS_FLOOR] = (
                    entry["cpu_time"] / floor["cpu_time"])

    def add(self, name: str, entry: dict, number: int,
            context: dict) -> None:
        contestant, workload = name.split("/", 1)
        row = self.data.add(contestant, workload)
        row.unit = context.get("unit:" + bench_workloads.family(workload),
                               row.unit)
        if entry.get("error_occurred"):
            row.error = entry["error_message"]
            return
        row.label = entry.get("label", row.label)
        row.iterations += entry["iterations"]
        clock = ("real_time" if entry["name"].endswith("real_time")
                 else "cpu_time")
        row.samples.append({"round": number, TIME: entry[clock]} | {
            key: value for key, value in entry.items()
            if key not in PLAIN and isinstance(value, (int, float))
            and not isinstance(value, bool)})

    def http(self, quick: bool) -> None:
        """The HTTP servers, which wrk loads: http_bench starts both."""
        import http_bench
        for entry in http_bench.run(self.path, self.chosen, quick):
            contestant, workload = entry["name"].split("/", 1)
            row = self.data.add(contestant, workload)
            row.unit = entry.get("unit", "request")
            row.error = entry.get("error_message", "")
            row.iterations = int(entry.get("iterations", 1))
            if "real_time" in entry:
                row.samples.append({"round": 1, TIME: entry["real_time"]} | {
                    key: value for key, value in entry.items()
                    if key not in PLAIN and isinstance(value, (int, float))
                    and not isinstance(value, bool)})

    def count(self, contestants: list[Contestant], family: str) -> None:
        """One short round of a family whose counters are wanted, not its
        times, for contestants that need not be among the chosen ones. Those
        that were measured are left alone."""
        workloads = self.batches().get(family, [])
        progress = Progress()
        try:
            for contestant in contestants:
                if not workloads or contestant.name in self.data.contestants:
                    continue
                if "copy/" + workloads[0] not in self.names:
                    return
                progress.step(f"counting: {family} by lanes",
                              contestant.name, None)
                for workload in workloads:
                    name = f"{contestant.name}/{workload}"
                    self.names[name] = name
                self.measure(contestant, 1, workloads, 0)
                for workload in workloads:
                    if row := self.data.row(contestant.name, workload):
                        for sample in row.samples:
                            sample.pop(TIME, None)
                            sample.pop(VS_FLOOR, None)
        finally:
            progress.clear()
