# SPDX-License-Identifier: MIT
"""Where a long run stands: a line that is rewritten, or one per round."""

from __future__ import annotations

import shutil
import sys

from common import say


def duration(seconds: float) -> str:
    return (f"{seconds / 60:.0f} min" if seconds >= 90
            else f"{seconds:.0f} s")


class Progress:
    """One line that is rewritten on a terminal; else a line per stage."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.last = ""

    def step(self, stage: str, what: str, left: float | None) -> None:
        """Says what comes next. left: seconds to the end, if that is known."""
        text = stage if left is None else f"{stage}, {duration(left)} left"
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print("\r\033[K" + f"{text}: {what}"[:width], end="", flush=True)
        elif stage != self.last:
            say(text)
        self.last = stage

    def clear(self) -> None:
        if self.live:
            print("\r\033[K", end="", flush=True)


class Estimate:
    """What is left of a plan, from what its steps took so far.

    Each step has a key; it is expected to take what a step of that key took
    last, or else what the steps took on average.
    """

    def __init__(self, keys: list[object]) -> None:
        self.left: dict[object, int] = {}
        for key in keys:
            self.left[key] = self.left.get(key, 0) + 1
        self.took: dict[object, float] = {}

    def done(self, key: object, seconds: float) -> None:
        self.left[key] = self.left.get(key, 1) - 1
        self.took[key] = seconds

    def drop(self, key: object) -> None:
        self.left[key] = 0

    def seconds(self) -> float | None:
        """None as long as next to nothing is known."""
        if len(self.took) < min(5, len(self.left)):
            return None
        average = sum(self.took.values()) / len(self.took)
        return sum(count * self.took.get(key, average)
                   for key, count in self.left.items())
