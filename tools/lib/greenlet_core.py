# SPDX-License-Identifier: MIT
"""ELF cores: read as a memory for greenlet_image, and written again with a
thread for each suspended greenlet.

ELF is read and written here by one set of layouts; a library that only reads
would not serve the second half, and damaged cores are the daily bread: nothing
that a header says is believed before it was held against the file's size.

What a rewritten core has more (all of it behind the old end of the file):

    a PT_LOAD for each stack that is not wholly in place: its bytes, put
    together at addresses that nothing else has; aligned words in it that
    point into it are moved along
    all notes once more, and an NT_PRSTATUS for each greenlet
    the table of program headers
"""

from __future__ import annotations

import array
import bisect
import dataclasses
import os
import shutil
import struct
import sys

from greenlet_image import (FP, MAGIC, PC, SP, Greenlet, Image, Problem,
                            Unreadable)

ET_CORE, PT_LOAD, PT_NOTE, PN_XNUM = 4, 1, 4, 0xFFFF
NT_PRSTATUS, NT_FILE = 1, 0x46494C45
PAGE = 4096
LOADS_MOST = 1 << 20
NOTES_MOST = 1 << 20

# ELF header after e_ident, program header, section header: by class.
EHDR = {4: "HHIIIIIHHHHHH", 8: "HHIQQQIHHHHHH"}
PHDR = {4: "IIIIIIII", 8: "IIQQQQQQ"}
SHDR = {4: "IIIIIIIIII", 8: "IIQQQQIIQQ"}


@dataclasses.dataclass
class Registers:
    """Where elf_prstatus has what, by the kernel's headers of each CPU: the
    offset of pr_pid, of pr_reg, and the index of registers by their DWARF
    numbers; `clear` are those that a greenlet's thread does not inherit."""
    pid: int
    regs: int
    index: dict[int, int]
    clear: range
    none: int | None = None  # "in no system call": set to -1


ARM = 40
CPUS = {
    (62, 8): Registers(32, 112, {PC: 16, SP: 19, FP: 4, 3: 5, 6: 4, 12: 3,
                                 13: 2, 14: 1, 15: 0}, range(15), 15),
    (3, 4): Registers(24, 72, {PC: 12, SP: 15, FP: 5, 3: 0, 5: 5, 6: 3, 7: 4},
                      range(7), 11),
    (183, 8): Registers(32, 112, {PC: 32, SP: 31, FP: 29,
                                  **{n: n for n in range(19, 31)}}, range(31)),
    (ARM, 4): Registers(24, 72, {PC: 15, SP: 13, FP: 11}, range(15)),
    (243, 8): Registers(32, 112, {PC: 0, SP: 2, FP: 8}, range(1, 32)),
    (21, 8): Registers(32, 112, {PC: 32, SP: 1, FP: 31}, range(32)),
    (22, 8): Registers(32, 112, {PC: 1, SP: 17, FP: 13}, range(2, 18)),
}


def extents(file: int, size: int):
    """[low, high) of what the file has; the rest are holes, full of zeros. A
    kernel's core has one wherever nobody ever wrote."""
    at = 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
            end = os.lseek(file, at, os.SEEK_HOLE)
        except OSError:  # nothing but a hole is left
            return
        yield at, end
        at = end


@dataclasses.dataclass
class Load:
    address: int
    size: int
    offset: int
    in_file: int  # bytes of it that the file really has


@dataclasses.dataclass
class Note:
    name: bytes
    type: int
    data: bytes


