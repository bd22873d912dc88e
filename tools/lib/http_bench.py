# SPDX-License-Identifier: MIT
"""The HTTP server of bench/http/ under load: requests per second from wrk,
and what memory an idle connection takes.

    python3 tools/lib/http_bench.py BUILD [--help]

tools/bench calls run(), whose results have the shape of Google Benchmark's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import common
from common import Problem, say

IDLE = 10000  # connections that are open and do nothing
BUSY = 16  # connections that wrk keeps busy
UNIT = "request"
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
END = b"Hello, world\n"
SKIPPED = 77  # the exit status that Meson takes for a skipped test
PATIENCE = 60  # seconds, for what should take milliseconds


@dataclasses.dataclass(frozen=True)
class Setting:
    """Who serves, and how: one benchmark."""

    contestant: str  # copy, copy-lanes0, floor, ...
    backend: str  # whose server
    loop: str  # epoll or libevent
    idle: int = IDLE
    lanes: int | None = None

    @property
    def style(self) -> str:
        return "callbacks" if self.contestant == "floor" else "greenlets"

    @property
    def name(self) -> str:
        return f"{self.contestant}/http-{self.loop}/{self.idle}"


def missing(path: Path) -> str:
    """Why nothing of this can be measured here; "" if it can."""
    if not list((path / "bench" / "http").glob("http-*")):
        return ("the HTTP server is not built (Debian: libhttp-parser-dev, "
                "libevent-dev)")
    if not shutil.which("wrk"):
        return "wrk is not installed (Debian: wrk)"
    return ""


# ---- The server ------------------------------------------------------------

class Server:
    """A server process on a CPU of its own, if there are two."""

    def __init__(self, path: Path, setting: Setting):
        lanes = {} if setting.lanes is None else {
            "GREENLET_LANES": str(setting.lanes)}
        self.process = subprocess.Popen(
            [str(path / "bench" / "http" / f"http-{setting.backend}"),
             "--style", setting.style, "--loop", setting.loop],
            env=common.clean_environment(**lanes), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self.process.pid, {cpus[-1]})
        self.other_cpus = set(cpus[:-1]) or set(cpus)
        try:
            self.port = int(self.line().split()[-1])
        except (IndexError, ValueError):
            raise Problem(self.last_words()) from None

    def line(self) -> str:
        """What it prints next; "" if it does not."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        return self.process.stdout.readline() if ready else ""

    def last_words(self) -> str:
        self.process.kill()
        words = self.process.communicate()[1].strip()
        return (f"the server: {common.describe_status(self.process.returncode)}"
                + (f": {words}" if words else ""))

    def totals(self, number: signal.Signals = signal.SIGUSR1) -> dict:
        """Its counters; see bench/http/server.c."""
        self.process.send_signal(number)
        try:
            return json.loads(self.line())
        except ValueError:
            raise Problem(self.last_words()) from None

    def cpu_seconds(self) -> float:
        text = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8")
        user, system = text.rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, int]:
        """In bytes, but for the maps."""
        folder = Path(f"/proc/{self.process.pid}")
        rss = re.search(r"^Rss:\s+(\d+)", (folder / "smaps_rollup")
                        .read_text("utf-8"), re.MULTILINE)
        tables = re.search(r"^VmPTE:\s+(\d+)", (folder / "status")
                           .read_text("utf-8"), re.MULTILINE)
        return {"rss": int(rss[1]) * 1024 if rss else 0,
                "page_tables": int(tables[1]) * 1024 if tables else 0,
                "maps": (folder / "maps").read_text("utf-8").count("\n")}

    def stop(self) -> None:
        """Ends it, connections and all. Raises Problem if it ends badly."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Problem("the server does not end: "
                          + self.last_words()) from None
        if status:
            raise Problem(self.last_words())


# ---- Its clients -------------------------------------------------------------

def allow_descriptors(count: int) -> None:
    """Raises RLIMIT_NOFILE, for the server to come as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
    except (OSError, ValueError) as error:
        raise Problem(f"{count} descriptors are needed, and the hard limit is "
                      f"{hard} (ulimit -Hn): {error}") from None


def hold(port: int, count: int) -> list[socket.socket]:
    """Opens connections, each of which has had one answer and is idle."""
    held = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        connection.sendall(GET)
        held.append(connection)
    for connection in held:
        text = b""
        while not text.endswith(END):
            piece = connection.recv(4096)
            if not piece:
                raise Problem("the server has closed an idle connection")
            text += piece
    return held


def load(server: Server, seconds: float) -> dict[str, float]:
    """wrk's figures: requests, seconds and microseconds of latency."""
    command = ["wrk", "--threads", "1", "--connections", str(BUSY),
               "--duration", f"{max(1, round(seconds))}s", "--latency",
               f"http://127.0.0.1:{server.port}/"]
    cpus = ",".join(map(str, sorted(server.other_cpus)))
    if shutil.which("taskset"):
        command = ["taskset", "--cpu-list", cpus, *command]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    total = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
    if done.returncode != 0 or not total:
        raise Problem("wrk: " + (done.stderr.strip() or done.stdout.strip()))
    if errors := re.search(r"Socket errors:.*|Non-2xx.*", done.stdout):
        raise Problem("wrk: " + errors[0])
    result = {"requests": float(total[1]), "seconds":
              float(total[2]) * (1e-3 if total[3] == "ms" else 1)}
    units = {"us": 1.0, "ms": 1e3, "s": 1e6}
    for percent in ("50", "99"):
        if got := re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", done.stdout):
            result["p" + percent] = float(got[1]) * units[got[2]]
    return result


