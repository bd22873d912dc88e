# SPDX-License-Identifier: MIT
"""Greenlets in gdb, in a live process and in a core: the commands that
greenlet-gdb.py adds. Its text says what they are.

A suspended greenlet of a live process is shown by putting its bytes and
registers where they belong, running gdb's own command, and putting back what
was there. Nothing runs meanwhile. In a core, which cannot be written, a second
inferior gets a copy of the core in which each greenlet is a thread.
"""

import atexit
import os
import re
import tempfile

import gdb

import greenlet_core
import greenlet_image
from greenlet_image import FP, PC, SP, Problem, Unreadable

# Names of registers by their DWARF numbers (the psABIs').
_NAMES = {
    "i386:x86-64": {PC: "rip", SP: "rsp", FP: "rbp", 3: "rbx", 6: "rbp",
                    12: "r12", 13: "r13", 14: "r14", 15: "r15"},
    "i386": {PC: "eip", SP: "esp", FP: "ebp", 3: "ebx", 5: "ebp", 6: "esi",
             7: "edi"},
    "aarch64": {PC: "pc", SP: "sp", FP: "x29",
                **{n: f"x{n}" for n in range(19, 31)}},
    "arm": {PC: "pc", SP: "sp", FP: "r11"},
    "riscv": {PC: "pc", SP: "sp", FP: "fp"},
    "powerpc": {PC: "pc", SP: "r1", FP: "r31"},
    "s390": {PC: "pc", SP: "r15", FP: "r11"},
}


def _register_names(g):
    name = gdb.selected_inferior().architecture().name()
    for start in sorted(_NAMES, key=len, reverse=True):
        if name.startswith(start):
            names = _NAMES[start]
            if start == "arm" and greenlet_image.is_thumb(g.registers):
                names = names | {FP: "r7"}
            return names
    return {PC: "pc", SP: "sp"}


class _Memory:
    """The selected inferior's."""

    def __init__(self):
        self.inferior = gdb.selected_inferior()
        self.word = gdb.lookup_type("void").pointer().sizeof
        endian = gdb.execute("show endian", to_string=True)
        self.order = "big" if "big endian" in endian else "little"

    def read(self, address, n):
        if n == 0:
            return b""
        try:
            return self.inferior.read_memory(address, n).tobytes()
        except (gdb.MemoryError, OverflowError, ValueError):
            raise Unreadable(f"{address:#x}") from None


# ---- The anchor -----------------------------------------------------------

def _by_symbol(word):
    try:
        value = gdb.parse_and_eval("&'greenlet_anchor'")
        return int(value) & (1 << 8 * word) - 1
    except gdb.error:
        return None


def _data_sections():
    """[low, high) of everything writable that gdb knows of."""
    core = _core_path()
    if core:
        return [(s.address, s.address + s.in_file)
                for s in greenlet_core.Core(core).loads]
    try:
        with open(f"/proc/{gdb.selected_inferior().pid}/maps") as maps:
            parts = [line.split(None, 2) for line in maps]
        return [tuple(int(x, 16) for x in p[0].split("-")) for p in parts
                if p[1].startswith("rw")]
    except OSError:  # another machine's
        text = gdb.execute("info files", to_string=True)
        return [(int(m[1], 16), int(m[2], 16)) for m in re.finditer(
            r"(0x[0-9a-f]+) - (0x[0-9a-f]+) is \.data\b", text)]


def _by_search(memory):
    for low, high in _data_sections():
        at = low
        while at < high:
            try:
                at = memory.inferior.search_memory(at, high - at,
                                                   greenlet_image.MAGIC)
            except gdb.error:  # a hole
                break
            if at is None:
                break
            try:
                if int.from_bytes(memory.read(at + 16, memory.word),
                                  memory.order) == at:
                    return at
            except Unreadable:
                pass
            at += 8
    return None


def _image():
    if gdb.selected_inferior().pid == 0:
        raise gdb.GdbError("There is no process and no core.")
    memory = _Memory()
    anchor = _by_symbol(memory.word)
    try:
        if anchor is not None:
            return greenlet_image.Image(memory, anchor)
    except Problem:
        pass  # perhaps another program's symbol
    anchor = _by_search(memory)
    if anchor is None:
        raise gdb.GdbError("No greenlet anchor was found: this program does "
                           "not use libgreenlet, or has not loaded it yet.")
    return greenlet_image.Image(memory, anchor)


def _core_path():
    """The core that the selected inferior is; None: it is alive."""
    text = gdb.execute("info target", to_string=True)
    match = re.search(r"Local core dump file:\s+`(.*)', file type", text)
    return match[1] if match else None


