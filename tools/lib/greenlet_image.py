# SPDX-License-Identifier: MIT
"""The greenlets in a memory that is only looked at: of a live process or of a
core. What the anchor (src/anchor.c) tells is all that is known beforehand, and
nothing that is read is believed: every walk is bounded, and what cannot be
right is noted in Image.problems while the rest goes on.

A memory is an object with
    read(address, n)  n bytes, or Unreadable
    word              bytes of a pointer: 4 or 8
    order             "little" or "big"
"""

from __future__ import annotations

import dataclasses
import struct

MAGIC = b"greenlet anchor\0"
VERSION = 2
NONE = 0xFFFFFFFF
PC, SP, FP, END = 0x100, 0x101, 0x102, 0xFFFF  # src/layout.h


def is_thumb(registers: dict[int, int]) -> bool:
    """On 32-bit Arm: is the frame pointer r7, and not r11?"""
    return registers.get(PC, 0) & 1 == 1

THREADS_MOST = 1 << 16
SLABS_MOST = 1 << 20
FOREIGN_MOST = 1 << 20


class Problem(Exception):
    """What a user is told, without a traceback."""


class Unreadable(Exception):
    """An address that the memory has not."""


class Reader:
    """Numbers out of a memory."""

    def __init__(self, memory):
        self.memory = memory
        self.read = memory.read
        self.prefix = "<" if memory.order == "little" else ">"
        self.code = {4: "I", 8: "Q"}[memory.word]
        self.top = (1 << 8 * memory.word) - 1

    def unpack(self, layout: str, data: bytes, at: int = 0) -> tuple:
        return struct.unpack_from(self.prefix + layout.replace("P", self.code),
                                  data, at)

    def size(self, layout: str) -> int:
        return struct.calcsize(self.prefix + layout.replace("P", self.code))

    def get(self, layout: str, address: int) -> tuple:
        return self.unpack(layout, self.read(address, self.size(layout)))

    def pointer(self, address: int) -> int:
        return self.get("P", address)[0]


class Fields:
    """Offsets by name."""

    def __init__(self, names: str, values):
        self.__dict__.update(zip(names.split(), values))


class Anchor:
    LAYOUT = "16sPII16sPP7I8I3I5I5I48H"

    def __init__(self, reader: Reader, address: int):
        magic, itself, version, size = reader.get("16sPII", address)
        if magic != MAGIC or itself != address:
            raise Problem(f"no anchor at {address:#x}")
        if version != VERSION:
            raise Problem(
                f"the anchor at {address:#x} has version {version}, this tool "
                f"knows {VERSION}: use the tool of the program's libgreenlet")
        if size != reader.size(self.LAYOUT):
            raise Problem(f"the anchor at {address:#x} is damaged: "
                          f"{size} bytes")
        values = reader.get(self.LAYOUT, address)
        self.address = address
        self.backend = values[4].split(b"\0")[0].decode("ascii", "replace")
        self.threads, slab = values[5:7]
        self.thread = Fields("next current main slabs foreign exited tid",
                             values[7:14])
        self.greenlet = Fields("bytes home parent entry side state flags "
                               "serial", values[14:22])
        self.side = Fields("name name_bytes foreign_next", values[22:25])
        self.value = Fields("new active dead main home_mask", values[25:30])
        self.stack = Fields("sp context base slice saved", values[30:35])
        pairs = list(zip(values[35::2], values[36::2]))
        self.registers = pairs[:next((i for i, pair in enumerate(pairs)
                                      if pair[0] == END), len(pairs))]
        try:
            self.slab = Fields("bytes maker next used_high slots",
                               reader.get("5I", slab))
        except Unreadable:
            raise Problem(f"the anchor at {address:#x} points nowhere"
                          f" ({slab:#x})") from None
        self.check(reader.memory.word)

    def check(self, word: int) -> None:
        g, stack, slab = self.greenlet, self.stack, self.slab
        size = g.bytes
        ends = [g.state + 1, g.flags + 1, g.serial + 4, stack.base + word]
        ends += [offset + word for offset in (g.home, g.parent, g.entry,
                                              g.side)]
        ends += [offset + word for offset in (stack.sp, stack.context,
                                              stack.slice, stack.saved)
                 if offset != NONE]
        good = (32 <= size <= 4096 and all(end <= size for end in ends)
                and 4096 <= slab.bytes <= 1 << 24
                and slab.bytes & slab.bytes - 1 == 0
                and max(slab.slots, slab.maker, slab.next,
                        slab.used_high) < slab.bytes
                and max(vars(self.thread).values()) < 1 << 20
                and max(vars(self.side).values()) < 1 << 16
                and (stack.sp != NONE) != (stack.context != NONE)
                and (stack.slice != NONE) == (stack.saved != NONE))
        if not good:
            raise Problem(f"the anchor at {self.address:#x} is damaged")


