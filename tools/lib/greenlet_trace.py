# SPDX-License-Identifier: MIT
"""What GREENLET_TRACE recorded (src/trace.h), as a Chrome trace and as text.

The file may be of a process that crashed or still runs; its sizes are checked
against the file before anything is read by them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct

MAGIC = b"greenlet trace\0"
VERSION, PAGE, ORDER = 1, 4096, 0x01020304
HEADER, HEAD, NAME, EVENT = "16sIIIIQQQIIII64s", "8sIIQQ", "II56s", "QIIIBBH"
SWITCH, EVICT, FILL = 1, 2, 3
STARTS, THROWS, DIES = 1, 2, 4


class Problem(Exception):
    """What a user is told, without a traceback."""


@dataclasses.dataclass
class Event:
    ns: int  # since the recording began
    origin: int
    target: int
    bytes: int
    kind: int
    flags: int

    @property
    def verb(self) -> str:
        if self.kind != SWITCH:
            return {EVICT: "evict", FILL: "fill"}[self.kind]
        if self.flags & DIES:
            return "death"
        if self.flags & STARTS:
            return "start"
        return "throw" if self.flags & THROWS else "switch"


@dataclasses.dataclass
class Thread:
    tid: int
    exited: bool
    names: dict[int, str]
    events: list[Event]
    overwritten: int
    damaged: int

    def label(self, number: int) -> str:
        return self.names.get(number) or (
            "main" if number == 0 else f"greenlet {number}")


@dataclasses.dataclass
class Trace:
    path: str
    pid: int
    program: str
    unix_ns: int
    monotonic_ns: int
    lost: int
    threads: list[Thread]


def printable(raw: bytes) -> str:
    text = raw.split(b"\0")[0].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)


def read(path: str) -> Trace:
    with open(path, "rb") as file:
        head = file.read(PAGE)
        size = os.fstat(file.fileno()).st_size
        if head[:16] != MAGIC.ljust(16, b"\0") or len(head) < 136:
            raise Problem(f"{path}: this is no trace of greenlets")
        prefix = next((p for p in "<>" if struct.unpack_from(
            p + "I", head, 16)[0] == ORDER), None)
        if not prefix:
            raise Problem(f"{path}: its byte order is none")
        (_, _, version, names, events, stride, monotonic, unix, pid, threads,
         lost, _, program) = struct.unpack_from(prefix + HEADER, head)
        if version != VERSION:
            raise Problem(f"{path}: it has version {version}, this tool knows "
                          f"{VERSION}")
        need = PAGE + names * 64 + events * 24
        if not (0 < events <= 1 << 26 and events & events - 1 == 0
                and 0 < names <= 1 << 20 and need <= stride <= need + PAGE):
            raise Problem(f"{path}: its header is damaged")
        trace = Trace(path, pid, printable(program), unix, monotonic, lost, [])
        for i in range(threads):
            at = PAGE + i * stride
            if at + stride > size:
                trace.lost += threads - i
                break
            file.seek(at)
            trace.threads.append(read_thread(prefix, file, names, events,
                                             monotonic))
    return trace


def read_thread(prefix: str, file, names: int, events: int,
                begin: int) -> Thread:
    """From the ring's head on, where the file is."""
    page = file.read(PAGE)
    _, tid, exited, n_names, n_events = struct.unpack_from(prefix + HEAD, page)
    thread = Thread(tid, bool(exited), {}, [], 0, 0)
    raw = file.read(names * 64)
    # The oldest is being replaced perhaps.
    for k in range(max(0, n_names - names + 1), n_names):
        number, _, text = struct.unpack_from(prefix + NAME, raw,
                                             k % names * 64)
        thread.names[number] = printable(text)
    raw = file.read(events * 24)
    first = max(0, n_events - events + 1)
    if n_events < events:
        first = 0
    thread.overwritten = first
    for k in range(first, n_events):
        ns, origin, target, count, kind, flags, _ = struct.unpack_from(
            prefix + EVENT, raw, k % events * 24)
        if kind not in (SWITCH, EVICT, FILL) or ns < begin:
            thread.damaged += 1
            continue
        thread.events.append(Event(ns - begin, origin, target, count, kind,
                                   flags))
    return thread


# ---- As text ---------------------------------------------------------------

