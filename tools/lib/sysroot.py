# SPDX-License-Identifier: MIT
"""Libraries of other architectures, from Debian's packages.

`tools/setup arch-NAME` installs a cross compiler and a C library. What else
the tests link with (libunwind, expat) comes from the target's own packages:
fetched by apt-get with lists of its own below build/sysroot, so that neither
the machine's list of architectures nor its packages change, and unpacked
there. Meson finds it through a cross file that is written beside it.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import common
from common import Problem, say

# As --arch names them: Debian's name, and the triplet of its folders.
DEBIAN = {
    "aarch64": ("arm64", "aarch64-linux-gnu"),
    "armhf": ("armhf", "arm-linux-gnueabihf"),
    "armel": ("armel", "arm-linux-gnueabi"),
    "x86": ("i386", "i386-linux-gnu"),
    "ppc64le": ("ppc64el", "powerpc64le-linux-gnu"),
    "s390x": ("s390x", "s390x-linux-gnu"),
}
PACKAGES = ["libunwind-dev", "libunwind8", "liblzma5",
            "libexpat1-dev", "libexpat1"]
NOT_IN_DEBIAN = {"riscv64": "Debian 12 has no packages for riscv64"}


def apt_get(folder: Path, architecture: str, *arguments: str) -> None:
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Retries": "3",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value
                                   in options.items()), *arguments]
    done = subprocess.run(command, cwd=folder / "packages", text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or ["no message"]
        raise Problem(f"apt-get {arguments[0]} for {architecture}: {lines[-1]}")


def relink(root: Path) -> None:
    """Links that mean the target's root directory stay inside."""
    for path in root.rglob("*"):
        if path.is_symlink() and os.readlink(path).startswith("/"):
            inside = root / os.readlink(path).lstrip("/")
            path.unlink()
            path.symlink_to(os.path.relpath(inside, path.parent))


def fetch(folder: Path, architecture: str) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Problem("the packages of Debian need apt-get and dpkg")
    say(f"fetching libraries for {architecture}")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / name).mkdir(parents=True)
    try:
        apt_get(folder, architecture, "update")
    except Problem as problem:
        # A source that has nothing for this architecture need not matter.
        say(str(problem))
    apt_get(folder, architecture, "download", *PACKAGES)
    root = folder / "unpacking"
    for package in sorted((folder / "packages").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    relink(root)
    shutil.rmtree(folder / "lists")
    root.rename(folder / "root")  # last: it is complete


def link_arguments(cross_file: Path, language: str) -> list[str]:
    """Those that Meson would forget for ours: the last file's count."""
    known = configparser.ConfigParser(interpolation=None)
    known.read(cross_file)
    text = known.get("built-in options", f"{language}_link_args", fallback="")
    return re.findall(r"'([^']*)'", text)


def cross_file(name: str, base: Path) -> Path:
    """A Meson cross file to be read after `base`. Raises Problem."""
    if name in NOT_IN_DEBIAN:
        raise Problem(NOT_IN_DEBIAN[name])
    architecture, triplet = DEBIAN[name]
    folder = common.ROOT / "build" / "sysroot" / architecture
    root = folder / "root"
    if not root.is_dir():
        fetch(folder, architecture)
    libraries = [root / "usr" / "lib" / triplet, root / "lib" / triplet]
    # As DT_RPATH, which also serves the libraries that libraries need.
    paths = ["-Wl,--disable-new-dtags"]
    for path in libraries:
        paths += [f"-Wl,-rpath,{path}", f"-Wl,-rpath-link,{path}"]
    lines = [
        "# Written by tools/lib/sysroot.py.",
        "[binaries]",
        "pkgconfig = 'pkg-config'",
        "[properties]",
        f"sys_root = '{root}'",
        f"pkg_config_libdir = '{libraries[0] / 'pkgconfig'}'",
        "[built-in options]",
    ]
    for language in ("c", "cpp"):
        arguments = link_arguments(base, language) + paths
        lines.append(f"{language}_link_args = {arguments!r}")
    file = folder / "cross.ini"
    file.write_text("\n".join(lines) + "\n")
    return file