class Core:
    """A core file. A memory (greenlet_image)."""

    def __init__(self, path: str):
        self.path, self.problems = path, []
        self.file = open(path, "rb")
        self.size = os.fstat(self.file.fileno()).st_size
        if self.size < 64:
            raise Problem(f"{path}: {self.size} bytes are no core")
        ident = self.piece(0, 16)
        if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (
                1, 2):
            raise Problem(f"{path}: this is no ELF file")
        self.word = 4 * ident[4]
        self.order = "little" if ident[5] == 1 else "big"
        self.prefix = "<" if ident[5] == 1 else ">"
        self._headers()

    def piece(self, at: int, n: int) -> bytes:
        """n bytes of the file, fewer at its end."""
        return os.pread(self.file.fileno(), n, at) if at < 1 << 63 else b""

    def unpack(self, layout: struct.Struct, at: int) -> tuple:
        return layout.unpack(self.piece(at, layout.size))

    def find(self, what: bytes, most: int) -> list[int]:
        """Where `what` is in the file, the first `most` places."""
        found: list[int] = []
        for at, end in extents(self.file.fileno(), self.size):
            while end - at >= len(what) and len(found) < most:
                data = self.piece(at, min(1 << 20, end - at))
                k = data.find(what)
                while k >= 0:
                    found.append(at + k)
                    k = data.find(what, k + 1)
                at += max(1, len(data) - len(what) + 1)
        return found[:most]

    def layout(self, text: str) -> struct.Struct:
        return struct.Struct(self.prefix + text)

    def note(self, text: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(text)

    # ---- Headers --------------------------------------------------------

    def _headers(self) -> None:
        ehdr = self.layout(EHDR[self.word])
        (kind, self.machine, _, _, phoff, shoff, _, _, phentsize, phnum,
         *_) = self.unpack(ehdr, 16)
        if kind != ET_CORE:
            raise Problem(f"{self.path}: an ELF file, but no core")
        phdr = self.layout(PHDR[self.word])
        if phnum == PN_XNUM:  # the number is in the first section header
            shdr = self.layout(SHDR[self.word])
            if shoff and shoff + shdr.size <= self.size:
                phnum = self.unpack(shdr, shoff)[7]
        if phentsize != phdr.size:
            raise Problem(f"{self.path}: program headers of {phentsize} bytes")
        room = max(0, self.size - phoff) // phdr.size
        if min(room, LOADS_MOST) < phnum:
            self.note(f"only {room} of {phnum} program headers are there")
            phnum = min(room, LOADS_MOST)
        self.phdrs = [self._program_header(phdr, phoff + i * phdr.size)
                      for i in range(phnum)]
        self.loads, cut = [], 0
        for kind, _, offset, address, _, in_file, size, _ in self.phdrs:
            if kind != PT_LOAD or not size:
                continue
            have = max(0, min(in_file, size, self.size - offset))
            cut += min(in_file, size) - have
            if address + size > 1 << 8 * self.word:
                self.note(f"a segment at {address:#x} of {size:#x} bytes")
                continue
            self.loads.append(Load(address, size, offset, have))
        if cut:
            self.note(f"the core is cut off: {cut} bytes of memory are missing")
        self.loads.sort(key=lambda load: load.address)
        self.starts = [load.address for load in self.loads]
        self.notes = list(self._notes())
        self.statuses = self._statuses()

    def _program_header(self, phdr: struct.Struct, at: int) -> tuple:
        """(type, flags, offset, vaddr, paddr, filesz, memsz, align)."""
        v = self.unpack(phdr, at)
        if self.word == 8:
            return v
        return (v[0], v[6], *v[1:6], v[7])

    def _notes(self):
        left = NOTES_MOST
        for kind, _, offset, _, _, size, _, align in self.phdrs:
            if kind != PT_NOTE:
                continue
            end = min(offset + size, self.size)
            if end < offset + size:
                self.note("the notes are cut off")
            align = 8 if align == 8 else 4
            head, at = self.layout("III"), offset
            while at + head.size <= end and left:
                left -= 1
                name_bytes, data_bytes, number = self.unpack(head, at)
                name_at = at + head.size
                data_at = name_at + (name_bytes + align - 1 & -align)
                at = data_at + (data_bytes + align - 1 & -align)
                if data_at + data_bytes > end:
                    self.note("the notes are damaged or cut off")
                    break
                yield Note(self.piece(name_at, name_bytes), number,
                           self.piece(data_at, data_bytes))

    def _statuses(self) -> dict[int, bytes]:
        """NT_PRSTATUS by thread, the one that crashed first."""
        found: dict[int, bytes] = {}
        cpu = CPUS.get((self.machine, self.word))
        if cpu:
            need = cpu.regs + (max(cpu.index.values()) + 1) * self.word
            for note in self.notes:
                if (note.type == NT_PRSTATUS and note.name[:4] == b"CORE"
                        and len(note.data) >= need):
                    tid = self.layout("i").unpack_from(note.data, cpu.pid)[0]
                    found.setdefault(tid, note.data)
        return found

    def executable(self) -> str:
        """The program that dumped, if it is still where it was; else ""."""
        for note in self.notes:
            if note.type != NT_FILE:
                continue
            try:
                pair = self.layout("QQ" if self.word == 8 else "II")
                count = pair.unpack_from(note.data)[0]
                first = note.data[(2 + 3 * count) * self.word:]
                path = os.fsdecode(first.split(b"\0")[0])
            except (struct.error, OverflowError):
                return ""
            return path if path and os.path.isfile(path) else ""
        return ""

    # ---- As a memory ----------------------------------------------------

    def _load(self, address: int) -> Load | None:
        i = bisect.bisect_right(self.starts, address) - 1
        if i >= 0 and address < self.loads[i].address + self.loads[i].size:
            return self.loads[i]
        return None

    def read(self, address: int, n: int) -> bytes:
        parts = []
        while n:
            load = self._load(address)
            skip = address - load.address if load else 0
            if not load or skip >= load.in_file:
                raise Unreadable(f"{address:#x}")
            k = min(n, load.in_file - skip)
            at = load.offset + skip
            parts.append(self.piece(at, k))
            address += k
            n -= k
        return b"".join(parts)

    def end_of(self, address: int) -> int:
        """Up to where memory is readable from `address` on."""
        while True:
            load = self._load(address)
            if not load or address >= load.address + load.in_file:
                return address
            address = load.address + load.in_file

    def file_offset(self, address: int, n: int) -> int:
        load = self._load(address)
        skip = address - load.address if load else 0
        if not load or skip + n > load.in_file:
            raise Unreadable(f"{address:#x}")
        return load.offset + skip

    # ---- Greenlets ------------------------------------------------------

    def anchors(self) -> list[int]:
        """Addresses of anchors: magic, and `self` its own address."""
        found = set()
        for at in self.find(MAGIC, 1000):
            itself = int.from_bytes(self.piece(at + 16, self.word), self.order)
            for load in self.loads:
                if (load.offset <= at < load.offset + load.in_file
                        and load.address + at - load.offset == itself):
                    found.add(itself)
        return sorted(found)

    def images(self) -> list[Image]:
        """One for each libgreenlet in the process."""
        images, why = [], []
        for anchor in self.anchors():
            try:
                images.append(Image(self, anchor))
            except Problem as problem:
                why.append(str(problem))
        if images:
            for text in why:
                self.note(text)
            return images
        if why:
            raise Problem("; ".join(why))
        raise Problem(
            f"{self.path}: no greenlet anchor was found"
            + (": " + "; ".join(self.problems) if self.problems else
               ": the program did not use libgreenlet, or its data is not in"
               " the core (man 5 core: coredump_filter)"))


# ---- Writing -------------------------------------------------------------

def shifted(core: Core, data: bytes, low: int, delta: int) -> bytes:
    """`data`, which stood at `low`, with its pointers into itself moved."""
    if not delta:
        return data
    code = "Q" if core.word == 8 else "L" if array.array("L").itemsize == 4 \
        else "I"
    swap = (core.order == "little") != (sys.byteorder == "little")
    whole = len(data) // core.word * core.word
    words = array.array(code, data[:whole])
    if swap:
        words.byteswap()
    high = low + len(data)
    words = array.array(code, [w + delta if low <= w <= high else w
                               for w in words])
    if swap:
        words.byteswap()
    return words.tobytes() + data[whole:]


class Gap:
    """Addresses that the core does not use."""

    def __init__(self, core: Core, need: int):
        best, low = (0, 0), 1 << 16
        for load in core.loads:
            if load.address >> (8 * core.word - 1):
                break  # the kernel's half
            best = max(best, (load.address - low, low))
            low = max(low, load.address + load.size)
        size, low = best
        spare = 1 << (24 if core.word == 8 else 20)
        if size < need + 2 * spare:
            raise Problem(f"no room for {need} bytes of stacks in the core")
        self.at = low + spare

    def take(self, like: int, n: int) -> int:
        """n addresses; the first agrees with `like` in its low 16 bits."""
        self.at += (like - self.at) % (1 << 16)
        address, self.at = self.at, self.at + n + 2 * PAGE
        return address


def stack_end(core: Core, g: Greenlet) -> int:
    """The end of what can be read of g's stack."""
    end = core.end_of(g.sp + g.saved)
    return min(end, g.base) if g.base else end


def status_note(core: Core, g: Greenlet, tid: int, delta: int) -> bytes:
    """An NT_PRSTATUS: that of its thread, with g's registers."""
    cpu = CPUS[core.machine, core.word]
    template = core.statuses.get(g.thread.tid if g.thread else -1,
                                 next(iter(core.statuses.values())))
    data, word = bytearray(template), core.layout(
        "Q" if core.word == 8 else "I")

    def put(index: int, value: int) -> None:
        word.pack_into(data, cpu.regs + index * core.word,
                       value & (1 << 8 * core.word) - 1)

    core.layout("i").pack_into(data, cpu.pid, tid)
    for index in cpu.clear:
        put(index, 0)
    if cpu.none is not None:
        put(cpu.none, -1)
    low, high = g.sp, stack_end(core, g)
    places = cpu.index
    if core.machine == ARM and greenlet_image.is_thumb(g.registers):
        places = places | {FP: 7}
    for number, value in g.registers.items():
        if number in places:
            inside = number != PC and low <= value <= high
            put(places[number], value + delta if inside else value)
    return pack_note(core, Note(b"CORE\0", NT_PRSTATUS, bytes(data)))


def pack_note(core: Core, note: Note) -> bytes:
    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)
    return (core.layout("III").pack(len(note.name), len(note.data), note.type)
            + padded(note.name) + padded(note.data))