def _symbol(address):
    text = gdb.execute(f"info symbol {address:#x}", to_string=True)
    return "" if text.startswith("No symbol") else text.split()[0]


def _title(g):
    thread = f", LWP {g.thread.tid}" if g.thread else ""
    where = f", {g.where}" if g.where else ""
    return f"greenlet {g.id} '{g.label}' ({g.state}{where}{thread})"


def _warn(image):
    for problem in image.problems:
        gdb.write(f"warning: {problem}\n", gdb.STDERR)


# ---- Showing one, live ----------------------------------------------------

class _State:
    """What the user has selected, to be put back."""

    def __init__(self):
        self.thread = gdb.selected_thread()
        try:
            self.level = gdb.selected_frame().level()
        except gdb.error:
            self.level = None

    def back(self):
        if self.thread is not None and self.thread.is_valid():
            self.thread.switch()
        if self.level:
            try:
                _frame(self.level).select()
            except (gdb.error, Problem):
                pass


def _frame(level):
    frame = gdb.newest_frame()
    for _ in range(level):
        frame = frame.older()
        if frame is None:
            raise Problem(f"there is no frame {level}")
    return frame


def _select_lwp(tid):
    for thread in gdb.selected_inferior().threads():
        if thread.ptid[1] == tid:
            thread.switch()
            return
    gdb.write(f"warning: there is no LWP {tid}; going on in this thread\n",
              gdb.STDERR)


class _InPlace:
    """While this lasts, the selected thread seems to be greenlet `g`."""

    def __init__(self, image, g):
        self.image, self.g = image, g

    def __enter__(self):
        g, inferior = self.g, gdb.selected_inferior()
        if any(t.is_running() for t in inferior.threads()):
            raise gdb.GdbError("Threads are running: interrupt them first.")
        self.inferior, self.state = inferior, _State()
        self.calls = gdb.parameter("may-call-functions")
        self.bytes, self.old = None, {}
        _select_lwp(g.thread.tid)
        self.thread = gdb.selected_thread()
        names = _register_names(g)
        missing = [n for n in g.registers if n not in names]
        if missing:
            raise gdb.GdbError(f"Registers {missing} have no name here.")
        try:
            frame = gdb.newest_frame()
            frame.select()  # or `set` would write to where it was saved
            for number in g.registers:
                name = names[number]
                self.old[name] = int(frame.read_register(name).cast(
                    gdb.lookup_type("unsigned long")))
            slice_ = self.image.reader.read(g.slice, g.saved)
            if slice_:
                self.bytes = inferior.read_memory(g.sp, g.saved).tobytes()
                inferior.write_memory(g.sp, slice_)
            # A call would run on that stack.
            gdb.execute("set may-call-functions off")
            for number, value in g.registers.items():
                gdb.execute(f"set ${names[number]} = {value:#x}")
            gdb.invalidate_cached_frames()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        problems = []

        def attempt(what, do):
            try:
                do()
            except (gdb.error, RuntimeError) as error:
                problems.append(f"{what}: {error}")

        attempt("thread", self.thread.switch)
        attempt("frame", lambda: gdb.newest_frame().select())
        if self.bytes is not None:
            attempt("memory", lambda: self.inferior.write_memory(
                self.g.sp, self.bytes))
        for name, value in self.old.items():
            attempt(name, lambda: gdb.execute(f"set ${name} = {value:#x}"))
        gdb.execute("set may-call-functions "
                    + ("on" if self.calls else "off"))
        gdb.invalidate_cached_frames()
        self.state.back()
        if problems:
            raise gdb.GdbError("The process could not be put back as it was: "
                               + "; ".join(problems))
        return False


# ---- Showing one, in a core -----------------------------------------------

class _Copies:
    """Copies of cores in which greenlets are threads: made once each."""

    def __init__(self):
        self.made = {}
        atexit.register(self.remove)

    def get(self, core):
        stat = os.stat(core)
        key = (core, stat.st_mtime_ns, stat.st_size)
        if key not in self.made:
            handle, path = tempfile.mkstemp(prefix="greenlet-", suffix=".core")
            os.close(handle)
            self.made[key] = path, {}
            opened = greenlet_core.Core(core)
            tids = greenlet_core.rewrite(opened, opened.images(), path)
            self.made[key] = path, {g.address: t for g, t in tids}
        return self.made[key]

    def remove(self):
        for path, _ in self.made.values():
            try:
                os.unlink(path)
            except OSError:
                pass


_copies = _Copies()


def _quietly(on):
    """No "[Switching to ...]"; gdb before 12 says it all the same."""
    try:
        gdb.execute("set suppress-cli-notifications " + ("on" if on else "off"))
    except gdb.error:
        pass


