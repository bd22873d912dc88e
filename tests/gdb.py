#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/greenlet-gdb.py on tests/inspected.c, live and in a core, in TAP.

    gdb.py SOURCE PROGRAM          (GREENLET_LANES as for the program; GDB)
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from tap import Failed, Skipped, need, run_cases  # noqa: E402

GDB = os.environ.get("GDB", "gdb")
LANES = os.environ.get("GREENLET_LANES", "8")

# Whose frames, innermost first, must be in a backtrace; what each marker is.
FRAMES = {
    "main": ["main_below (n=0)", "main_below (n=1)", "main_below (n=2)",
             "main (argc="],
    "deep": [f"descend (n={n})" for n in range(6)] + ["entry_deep ("],
    "flat": ["entry_flat ("],
    "nest": ["entry_nest ("],
    "relay": ["entry_relay ("],
    "leaf": ["inspected_stop (", "entry_leaf ("],
    "other": ["entry_other ("],
}
MARKERS = {"deep": 0xd00, "flat": 0xf1a7, "nest": 0x4e57, "relay": 0x4e1a,
           "other": 0x07e4}


class Session:
    """One run of gdb in batch mode; output by command."""

    def __init__(self, script, arguments, commands, before=(), timeout=300):
        lines = ["set pagination off", "set confirm off", "set width 0",
                 "handle SIG60 nostop noprint pass", *before,
                 f"source {script}"]
        for number, command in enumerate(commands):
            lines += [f"echo \\n<<{number}>>\\n", command]
        lines += ["echo \\n<<end>>\\n"]
        options = []  # an error would end a script: each one by itself
        for line in lines:
            options += ["-ex", line]
        done = subprocess.run(
            [GDB, "-nx", "-batch", *options, "--args", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=timeout, env=self.environment())
        self.text = done.stdout
        if done.returncode < 0:
            raise Failed(f"gdb died of signal {-done.returncode}\n{self.text}")
        parts = re.split(r"^<<(\w+)>>$", self.text, flags=re.M)
        self.parts = dict(zip(parts[1::2], parts[2::2]))
        self.commands = commands

    @staticmethod
    def environment():
        return dict(os.environ, GREENLET_LANES=LANES, DEBUGINFOD_URLS="")

    def __getitem__(self, command):
        number = str(self.commands.index(command))
        if number not in self.parts:
            raise Failed(f"{command}: gdb did not get there\n{self.text}")
        return self.parts[number]


def where(name):
    """Where the bytes are, by the picture in inspected.c."""
    if LANES == "0" and "copy" in PROGRAM.name:
        return {"main": "partly in the slice", "deep": "in place"}.get(
            name, "in the slice")
    if LANES == "1" and "copy" in PROGRAM.name and name not in ("main",
                                                               "other"):
        return "in the slice"
    return "in place"


def check_list(text):
    rows = {}
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if cells[0].isdigit():
            rows.setdefault(cells[1], cells)
    states = {"main": "suspended", "deep": "suspended", "flat": "suspended",
              "nest": "suspended", "relay": "suspended", "leaf": "current",
              "unborn": "new", "gone": "dead", "second": "current",
              "other": "suspended"}
    for name, state in states.items():
        need(name in rows, f"{name} is not listed:\n{text}")
        need(rows[name][2] == state, f"{name} is not {state}:\n{text}")
        if state == "suspended":
            need(where(name) in rows[name],
                 f"{name} is not {where(name)}:\n{text}")
    need(len(re.findall(r"^ *\d+  ", text, re.M)) == 10, text)


def check_frames(name, text):
    at = 0
    for frame in FRAMES[name]:
        found = text.find(frame, at)
        need(found >= 0, f"{name}: no {frame} after {at} in\n{text}")
        at = found
    need("corrupt" not in text and "inner to this frame" not in text, text)


def check_all(text):
    sections = re.split(r"^greenlet \d+ '", text, flags=re.M)[1:]
    named = {section.split("'")[0]: section for section in sections}
    for name in FRAMES:
        need(name in named, f"no {name} in\n{text}")
        check_frames(name, named[name])


def check_locals(session, exact):
    for name, marker in MARKERS.items():
        text = session[f"greenlet frame {name}"]
        need(f"marker = {marker}" in text,
             f"{name}: no marker {marker:#x} in\n{text}")
        frame = re.search(r"^#(\d+) ", text, re.M)[1]
        command = f"greenlet frame {name} {USER[name]} print *marks.own"
        need(f"= {marker}" in session[command],
             f"{name}: frame {frame}: {session[command]}")
        if exact:  # at its real address
            command = (f"greenlet frame {name} {USER[name]} "
                       "print &marks.marker == marks.own")
            need("= 1" in session[command], session[command])


USER = {}
LOCALS = []


def prepare(session):
    """The number of each greenlet's first frame of inspected.c."""
    for name in MARKERS:
        text = session[f"greenlet frame {name}"]
        match = re.search(r"^#(\d+) .* (?:entry_|descend)", text, re.M)
        need(match, f"{name}: {text}")
        USER[name] = int(match[1])
        LOCALS.append(f"greenlet frame {name}")
        LOCALS.append(f"greenlet frame {name} {USER[name]} print *marks.own")
        LOCALS.append(f"greenlet frame {name} {USER[name]} "
                      "print &marks.marker == marks.own")


LIVE = ["break inspected_stop", "run"]


def test_live_list(state):
    commands = ["greenlet list", "greenlet bt all", "greenlet bt flat 1",
                *(f"greenlet frame {name}" for name in MARKERS), "bt",
                "info registers", "continue"]
    state["live"] = Session(SCRIPT, [PROGRAM], commands, LIVE)
    check_list(state["live"]["greenlet list"])


def test_live_backtraces(state):
    check_all(state["live"]["greenlet bt all"])
    check_frames("leaf", state["live"]["bt"])  # as it was


def test_live_options(state):
    text = state["live"]["greenlet bt flat 1"]
    need("#0 " in text and "#1 " not in text, text)


def test_inlined_locals(state):
    """They come twice from gdb, once without a value."""
    command = ("python import greenlet_commands as g; print(g.without_doubles("
               r"'me = {a = 1}\nme = <optimized out>\nn = <optimized out>\n'))")
    text = Session(SCRIPT, [PROGRAM], [command])[command]
    need("me = {a = 1}\nn = <optimized out>\n" in text
         and text.count("me = ") == 1, text)


def test_live_goes_on(state):
    need("went on to its end" in state["live"]["continue"]
         and "exited normally" in state["live"]["continue"],
         state["live"].text)


def test_live_locals(state):
    prepare(state["live"])
    session = Session(SCRIPT, [PROGRAM], [*LOCALS, "continue"], LIVE)
    check_locals(session, True)
    need("exited normally" in session["continue"], session["continue"])


def test_refusals(state):
    commands = ["greenlet frame flat 1 continue", "greenlet frame flat 1 ni",
                "greenlet frame flat 1 print getpid()", "greenlet bt unborn",
                "greenlet bt gone", "greenlet bt nobody", "greenlet bt 4711",
                "greenlet frame flat 99", "greenlet bt",
                "greenlet bt 'two words'", 'greenlet frame "flat" 1 print nix',
                "bt", "continue"]
    says = ["cannot be used on a suspended", "cannot be used on a suspended",
            "may-call-functions is off", "is new: it has no stack",
            "is dead: it has no stack", "no greenlet is called 'nobody'",
            "there is no greenlet 4711", "there is no frame 99",
            "greenlet bt ID|all", "no greenlet is called 'two words'",
            'No symbol "nix" in current context.']
    session = Session(SCRIPT, [PROGRAM], commands, LIVE)
    # Errors come unordered among the rest: gdb's stderr.
    for command, text in zip(commands, says):
        need(text in session.text, f"{command}: no {text!r} in\n"
             + session.text)
    need("Traceback" not in session.text
         and "Python Exception" not in session.text, session.text)
    check_frames("leaf", session["bt"])
    need("exited normally" in session["continue"], session["continue"])


def test_stripped(state):
    """Without any symbol: by the magic."""
    program = state["folder"] / "stripped"
    subprocess.run(["strip", "-o", program, PROGRAM], check=True)
    session = Session(SCRIPT, [program, "abort"],
                      ["greenlet list", "greenlet bt flat"], ["run"])
    check_list(session["greenlet list"])
    frames = re.findall(r"^#\d+ +(0x[0-9a-f]+)", session["greenlet bt flat"],
                        re.M)
    need(3 <= len(frames) <= 10, session["greenlet bt flat"])


def test_without(state):
    """A program without greenlets, and no program."""
    session = Session(SCRIPT, ["/bin/true"],
                      ["greenlet list", "starti", "greenlet list"])
    need("There is no process and no core." in session.text, session.text)
    need("No greenlet anchor was found" in session.text, session.text)
    need("Traceback" not in session.text, session.text)


def make_core(state):
    """By gdb, which needs no permission and no core_pattern."""
    core = state["folder"] / "core"
    session = Session(SCRIPT, [PROGRAM, "abort"], [f"greenlet gcore {core}"],
                      ["run"])
    need(core.is_file() and "Saved corefile" in session.text, session.text)
    return core


def test_core_list(state):
    state["core"] = make_core(state)
    commands = ["greenlet list", "greenlet bt all", *LOCALS, "bt",
                "info inferiors"]
    state["dead"] = Session(SCRIPT, [PROGRAM, state["core"]], commands,
                            [f"core-file {state['core']}"])
    check_list(state["dead"]["greenlet list"])


def test_core_backtraces(state):
    text = state["dead"]["greenlet bt all"]
    check_all(text)
    need("Switching" not in text, text)
    check_frames("leaf", state["dead"]["bt"])
    need(len(re.findall(r"^[* ] +\d", state["dead"]["info inferiors"],
                        re.M)) == 1, state["dead"]["info inferiors"])


def test_core_locals(state):
    # Pointers into the stack lead to where its copy is.
    check_locals(state["dead"], True)


def test_kernel_core(state):
    """The kernel's own, as a crash leaves it."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        raise Skipped(f"cores go elsewhere (core_pattern is {pattern!r})")
    folder = state["folder"] / "kernel"
    folder.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'ulimit -c unlimited && exec "$0" abort', PROGRAM],
        cwd=folder, env=Session.environment(), capture_output=True)
    need(done.returncode == -signal.SIGABRT, f"status {done.returncode}")
    cores = list(folder.iterdir())
    if not cores:
        raise Skipped("the kernel wrote no core (ulimit -H -c?)")
    session = Session(SCRIPT, [PROGRAM, cores[0]],
                      ["greenlet list", "greenlet bt all"],
                      [f"core-file {cores[0]}"])
    check_list(session["greenlet list"])
    check_all(session["greenlet bt all"])


CASES = [("live: list", test_live_list),
         ("live: backtraces", test_live_backtraces),
         ("live: options of bt", test_live_options),
         ("live: the process goes on", test_live_goes_on),
         ("live: frames, locals, pointers", test_live_locals),
         ("inlined functions' locals", test_inlined_locals),
         ("live: refusals", test_refusals),
         ("a stripped program", test_stripped),
         ("a program without greenlets", test_without),
         ("core: list", test_core_list),
         ("core: backtraces", test_core_backtraces),
         ("core: frames, locals, pointers", test_core_locals),
         ("core of the kernel", test_kernel_core)]


def why_not():
    if not shutil.which(GDB):
        return "gdb is missing"
    done = subprocess.run([GDB, "-nx", "-batch", "-ex",
                           "python print('has python')"],
                          capture_output=True, text=True)
    if "has python" not in done.stdout:
        return "this gdb has no Python"
    done = subprocess.run([GDB, "-nx", "-batch", "-ex", "run", "/bin/true"],
                          capture_output=True, text=True)
    if "exited normally" not in done.stdout:
        return "gdb cannot run programs here (ptrace)"
    return ""


def main():
    with tempfile.TemporaryDirectory() as folder:
        return run_cases(CASES, {"folder": Path(folder)}, skip=why_not())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    SCRIPT = Path(sys.argv[1], "tools", "greenlet-gdb.py")
    PROGRAM = Path(sys.argv[2]).resolve()
    sys.exit(main())
