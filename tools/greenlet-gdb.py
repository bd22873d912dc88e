# SPDX-License-Identifier: MIT
"""Greenlets in gdb: in a live process and in a core.

    greenlet list                    all greenlets of the process
    greenlet bt ID|all [OPTION...]   backtrace; OPTIONs are those of `bt`
    greenlet frame ID [N [COMMAND]]  frame N (default: the first above the
                                     library's own), its arguments and locals,
                                     or what COMMAND says with it selected
    greenlet gcore FILE              a core with all its memory

ID is the list's number, an address (0x...) or a name, in quotes if it has
blanks. gdb loads this file by itself when it is installed where gdb looks;
else: source greenlet-gdb.py
"""

import os
import sys


def _load():
    """From beside this file, or from the installed share/libgreenlet. gdb may
    load this file again, and runs it in __main__: little is left there."""
    here = os.path.dirname(os.path.realpath(__file__))
    share = here.split("/gdb/auto-load/")[0]
    for folder in (os.path.join(here, "lib"), here,
                   os.path.join(share, "libgreenlet")):
        if os.path.exists(os.path.join(folder, "greenlet_commands.py")):
            written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
            sys.path.insert(0, folder)
            try:
                import greenlet_commands  # noqa: F401
            finally:
                sys.path.remove(folder)
                sys.dont_write_bytecode = written
            return
    raise ImportError("greenlet_commands.py is not where it was installed")


_load()
del _load
