# SPDX-License-Identifier: MIT
"""The main job: expat as a pull parser, on every backend."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import common
from bench_contestants import Contestant
from bench_tables import table
from common import Problem, say

DOCUMENT = "/usr/share/mime/packages/freedesktop.org.xml"


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
