#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The inline switch, compiled in many ways and run, in TAP: inline_torture.c
with each compiler there is, as C and C++, at each optimisation level, PIE and
not, with and without frame pointers, link-time optimisation, more vector
registers, branch protection, in a shared library; then that programs refuse
to link, load or compile with another library than they were made for; then
that the torture notices a switch that is broken on purpose.

    inline.py [options] BUILD SOURCE BACKEND=ARCHIVE...

    --shared=BACKEND=LIBRARY  the shared library
    --compiler=CC,CXX         only this pair (else: gcc and clang)
    --run=COMMAND             what runs the programs: an emulator

GREENLET_TEST_QUICK=1 leaves out most combinations.
"""

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

QUICK = bool(os.environ.get("GREENLET_TEST_QUICK"))
WARN = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi"]


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def run(command, **more):
    return subprocess.run([str(word) for word in command], text=True,
                          errors="replace", capture_output=True, timeout=300,
                          **more)


def must(command, **more):
    done = run(command, **more)
    if done.returncode:
        raise Failed(f"{shlex.join(map(str, command))}: {done.returncode}\n"
                     + done.stdout + done.stderr)
    return done


class Torture:
    def __init__(self, options, folder):
        self.options = options
        self.folder = Path(folder)
        self.build = Path(options.build)
        self.source = Path(options.source)
        self.archives = dict(pair.split("=", 1) for pair in options.archives)
        self.run = shlex.split(options.run)
        pairs = ([tuple(options.compiler.split(","))] if options.compiler
                 else [("gcc", "g++"), ("clang", "clang++")])
        self.compilers = [pair for pair in pairs if shutil.which(pair[0])]
        self.machine = must([self.compilers[0][0], "-dumpmachine"]).stdout
        self.cpu = self.machine.split("-")[0]

    # ---- Compiling -------------------------------------------------------

    def abi(self, backend):
        return self.build / f"greenlet_inline_abi_{backend}.h"

    def compile(self, compiler, flags, backend, out, headers=None,
                defines=()):
        """The torture's objects; `headers`: a folder before the sources'."""
        cplusplus = "++" in compiler
        include = [] if headers is None else [f"-I{headers}"]
        common = [*include, f"-I{self.source / 'src'}",
                  f"-I{self.source / 'tests'}", *defines]
        objects = [out.with_suffix(".o"), out.with_suffix(".S.o")]
        flags = [f for f in flags if f not in ("-pie", "-no-pie")]
        must([compiler, *WARN, *flags, *common,
              "-include", self.abi(backend), "-x",
              "c++" if cplusplus else "c",
              "-c", self.source / "tests" / "inline_torture.c",
              "-o", objects[0]])
        registers = f"registers_{self.cpu}.S"
        must([compiler, *[f for f in flags if f != "-flto"], "-c",
              self.source / "tests" / registers, "-o", objects[1]])
        return objects

    def link(self, compiler, flags, objects, libraries, out):
        return run([compiler, *flags, *objects, "-o", out, *libraries,
                    "-pthread"])

    def execute(self, program, **more):
        return must([*self.run, program], **more)

    def torture(self, compiler, flags, backend):
        out = self.folder / "torture"
        objects = self.compile(compiler, flags, backend, out)
        done = self.link(compiler, flags, objects, [self.archives[backend]],
                         out)
        if done.returncode:
            raise Failed(done.stderr)
        self.execute(out)

    # ---- The combinations ------------------------------------------------

    def available(self, compiler, flag):
        return run([compiler, "-Werror", flag, "-x", "c", "-c", os.devnull,
                    "-o", self.folder / "probe.o"]).returncode == 0

    def runs(self, name):
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        except OSError:
            return False
        return not self.run and re.search(rf"\b{name}\b", text)

    def combinations(self):
        """(compiler, flags), the usual ones first."""
        levels = ["-O0", "-O1", "-O2", "-O3", "-Os"]
        places = [["-fPIE", "-pie"], ["-fno-pie", "-no-pie"]]
        frames = ["-fomit-frame-pointer", "-fno-omit-frame-pointer"]
        for cc, cxx in self.compilers:
            if QUICK:
                yield cc, ["-O0"]
                yield cc, ["-O2", "-fno-pie", "-no-pie"]
                yield cxx, ["-O2"]
            else:
                for level, place, frame in itertools.product(levels, places,
                                                             frames):
                    yield cc, [level, *place, frame]
                for level, place in itertools.product(levels, places):
                    yield cxx, [level, *place]
            lto = [] if cc.startswith("clang") and not shutil.which(
                "ld.lld") and not self.plugin() else ["-flto"]
            for level in ["-O2"] if QUICK else ["-O1", "-O2", "-O3"]:
                if lto:
                    yield cc, [level, *lto]
            extra = [["-g3"], ["-fstack-protector-all"],
                     ["-fstack-clash-protection"], ["-funroll-all-loops"],
                     ["-fno-asynchronous-unwind-tables", "-fexceptions"]]
            if self.cpu == "x86_64":
                extra += [["-fcf-protection=full"], ["-mno-red-zone"],
                          ["-mstackrealign"]]
                extra += [[f"-m{isa}"] for isa in ("avx", "avx2", "avx512f")
                          if self.runs(isa)]
            if self.cpu == "aarch64":
                extra += [["-mbranch-protection=standard"]]
            for flags in extra[:2] if QUICK else extra:
                if all(self.available(cc, flag) for flag in flags):
                    yield cc, ["-O2", *flags]

    def plugin(self):
        """Can clang's objects of -flto be linked?"""
        probe = self.folder / "lto.c"
        probe.write_text("int main(void) { return 0; }\n")
        return run(["clang", "-flto", probe, "-o",
                    self.folder / "lto"]).returncode == 0

    # ---- Other ways to be linked -----------------------------------------

    def shared(self, compiler):
        """The program against the shared library."""
        backend, library = self.options.shared.split("=", 1)
        out = self.folder / "torture-shared"
        for flags in (["-O2"], ["-O2", "-fno-pie", "-no-pie"]):
            objects = self.compile(compiler, flags, backend, out)
            done = self.link(compiler, flags, objects, [library], out)
            if done.returncode:
                raise Failed(done.stderr)
            self.execute(out, env=dict(
                os.environ, LD_LIBRARY_PATH=str(Path(library).parent)))

    def in_a_library(self, compiler):
        """The user is a shared library that another program loads."""
        backend, library = self.options.shared.split("=", 1)
        user, out = self.folder / "libuser.so", self.folder / "loads"
        flags = ["-O2", "-fPIC"]
        objects = self.compile(compiler, flags, backend, user,
                               defines=["-DTORTURE_IN_A_LIBRARY"])
        done = self.link(compiler, [*flags, "-shared", "-Wl,-z,defs"],
                         objects, [library], user)
        if done.returncode:
            raise Failed(done.stderr)
        (self.folder / "loads.c").write_text(
            '#include <dlfcn.h>\n#include <stdio.h>\n'
            'int main(int n, char **a) {\n'
            '    void *l = dlopen(a[n - 1], RTLD_NOW);\n'
            '    if (!l) { fprintf(stderr, "%s\\n", dlerror()); return 1; }\n'
            '    int (*f)(void);\n'
            '    *(void **)&f = dlsym(l, "torture");\n'
            '    return f ? f() : 1;\n}\n')
        must([compiler, "-x", "c", self.folder / "loads.c", "-x", "none",
              "-o", out, "-ldl"])
        must([*self.run, out, user], env=dict(
            os.environ, LD_LIBRARY_PATH=str(Path(library).parent)))

    # ---- Refusals --------------------------------------------------------

    def refused_by_linker(self, compiler, backend, archive):
        out = self.folder / "refused"
        objects = self.compile(compiler, ["-O2"], backend, out)
        done = self.link(compiler, [], objects, [archive], out)
        wanted = re.compile(
            rf"undefined .*greenlet_inline_self_\w+_{backend}_\d+", re.S)
        if done.returncode == 0:
            raise Failed("it links")
        if not wanted.search(done.stderr):
            raise Failed(done.stderr)

    def other_backend(self, compiler):
        for mine, theirs in itertools.permutations(self.archives, 2):
            self.refused_by_linker(compiler, mine, self.archives[theirs])
        if len(self.archives) < 2:
            raise Skipped("only one backend in this build")

    def edited_abi(self, backend, edit):
        """A folder with the header of a library that is not there."""
        folder = self.folder / "edited"
        folder.mkdir(exist_ok=True)
        text = self.abi(backend).read_text()
        (folder / self.abi(backend).name).write_text(edit(text))
        return folder

    def other_version(self, compiler):
        backend = next(iter(self.archives))
        saved = self.build
        self.build = self.edited_abi(backend, lambda text: re.sub(
            r"(inline_self_\d+_)(\d+)", lambda m: m[1] + str(int(m[2]) + 1),
            text))
        try:
            self.refused_by_linker(compiler, backend, self.archives[backend])
        finally:
            self.build = saved

    def other_header(self, compiler):
        backend = next(iter(self.archives))
        saved = self.build
        self.build = self.edited_abi(backend, lambda text: re.sub(
            r"(ABI_VERSION) (\d+)", lambda m: f"{m[1]} {int(m[2]) + 1}",
            text))
        try:
            self.compile(compiler, ["-O2"], backend, self.folder / "refused")
        except Failed as problem:
            if "are of different versions" not in str(problem):
                raise
        else:
            raise Failed("it compiles")
        finally:
            self.build = saved

    def refused_by_loader(self, compiler):
        """Linked with one shared library, started with another."""
        backend, library = self.options.shared.split("=", 1)
        others = [b for b in self.archives if b != backend]
        if not others:
            raise Skipped("only one backend in this build")
        out = self.folder / "loaded"
        objects = self.compile(compiler, ["-O2"], backend, out)
        done = self.link(compiler, [], objects, [library], out)
        if done.returncode:
            raise Failed(done.stderr)
        fake = self.folder / "fake"
        fake.mkdir(exist_ok=True)
        must([compiler, "-shared", "-o", fake / "libgreenlet.so.0",
              "-Wl,-soname,libgreenlet.so.0", "-Wl,--version-script="
              + str(self.source / "src" / "greenlet.map"),
              "-Wl,--whole-archive", self.archives[others[0]],
              "-Wl,--no-whole-archive", "-pthread"])
        done = run([*self.run, out],
                   env=dict(os.environ, LD_LIBRARY_PATH=str(fake)))
        if done.returncode == 0:
            raise Failed("it runs")
        if "greenlet_inline_self" not in done.stderr:
            raise Failed(f"{done.returncode}: {done.stderr}")

    # ---- Where it is not inline ------------------------------------------

    def fallback(self, compiler):
        """Then it is greenlet_switch()."""
        program = self.folder / "fallback.c"
        program.write_text(
            '#include "greenlet_inline.h"\n'
            '#if GREENLET_INLINE\n#error "inline"\n#endif\n'
            'static greenlet_message twice(void *v) {\n'
            '    greenlet_message m = {(char *)v + 1, 0};\n'
            '    return m;\n}\n'
            'int main(void) {\n'
            '    char text[2] = "";\n'
            '    greenlet *g = greenlet_new(twice, NULL);\n'
            '    int bad = greenlet_switch_inline(g, text).value != text + 1;\n'
            '    greenlet_unref(g);\n    return bad;\n}\n')
        backend = next(iter(self.archives))
        folder = self.edited_abi(backend, lambda text: re.sub(
            r"(define GREENLET_INLINE_ABI) 1", r"\1 0", text))
        out = self.folder / "fallback"
        must([compiler, *WARN, "-O2", f"-I{self.source / 'src'}",
              "-include", folder / self.abi(backend).name, program, "-o", out,
              self.archives[backend], "-pthread"])
        self.execute(out)

    # ---- Broken on purpose -----------------------------------------------

    MUTATIONS = {
        "x86_64": [
            ("a red zone is not left", [("-168(%%rsp), %%rsp",
                                         "-40(%%rsp), %%rsp")]),
            ("rsp is not restored", [("movq   32(%[image]), %%rsp",
                                      "leaq   176(%[image]), %%rsp")]),
            ("rbp is not restored", [("movq   24(%[image]), %%rbp",
                                      "nop")]),
            ("rbx is not restored", [("movq   16(%[image]), %%rbx",
                                      "nop")]),
            ("rbp is not stored", [("movq   %%rbp, 24(%%rsp)", "nop")]),
            ("rbx is not stored", [("movq   %%rbx, 16(%%rsp)", "nop")]),
            ("the other code's images are taken for inline ones",
             [("jne    2f", "nop")]),
            *[(f"{reg} is not clobbered", [(f'"{reg}", ', "")])
              for reg in ("r12", "r13", "r14", "r15", "xmm1")],
        ],
        "aarch64": [
            ("x29 is not restored", [("ldp    x29, x16, [x3, #16]",
                                      "ldr    x16, [x3, #24]")]),
            ("x19 is not restored", [("ldr    x19, [x3, #32]", "nop")]),
            ("x19 is not stored", [("str    x19, [sp, #32]", "nop")]),
            ("the other code's images are taken for inline ones",
             [("b.ne   2f", "nop")]),
            *[(f"{reg} is not clobbered", [(f'"{reg}", ', "")])
              for reg in ("x18", "x20", "x24", "x27", "v8", "v9")],
        ],
    }

    def mutation(self, compiler, edits):
        text = (self.source / "src" / "greenlet_inline.h").read_text()
        text = re.sub(r'",\s+"', '", "', text)  # clobbers on one line
        for old, new in edits:
            if old not in text:
                raise Failed(f"greenlet_inline.h has no {old}")
            text = text.replace(old, new)
        folder = self.folder / "mutant"
        folder.mkdir(exist_ok=True)
        (folder / "greenlet_inline.h").write_text(text)
        backend = next(iter(self.archives))
        out = self.folder / "torture-mutant"
        for flags in (["-O2"], ["-O1", "-fno-omit-frame-pointer"], ["-O0"],
                      ["-O3"]):
            objects = self.compile(compiler, flags, backend, out, folder)
            if self.link(compiler, [], objects, [self.archives[backend]],
                         out).returncode:
                raise Failed("it does not link")
            if run([*self.run, out]).returncode:
                return
        raise Failed("the torture does not notice")

    # ---- All of it -------------------------------------------------------

    def cases(self):
        backends = list(self.archives)
        for number, (compiler, flags) in enumerate(self.combinations()):
            # All backends see each kind of flags, not each combination.
            for backend in (backends if "-O2" in flags
                            else [backends[number % len(backends)]]):
                yield (f"torture {backend}: {compiler} {' '.join(flags)}",
                       lambda c=compiler, f=flags, b=backend:
                       self.torture(c, f, b))
        for cc, _ in self.compilers:
            if self.options.shared:
                yield (f"torture, shared library: {cc}",
                       lambda c=cc: self.shared(c))
                yield (f"torture within a shared library: {cc}",
                       lambda c=cc: self.in_a_library(c))
                yield (f"another backend's library is refused at load: {cc}",
                       lambda c=cc: self.refused_by_loader(c))
            yield (f"not inline where the build has none: {cc}",
                   lambda c=cc: self.fallback(c))
            yield (f"another backend's library does not link: {cc}",
                   lambda c=cc: self.other_backend(c))
            yield (f"another version's library does not link: {cc}",
                   lambda c=cc: self.other_version(c))
            yield (f"another version's header does not compile: {cc}",
                   lambda c=cc: self.other_header(c))
        cc = self.compilers[0][0]
        for name, edits in self.MUTATIONS.get(self.cpu, [])[
                :3 if QUICK else None]:
            yield (f"noticed: {name}",
                   lambda e=edits: self.mutation(cc, e))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", default="")
    parser.add_argument("--compiler", default="")
    parser.add_argument("--run", default="")
    parser.add_argument("build")
    parser.add_argument("source")
    parser.add_argument("archives", nargs="+")
    options = parser.parse_args()
    failed = 0
    print("TAP version 13")
    with tempfile.TemporaryDirectory() as folder:
        number = 0
        for number, (name, case) in enumerate(
                Torture(options, folder).cases(), 1):
            try:
                case()
                print(f"ok {number} - {name}", flush=True)
            except Skipped as why:
                print(f"ok {number} - {name} # SKIP {why}", flush=True)
            except (Failed, subprocess.TimeoutExpired) as problem:
                failed += 1
                print(f"not ok {number} - {name}")
                for line in str(problem).splitlines()[:30]:
                    print(f"# {line}", flush=True)
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
