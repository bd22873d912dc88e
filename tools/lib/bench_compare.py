# SPDX-License-Identifier: MIT
"""tools/bench compare OLD.json NEW.json: what changed beyond noise.

The rule. A figure that was *timed* has changed if both hold:
  - the Mann-Whitney U test, two-sided, over the rounds of either run, finds
    them as different as chance would make them in at most ALPHA of all cases
    (1 %: with five rounds each, every round of the one must be beyond every
    round of the other);
  - the medians are at least THRESHOLD apart (5 %).
Four rounds and three cannot reach 1 %: then nothing is said but that.
A figure that was *counted* (the same in all rounds of a run) has changed if it
differs by more than 1 %.

The rounds of one run share the machine's mood, which the test cannot know.
With a base, ratios to it within the rounds are compared, which cancels that.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re

import bench_data
from bench_data import FLOOR, TIME, Data, figure
from bench_tables import table
from common import Problem, say

ALPHA = 0.01
THRESHOLD = 0.05
COUNTED_ALIKE = 0.001  # counted: the rounds of a run differ by less
COUNTED_CHANGE = 0.01

SAME, BETTER, WORSE, UNKNOWN = "same", "better", "worse", "too few rounds"

# Counters of which there should be more.
MORE_IS_BETTER = re.compile(r"/s$|_per_second$")


def least_probability(count: int, other: int) -> float:
    """What the test says at best, of two samples of these sizes."""
    return 2 / math.comb(count + other, count)


def probability(old: list[float], new: list[float]) -> float:
    """How often chance alone makes two samples as different as these."""
    if not old or not new or set(old) == set(new) and len(set(old)) == 1:
        return 1.0
    try:
        from scipy.stats import mannwhitneyu
    except ImportError:
        raise Problem("compare needs SciPy (Debian: python3-scipy)") from None
    # With ties the exact distribution does not hold, and mannwhitneyu says
    # so by itself: it takes the normal approximation.
    return float(mannwhitneyu(old, new, alternative="two-sided").pvalue)


def counted(values: list[float]) -> bool:
    return max(values) - min(values) <= COUNTED_ALIKE * abs(max(values))


@dataclasses.dataclass
class Change:
    """One figure in two runs."""

    name: str
    quantity: str
    old: float
    new: float
    verdict: str
    probability: float | None = None  # None: counted

    @property
    def ratio(self) -> float:
        if self.old == 0:
            return 1.0 if self.new == 0 else math.inf
        return self.new / self.old

    def cells(self) -> list[str]:
        percent = (f"{self.ratio - 1:+.1%}" if math.isfinite(self.ratio)
                   else "from none")
        p = "counted" if self.probability is None else \
            f"p {self.probability:.3f}"
        return [self.name + ("" if self.quantity == TIME
                             else f", {self.quantity}"),
                figure(self.old), figure(self.new), percent, p, self.verdict]


def judge(name: str, quantity: str, old: list[float], new: list[float],
          alpha: float = ALPHA, threshold: float = THRESHOLD) -> Change:
    """Has this figure changed? See the rule on top."""
    middle = [bench_data.quartiles(values)[1] for values in (old, new)]
    change = Change(name, quantity, *middle, SAME)
    if quantity != TIME and counted(old) and counted(new):
        changed = abs(change.ratio - 1) > COUNTED_CHANGE
    else:
        change.probability = probability(old, new)
        if least_probability(len(old), len(new)) > alpha:
            change.verdict = UNKNOWN
            return change
        changed = (change.probability <= alpha
                   and abs(change.ratio - 1) >= threshold)
    if changed:
        more = change.new > change.old
        wanted = bool(MORE_IS_BETTER.search(quantity))
        change.verdict = BETTER if more == wanted else WORSE
    return change


def compare(old: Data, new: Data, base: str = "", alpha: float = ALPHA,
            threshold: float = THRESHOLD) -> list[Change]:
    """All figures that both runs have.

    base  compare times by those of this contestant; where a run lacks it,
          and for the base itself, there is nothing to compare
    """
    changes = []
    for name, row in old.rows.items():
        other = new.rows.get(name)
        if not other:
            continue
        for quantity in row.quantities():
            values = [row.values(quantity), other.values(quantity)]
            if quantity == TIME and base:
                if row.contestant == base:
                    continue
                values = [old.ratios(row, base), new.ratios(other, base)]
            if all(values):
                changes.append(judge(name, quantity, *values, alpha,
                                     threshold))
    return changes


def lost(old: Data, new: Data) -> list[tuple[str, str]]:
    """What the old run has figures of and the new one none, and why."""
    result = []
    for name, row in old.rows.items():
        other = new.rows.get(name)
        if row.samples and (other is None or not other.samples):
            result.append((name, other.error if other and other.error
                           else "not in the new run"))
    return result


def differences(old: Data, new: Data) -> list[str]:
    """What else than the library may be the reason."""
    machines = [data.context.get("machine", {}) for data in (old, new)]
    result = [f"another {key}: {machines[0][key]}; {machines[1][key]}"
              for key in ("processor", "CPUs", "system", "C library")
              if all(key in machine for machine in machines)
              and machines[0][key] != machines[1][key]]
    for key in ("compiler", "pinned_to_cpu"):
        values = [data.context.get(key) for data in (old, new)]
        if all(values) and values[0] != values[1]:
            result.append(f"another {key}: {values[0]}; {values[1]}")
    return result


def mood(old: Data, new: Data) -> float | None:
    """How much slower the machine was: by what no change of the library can
    move, the bare switch. None if a run lacks it."""
    rows = [data.row(FLOOR, "switch") for data in (old, new)]
    if not all(row and row.values() for row in rows):
        return None
    return rows[1].median() / rows[0].median()


def show(old: Data, new: Data, changes: list[Change],
         options: argparse.Namespace) -> int:
    for data, file in ((old, options.old), (new, options.new)):
        if not data.complete:
            say(f"{file}: that run was interrupted; this is what it has")
    for line in differences(old, new):
        say(f"NOTE: {line}")
    factor = mood(old, new)
    if factor is not None and not options.base:
        say(f"The bare switch, which the library has no part in: "
            f"{factor - 1:+.1%}."
            + (" The machine has changed its mood:\ncompare with --base "
               f"{FLOOR}, or another contestant."
               if abs(factor - 1) >= options.threshold else ""))
    gone = lost(old, new)
    timed = [change for change in changes if change.probability is not None]
    found = {verdict: [change for change in changes
                       if change.verdict == verdict]
             for verdict in (WORSE, BETTER, SAME, UNKNOWN)}
    shown = [each for verdict, each in found.items()
             if options.all or verdict in (WORSE, BETTER)]
    rows = [change.cells() for each in shown for change in each]
    if rows:
        say()
        table([["times " + options.base if options.base else "",
                "old", "new", "change", "", ""], *rows])
    if gone:
        say()
        for name, why in gone:
            say(f"gone: {name}: {why}")
    added = [name for name, row in new.rows.items()
             if row.samples and name not in old.rows]
    if added:
        say(f"\nonly in {options.new}: " + " ".join(added))
    say(f"\n{len(found[WORSE])} worse, {len(found[BETTER])} better, "
        f"{len(found[SAME])} the same within noise"
        + (f", {len(found[UNKNOWN])} with too few rounds to tell"
           if found[UNKNOWN] else "")
        + (f", {len(gone)} gone" if gone else ""))
    told = len(timed) - len(found[UNKNOWN])
    if told * options.alpha >= 0.5:
        say(f"Of {told} timed figures, about {told * options.alpha:.0f} "
            "would pass the test by chance; fewer pass the threshold, too.")
    if found[UNKNOWN]:
        needed = next(n for n in range(2, 99)
                      if least_probability(n, n) <= options.alpha)
        say(f"At --alpha {options.alpha:g} it takes {needed} rounds on "
            "either side.")
    return 1 if found[WORSE] or gone else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench compare",
        description="Says what changed between two runs beyond noise. A time "
        "has changed if the Mann-Whitney U test over the rounds gives at "
        "most ALPHA, and the medians are at least THRESHOLD percent apart; a "
        f"count, if it differs by more than {COUNTED_CHANGE:.0%}.",
        epilog="Exit status: 0 nothing is worse, 1 something is worse or "
        "gone, 2 the runs cannot be compared.")
    parser.add_argument("old", metavar="OLD.json")
    parser.add_argument("new", metavar="NEW.json")
    parser.add_argument("--base", metavar="B", default="",
                        help="compare multiples of this contestant (or floor) "
                        "instead of nanoseconds: cancels the machine's mood")
    parser.add_argument("--alpha", type=float, default=ALPHA, metavar="P",
                        help=f"of the test ({ALPHA:g})")
    parser.add_argument("--threshold", type=float, default=100 * THRESHOLD,
                        metavar="PERCENT",
                        help=f"of a change worth telling ({THRESHOLD:.0%})"
                        .replace("%", "%%"))
    parser.add_argument("--all", action="store_true",
                        help="also show what has not changed")
    options = parser.parse_args(arguments)
    if not 0 < options.alpha < 1:
        parser.error("--alpha: between 0 and 1")
    if options.threshold < 0:
        parser.error("--threshold: not negative")
    options.threshold /= 100
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    old, new = bench_data.load(options.old), bench_data.load(options.new)
    if options.base:
        for data, file in ((old, options.old), (new, options.new)):
            if not any(data.ratios(row, options.base)
                       for row in data.rows.values()):
                raise Problem(f"--base {options.base}: not in {file}; it has "
                              + " ".join([*data.contestants, FLOOR]))
    changes = compare(old, new, options.base, options.alpha,
                      options.threshold)
    if not changes and not lost(old, new):
        raise Problem("the two have no benchmark in common")
    return show(old, new, changes, options)
