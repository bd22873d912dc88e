#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/greenlet-core on a core of tests/inspected.c, whole and damaged, in
TAP. Damage must never end in a traceback or a hang, and what is left of the
greenlets must still be told.

    core.py SOURCE PROGRAM [whole]     (GREENLET_LANES as for the program; GDB)

whole: only what is done with cores that are not damaged.
"""

import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from tap import Failed, Skipped, need, run_cases  # noqa: E402

GDB = os.environ.get("GDB", "gdb")
LANES = os.environ.get("GREENLET_LANES", "8")
QUICK, FULL = (os.environ.get("GREENLET_TEST_" + name) == "1"
               for name in ("QUICK", "FULL"))
FUZZ = 25 if QUICK else 20000 if FULL else 500

FRAMES = {
    "main": ["main_below", "main_below", "main_below", "main"],
    "deep": ["descend"] * 6 + ["entry_deep"],
    "flat": ["entry_flat"],
    "nest": ["entry_nest"],
    "relay": ["entry_relay"],
    "other": ["entry_other"],
}
STATES = {"main": "suspended", "deep": "suspended", "gone": "dead",
          "flat": "suspended", "nest": "suspended", "relay": "suspended",
          "leaf": "current", "unborn": "new", "second": "current",
          "other": "suspended"}


def environment():
    return dict(os.environ, GREENLET_LANES=LANES, DEBUGINFOD_URLS="")


def run(*command, env=None, statuses=(0,)):
    done = subprocess.run([str(c) for c in command], capture_output=True,
                          text=True, errors="replace", timeout=300,
                          env=env or environment())
    text = done.stdout + done.stderr
    need("Traceback" not in text, text)
    need(done.returncode in statuses,
         f"{' '.join(map(str, command))}: {done.returncode}\n{text}")
    return text


def tool(*arguments, statuses=(0,), env=None):
    return run(sys.executable, "-B", TOOL, *arguments, statuses=statuses,
               env=env)


def need_tool(name):
    if not shutil.which(name):
        raise Skipped(f"{name} is missing")


# ---- Cores ----------------------------------------------------------------

def dump(folder, program, *arguments):
    """The kernel's core; where those go elsewhere, gdb's."""
    folder.mkdir()
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" not in pattern and not pattern.startswith("|"):
        subprocess.run(["sh", "-c", 'ulimit -c unlimited && exec "$0" "$@"',
                        program, *arguments], cwd=folder, env=environment(),
                       capture_output=True)
        for core in folder.iterdir():
            return core
    if not shutil.which(GDB):
        raise Skipped(f"no cores here (core_pattern is {pattern!r}), and "
                      "gdb is missing")
    run(GDB, "-nx", "-batch", "-ex", "handle SIG60 nostop noprint", "-ex",
        "run", "-ex", f"source {SOURCE}/tools/greenlet-gdb.py", "-ex",
        f"greenlet gcore {folder}/core", "--args", program, *arguments)
    return folder / "core"


def the_core(state):
    if "core" not in state:
        state["core"] = dump(state["folder"] / "whole", PROGRAM, "abort")
    return state["core"]


def patched(state, *patches):
    """A copy of the core with [(file offset, bytes)] replaced."""
    # Not over the last one: ext4 then writes it to the disk at once.
    path = state["folder"] / "patched"
    path.unlink(missing_ok=True)
    greenlet_core.copy_sparse(str(the_core(state)), str(path))
    with open(path, "r+b") as file:
        for at, data in patches:
            file.seek(at)
            file.write(data)
    return path


def rewritten(state, path, exact=False):
    """List and threads, without a process for each: False if it is refused.
    Anything else that is raised is a bug."""
    try:
        core = greenlet_core.Core(str(path))
        images = core.images()
        for image in images:
            greenlet_image.table(image)
        out = state["folder"] / "out"
        out.unlink(missing_ok=True)
        greenlet_core.rewrite(core, images, str(out),
                              ["flat"] if exact else None)
    except greenlet_image.Problem:
        return False
    return True


class Places:
    """Where in the core file things are."""

    def __init__(self, state):
        self.core = greenlet_core.Core(str(the_core(state)))
        self.image = self.core.images()[0]
        self.anchor = self.image.anchor
        self.named = {g.name: g for g in self.image.greenlets if g.name}
        self.thread = self.named["deep"].thread

    def at(self, address, n=8):
        return self.core.file_offset(address, n)

    def pointer(self, value):
        return struct.pack("=Q", value)[:self.core.word]

    def field(self, name, field):
        return self.at(self.named[name].address
                       + getattr(self.anchor.greenlet, field), 1)

    def slab(self):
        return self.named["deep"].address & -self.anchor.slab.bytes


def where(name):
    if "copy" in PROGRAM.name and LANES == "0":
        return {"main": "partly in the slice", "deep": "in place"}.get(
            name, "in the slice")
    if "copy" in PROGRAM.name and LANES == "1" and name not in ("main",
                                                               "other"):
        return "in the slice"
    return "in place"


def rows_of(text):
    rows = {}
    for line in text.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if cells[0].isdigit() and len(cells) > 2:
            rows[cells[1]] = cells
    return rows


def check_list(text, without=()):
    rows = rows_of(text)
    for name, wanted in STATES.items():
        if name in without:
            continue
        need(name in rows, f"{name} is not listed:\n{text}")
        need(rows[name][2] == wanted, f"{name} is not {wanted}:\n{text}")
        if wanted == "suspended":
            need(where(name) in rows[name],
                 f"{name} is not {where(name)}:\n{text}")


def check_frames(name, text):
    at = 0
    for frame in FRAMES[name]:
        match = re.compile(rf"\b{frame}\b").search(text, at)
        need(match, f"{name}: no {frame} in\n{text}")
        at = match.end()


# ---- Whole cores ----------------------------------------------------------

def test_list(state):
    text = tool("list", the_core(state))
    check_list(text)
    if shutil.which("eu-addr2line"):
        for entry in ("entry_deep", "entry_flat", "entry_gone"):
            need(entry in text, text)


def test_reader_leaves(state):
    """A closed pipe is no error to tell of."""
    text = run("sh", "-c", '"$@" | true', "sh", sys.executable, "-B", TOOL,
               "list", the_core(state))
    need("Errno" not in text and "Exception" not in text, text)


def threads(state, *options):
    out = state["folder"] / "threads"
    text = tool("threads", the_core(state), "-o", out, *options,
                statuses=(0, 2) if options else (0,))
    return out, {match[2]: int(match[1]) for match in re.finditer(
        r"LWP (\d+): greenlet \d+ '(.*?)'", text)}, text


def gdb_threads(core):
    text = run(GDB, "-nx", "-batch", "-ex", "set pagination off", "-ex",
               "set width 0", "-ex", f"core-file {core}", "-ex",
               "thread apply all bt", PROGRAM)
    parts = re.split(r"^Thread \d+ \(.*?LWP (\d+)\)+:$", text, flags=re.M)
    return {int(tid): part for tid, part in zip(parts[1::2], parts[2::2])}


def test_threads_gdb(state):
    need_tool(GDB)
    out, tids, _ = threads(state)
    need(set(tids) == set(FRAMES), str(tids))
    found = gdb_threads(out)
    for name in FRAMES:
        check_frames(name, found.get(tids[name], "nothing"))
    crashed = [part for part in found.values() if "abort" in part]
    need(len(crashed) == 1 and "entry_leaf" in crashed[0], str(found))
    first = run(GDB, "-nx", "-batch", "-ex", f"core-file {out}", "-ex", "bt",
                PROGRAM)
    need("SIGABRT" in first and "entry_leaf" in first, first)


def eu_stack(core):
    # eu-stack's status is 1 when it is not content with one thread's end.
    text = run("eu-stack", f"--core={core}", "-e", PROGRAM, statuses=(0, 1))
    parts = re.split(r"^TID (\d+):$", text, flags=re.M)
    return {int(tid): part for tid, part in zip(parts[1::2], parts[2::2])}


def test_threads_eu_stack(state):
    need_tool("eu-stack")
    out, tids, _ = threads(state)
    found = eu_stack(out)
    for name in FRAMES:
        check_frames(name, found.get(tids[name], "nothing"))
    need(sum("entry_leaf" in part for part in found.values()) == 1, str(found))


def check_backtraces(text):
    parts = re.split(r"^greenlet \d+ '(.*?)'", text, flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2]))
    for name in FRAMES:
        check_frames(name, found.get(name, f"nothing in {text}"))
    need("entry_leaf" in found["leaf"], text)


def test_backtrace_eu_stack(state):
    need_tool("eu-stack")
    check_backtraces(tool("backtrace", the_core(state), "-e", PROGRAM))
    text = tool("backtrace", the_core(state), "deep", "gone")
    need("'gone' (dead)" in text and "has no stack" in text
         and "entry_flat" not in text, text)
    check_frames("deep", text)


def test_backtrace_gdb(state):
    need_tool(GDB)
    folder = state["folder"] / "path"
    folder.mkdir(exist_ok=True)
    if not (folder / "gdb").exists():
        (folder / "gdb").symlink_to(shutil.which(GDB))
    check_backtraces(tool("backtrace", the_core(state), "-e", PROGRAM,
                          env=dict(environment(), PATH=str(folder))))
    text = tool("backtrace", the_core(state), statuses=(1,),
                env=dict(environment(), PATH="/nowhere"))
    need("neither eu-stack" in text, text)


def test_exact(state):
    """At its real addresses: what the greenlet itself would see."""
    places = Places(state)
    flat = places.named["flat"]
    out, tids, text = threads(state, "--exact", "flat")
    need("flat" in tids, text)
    core = greenlet_core.Core(str(out))
    need(core.read(flat.sp, flat.base - flat.sp) == places.image.read_stack(
        flat, flat.sp, flat.base - flat.sp), "other bytes")
    status = core.statuses[tids["flat"]]
    cpu = greenlet_core.CPUS[core.machine, core.word]
    sp = struct.unpack_from("=Q", status, cpu.regs
                            + 8 * cpu.index[greenlet_image.SP])[0]
    need(sp == flat.sp, f"{sp:#x} against {flat.sp:#x}")
    if where("flat") == "in the slice":
        need("is left out" in text, text)
        text = tool("threads", the_core(state), "-o", out, "--exact",
                    "flat,nest", statuses=(1, 2))
        need("share addresses" in text, text)
    else:
        need(set(tids) == set(FRAMES), text)
    text = tool("threads", the_core(state), "-o", out, "--exact", "gone",
                statuses=(1,))
    need("is dead" in text, text)
    text = tool("threads", the_core(state), "-o", the_core(state),
                statuses=(1,))
    need("is the core itself" in text, text)


def test_stripped(state):
    program = state["folder"] / "bare"
    run("strip", "-o", program, PROGRAM)
    core = dump(state["folder"] / "stripped", program, "abort")
    check_list(tool("list", core))


# ---- Bad ones -------------------------------------------------------------

def test_no_core(state):
    for data, says in ((b"", "are no core"), (b"x" * 100, "no ELF file"),
                       (Path(PROGRAM).read_bytes(), "but no core")):
        path = state["folder"] / "bad"
        path.write_bytes(data)
        need(says in tool("list", path, statuses=(1,)), says)
    text = tool("list", state["folder"] / "absent", statuses=(1,))
    need("No such file" in text, text)


def test_no_anchor(state):
    places = Places(state)
    at = places.at(places.anchor.address)
    text = tool("list", patched(state, (at, b"greenlet ANCHOR")),
                statuses=(1,))
    need("no greenlet anchor was found" in text, text)
    # Its magic is there, but it is somewhere else: a copy of it.
    text = tool("list", patched(state, (at + 16, places.pointer(4096))),
                statuses=(1,))
    need("no greenlet anchor was found" in text, text)


def test_other_version(state):
    places = Places(state)
    at = places.at(places.anchor.address) + 16 + places.core.word
    text = tool("list", patched(state, (at, struct.pack("=I", 99))),
                statuses=(1,))
    need("has version 99, this tool knows 2" in text, text)


def test_truncated(state):
    """At every sixteenth, and within the headers."""
    core = the_core(state)
    size, listed = core.stat().st_size, 0
    cuts = [1, 63, 64, 65, 120, 1000, 4096, 10000]
    cuts += [size * i // 16 for i in range(1, 16)] + [size - 1]
    for cut in cuts:
        path = patched(state)
        os.truncate(path, cut)
        text = tool("list", path, statuses=(0, 1, 2))
        listed += "deep" in rows_of(text)
        need("cut off" in text or "program headers" in text
             or "are no core" in text or cut == size - 1,
             f"cut at {cut}:\n{text}")
        rewritten(state, path)
    need(listed > 0, "nothing was ever listed")


def smashed(state, patches, says, without):
    text = tool("list", patched(state, *patches), statuses=(2,))
    need(says in text, f"no {says!r} in\n{text}")
    check_list(text, without)
    rewritten(state, state["folder"] / "patched")


def test_thread_list(state):
    p = Places(state)
    next_at = p.at(p.thread.address + p.anchor.thread.next)
    mine = {g.name or "main" for g in p.image.greenlets
            if g.thread is p.thread}
    # Which of the two the list begins with is chance.
    later = {t.address for t in p.image.threads[1:]}
    rest = set(STATES) - mine if p.thread.address not in later else set()
    smashed(state, [(next_at, p.pointer(p.thread.address))],
            "runs in a circle", rest)
    smashed(state, [(next_at, p.pointer(0x1234560))], "is lost", rest)
    smashed(state, [(next_at, p.pointer(0x1234567))], "no address", rest)


def test_slabs(state):
    p = Places(state)
    slab, layout = p.slab(), p.anchor.slab
    smashed(state, [(p.at(slab + layout.next), p.pointer(slab))],
            "runs in a circle", ())
    smashed(state, [(p.at(slab + layout.next), p.pointer(slab + 64))],
            "is no slab", ())
    smashed(state, [(p.at(slab + layout.used_high), b"\xff" * 4)],
            "is damaged", ())
    head = p.at(p.thread.address + p.anchor.thread.slabs)
    mine = [g.name or "main" for g in p.image.greenlets
            if g.thread is p.thread]
    smashed(state, [(head, p.pointer(0x40))], "is no slab", mine)


def test_greenlets(state):
    p = Places(state)
    smashed(state, [(p.field("flat", "state"), b"\x77")],
            "is damaged: state 119", ["flat"])
    smashed(state, [(p.field("flat", "home"), p.pointer(0x1000))],
            "belongs to no thread", ["flat"])
    smashed(state, [(p.field("flat", "side"), p.pointer(0x1000))],
            "the name of the greenlet", ["flat"])
    stack = p.anchor.stack
    sp = stack.sp if stack.sp != greenlet_image.NONE else stack.context
    for value in (0, 0x1001, 0xffff_ffff_ffff_fff0):
        at = p.at(p.named["flat"].address + sp)
        smashed(state, [(at, p.pointer(value))], "its stack", ["flat"])
    if stack.saved != greenlet_image.NONE:
        at = p.at(p.named["flat"].address + stack.saved, 4)
        smashed(state, [(at, b"\xff" * 4)], "cannot be", ["flat"])
    # A name that would write on the terminal.
    side = p.image.reader.pointer(p.named["flat"].address
                                  + p.anchor.greenlet.side)
    text = tool("list", patched(state, (p.at(side + p.anchor.side.name),
                                        b"\x1b[2J\n\0")))
    need("\x1b" not in text and "?[2J?" in text, repr(text))


def test_thread_fields(state):
    p = Places(state)
    current = p.at(p.thread.address + p.anchor.thread.current)
    smashed(state, [(current, p.pointer(0x1000))], "was not found", ["leaf"])


def test_anchor_fields(state):
    """Each word of the anchor, smashed."""
    p = Places(state)
    at, size = p.at(p.anchor.address), p.image.reader.size(
        greenlet_image.Anchor.LAYOUT)
    for offset in range(16, size, 4):
        for value in (b"\0" * 4, b"\xff" * 4, b"\x41\x41\x41\x01"):
            rewritten(state, patched(state, (at + offset, value)))


def test_fuzz(state):
    """Random damage, half of it where it hurts."""
    seed = int(os.environ.get("GREENLET_TEST_SEED", random.randrange(1 << 32)))
    print(f"# GREENLET_TEST_SEED={seed}")
    rng = random.Random(seed)
    p = Places(state)
    size = p.core.size
    spots = [(0, 64), (64, 56 * len(p.core.phdrs)),
             (p.at(p.anchor.address), 272),
             (p.at(p.slab(), 64), 40 + 12 * p.anchor.greenlet.bytes)]
    spots += [(p.at(t.address, 64), 1024) for t in p.image.threads]
    spots += [(h[2], h[5]) for h in p.core.phdrs if h[0] == 4]
    spots += [(p.at(g.slice, g.saved), g.saved) for g in p.image.greenlets
              if g.saved]
    whole = problems = 0
    for turn in range(FUZZ):
        patches = []
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            low, n = rng.choice(spots) if rng.random() < .7 else (0, size)
            at = min(low + rng.randrange(n), size - 8)
            patches.append((at, rng.choice((
                bytes([p.core.piece(at, 1)[0] ^ 1 << rng.randrange(8)]),
                rng.randbytes(rng.randrange(1, 9)), b"\0" * 8, b"\xff" * 8,
                p.pointer(rng.choice(p.image.greenlets).address),
                struct.pack("=I", rng.randrange(1 << 32))))))
        path = patched(state, *patches)
        if rng.random() < .05:  # a shorter file, too
            os.truncate(path, rng.randrange(size))
        signal.alarm(60)
        try:
            if rewritten(state, path, rng.random() < .3):
                whole += 1
            else:
                problems += 1
        except Exception as error:
            shutil.copy(path, "/tmp/greenlet-fuzz.core")
            raise Failed(f"seed {seed}, turn {turn}: "
                         f"{type(error).__name__}: {error}\n"
                         "the core is /tmp/greenlet-fuzz.core") from error
        finally:
            signal.alarm(0)
    print(f"# {FUZZ} damaged cores: {whole} written anew, {problems} refused")
    need(whole and problems, "the damage is too small, or too great")


CASES = [("list", test_list),
         ("list, to a reader that leaves", test_reader_leaves),
         ("threads, seen by gdb", test_threads_gdb),
         ("threads, seen by eu-stack", test_threads_eu_stack),
         ("backtrace by eu-stack", test_backtrace_eu_stack),
         ("backtrace by gdb", test_backtrace_gdb),
         ("threads --exact", test_exact),
         ("a stripped program's", test_stripped)]
BAD = [("files that are no cores", test_no_core),
       ("without the anchor", test_no_anchor),
       ("of another version", test_other_version),
       ("truncated", test_truncated),
       ("smashed: the list of threads", test_thread_list),
       ("smashed: slabs", test_slabs),
       ("smashed: greenlets", test_greenlets),
       ("smashed: threads", test_thread_fields),
       ("smashed: the anchor", test_anchor_fields),
       ("fuzz", test_fuzz)]


def hang(*_):
    raise RuntimeError("it hangs")


def main():
    if "whole" not in sys.argv:
        CASES.extend(BAD)
    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory() as folder:
        return run_cases(CASES, {"folder": Path(folder)})


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    SOURCE = Path(sys.argv[1]).resolve()
    TOOL = SOURCE / "tools" / "greenlet-core"
    PROGRAM = Path(sys.argv[2]).resolve()
    sys.path.insert(0, str(SOURCE / "tools" / "lib"))
    import greenlet_core
    import greenlet_image
    sys.exit(main())
