"""Bytes on disk: floats that read back exactly, files that are never torn, errors in words."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmd_cli.errors import RunError
from lmd_cli.files import own, replacing

#: A text that a spreadsheet would run as a formula; one that was made harmless.
_FORMULA, _HARMLESS = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"'+[=+\-@\t\r]")
#: A number, or a mean with its deviation, is no formula.
_NUMBER = re.compile(r"'*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?( ± [\d.eE+-]+)?\*?")


def format_value(value: Any) -> str:
    """``repr`` for floats (they read back exactly), nothing for what is undefined.

    Text that a spreadsheet would take for a formula gets an apostrophe in front, see
    :func:`read_text`.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    return repr(value) if isinstance(value, float) else str(value)


def read_text(cell: str) -> str:
    """The text that :func:`format_value` wrote."""
    return cell[1:] if _HARMLESS.match(cell) and not _NUMBER.fullmatch(cell) else cell


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
    """Replaces a file in one step: readers see the old bytes or the new, never a torn file.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    with disk_errors(path), replacing(path) as file:
        file.write(data)


def append_synced(path: Path, data: bytes) -> None:
    """Appends, and returns when the bytes are on the disk.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    with disk_errors(path), open(path, "ab", opener=own) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