@dataclasses.dataclass
class Thread:
    address: int
    tid: int
    current: int
    main: int
    exited: bool


@dataclasses.dataclass
class Greenlet:
    address: int
    state: str  # "current", "suspended", "new", "dead"
    name: str
    serial: int
    flags: int
    parent: int
    entry: int
    is_main: bool
    thread: Thread | None
    id: int = 0
    sp: int = 0
    base: int = 0  # 0: not known
    slice: int = 0
    saved: int = 0
    registers: dict[int, int] = dataclasses.field(default_factory=dict)
    broken: str = ""  # why its stack cannot be shown

    @property
    def label(self) -> str:
        return self.name or ("main" if self.is_main else "(no name)")

    @property
    def where(self) -> str:
        """Where its bytes are, in words."""
        if self.state != "suspended":
            return ""
        if self.broken:
            return "unreadable: " + self.broken
        if not self.saved:
            return "in place"
        if self.base and self.saved == self.base - self.sp:
            return "in the slice"
        return "partly in the slice"


class Image:
    """All greenlets that can be found from one anchor."""

    def __init__(self, memory, anchor: int):
        self.reader = Reader(memory)
        try:
            self.anchor = Anchor(self.reader, anchor)
        except Unreadable as at:
            raise Problem(f"no anchor at {anchor:#x}: {at}") from None
        self.problems: list[str] = []
        self.threads: list[Thread] = []
        self.greenlets: list[Greenlet] = []
        self._walk()
        self._number()

    def note(self, text: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(text)

    # ---- Walking --------------------------------------------------------

    def _list(self, what: str, head: int, next_of, most: int):
        """The addresses of a linked list, until its end or its damage."""
        seen: set[int] = set()
        at = head
        while at:
            if at in seen:
                self.note(f"{what}: the list runs in a circle at {at:#x}")
                return
            if len(seen) == most:
                self.note(f"{what}: more than {most}; the rest is left out")
                return
            if at % 4:
                self.note(f"{what}: {at:#x} is no address of one")
                return
            seen.add(at)
            yield at
            try:
                at = next_of(at)
            except Unreadable:
                self.note(f"{what}: nothing can be read at {at:#x}; "
                          "the rest of the list is lost")
                return

    def _walk(self) -> None:
        r, a = self.reader, self.anchor
        try:
            head = r.pointer(a.threads)
        except Unreadable:
            self.note(f"the list of threads at {a.threads:#x} cannot be read")
            return
        for at in self._list("threads", head,
                             lambda t: r.pointer(t + a.thread.next),
                             THREADS_MOST):
            try:
                self.threads.append(Thread(
                    at, r.get("i", at + a.thread.tid)[0],
                    r.pointer(at + a.thread.current),
                    r.pointer(at + a.thread.main),
                    r.get("B", at + a.thread.exited)[0] != 0))
            except Unreadable:
                self.note(f"the thread at {at:#x} cannot be read")
        self.by_address = {t.address: t for t in self.threads}
        found: dict[int, Greenlet] = {}
        for thread in self.threads:
            self._walk_slabs(thread, found)
        for thread in self.threads:
            self._walk_foreign(thread, found)
        for thread in self.threads:
            for which in ("main", "current"):
                at = getattr(thread, which)
                if at not in found:
                    self.note(f"thread {thread.tid}: its {which} greenlet "
                              f"{at:#x} was not found")
        self.greenlets = list(found.values())

    def _walk_slabs(self, thread: Thread, found: dict) -> None:
        r, a = self.reader, self.anchor
        size = a.greenlet.bytes
        try:
            head = r.pointer(thread.address + a.thread.slabs)
        except Unreadable:
            self.note(f"thread {thread.tid}: its slabs cannot be read")
            return
        what = f"slabs of thread {thread.tid}"
        for slab in self._list(what, head,
                               lambda s: r.pointer(s + a.slab.next),
                               SLABS_MOST):
            if slab % a.slab.bytes:
                self.note(f"{what}: {slab:#x} is no slab")
                return
            try:
                used = r.get("I", slab + a.slab.used_high)[0]
                maker = r.pointer(slab + a.slab.maker)
            except Unreadable:
                self.note(f"{what}: {slab:#x} cannot be read")
                continue
            most = (a.slab.bytes - a.slab.slots) // size
            if used > most or maker != thread.address:
                self.note(f"{what}: the head of {slab:#x} is damaged")
                used = min(used, most)
            first = slab + a.slab.slots
            try:
                data = r.read(first, used * size)
            except Unreadable:
                data = b""
            for i in range(used):
                at = first + i * size
                try:
                    piece = (data[i * size:][:size] if data
                             else r.read(at, size))
                except Unreadable:
                    self.note(f"{what}: {at:#x} and above cannot be read")
                    break
                self._add(at, piece, found)

    def _walk_foreign(self, thread: Thread, found: dict) -> None:
        r, a = self.reader, self.anchor

        def following(g: int) -> int:
            side = r.pointer(g + a.greenlet.side)
            return r.pointer(side + a.side.foreign_next)

        try:
            head = r.pointer(thread.address + a.thread.foreign)
        except Unreadable:
            return
        for g in self._list(f"greenlets of others in thread {thread.tid}",
                            head, following, FOREIGN_MOST):
            if g in found:
                continue
            try:
                self._add(g, r.read(g, a.greenlet.bytes), found)
            except Unreadable:
                self.note(f"the greenlet at {g:#x} cannot be read")

    # ---- One greenlet ---------------------------------------------------

    def _add(self, at: int, data: bytes, found: dict) -> None:
        r, a = self.reader, self.anchor
        field = a.greenlet

        def pointer(offset: int) -> int:
            return r.unpack("P", data, offset)[0]

        state = data[field.state]
        if state == 0:
            return  # a free slot
        states = {a.value.new: "new", a.value.active: "suspended",
                  a.value.dead: "dead"}
        if state not in states:
            self.note(f"the greenlet at {at:#x} is damaged: state {state}")
            return
        home = pointer(field.home) & ~a.value.home_mask
        thread = self.by_address.get(home)
        flags = data[field.flags]
        g = Greenlet(at, states[state], self._name(pointer(field.side), at),
                     r.unpack("I", data, field.serial)[0], flags,
                     pointer(field.parent), pointer(field.entry),
                     bool(flags & a.value.main), thread)
        found[at] = g
        if g.state == "suspended" and thread is None:
            g.broken = f"it belongs to no thread ({home:#x})"
            self.note(f"the greenlet at {at:#x}: {g.broken}")
        elif thread is None or thread.exited:
            g.state = "dead"
        elif thread.current == at:
            g.state = "current"
        if g.state == "suspended" and not g.broken:
            g.broken = self._stack(g, data)
            if g.broken:
                self.note(f"the greenlet at {at:#x}: {g.broken}")

    def _name(self, side: int, at: int) -> str:
        if not side:
            return ""
        try:
            text = self.reader.read(side + self.anchor.side.name,
                                    min(self.anchor.side.name_bytes, 256))
        except Unreadable:
            self.note(f"the name of the greenlet at {at:#x} cannot be read")
            return ""
        text = text.split(b"\0")[0].decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "?" for c in text)

    def _stack(self, g: Greenlet, data: bytes) -> str:
        """Fills in where the stack is. Returns what is wrong with it."""
        r, stack = self.reader, self.anchor.stack
        g.base = r.unpack("P", data, stack.base)[0]
        if g.is_main and g.base >= r.top & ~63:
            g.base = 0
        try:
            if stack.sp != NONE:
                g.sp = r.unpack("P", data, stack.sp)[0]
                if stack.saved != NONE:
                    g.saved = r.unpack("I", data, stack.saved)[0]
                    g.slice = r.unpack("P", data, stack.slice)[0]
            else:
                context = r.unpack("P", data, stack.context)[0]
                for number, offset in self.anchor.registers:
                    g.registers[number] = r.pointer(context + offset)
                if not self.anchor.registers:
                    return "this CPU's contexts are not known"
                g.sp = g.registers.get(SP, 0)
            if not g.sp or g.sp % r.memory.word:
                return f"its stack pointer {g.sp:#x} is none"
            if g.base and g.base < g.sp:
                return f"its stack [{g.sp:#x}, {g.base:#x}) is none"
            if g.saved and (not g.slice
                            or g.base and g.saved > g.base - g.sp):
                return f"{g.saved} saved bytes cannot be"
            if g.saved:
                r.read(g.slice + g.saved - 1, 1)
            if stack.sp != NONE:
                g.registers = {PC: r.unpack(
                    "P", self.read_stack(g, g.sp, r.memory.word))[0],
                    SP: g.sp}
        except Unreadable as at:
            return f"its stack cannot be read at {at}"
        return ""

    def _number(self) -> None:
        """An id for each, in the order in which a list shows them."""
        def key(g: Greenlet):
            return (g.thread.tid if g.thread else 1 << 31,
                    g.thread.address if g.thread else 0, not g.is_main,
                    g.serial if g.state != "new" else 1 << 32, g.address)
        self.greenlets.sort(key=key)
        for number, g in enumerate(self.greenlets):
            g.id = number

    # ---- Asking ---------------------------------------------------------

    def read_stack(self, g: Greenlet, address: int, n: int) -> bytes:
        """Bytes of g's stack as g will see them."""
        head = b""
        if address < g.sp + g.saved:
            k = min(n, g.sp + g.saved - address)
            head = self.reader.read(g.slice + (address - g.sp), k)
        return head + (self.reader.read(address + len(head), n - len(head))
                       if n > len(head) else b"")

    def suspended(self) -> list[Greenlet]:
        """Those whose stacks can be shown."""
        return [g for g in self.greenlets
                if g.state == "suspended" and not g.broken]

    def find(self, text: str) -> Greenlet:
        """By id, address (0x...) or name."""
        try:
            number = int(text, 0)
        except ValueError:
            named = [g for g in self.greenlets if g.label == text]
            if len(named) == 1:
                return named[0]
            if named:
                raise Problem(f"{len(named)} greenlets are called {text!r}: "
                              + ", ".join(str(g.id) for g in named)) from None
            raise Problem(f"no greenlet is called {text!r}") from None
        for g in self.greenlets:
            if (g.address if text.lower().startswith("0x") else g.id) == number:
                return g
        raise Problem(f"there is no greenlet {text}")


def table(image: Image, symbol=lambda address: "") -> str:
    """The list that people read. `symbol` names the function at an address."""
    rows = [("id", "name", "state", "thread", "parent", "bytes", "saved",
             "where", "entry")]
    numbers = {g.address: str(g.id) for g in image.greenlets}
    for g in image.greenlets:
        live = ""
        if g.state == "suspended" and not g.broken:
            live = str(g.base - g.sp) if g.base else "?"
        rows.append((
            str(g.id), g.label, g.state, str(g.thread.tid) if g.thread else "-",
            numbers.get(g.parent, "-") if g.parent else "-", live,
            str(g.saved) if live else "", g.where,
            "" if g.is_main or not g.entry else
            symbol(g.entry) or f"{g.entry:#x}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = {0, 5, 6}
    lines = ["  ".join(cell.rjust(w) if i in right else cell.ljust(w)
                       for i, (cell, w) in enumerate(zip(row, widths)))
             .rstrip() for row in rows]
    return "\n".join(lines)
