"""Locks on files, which end with the process that holds them, on every system."""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    import msvcrt
    import time

    def lock_file(file: IO[Any], *, shared: bool = False, wait: bool = False) -> None:
        """Locks an open file; without shared locks, which this system does not have.

        Raises:
            BlockingIOError: another process holds it.
            OSError: a shared lock was asked for.
        """
        if shared:
            raise OSError(0, "this system has no locks that several processes share")
        file.seek(0)
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError(*error.args) from error
                time.sleep(0.1)  # the system's own waiting gives up after ten seconds
else:

    def lock_file(file: IO[Any], *, shared: bool = False, wait: bool = False) -> None:
        """Locks an open file until it is closed.

        Args:
            file: any mode.
            shared: several processes may hold it at once.
            wait: until it is free.

        Raises:
            BlockingIOError: another process holds it.
            OSError: the file system has no locks.
        """
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
