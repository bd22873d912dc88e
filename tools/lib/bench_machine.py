# SPDX-License-Identifier: MIT
"""What the figures were taken on."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

import common


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for key in ("model name", "Model", "cpu", "uarch"):
        if match := re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE):
            return match[1].strip()
    return platform.machine()


def one_line(*command: str) -> str:
    """What a command prints first, or nothing."""
    try:
        done = subprocess.run(command, cwd=common.ROOT, capture_output=True,
                              text=True, errors="replace", check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else ""


def memory() -> str:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^MemTotal:\s*(\d+) kB", text, re.MULTILINE)
    return f"{int(match[1]) / 2**20:.1f} GiB" if match else ""


def distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def source() -> str:
    """The commit, if this is a clone, and whether it is as committed."""
    commit = one_line("git", "describe", "--always", "--dirty", "--abbrev=12")
    return commit or "not a clone"


def describe() -> dict[str, str]:
    found = {
        "processor": processor(),
        "CPUs": str(os.cpu_count()),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()}, "
                  f"{platform.machine()}",
        "distribution": distribution(),
        "C library": " ".join(platform.libc_ver()),
        "Meson": one_line("meson", "--version"),
        "Google Benchmark": one_line("pkg-config", "--modversion",
                                     "benchmark"),
        "Python": platform.python_version(),
        "commit": source(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M UTC"),
    }
    return {key: value for key, value in found.items() if value.strip()}


def line() -> str:
    return (f"{processor()}, {os.cpu_count()} CPUs, {platform.system()} "
            f"{platform.release()}, {datetime.date.today().isoformat()}")
