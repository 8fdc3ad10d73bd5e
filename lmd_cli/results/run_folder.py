"""A run's folder on disk: its record, its rows, and who may write to it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lmd_cli.errors import ResultsError, RunError
from lmd_cli.results.pair_rows import (
    PAIR_FIELDS,
    SAMPLE_FIELDS,
    Stretch,
    remove_stretches,
    stretches,
)
from lmd_cli.results.recorded import parse_record
from lmd_cli.runtime.files import (
    csv_lines,
    disk_errors,
    format_value,
    open_plain,
    read_own,
    remove_output,
    write_atomically,
)
from lmd_cli.runtime.locks import lock_file

__all__ = [
    "FILES",
    "PAIR_FIELDS",
    "SAMPLE_FIELDS",
    "RunFolder",
    "csv_lines",
    "disk_errors",
    "format_value",
    "write_atomically",
]

FILES = (
    "pairs.csv",
    "samples.csv",
    "timings.csv",
    "metrics.csv",
    "table.csv",
    "notes.txt",
    "run.json",
)
#: Held by this process. A forked reader would keep them when its parent has been killed.
_locks: set[IO[bytes]] = set()


def _close_in_fork() -> None:
    for lock in _locks:
        lock.close()
    _locks.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_in_fork)


class RunFolder:
    """Where a run's results go.

    Two lock files keep others out: ``.lock`` is the run's own, and ``.ranks`` is shared by the
    other processes that work for it. Both locks go with the process, however it ends.

    Args:
        path: the folder, made if it is not there.
    """

    def __init__(self, path: Path):
        self.path = path
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)

    def file(self, name: str) -> Path:
        """Path of one of :data:`FILES`."""
        return self.path / name

    # -- locks ----------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[str]:
        """Keeps other runs out. Gives the name under which other ranks may join.

        Raises:
            ResultsError: another process is writing here.
            RunError: the file system has no locks.
        """
        with self._lock(".lock") as lock:
            # Ranks of an earlier start, whose rank 0 is dead, may still be at work.
            with self._lock(".ranks"):
                pass
            job = uuid.uuid4().hex
            with disk_errors(self.path):
                lock.truncate(0)
                lock.write(job.encode())
                lock.flush()
            yield job

    @contextmanager
    def joined(self, job: str) -> Iterator[None]:
        """Works beside the process that has :meth:`locked` the folder.

        Raises:
            ResultsError: the folder is not that process's.
        """
        with self._lock(".ranks", shared=True):
            if read_own(self.file(".lock")) != job.encode():
                raise ResultsError(
                    f"{self.path} is not the folder that rank 0 writes to; --output must be on a "
                    "file system that all ranks share"
                )
            yield

    def others_at_work(self) -> bool:
        """Whether any process has :meth:`joined`."""
        try:
            with self._lock(".ranks"):
                return False
        except ResultsError:
            return True

    @contextmanager
    def _lock(self, name: str, shared: bool = False) -> Iterator[IO[bytes]]:
        with disk_errors(self.path):
            lock = open(self.path / name, "ab+", opener=open_plain)  # noqa: SIM115 - only this may fail
        with lock:
            try:
                lock_file(lock, shared=shared)
            except BlockingIOError:
                raise ResultsError(
                    f"another run is writing to {self.path}; wait for it, or use --output"
                ) from None
            except OSError as error:
                raise RunError(
                    f"{self.path} cannot be locked ({error.strerror}), so two runs could damage "
                    "each other's results; use --output on a file system with locks"
                ) from None
            _locks.add(lock)
            try:
                yield lock
            finally:
                _locks.discard(lock)

    # -- the record -----------------------------------------------------------------------

    def read_record(self) -> dict[str, Any] | None:
        """``run.json``, or ``None`` if there is none.

        Raises:
            ResultsError: it cannot be read as JSON.
        """
        return read_record(self.path)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes ``run.json`` in one step."""
        text = json.dumps(record, indent=2, sort_keys=False, ensure_ascii=False) + "\n"
        write_atomically(self.file("run.json"), text.encode())

    # -- rows -----------------------------------------------------------------------------

    def rows(self) -> Stretch:
        """The run's own rows, from the first position on."""
        return Stretch(self.path)

    def finished_samples(self) -> list[dict[str, str]]:
        """Rows of ``samples.csv`` up to the first that is torn or out of order."""
        return self.rows().finished()

    def clear(self) -> None:
        """Removes a run's files, and nothing else.

        Rows go before ``run.json``, and samples before pairs: cut off in between, what is left
        still says whose it is, and counts nothing that is gone.
        """
        remove_stretches(self.path)
        self.rows().remove()
        for name in FILES:
            with disk_errors(self.file(name)):
                remove_output(self.file(name))

    def has_results(self) -> bool:
        """Whether any run's files are here."""
        return any(self.file(name).exists() for name in FILES) or bool(stretches(self.path))


def read_record(folder: Path) -> dict[str, Any] | None:
    """A folder's ``run.json``, or ``None`` if there is none.

    Raises:
        ResultsError: it cannot be read as JSON, or an entry is none that any version wrote.
        ForeignFileError: it is a link, a pipe or a device.
    """
    path = folder / "run.json"
    try:
        text = read_own(path)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise ResultsError(f"{path} is not valid JSON; use another --output") from None
    return parse_record(record, path)
