# SPDX-License-Identifier: MIT
"""Figures for the tests of tools/bench: what a run might have measured, made
by a formula, so that they are the same each time."""

from bench_data import FLOOR, TIME, VS_FLOOR, Data

OURS = ["copy", "copy-lanes0", "copy-lanes1", "copy-lanes64", "private",
        "sigaltstack", "ucontext"]
PEERS = ["boost-context", "boost-coroutine2", "boost-fcontext",
         "glibc-setjmp", "glibc-ucontext", "pcl", "pth", "python-greenlet"]
ROUNDS = 5


def samples(time, floor=None, **counters):
    """Five rounds that lie within a few percent."""
    result = []
    for number in range(1, ROUNDS + 1):
        sample = {"round": number, TIME: time * (1 + 0.01 * (number - 3))}
        if floor:
            sample[VS_FLOOR] = sample[TIME] / floor
        result.append(sample | counters)
    return result


def put(data, contestant, workload, unit, rows, error=""):
    row = data.add(contestant, workload)
    row.unit, row.samples, row.error = unit, rows, error
    row.iterations = 1000 * len(rows)
    return row


def data():
    """A whole run: plots have their figures, tables their oddities."""
    made = Data(contestants=OURS + PEERS, peers=list(PEERS), base="private",
                rounds=ROUNDS)
    made.context = {
        "compiler": "gcc 12.2.0", "pinned_to_cpu": "1",
        "machine": {"processor": "A processor <of> the \"sample\" & co",
                    "CPUs": "2", "date": "2026-01-02 03:04 UTC"},
        "versions": {"copy": "0.1.0"} | {name: "1.0" for name in PEERS}}
    made.left_out = {"pth-uctx": "it does not build:\n    error: <pth.h>",
                     "ruby-fiber": "Ruby (ruby-dev) was not found"}
    for place, name in enumerate(OURS + PEERS):
        put(made, name, "switch", "switch", samples(
            2.6 * 1.6 ** place, 2.5, **{"bytes/switch": 112.0 * (place == 1)}))
        for count in (2, 16, 1024, 100000):
            put(made, name, f"ring/{count}", "switch",
                samples(3.0 * 1.5 ** place + count ** 0.4))
        for count in (100, 10000, 1000000):
            put(made, name, f"park/{count}", "greenlet", samples(
                100.0 * (place + 1), **{"rss/greenlet": 200.0 * 2 ** place,
                                        "page_tables/greenlet": 9.0,
                                        "maps/greenlet": 0.01 * place}))
    for place, name in enumerate(OURS):
        for live in (64, 256, 1024, 4096, 16384, 65536, 262144):
            copied = 2.0 * live if place < 4 else 0.0
            put(made, name, f"live/{live}", "switch",
                samples(3.0 + place + copied / 80,
                        **{"bytes/switch": copied}))
    for lanes in (0, 1, 2, 4, 8, 16, 64):
        for number, pattern in enumerate(("hub-one", "siblings", "zipf")):
            put(made, f"copy-lanes{lanes}", f"volume/{pattern}", "switch", [
                {"round": 1, "bytes/switch": 1300.0 / (1 + lanes + number)}])
    put(made, FLOOR, "switch", "switch", samples(2.5))
    put(made, "copy", "ring/1000000", "switch", [],
        "not enough memory for <1,000,000> & more")
    noisy = put(made, "ucontext", "spawn", "greenlet", samples(500.0))
    noisy.samples[0][TIME] *= 1.3
    noisy.samples[1][TIME] *= 1.3
    useless = put(made, "copy", "spawn", "greenlet", samples(70.0))
    useless.samples[0][TIME] *= 3
    useless.samples[1][TIME] *= 4
    return made