def copy_sparse(source: str, target: str) -> None:
    """Copies, leaving out holes."""
    with open(source, "rb") as a, open(target, "wb") as b:
        size = os.fstat(a.fileno()).st_size
        for at, end in extents(a.fileno(), size):
            b.seek(at)
            while at < end:
                piece = os.pread(a.fileno(), min(end - at, 1 << 20), at)
                if not piece:
                    break
                b.write(piece)
                at += len(piece)
        b.truncate(size)


def choose_exact(core: Core, image: Image, ids: list[Greenlet]) -> list[Greenlet]:
    """Those that are right when the slices of `ids` are put in their places:
    themselves, and others all in place that they do not touch."""
    ranges = {g.address: (g.sp, stack_end(core, g)) for g in image.suspended()}

    def touch(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a[0] < b[1] and b[0] < a[1]

    for i, g in enumerate(ids):
        for other in ids[:i]:
            if touch(ranges[g.address], ranges[other.address]):
                raise Problem(f"greenlets {other.id} and {g.id} share "
                              "addresses: choose one of them")
    pasted = [(g.sp, g.sp + g.saved) for g in ids if g.saved]
    others = [g for g in image.suspended() if g not in ids and not g.saved
              and not any(touch(ranges[g.address], p) for p in pasted)]
    for g in image.suspended():
        if g not in ids and g not in others:
            core.note(f"greenlet {g.id} is left out: its place is taken, or "
                      "its bytes are elsewhere")
    cpu = CPUS[core.machine, core.word]
    for thread in image.threads:
        status = core.statuses.get(thread.tid)
        if status is None:
            continue
        sp = core.layout("Q" if core.word == 8 else "I").unpack_from(
            status, cpu.regs + cpu.index[SP] * core.word)[0]
        if any(low <= sp < high or sp <= low < sp + (1 << 20)
               and any(g.address == thread.current and g.base >= high
                       for g in image.greenlets) for low, high in pasted):
            core.note(f"the running stack of thread {thread.tid} is "
                      "overwritten: look at it in the original core")
    return others + ids


def rewrite(core: Core, images: list[Image], out: str,
            exact: list[str] | None = None) -> list[tuple[Greenlet, int]]:
    """Writes `out`. Returns what became a thread, and its number there.

    exact: ids whose bytes go to their real addresses; None: all are shown,
    those away at new addresses.
    """
    if (core.machine, core.word) not in CPUS:
        raise Problem(f"{core.path}: CPU {core.machine} is not known")
    if not core.statuses:
        raise Problem(f"{core.path}: it has no thread (NT_PRSTATUS)")
    if exact is not None and len(images) > 1:
        raise Problem("several libgreenlets: --exact cannot choose")
    if os.path.exists(out) and os.path.samefile(core.path, out):
        raise Problem(f"{out} is the core itself")
    pastes: list[tuple[int, bytes]] = []
    if exact is not None:
        ids = []
        for text in exact:
            g = images[0].find(text)
            if g.state != "suspended" or g.broken:
                raise Problem(f"greenlet {g.id} is {g.state}: it has no "
                              "stack to show" + (g.broken and ": " + g.broken))
            if g not in ids:
                ids.append(g)
        chosen = choose_exact(core, images[0], ids)
        for g in ids:
            if g.saved:
                try:
                    pastes.append((core.file_offset(g.sp, g.saved),
                                   core.read(g.slice, g.saved)))
                except Unreadable as at:
                    raise Problem(f"greenlet {g.id}: {at} is not in the "
                                  "core") from None
    else:
        chosen = [g for image in images for g in image.suspended()]

    base = 1000 * (max((t for t in core.statuses if 0 < t < 1 << 24),
                       default=0) // 1000 + 1)
    result: list[tuple[Greenlet, int]] = []
    segments: list[tuple[int, bytes]] = []
    notes = [pack_note(core, note) for note in core.notes]
    away = [g for g in chosen if g.saved] if exact is None else []
    total = sum(stack_end(core, g) - g.sp for g in away)
    if total > core.size:
        core.note(f"stacks of {total} bytes cannot be in a core of "
                  f"{core.size}: those that are away are left out")
        chosen, away = [g for g in chosen if not g.saved], []
    gap = Gap(core, total + len(away) * (2 * PAGE + (1 << 16))) if away else None
    offset = 0
    for image in images:
        for g in image.greenlets:
            if g not in chosen:
                continue
            delta = 0
            if gap and g.saved:
                try:
                    data = core.read(g.slice, g.saved)
                    data += core.read(g.sp + g.saved,
                                      stack_end(core, g) - g.sp - g.saved)
                except Unreadable as at:
                    core.note(f"greenlet {g.id} is left out: {at} is not in "
                              "the core")
                    continue
                address = gap.take(g.sp, len(data))
                delta = address - g.sp
                segments.append((address, shifted(core, data, g.sp, delta)))
            tid = base + offset + g.id
            notes.append(status_note(core, g, tid, delta))
            result.append((g, tid))
        offset += len(image.greenlets)
    write(core, out, segments, b"".join(notes), pastes)
    return result


def write(core: Core, out: str, segments: list[tuple[int, bytes]],
          notes: bytes, pastes: list[tuple[int, bytes]]) -> None:
    copy_sparse(core.path, out)
    ehdr, phdr, shdr = (core.layout(t[core.word]) for t in (EHDR, PHDR, SHDR))

    def pack(kind, flags, offset, address, physical, in_file, size, align):
        if core.word == 8:
            return phdr.pack(kind, flags, offset, address, physical, in_file,
                             size, align)
        return phdr.pack(kind, offset, address, physical, in_file, size, flags,
                         align)

    with open(out, "r+b") as file:
        for at, data in pastes:
            file.seek(at)
            file.write(data)
        file.seek(0, os.SEEK_END)

        def aligned() -> int:
            at = -(-file.tell() // PAGE) * PAGE
            file.seek(at)
            return at

        headers, noted = [], False
        at = aligned()
        file.write(notes)
        for header in core.phdrs:
            if header[0] != PT_NOTE:
                headers.append(pack(*header))
            elif not noted:  # some readers look at the first only
                headers.append(pack(PT_NOTE, 0, at, 0, 0, len(notes), 0, 4))
                noted = True
        for address, data in segments:
            # Whole pages, as the kernel writes them: libdwfl rounds the
            # address down, but not the offset.
            data = bytes(address % PAGE) + data
            data += bytes(-len(data) % PAGE)
            address -= address % PAGE
            at = aligned()
            file.write(data)
            headers.append(pack(PT_LOAD, 6, at, address, 0, len(data),
                                len(data), PAGE))
        phoff = aligned()
        file.write(b"".join(headers))
        values = list(core.unpack(ehdr, 16))
        values[4], values[5], values[10], values[11], values[12] = (
            phoff, 0, 0, 0, 0)
        values[9] = min(len(headers), PN_XNUM)
        if len(headers) >= PN_XNUM:
            values[5], values[10], values[11] = aligned(), shdr.size, 1
            file.write(shdr.pack(0, 0, 0, 0, 0, 1, 0, len(headers), 0, 0))
        file.seek(16)
        file.write(ehdr.pack(*values))


def have(tool: str) -> str | None:
    return shutil.which(tool)
