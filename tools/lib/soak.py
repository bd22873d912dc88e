# SPDX-License-Identifier: MIT
"""tools/test --soak: greenlets without end, every byte of them looked at."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import time
from pathlib import Path

import common
from common import Problem, say

LANES = (0, 1, 2, 8)
FAULT_SWITCHES = 1_000_000  # of the proof that faults are found
# Two system calls, or a jump through jmp_buf: they take longer, for less.
SHARES = {"ucontext": 0.2, "sigaltstack": 0.2}


def run(path: Path, backend: str, lanes: int | None,
        arguments: list[str]) -> dict[str, int]:
    """One run; its figures by name. A failed one has `failed`."""
    command = [str(path / "tests" / "soak" / f"soak-{backend}"), *arguments,
               "--seed", str(time.time_ns() % 10**9)]
    if lanes is not None:
        command += ["--lanes", str(lanes)]
    done = subprocess.run(["nice", *command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True,
                          env=common.clean_environment())
    figures: dict[str, int] = {"failed": int(done.returncode != 0)}
    for line in done.stdout.splitlines():
        if line.startswith("backend="):
            for word in line.split():
                name, value = word.split("=")
                if name not in ("backend", "lanes"):
                    figures[name] = int(float(value))
    if done.returncode:
        say(" ".join(command) + ": "
            + common.describe_status(done.returncode) + "\n" + done.stdout)
    return figures


def soak(minutes: float | None, switches: float | None,
         wanted: list[str]) -> int:
    """For so many minutes, or until so many switches are done in all."""
    path = common.build("test", ["-Dvariants=true", "-Dwerror=true",
                                 "--buildtype=debugoptimized"],
                        targets=("soak",))
    settings: list[tuple[str, int | None]] = []
    for backend in common.backends():
        if wanted and backend not in wanted:
            continue
        if not (path / "tests" / "soak" / f"soak-{backend}").is_file():
            continue
        settings += [(backend, lanes) for lanes in
                     (LANES if backend == "copy" else (None,))]
    if not settings:
        raise Problem("there is no backend to soak")
    cores = os.cpu_count() or 1
    shares = [SHARES.get(backend, 1.0) for backend, _ in settings]

    def arguments(index: int) -> list[str]:
        part = shares[index] / sum(shares)
        if switches is not None:
            return ["--switches", str(int(switches * part) + 1)]
        seconds = minutes * 60 * min(cores, len(settings)) * part
        return ["--seconds", str(max(1, round(seconds)))]

    def one(index: int) -> tuple[dict[str, int], dict[str, int]]:
        backend, lanes = settings[index]
        faulty = run(path, backend, lanes, ["--switches", str(FAULT_SWITCHES),
                                            "--faults", "100"])
        return faulty, run(path, backend, lanes, arguments(index))

    total: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for (backend, lanes), (faulty, clean) in zip(
                settings, pool.map(one, range(len(settings)))):
            name = backend if lanes is None else f"{backend}, lanes {lanes}"
            say(f"  {name}: {clean.get('switches', 0):,} switches, "
                f"{clean.get('greenlets', 0):,} greenlets, "
                f"{clean.get('bytes_checked', 0):,} bytes checked, "
                f"{clean.get('bytes_copied', 0):,} copied, "
                f"{clean.get('unexpected', 0)} faults, "
                f"{clean.get('seconds', 0)} s; faults injected "
                f"{faulty.get('faults_injected', 0):,}, found "
                f"{faulty.get('faults_found', 0):,}")
            for figures in (faulty, clean):
                for key, value in figures.items():
                    total[key] = total.get(key, 0) + value
    say(f"\n{total.get('switches', 0):,} switches done by "
        f"{total.get('greenlets', 0):,} greenlets, "
        f"{total.get('bytes_checked', 0):,} bytes checked, "
        f"{total.get('bytes_copied', 0):,} bytes copied, "
        f"{total.get('faults_injected', 0):,} faults injected, "
        f"{total.get('faults_found', 0):,} faults found, "
        f"{total.get('unexpected', 0)} not injected"
        + (f", {total['failed']} runs FAILED" if total.get("failed") else ""))
    return 1 if total.get("failed") else 0
