# SPDX-License-Identifier: MIT
"""Who can be measured: the backends, their lane settings, and peers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import common
from common import Problem

MANY_LANES = 64
# The copy backend's settings beside its default; the many are not in the
# main tables.
LANES = (0, 1, MANY_LANES)
# What bytes are counted for, in the report's picture of bytes by lanes.
SWEEP = (0, 1, 2, 4, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A backend and its lane setting, or a peer."""

    name: str
    program: str  # below the build folder
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
        result.append(Contestant(backend, f"bench/bench-{backend}",
                                 backend))
        if backend == "copy":
            result += [Contestant(f"copy-lanes{lanes}", "bench/bench-copy",
                                  backend, lanes) for lanes in LANES]
    order = [c.name for c in result if c.backend == "copy"] + ["private"]
    return sorted(result, key=lambda c: (order + [c.name]).index(c.name))


def sweep() -> list[Contestant]:
    """The copy backend with every number of lanes that bytes are counted
    for."""
    return [Contestant(f"copy-lanes{lanes}", "bench/bench-copy", "copy", lanes)
            for lanes in SWEEP]


def in_main_tables(contestant: Contestant) -> bool:
    return not contestant.is_peer and contestant.lanes != MANY_LANES


def peer_names() -> list[str]:
    """The peers that the sources have an adapter for."""
    folder = common.ROOT / "bench" / "peers"
    return sorted(file.stem for file in folder.glob("*.c*")
                  if file.suffix in (".c", ".cc"))


def last_words(text: str, lines: int = 5) -> str:
    return "".join("\n    " + line for line in text.splitlines()[-lines:])


def peers(path: Path, names: list[str]) -> tuple[list[Contestant],
                                                 dict[str, str]]:
    """Those of the named peers that this build folder has, and why it does
    not have the others: what bench/peers/meson.build found out."""
    if not names:
        return [], {}
    file = path / "bench" / "peers" / "peers.json"
    try:
        known = {each["name"]: each for each in
                 json.loads(file.read_text(encoding="utf-8"))}
        found = [Contestant(name, known[name]["program"]) for name in names
                 if name in known and known[name]["built"]]
        absent = {name: known[name]["why_not"] for name in names
                  if name in known and not known[name]["built"]}
    except OSError as error:
        return [], dict.fromkeys(names, f"{file}: {error.strerror}")
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(f"{file}: {type(error).__name__}: {error}") from None
    return found, absent | {name: "not in bench/peers/meson.build"
                            for name in names if name not in known}