class _InCopy:
    """While this lasts, the copy's thread that is greenlet `g` is selected."""

    def __init__(self, core, g):
        self.core, self.g = core, g

    def __enter__(self):
        self.state, self.inferior = _State(), gdb.selected_inferior()
        _quietly(True)
        program = gdb.current_progspace().filename
        path, tids = _copies.get(self.core)
        if self.g.address not in tids:
            _quietly(False)
            raise gdb.GdbError("This greenlet could not be made a thread.")
        numbers = {i.num for i in gdb.inferiors()}
        gdb.execute("add-inferior -no-connection", to_string=True)
        self.copy = next(i for i in gdb.inferiors() if i.num not in numbers)
        try:
            gdb.execute(f"inferior {self.copy.num}", to_string=True)
            if program:
                gdb.execute(f"file {program}", to_string=True)
            gdb.execute(f"core-file {path}", to_string=True)
            _select_lwp(tids[self.g.address])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        gdb.execute(f"inferior {self.inferior.num}", to_string=True)
        if self.copy.pid:
            gdb.execute(f"detach inferiors {self.copy.num}", to_string=True)
        gdb.execute(f"remove-inferiors {self.copy.num}", to_string=True)
        self.state.back()
        _quietly(False)
        return False


class _AsItIs:
    """The current greenlet: its thread is selected."""

    def __init__(self, g):
        self.g = g

    def __enter__(self):
        self.state = _State()
        _select_lwp(self.g.thread.tid)
        return self

    def __exit__(self, *_):
        self.state.back()
        return False


def _showing(image, g):
    if g.state in ("new", "dead"):
        raise Problem(f"greenlet {g.id} is {g.state}: it has no stack")
    if g.broken:
        raise Problem(f"greenlet {g.id} cannot be shown: {g.broken}")
    if g.state == "current":
        return _AsItIs(g)
    core = _core_path()
    return _InCopy(core, g) if core else _InPlace(image, g)


# ---- Commands -------------------------------------------------------------

# They would let the process go on while it is not as it was.
_RUNNING = ("advance", "attach", "call", "continue", "c", "detach", "fg",
            "finish", "fin", "gcore", "inferior", "jump", "j", "kill", "k",
            "load", "next", "n", "nexti", "ni", "quit", "q", "return",
            "reverse-", "run", "r", "set", "signal", "start", "starti", "step",
            "s", "stepi", "si", "target", "thread", "until", "u", "greenlet")


def _refuse_running(command):
    word = re.match(r"[\w-]*", command.strip())[0]
    if any(word == w or len(word) > 2 and w.startswith(word)
           or w.endswith("-") and word.startswith(w) for w in _RUNNING):
        raise Problem(f"'{word}' cannot be used on a suspended greenlet")


def _tell(do):
    """Problems are the user's; no traceback of ours."""
    try:
        do()
    except Problem as problem:
        raise gdb.GdbError(str(problem)) from None
    except gdb.error as error:  # gdb's own, of a command that was given
        raise gdb.GdbError(str(error)) from None
    except (ValueError, OSError) as error:
        raise gdb.GdbError(f"greenlet: {error}") from None


def _words(argument, most):
    """The first words, which quotes may hold together, and then the rest."""
    words, rest = [], argument.strip()
    while rest and len(words) < most:
        match = re.match(r"""'([^']*)'\s*|"([^"]*)"\s*|(\S+)\s*""", rest)
        words.append(next(g for g in match.groups() if g is not None))
        rest = rest[match.end():]
    return words + ([rest] if rest else [])


class _Prefix(gdb.Command):
    """Look at greenlets: list, bt, frame."""

    def __init__(self):
        super().__init__("greenlet", gdb.COMMAND_STACK, prefix=True)


