# SPDX-License-Identifier: MIT
"""tools/test --fuzz: random programs on the model and on every backend."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import common
from common import Problem, say

CORPUS = common.ROOT / "tests" / "fuzz" / "corpus"
BATCH = 1000  # programs; each backend does the same ones
LINE = re.compile(r"(\w+): (\d+) programs \((\d+) operations, (\d+) events, "
                  r"each in (\d+) settings\) .* (\d+) left open, (\d+) failed, "
                  r"hash (\w+)")


@dataclasses.dataclass
class Total:
    programs: int = 0
    executions: int = 0  # a program in one setting
    operations: int = 0
    left_open: int = 0
    failures: int = 0


def fuzz_once(path: Path, backend: str, first: int,
              total: Total) -> tuple[str, str]:
    """One batch on one backend. Returns its hash of all traces, and what it
    printed if something failed."""
    program = path / "tests" / "fuzz" / f"fuzz-{backend}"
    done = subprocess.run(
        ["nice", str(program), "--seeds", str(first), str(BATCH), "--save",
         str(CORPUS)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=common.clean_environment())
    match = LINE.search(done.stdout)
    if not match:
        return "", (f"{backend}, seeds from {first}: "
                    f"{common.describe_status(done.returncode)}\n"
                    + done.stdout)
    _, programs, operations, _, settings, left, failed, total_hash = (
        match.groups())
    total.programs += int(programs)
    total.executions += int(programs) * int(settings)
    total.operations += int(operations) * int(settings)
    total.left_open += int(left)
    total.failures += int(failed)
    return total_hash, done.stdout if int(failed) or done.returncode else ""


def differential(path: Path, backends: list[str], seconds: float,
                 first: int) -> Total:
    """Batches of the same seeds for every backend, on all cores."""
    totals = {backend: Total() for backend in backends}
    begin = time.monotonic()
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        batch = first
        while time.monotonic() - begin < seconds and failures < 10:
            results = list(pool.map(
                lambda backend: fuzz_once(path, backend, batch,
                                          totals[backend]), backends))
            for _, output in results:
                if output:
                    failures += 1
                    say(output)
            hashes = {result[0] for result in results if not result[1]}
            if len(hashes) > 1:
                failures += 1
                totals[backends[0]].failures += 1
                say(f"seeds {batch} to {batch + BATCH - 1}: "
                    "not all backends have the same traces")
            batch += BATCH
    took = time.monotonic() - begin
    sum_of = Total()
    for backend, total in totals.items():
        say(f"  {backend}: {total.programs:,} programs, {total.executions:,} "
            f"executions, {total.operations:,} operations, "
            f"{total.left_open:,} left open, {total.failures} failed")
        for field in dataclasses.fields(Total):
            setattr(sum_of, field.name, getattr(sum_of, field.name)
                    + getattr(total, field.name))
    say(f"random programs, seeds {first} to {batch - 1}: "
        f"{sum_of.executions:,} executions in {took:.0f} s, "
        f"{sum_of.executions / took:.0f}/s, {sum_of.failures} failed")
    return sum_of


def libfuzzer(path: Path, backend: str, seconds: int) -> tuple[int, str, bool]:
    """Returns executions, a line about it, and whether it passed."""
    folder = path / "tests" / "fuzz"
    found = folder / f"found-{backend}"
    found.mkdir(exist_ok=True)
    before = set(folder.glob(f"regress-{backend}-*"))
    done = subprocess.run(
        ["nice", str(folder / f"libfuzzer-{backend}"),
         f"-max_total_time={max(1, seconds)}", "-max_len=2048", "-timeout=30",
         "-print_final_stats=1",
         f"-artifact_prefix={folder}/regress-{backend}-", str(found),
         str(CORPUS)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env=common.clean_environment())
    runs = re.search(r"number_of_executed_units:\s*(\d+)", done.stdout)
    cover = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stdout)
    n = int(runs[1]) if runs else 0
    line = f"  {backend}: {n:,} programs"
    if cover:
        line += (f", {cover[-1][0]} edges and {cover[-1][1]} features covered, "
                 f"{cover[-1][2]} programs kept")
    for failing in set(folder.glob(f"regress-{backend}-*")) - before:
        kept = CORPUS / failing.name
        shutil.copy(failing, kept)
        # As small as the plain fuzzer can make it; should it pass there, it
        # stays as it is.
        subprocess.run([str(folder / f"fuzz-{backend}"), "--minimise",
                        str(kept)], stdout=subprocess.DEVNULL, check=False)
        line += f"\nsaved: {kept}"
    if done.returncode:
        line += "\n" + "\n".join(
            text for text in done.stdout.splitlines()[-60:]
            if "last reference" not in text)
    return n, line, done.returncode == 0


def fuzz(seconds: float, wanted: list[str], first: int | None) -> int:
    """Half of the time random programs; half, if there is clang, libFuzzer."""
    have_clang = shutil.which("clang") is not None
    path = common.build("test", ["-Dvariants=true", "-Dwerror=true",
                                 "--buildtype=debugoptimized"],
                        targets=("fuzz",))
    backends = [backend for backend in common.backends()
                if (path / "tests" / "fuzz" / f"fuzz-{backend}").is_file()
                and (not wanted or backend in wanted)]
    if not backends:
        raise Problem("there is no backend to fuzz")
    guided = None
    if have_clang:
        guided = common.build(
            "fuzz", ["-Dvariants=true", "-Dlibfuzzer=true",
                     "-Dbenchmarks=disabled", "-Dexamples=disabled",
                     "--buildtype=debugoptimized"],
            {"CC": "clang", "CXX": "clang++"}, ("fuzz", "libfuzzer"))
    else:
        say("no libFuzzer: clang is missing")
    first = first if first is not None else int(time.time()) * 1000
    total = differential(path, backends,
                         seconds / 2 if guided else seconds, first)
    executions, good = total.executions, total.failures == 0
    if guided:
        cores = os.cpu_count() or 1
        share = int(seconds / 2 * min(cores, len(backends)) / len(backends))
        say(f"libFuzzer, {share} s each:")
        with concurrent.futures.ThreadPoolExecutor(cores) as pool:
            for backend, (n, line, passed) in zip(backends, pool.map(
                    lambda backend: libfuzzer(guided, backend, share),
                    backends)):
                say(line)
                executions += n * (4 if backend == "copy" else 1)
                good = good and passed
    say(f"\n{executions:,} executions, "
        + ("no difference" if good else "FAILED; what failed is in "
           f"{CORPUS.relative_to(common.ROOT)}"))
    return 0 if good else 1