def write_text(traces: list[Trace], file) -> None:
    """A line for each event, all threads in the order of time."""
    base = min(t.monotonic_ns for t in traces)
    lines = []
    for trace in traces:
        for thread in trace.threads:
            for e in thread.events:
                what = f"{thread.label(e.origin)}"
                if e.kind == SWITCH:
                    what += f" -> {thread.label(e.target)}"
                    if e.flags & THROWS and e.verb != "throw":
                        what += " (throws)"
                    if e.flags & STARTS and e.verb != "start":
                        what += " (starts)"
                else:
                    what += f"  {e.bytes} bytes"
                at = e.ns + trace.monotonic_ns - base
                lines.append((at, f"{at / 1e3:14.3f} us  {trace.pid}/"
                              f"{thread.tid}  {e.verb:<6}  {what}\n"))
    lines.sort(key=lambda line: line[0])
    for _, line in lines:
        file.write(line)


# ---- As a Chrome trace, which Perfetto reads --------------------------------

def chrome_events(trace: Trace, base: int):
    """Trace Event Format: times in us, "X" complete, "i" instant, "M" names,
    "C" counters. A thread's track shows which greenlet runs on it."""
    yield {"ph": "M", "name": "process_name", "pid": trace.pid, "tid": 0,
           "args": {"name": trace.program}}
    for thread in trace.threads:
        where = {"pid": trace.pid, "tid": thread.tid}
        yield {"ph": "M", "name": "thread_name", **where,
               "args": {"name": f"greenlets of thread {thread.tid}"}}
        running, since, how = None, 0, {}
        copied = {EVICT: 0, FILL: 0}
        for e in thread.events:
            us = (e.ns + trace.monotonic_ns - base) / 1e3
            if e.kind != SWITCH:
                copied[e.kind] += e.bytes
                yield {"ph": "i", "s": "t", "name": e.verb, "cat": "copy",
                       "ts": us, **where,
                       "args": {"greenlet": thread.label(e.origin),
                                "bytes": e.bytes}}
                yield {"ph": "C", "name": f"copied bytes {thread.tid}",
                       "ts": us, "pid": trace.pid,
                       "args": {"evicted": copied[EVICT],
                                "filled": copied[FILL]}}
                continue
            if running is None:  # before it, nothing is known
                running, since = e.origin, us
            yield {"ph": "X", "name": thread.label(running),
                   "cat": "greenlet", "ts": since, "dur": us - since, **where,
                   "args": {"number": running, **how}}
            if e.flags & DIES:
                yield {"ph": "i", "s": "t", "name": "death", "cat": "greenlet",
                       "ts": us, **where,
                       "args": {"greenlet": thread.label(e.origin)}}
            running, since = e.target, us
            how = {"from": thread.label(e.origin), "by": e.verb}
        if running is not None:  # to the last thing that is known
            end = (thread.events[-1].ns + trace.monotonic_ns - base) / 1e3
            yield {"ph": "X", "name": thread.label(running),
                   "cat": "greenlet", "ts": since, "dur": end - since, **where,
                   "args": {"number": running, **how}}


def write_chrome(traces: list[Trace], file) -> None:
    base = min(t.monotonic_ns for t in traces)
    file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
    first = True
    for trace in traces:
        for event in chrome_events(trace, base):
            file.write(("" if first else ",\n") + json.dumps(event))
            first = False
    file.write("\n]}\n")


def summary(trace: Trace) -> list[str]:
    kinds: dict[str, int] = {}
    copied = 0
    for thread in trace.threads:
        for e in thread.events:
            kinds[e.verb] = kinds.get(e.verb, 0) + 1
            copied += e.bytes
    lines = [f"{trace.program} ({trace.pid}): {len(trace.threads)} threads, "
             + (", ".join(f"{n} {verb}" for verb, n in sorted(kinds.items()))
                or "no event")
             + (f", {copied} bytes copied" if copied else "")]
    for thread in trace.threads:
        if thread.overwritten:
            lines.append(f"thread {thread.tid}: {thread.overwritten} earlier "
                         "events were overwritten (--events keeps more)")
        if thread.damaged:
            lines.append(f"thread {thread.tid}: {thread.damaged} events are "
                         "damaged and left out")
    if trace.lost:
        lines.append(f"{trace.lost} threads were not recorded")
    return lines