class _List(gdb.Command):
    """All greenlets: greenlet list

thread: the kernel's number (LWP) of the thread that each belongs to
bytes:  of stack, from its stack pointer to its base (?: a thread's own stack)
saved:  how many of them are in the heap now"""

    def __init__(self):
        super().__init__("greenlet list", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        _tell(self.run)

    @staticmethod
    def run():
        image = _image()
        gdb.write(greenlet_image.table(image, _symbol) + "\n")
        _warn(image)


class _Backtrace(gdb.Command):
    """Backtrace of a greenlet: greenlet bt ID|all [OPTION...]

The OPTIONs are those of bt."""

    def __init__(self):
        super().__init__("greenlet bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        _tell(lambda: self.run(_words(argument, 1)))

    @staticmethod
    def run(arguments):
        if not arguments:
            raise Problem("greenlet bt ID|all")
        options = arguments[1] if len(arguments) > 1 else ""
        image = _image()
        every = arguments[0] == "all"
        chosen = ([g for g in image.greenlets
                   if g.state in ("current", "suspended")] if every
                  else [image.find(arguments[0])])
        for g in chosen:
            gdb.write(_title(g) + "\n")
            try:
                with _showing(image, g):
                    gdb.execute("bt " + options)
            except (Problem, gdb.error) as error:
                if not every:
                    raise
                gdb.write(f"{error}\n")
            if every:
                gdb.write("\n")
        if every:
            _warn(image)


class _Frame(gdb.Command):
    """A frame of a greenlet: greenlet frame ID [N [COMMAND]]

Without N: the first frame that is not the library's. Without COMMAND: the
frame, its arguments and its locals. COMMAND is any that only looks."""

    def __init__(self):
        super().__init__("greenlet frame", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        _tell(lambda: self.run(_words(argument, 2)))

    @staticmethod
    def run(arguments):
        if not arguments:
            raise Problem("greenlet frame ID [N [COMMAND]]")
        if len(arguments) > 1 and not arguments[1].isdigit():
            raise Problem(f"{arguments[1]!r} is no frame's number")
        if len(arguments) > 2:
            _refuse_running(arguments[2])
        image = _image()
        g = image.find(arguments[0])
        with _showing(image, g):
            level = int(arguments[1]) if len(arguments) > 1 else _first()
            _frame(level).select()
            if len(arguments) > 2:
                gdb.execute(arguments[2])
                return
            gdb.write(_title(g) + "\n")
            gdb.execute("frame")
            gdb.execute("info args")
            gdb.write(without_doubles(gdb.execute("info locals",
                                                  to_string=True)))


def without_doubles(text):
    """An inlined function's locals come twice: once without a value."""
    lines = text.splitlines(keepends=True)
    lost = " = <optimized out>\n"
    known = {line.split(" = ")[0] for line in lines if not line.endswith(lost)}
    return "".join(line for line in lines if not (
        line.endswith(lost) and line.removesuffix(lost) in known))


def _library_folders():
    """Where its sources were, if there is debug information of it."""
    symbol = gdb.lookup_global_symbol("greenlet_switch")
    if not symbol or not symbol.symtab:
        return ()
    root = os.path.dirname(os.path.dirname(symbol.symtab.fullname()))
    return tuple(os.path.join(root, folder, "")
                 for folder in ("src", "backends", "arch"))


def _is_library(frame, folders):
    """By its file: a build without optimisation has frames of any static
    function. Without debug information by its name, of those that there are
    then."""
    name = frame.name() or ""
    symtab = frame.find_sal().symtab
    if name.startswith(("greenlet_", "swapcontext")):
        return True
    if symtab and folders:
        return symtab.fullname().startswith(folders)
    return name.startswith(("switch_slow", "mark"))


def _first():
    frame, level = gdb.newest_frame(), 0
    folders = _library_folders()
    while frame and _is_library(frame, folders):
        if frame.older() is None:
            return 0
        frame, level = frame.older(), level + 1
    return level


class _Gcore(gdb.Command):
    """A core of the process: greenlet gcore FILE

As gdb's own gcore, but with the memory that that one loses: it gives up a
whole mapping when one page of it cannot be read, and guards of stacks are
such pages."""

    def __init__(self):
        super().__init__("greenlet gcore", gdb.COMMAND_DATA,
                         gdb.COMPLETE_FILENAME)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("greenlet gcore FILE")
        _tell(lambda: self.run(gdb.string_to_argv(argument)[0]))

    @staticmethod
    def run(path):
        text = gdb.execute(f"gcore {path}", to_string=True)
        # It names the mapping's start, whatever it had read of it before.
        lost = {int(at, 16) for at in re.findall(
            r"Memory read failed for corefile section,\s+\d+ bytes at\s+"
            r"(0x[0-9a-f]+)", text)}
        core, memory = greenlet_core.Core(path), _Memory()
        pages = 0
        with open(path, "r+b") as file:
            for load in core.loads:
                if load.address not in lost:
                    continue
                for at in range(load.address, load.address + load.in_file,
                                greenlet_core.PAGE):
                    try:
                        data = memory.read(at, greenlet_core.PAGE)
                        file.seek(core.file_offset(at, greenlet_core.PAGE))
                    except Unreadable:
                        continue
                    file.write(data)
                    pages += 1
        gdb.write(f"Saved corefile {path}"
                  + (f" ({pages} pages that gcore had lost)" if pages else "")
                  + "\n")


_Prefix()
_List()
_Backtrace()
_Frame()
_Gcore()
