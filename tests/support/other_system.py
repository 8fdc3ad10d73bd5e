"""As on macOS and Windows: what only Linux has is not there. Imported by a process as it starts."""

from __future__ import annotations

import asyncio
import builtins
import io
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import types
from typing import Any

#: Modules that Windows lacks; attributes of ``os`` and ``signal`` by the systems without them.
MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
OF_LINUX = ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "memfd_create")
OF_POSIX = ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "mkfifo", "killpg", "setsid", "statvfs")
SIGNALS = ("SIGALRM", "setitimer", "alarm", "SIGPROF", "SIGKILL", "SIGHUP", "SIGUSR1", "SIGPIPE")
LOADED = (asyncio, multiprocessing.connection, subprocess)  # they take modules for the system


def hide(system: str) -> None:
    """Takes away what ``macos`` or ``windows`` lacks."""
    for name in (*OF_LINUX, *(OF_POSIX if system == "windows" else ())):
        delattr(os, name)
    if system == "windows":
        for name in SIGNALS:
            delattr(signal, name)
        sys.modules.update(dict.fromkeys(MODULES))
        locks = types.ModuleType("msvcrt")
        vars(locks).update(LK_NBLCK=2, locking=lambda descriptor, mode, count: None)
        sys.modules["msvcrt"] = locks
    plain = builtins.open

    def opened(file: Any, *arguments: Any, **more: Any) -> Any:
        if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(("/proc", "/dev/sh")):
            raise FileNotFoundError(2, "No such file or directory", file)
        return plain(file, *arguments, **more)

    builtins.open = io.open = opened


if system := os.environ.get("LMD_TEST_SYSTEM"):
    hide(system)
