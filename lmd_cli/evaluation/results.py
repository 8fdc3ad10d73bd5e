"""A run's folder on disk: rows as they come, in canonical order, safe to cut off anywhere.

``pairs.csv`` holds the measurements, ``samples.csv`` one line for each finished sample, written
after its pairs. What follows the last finished sample is cut off when a run goes on, so a run
that was killed ends with the same bytes as one that was not. Timings live in a file of their own.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmd_cli.errors import ResultsError, RunError

PAIR_FIELDS = (
    "sample_token",
    "perturbed_token",
    "offset",
    "variant",
    "perturbed",
    "target",
    "pcc",
    "mse",
)
SAMPLE_FIELDS = (
    "position",
    "sample_token",
    "status",
    "pairs",
    "missing_partners",
    "intersection",
    "union",
    "residual",
    "replay_deviation",
)
TIMING_FIELDS = ("sample_token", "read_s", "compute_s")
FILES = (
    "pairs.csv",
    "samples.csv",
    "timings.csv",
    "metrics.csv",
    "table.csv",
    "notes.txt",
    "run.json",
)


def format_value(value: Any) -> str:
    """``repr`` for floats (they read back exactly), nothing for what is undefined."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as CSV bytes with ``\\n`` line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([format_value(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a failed write into a message.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some space and run the same command again to go on"
        else:
            why = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {why}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file in one step: readers see the old bytes or the new, never a torn file."""
    temporary = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


class RunFolder:
    """Where a run's results go.

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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out; the lock goes with the process, however it ends.

        Raises:
            ResultsError: another process is writing here.
        """
        with disk_errors(self.path), open(self.path / ".lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResultsError(
                    f"another run is writing to {self.path}; wait for it, or use --output"
                ) from None
            yield

    def read_record(self) -> dict[str, Any] | None:
        """``run.json``, or ``None`` if there is none.

        Raises:
            ResultsError: it cannot be read as JSON.
        """
        path = self.file("run.json")
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text())
        except ValueError:
            raise ResultsError(f"{path} is not valid JSON; use another --output") from None
        return record if isinstance(record, dict) else {}

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes ``run.json`` in one step."""
        text = json.dumps(record, indent=2, sort_keys=False, ensure_ascii=False) + "\n"
        write_atomically(self.file("run.json"), text.encode())

    def clear(self) -> None:
        """Removes a run's files, and nothing else."""
        for name in FILES:
            self.file(name).unlink(missing_ok=True)

    def has_results(self) -> bool:
        """Whether any run's files are here."""
        return any(self.file(name).exists() for name in FILES)

    # -- rows -----------------------------------------------------------------------------

    def start_or_resume(self) -> int:
        """Cuts off what was not finished and returns how many samples are done.

        Raises:
            ResultsError: the rows do not fit together.
        """
        done = self.finished_samples()
        keep = sum(int(row["pairs"]) for row in done)
        lines = self._cut("samples.csv", SAMPLE_FIELDS, len(done))
        pairs = self._cut("pairs.csv", PAIR_FIELDS, keep)
        if lines != len(done) or pairs != keep:
            raise ResultsError(
                f"{self.path}: pairs.csv has {pairs} of the {keep} rows that samples.csv counts; "
                "the files were changed. Use --overwrite to start again"
            )
        return len(done)

    def finished_samples(self) -> list[dict[str, str]]:
        """Rows of ``samples.csv`` up to the first that is torn or out of order."""
        path = self.file("samples.csv")
        if not path.exists():
            return []
        whole = path.read_bytes().rpartition(b"\n")[0].decode(errors="replace").splitlines()
        rows = list(csv.DictReader(whole))
        good: list[dict[str, str]] = []
        for row in rows:
            if row.get("position") != str(len(good)) or None in row.values():
                break
            good.append(row)
        return good

    def _cut(self, name: str, fields: Sequence[str], rows: int) -> int:
        """Truncates a file to its header and ``rows`` lines; returns how many there are."""
        path = self.file(name)
        with disk_errors(path), open(path, "ab+") as file:
            file.seek(0)
            header = file.readline()
            if header != csv_lines([fields]):
                file.truncate(0)
                file.write(csv_lines([fields]))
                return 0
            count = 0
            end = file.tell()
            while count < rows and file.readline().endswith(b"\n"):
                count, end = count + 1, file.tell()
            file.truncate(end)
            return count

    def append(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        """Appends rows and waits until they are on the disk."""
        path = self.file(name)
        with disk_errors(path), open(path, "ab") as file:
            file.write(csv_lines(rows))
            file.flush()
            os.fsync(file.fileno())

    def append_timing(self, row: Sequence[Any]) -> None:
        """Appends to ``timings.csv``, which no result depends on."""
        path = self.file("timings.csv")
        with disk_errors(path), open(path, "ab") as file:
            if file.tell() == 0:
                file.write(csv_lines([TIMING_FIELDS]))
            file.write(csv_lines([row]))
