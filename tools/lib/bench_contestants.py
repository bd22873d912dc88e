# SPDX-License-Identifier: MIT
"""Who can be measured: the backends, their lane settings, and peers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import common
from common import Problem

MANY_LANES = 64
# The copy backend's settings beside its default; the many are not in the
# main tables.
LANES = (0, 1, MANY_LANES)
# What bytes are counted for, in the report's picture of bytes by lanes.
SWEEP = (0, 1, 2, 4, 8, 16, 32, 64)
PEER = "bench-peer-"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A backend and its lane setting, or a peer."""

    name: str
    program: str  # below bench/ in the build folder
    backend: str = ""  # of ours; "" for a peer
    lanes: int | None = None

    def environment(self) -> dict[str, str]:
        if self.lanes is None:
            return common.clean_environment()
        return common.clean_environment(GREENLET_LANES=str(self.lanes))

    @property
    def is_peer(self) -> bool:
        return not self.backend


def ours() -> list[Contestant]:
    """The backends with all their settings, in the order of the tables."""
    result = []
    for backend in common.backends():
        result.append(Contestant(backend, f"bench-{backend}", backend))
        if backend == "copy":
            result += [Contestant(f"copy-lanes{lanes}", "bench-copy", backend,
                                  lanes) for lanes in LANES]
    order = [c.name for c in result if c.backend == "copy"] + ["private"]
    return sorted(result, key=lambda c: (order + [c.name]).index(c.name))


def sweep() -> list[Contestant]:
    """The copy backend with every number of lanes that bytes are counted
    for."""
    return [Contestant(f"copy-lanes{lanes}", "bench-copy", "copy", lanes)
            for lanes in SWEEP]


def in_main_tables(contestant: Contestant) -> bool:
    return not contestant.is_peer and contestant.lanes != MANY_LANES


def peer_names() -> list[str]:
    """The peers that the sources have an adapter for."""
    folder = common.ROOT / "bench" / "peers"
    return sorted(file.stem for file in folder.glob("*.c*")) \
        if folder.is_dir() else []


def last_words(text: str, lines: int = 5) -> str:
    return "".join("\n    " + line for line in text.splitlines()[-lines:])


def peers(path: Path, names: list[str]) -> tuple[list[Contestant],
                                                 dict[str, str]]:
    """Those of the named peers that can be had in this build folder, and why
    the others cannot. bench/peers.json there says what was found; what was
    is built here, one at a time, because one that does not compile must not
    keep the others from running."""
    if not names:
        return [], {}
    try:
        text = (path / "bench" / "peers.json").read_text(encoding="utf-8")
        known = json.loads(text)
    except OSError as error:
        return [], {name: f"bench/peers.json: {error.strerror}"
                    for name in names}
    except ValueError as error:
        raise Problem(f"{path}/bench/peers.json: not JSON: {error}") from None
    found, absent = [], {}
    for name in names:
        state = known.get(name, "it is not in bench/peers/meson.build")
        if state != "built":
            absent[name] = state
            continue
        target = f"bench/{PEER}{name}"
        done = subprocess.run(["ninja", "-C", str(path), target],
                              stdout=subprocess.PIPE, text=True,
                              errors="replace", stderr=subprocess.STDOUT)
        if done.returncode != 0:
            absent[name] = "it does not build:" + last_words(done.stdout, 12)
            continue
        found.append(Contestant(name, PEER + name))
    return found, absent
