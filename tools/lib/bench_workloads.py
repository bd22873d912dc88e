# SPDX-License-Identifier: MIT
"""Which workloads there are, by the names that Google Benchmark lists."""

from __future__ import annotations

import re

from common import Problem

# Title in the report, and the families (the word before the first slash).
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "switching": ("Switching", ("switch", "pair", "hub", "ring", "nested",
                                "sizes")),
    "copying": ("Copying", ("live", "volume", "population")),
    "life": ("Life and death", ("spawn", "throw")),
    "memory": ("Memory", ("park", "recursion")),
    "extras": ("What is extra", ("trace", "check", "threads")),
    "real": ("Real input", ("expat", "http")),
}
OTHERS = "others"

# What `tools/bench` without arguments runs: exactly these.
MAIN = re.compile(r"switch|pair|ring/(2|16|1024|100000)"
                  r"|live/(64|256|1024|4096|16384|65536)"
                  r"|volume/(hub-one|hub-many|siblings|nested)"
                  r"|spawn|sizes|expat")

# Each of these takes many seconds on some contestant: they come last in a
# round, by themselves, so that only they get fewer rounds if time is short.
LONG = re.compile(r"/1000000$")
# Whose bytes the report shows by the number of lanes.
BY_LANES = ("volume", "population")
# What a quick report leaves out.
NOT_QUICK = re.compile(r"[/-]10000*00$")


def family(workload: str) -> str:
    return workload.split("/")[0]


def batch(workload: str) -> str:
    """What runs in one process: a family, or a long workload by itself."""
    return workload if LONG.search(workload) else family(workload)


def group(workload: str) -> str:
    for name, (_, families) in GROUPS.items():
        if family(workload) in families:
            return name
    return OTHERS


def title(group_name: str) -> str:
    return GROUPS[group_name][0] if group_name in GROUPS else "Others"


def order(workloads: list[str]) -> list[str]:
    """By group; within one as they are listed."""
    names = [*GROUPS, OTHERS]
    return sorted(workloads, key=lambda each: names.index(group(each)))


def choose(pattern: str, workloads: list[str],
           full_names: dict[str, list[str]]) -> list[str]:
    """The workloads that --only means.

    pattern     names of groups or workloads (`ring` or `ring/16`), by commas;
                or a regular expression that is looked for in the names
    full_names  of each workload: with its contestants
    """
    families = {family(each) for each in workloads}
    known = {"main": [each for each in workloads if MAIN.fullmatch(each)]}
    known |= {name: [each for each in workloads if group(each) == name]
              for name in GROUPS}
    # A family may be called as a group is: the family is meant.
    known |= {name: [each for each in workloads if family(each) == name]
              for name in families}
    known |= {each: [each] for each in workloads}
    chosen: set[str] = set()
    parts = pattern.split(",")
    if all(part in known for part in parts):
        for part in parts:
            chosen |= set(known[part])
    else:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise Problem(f"--only {pattern}: {error}") from None
        chosen = {each for each in workloads
                  if expression.search(each)
                  or any(expression.search(name)
                         for name in full_names.get(each, []))}
    if not chosen:
        raise Problem(f"--only {pattern}: no such workload; known: "
                      + " ".join(workloads)
                      + "; groups: main " + " ".join(GROUPS))
    return [each for each in workloads if each in chosen]