# ---- Measuring -----------------------------------------------------------------

def measure(path: Path, setting: Setting, seconds: float) -> dict:
    """One result. What goes wrong is in it, as Google Benchmark has it."""
    entry: dict = {"name": setting.name, "run_name": setting.name,
                   "run_type": "iteration", "unit": UNIT, "time_unit": "ns"}
    server = None
    held: list[socket.socket] = []
    try:
        allow_descriptors(setting.idle + BUSY + 200)
        server = Server(path, setting)
        held = hold(server.port, 8)  # what is made once is made now
        before = server.memory()
        held += hold(server.port, setting.idle)
        after = server.memory()
        totals, cpu = server.totals(), server.cpu_seconds()
        wrk = load(server, seconds)
        cpu = server.cpu_seconds() - cpu
        now = server.totals()
        requests = now["requests"] - totals["requests"]
        if now["open"] < len(held):
            raise Problem("the server has lost idle connections")
        entry |= {
            "iterations": requests,
            "real_time": wrk["seconds"] * 1e9 / wrk["requests"],
            "cpu_time": cpu * 1e9 / requests,
            "requests/s": wrk["requests"] / wrk["seconds"],
            "bytes/request": (now["copied_bytes"] - totals["copied_bytes"])
            / requests,
            "switches/request": (now["switches"] - totals["switches"])
            / requests,
        }
        for percent in ("p50", "p99"):
            if percent in wrk:
                entry[f"latency {percent} us"] = wrk[percent]
        if setting.idle:
            entry |= {f"{what}/connection":
                      (after[what] - before[what]) / setting.idle
                      for what in after}
        server.stop()
    except (Problem, OSError) as problem:
        entry |= {"error_occurred": True, "error_message": str(problem)}
    finally:
        for connection in held:
            connection.close()
        if server and server.process.poll() is None:
            server.process.kill()
            server.process.wait()
    return entry


def settings(path: Path, contestants: list[tuple[str, str, int | None]],
             idle: int = IDLE) -> list[Setting]:
    """What is to be measured of the given (name, backend, lanes): those that
    are built, on every loop that is, and the floor, by callbacks."""
    result = []
    folder = path / "bench" / "http"
    built = [each for each in contestants
             if (folder / f"http-{each[1]}").exists()]
    if not built:
        return []
    server = folder / f"http-{built[0][1]}"
    for loop in ("epoll", "libevent"):
        # It stops at the port, unless it has stopped at the loop before.
        done = subprocess.run([str(server), "--loop", loop, "--port", "65536"],
                              text=True, capture_output=True, check=False)
        if "not built" in done.stderr:
            continue
        result += [Setting(name, backend, loop, idle, lanes)
                   for name, backend, lanes in built]
        result.append(Setting("floor", built[0][1], loop, idle))
    return result


def run(path: Path, chosen: list[Setting], rounds: int, seconds: float,
        step: Callable[[str, str], None] = lambda stage, what: None
        ) -> Iterator[dict]:
    """Results as they come, interleaved round by round; one that fails is not
    tried again."""
    broken: set[str] = set()
    for number in range(1, rounds + 1):
        for setting in chosen:
            step(f"round {number} of {rounds}", setting.name)
            if setting.name in broken:
                continue
            entry = measure(path, setting, seconds)
            if entry.get("error_occurred"):
                broken.add(setting.name)
            yield entry


# ---- By itself -------------------------------------------------------------------

def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build folder")
    parser.add_argument("--idle", type=int, default=IDLE,
                        help=f"idle connections ({IDLE})")
    parser.add_argument("--seconds", type=float, default=3,
                        help="of load, each time (3; at least 1)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--backend", help="only this one's settings")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if why := missing(options.build):
        say(f"http_bench: {why}")
        return SKIPPED
    names: list[tuple[str, str, int | None]] = []
    for backend in common.backends():
        if options.backend not in (None, backend):
            continue
        names.append((backend, backend, None))
        if backend == "copy":
            names += [(f"copy-lanes{n}", backend, n) for n in (0, 1, 64)]
    chosen = settings(options.build, names, options.idle)
    if not chosen:
        raise Problem(f"no server of \"{options.backend}\" is built")
    entries = []
    failed = False
    for entry in run(options.build, chosen, options.rounds, options.seconds):
        entries.append(entry)
        if entry.get("error_occurred"):
            failed = True
            say(f"{entry['name']}: {entry['error_message']}")
            continue
        say(f"{entry['name']:32} {entry['requests/s']:10,.0f} requests/s "
            f"{entry['cpu_time']:8,.0f} ns CPU "
            f"{entry['bytes/request']:8,.0f} bytes copied "
            f"{entry.get('rss/connection', 0):8,.0f} bytes RSS"
            f"{entry.get('page_tables/connection', 0):+8,.0f} page tables")
    if options.json:
        options.json.write_text(json.dumps({"benchmarks": entries}, indent=1)
                                + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as stop:
        sys.exit(f"http_bench: {stop}")
    except KeyboardInterrupt:
        sys.exit(130)
