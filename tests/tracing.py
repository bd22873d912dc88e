#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/greenlet-trace and GREENLET_TRACE on tests/traced.c, in TAP.

    tracing.py SOURCE PROGRAM      (GREENLET_LANES as for the program)
"""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.dont_write_bytecode = True
from tap import Failed, need, run_cases  # noqa: E402

ROUNDS = 50


def run(*command, status=0, file_bytes=None, **environment):
    """file_bytes: no file of the command's may become larger."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    # SIGXFSZ stays ignored, as Python has it: then writing fails.
    done = subprocess.run([str(c) for c in command], capture_output=True,
                          text=True, timeout=300,
                          restore_signals=file_bytes is None,
                          preexec_fn=limit if file_bytes is not None else None,
                          env=dict(os.environ, **environment))
    need("Traceback" not in done.stderr, done.stderr)
    need(done.returncode == status,
         f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def trace(folder, *words, status=0, events=None):
    """Runs the program under greenlet-trace: (stdout, stderr, JSON, text)."""
    out, text = folder / "out.json", folder / "out.txt"
    options = ["-n", str(events)] if events else []
    said, errors = run(sys.executable, "-B", TOOL, "-o", out, "-t", text,
                       *options, PROGRAM, *words, status=status)
    return said, errors, json.loads(out.read_text())["traceEvents"], \
        text.read_text()


def verbs(text):
    found = {}
    for line in text.splitlines():
        verb = line.split()[3]
        found[verb] = found.get(verb, 0) + 1
    return found


def statistics(said):
    words = said.split()
    return {words[i]: int(words[i + 1]) for i in range(0, len(words), 2)}


def check_counts(text, threads, extra=0):
    """Of each: 2 starts; back from them and 2 * ROUNDS there and back;
    2 throws; 2 deaths."""
    found = verbs(text)
    need(found["start"] == 2 * threads + extra
         and found["switch"] == (2 + 4 * ROUNDS) * threads
         and found["throw"] == 2 * threads
         and found["death"] == 2 * threads, str(found))


def test_counts(folder):
    said, _, _, text = trace(folder, 1, ROUNDS)
    check_counts(text, 1)
    counted, found = statistics(said), verbs(text)
    need(sum(n for verb, n in found.items() if verb not in ("evict", "fill"))
         == counted["switches"], f"{found} against {said}")
    for verb, number, total in (("evict", "evictions", "saved"),
                                ("fill", "fills", "filled")):
        sizes = [int(n) for n in re.findall(rf"{verb} .* (\d+) bytes", text)]
        need(len(sizes) == counted[number] and sum(sizes) == counted[total],
             f"{verb}: {len(sizes)}, {sum(sizes)} bytes against {said}")
    if "copy" in PROGRAM.name and os.environ.get("GREENLET_LANES", "8") in "01":
        need(counted["fills"] > 0, said)


def test_text(folder):
    _, _, _, text = trace(folder, 1, 1)
    lines = [line.split(None, 4)[-1] for line in text.splitlines()
             if "bytes" not in line]
    need(lines[:4] == ["main -> ping", "ping -> main", "main -> pong",
                       "pong -> main"], "\n".join(lines))
    need(lines[-4:] == ["main -> ping", "ping -> main", "main -> pong",
                        "pong -> main"], "\n".join(lines))
    times = [float(line.split()[0]) for line in text.splitlines()]
    need(times == sorted(times) and times[-1] < 1e7, str(times))


def test_chrome(folder):
    _, _, events, text = trace(folder, 1, ROUNDS)
    slices = [e for e in events if e["ph"] == "X"]
    switches = sum(n for verb, n in verbs(text).items()
                   if verb not in ("evict", "fill"))
    need(len(slices) == switches + 1, f"{len(slices)} slices")
    need({e["name"] for e in slices} == {"main", "ping", "pong"}, "names")
    end = 0
    for e in slices:  # one after the other, without a gap
        need(e["dur"] >= 0 and (not end or abs(e["ts"] - end) < .01), str(e))
        end = e["ts"] + e["dur"]
    need(sum(e["ph"] == "i" and e["name"] == "death" for e in events) == 2,
         "deaths")
    for e in events:
        need(e["ph"] in "MXiC" and "pid" in e, str(e))
    by = [e["args"].get("by") for e in slices]
    need(by[:2] == [None, "start"] and by.count("throw") == 2
         and by.count("death") == 2, str(by))


def test_threads(folder):
    _, errors, events, text = trace(folder, 5, ROUNDS)
    check_counts(text, 5)
    need("5 threads" in errors, errors)
    tids = {e["tid"] for e in events if e["ph"] == "X"}
    named = {e["tid"] for e in events if e["name"] == "thread_name"}
    need(len(tids) == 5 and tids == named, str(tids))
    for tid in tids:
        need({e["name"] for e in events if e["ph"] == "X" and e["tid"] == tid}
             == {"main", "ping", "pong"}, str(tid))


def test_wraps(folder):
    said, errors, _, text = trace(folder, 2, 5000, events=100)
    match = re.findall(r"thread \d+: (\d+) earlier events were overwritten",
                       errors)
    need(len(match) == 2, errors)
    found = verbs(text)
    # 128 each, but for the oldest, which may be half written.
    need(sum(found.values()) == 2 * 127, str(found))
    counted = statistics(said)
    need(sum(map(int, match)) + 2 * 127 == counted["switches"]
         + counted["evictions"] + counted["fills"], f"{match}, {said}")
    need(found["death"] == 4 and "start" not in found, str(found))
    need("ping -> main" in text, text)  # names outlive the events


def test_abort(folder):
    _, errors, _, text = trace(folder, 1, ROUNDS, "abort",
                               status=128 + signal.SIGABRT)
    need("killed by SIGABRT" in errors, errors)
    check_counts(text, 1, extra=1)
    last = [line for line in text.splitlines() if "bytes" not in line][-1]
    need("start   the first -> last" in last, last)


def test_exit_inside(folder):
    _, _, _, text = trace(folder, 1, ROUNDS, "inside", status=3)
    check_counts(text, 1, extra=1)


def test_fork(folder):
    _, errors, events, text = trace(folder, 1, ROUNDS, "fork")
    check_counts(text, 2)
    need(len({e["pid"] for e in events}) == 2, errors)
    # Without %p the child records nothing, and harms nothing.
    file = folder / "one.trace"
    run(PROGRAM, 1, ROUNDS, "fork", GREENLET_TRACE=str(file))
    text, _ = run(sys.executable, "-B", TOOL, "-t", "-", "--read", file)
    check_counts(text, 1)


def test_while_it_runs(folder):
    """Another process with the same file takes it away from nobody."""
    file = folder / "same.trace"
    for _ in range(3):
        both = [subprocess.Popen(
            [PROGRAM, "2", "20000"], stdout=subprocess.DEVNULL,
            env=dict(os.environ, GREENLET_TRACE=str(file)))
            for _ in range(2)]
        need([p.wait(60) for p in both] == [0, 0], "one of them died")
    run(sys.executable, "-B", TOOL, "-t", "-", "--read", file)


def test_refused(folder):
    said, errors = run(PROGRAM, 2, 10, GREENLET_TRACE="/nowhere/x")
    need(errors.count("GREENLET_TRACE: cannot make /nowhere/x") == 1
         and "switches" in said, errors)
    _, errors = run(PROGRAM, 1, 10, GREENLET_TRACE="/" + "x" * 5000)
    need("too long" in errors, errors[-200:])
    _, errors = run(sys.executable, "-B", TOOL, "-t", "-", "/bin/true",
                    status=1)
    need("nothing was recorded" in errors, errors)
    _, errors = run(sys.executable, "-B", TOOL, "-t", "-", "/nowhere/program",
                    status=1)
    need("No such file" in errors, errors)


def test_no_room(folder):
    """For the file; then for some threads of it, which are counted lost."""
    file = folder / "t.trace"
    said, errors = run(PROGRAM, 2, 10, file_bytes=0, GREENLET_TRACE=str(file))
    need(errors.count("GREENLET_TRACE: cannot write") == 1 and
         "switches" in said, errors)
    run(PROGRAM, 1, 10, GREENLET_TRACE=str(file))
    one = file.stat().st_size
    said, errors = run(PROGRAM, 4, 10, file_bytes=one,
                       GREENLET_TRACE=str(file))
    need(errors.count("GREENLET_TRACE: no room for a thread") == 1 and
         "switches" in said, errors)
    need(file.stat().st_size == one, f"{file.stat().st_size} of {one}")
    said, _ = run(sys.executable, "-B", TOOL, "-t", "-", "--read", file)
    threads = {line.split()[1] for line in said.splitlines() if line}
    need(len(threads) == 1, f"threads {threads} of:\n{said[:1000]}")


def test_reader_leaves(folder):
    """A closed pipe (`| head`) is no error to tell of."""
    file = folder / "t.trace"
    run(PROGRAM, 1, 5000, GREENLET_TRACE=str(file))
    _, errors = run("sh", "-c", '"$@" | head -1', "sh", sys.executable, "-B",
                    TOOL, "-t", "-", "--read", file)
    need("Errno" not in errors and "Exception" not in errors, errors)


def test_off(folder):
    run(PROGRAM, 1, 10)
    run(PROGRAM, 1, 10, GREENLET_TRACE="")
    need(not list(folder.glob("*")), str(list(folder.glob("*"))))


def test_damaged(folder):
    file, out = folder / "t.trace", folder / "out.txt"
    run(PROGRAM, 3, ROUNDS, GREENLET_TRACE=f"{file},256")
    whole = file.read_bytes()
    bad = folder / "bad.trace"
    for data, says in ((b"", "no trace of greenlets"),
                       (b"x" * 5000, "no trace of greenlets"),
                       (whole[:100], "no trace of greenlets"),
                       (whole[:20] + b"\x09" + whole[21:], "has version 9"),
                       (whole[:28] + b"\xff" * 4 + whole[32:],
                        "header is damaged")):
        bad.write_bytes(data)
        _, errors = run(sys.executable, "-B", TOOL, "-t", out, "--read", bad,
                        status=1)
        need(says in errors, errors)
    seed = int(os.environ.get("GREENLET_TEST_SEED", random.randrange(1 << 32)))
    print(f"# GREENLET_TEST_SEED={seed}")
    rng, good, refused = random.Random(seed), 0, 0
    for turn in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 30)):
            data[rng.randrange(200 if rng.random() < .3 else len(data))] = \
                rng.randrange(256)
        if rng.random() < .3:
            del data[rng.randrange(len(data)):]
        bad.write_bytes(data)
        try:
            found = greenlet_trace.read(str(bad))
            with open(out, "w", encoding="utf-8") as target:
                greenlet_trace.write_chrome([found], target)
                greenlet_trace.write_text([found], target)
            greenlet_trace.summary(found)
            good += 1
        except greenlet_trace.Problem:
            refused += 1
        except Exception as error:
            raise Failed(f"seed {seed}, turn {turn}: {type(error).__name__}: "
                         f"{error}") from error
    need(good and refused, f"{good} read, {refused} refused")


CASES = [("every event, and the counters agree", test_counts),
         ("as text", test_text),
         ("as a Chrome trace", test_chrome),
         ("several threads", test_threads),
         ("the ring wraps", test_wraps),
         ("a crash in the middle", test_abort),
         ("_exit in a greenlet", test_exit_inside),
         ("fork", test_fork),
         ("two processes, one file", test_while_it_runs),
         ("what cannot be", test_refused),
         ("no room in the file system", test_no_room),
         ("a reader that leaves", test_reader_leaves),
         ("off", test_off),
         ("damaged files", test_damaged)]


def in_a_folder(case):
    """Each has one of its own."""
    with tempfile.TemporaryDirectory() as folder:
        case(Path(folder))


def main():
    return run_cases([(name, partial(in_a_folder, case))
                      for name, case in CASES])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    TOOL = Path(sys.argv[1], "tools", "greenlet-trace")
    PROGRAM = Path(sys.argv[2]).resolve()
    sys.path.insert(0, str(Path(sys.argv[1], "tools", "lib")))
    import greenlet_trace
    sys.exit(main())
