# SPDX-License-Identifier: MIT
"""What tools/test and tools/bench share: where things are, and building."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# The copy backend's lane settings that are run beside the default.
LANES = (0, 1, 2)


# Names of --arch, and the Meson cross files below tools/cross.
ARCHITECTURES = {
    "aarch64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "armel": "arm-linux-gnueabi",
    "x86": "i686-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
}


class Problem(Exception):
    """Something that the user can act on: printed without a traceback."""


def backends() -> list[str]:
    """The backends that the sources have, the default one first."""
    found = sorted(folder.name for folder in (ROOT / "backends").iterdir()
                   if folder.is_dir())
    return sorted(found, key=lambda name: name != "copy")


def say(text: str = "") -> None:
    print(text, flush=True)


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of the library, and with `more`."""
    result = {name: value for name, value in os.environ.items()
              if not name.startswith("GREENLET_")
              or name.startswith("GREENLET_TEST_")}
    result.update(more)
    return result


def describe_status(status: int) -> str:
    """What a return code of subprocess means."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def run_shown(command: list[str], what: str,
              environment: dict[str, str] | None = None) -> None:
    """Runs a step of the build: quiet unless it fails or this is a terminal."""
    shown = sys.stdout.isatty()
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True,
                          errors="replace",
                          stdout=None if shown else subprocess.PIPE,
                          stderr=None if shown else subprocess.STDOUT)
    if done.returncode != 0:
        if not shown:
            sys.stdout.write(done.stdout)
        raise Problem(f"{what} failed: {describe_status(done.returncode)}")


def build(folder: str, options: list[str],
          compilers: dict[str, str] | None = None,
          targets: tuple[str, ...] = ()) -> Path:
    """Configures (once, or anew if options have changed) and compiles.

    folder     below build/, ours alone
    options    of `meson setup`
    compilers  CC and CXX, if not the environment's
    targets    what to compile; nothing: everything
    """
    path = ROOT / "build" / folder
    environment = dict(os.environ)
    environment.update(compilers or {})
    stamp = path / "tools-options.json"
    wanted = json.dumps([options] + [environment.get(name, "") for name in
                                     ("CC", "CXX", "CFLAGS", "LDFLAGS")])
    if path.exists() and not (stamp.is_file() and stamp.read_text() == wanted
                              and (path / "build.ninja").is_file()):
        shutil.rmtree(path)
    if not path.exists():
        say(f"configuring build/{folder}")
        run_shown(["meson", "setup", *options, str(path), str(ROOT)],
                  "meson setup", environment)
        stamp.write_text(wanted)
    say(f"building build/{folder}")
    run_shown(["ninja", "-C", str(path), *targets], "the build", environment)
    return path
