"""A log of finished work: lines that are appended one after another, and resumed behind the last.

Only whole lines count. What a process that was killed left behind them is cut off, in one step,
before more is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lmd_cli.errors import ResultsError
from lmd_cli.runtime.files import append_synced, disk_errors, own


class Journal:
    """One file of lines, each ended by ``\\n``.

    Args:
        path: of the file.
        header: its first line, which is none of the entries; nothing if it has none.
    """

    def __init__(self, path: Path, header: bytes = b""):
        self.path, self._header = path, header

    def begin(self, *, strict: bool = True) -> None:
        """Gives the file its header if it has none, or a torn one.

        Raises:
            ResultsError: it has another header (if ``strict``, else it is emptied).
        """
        with disk_errors(self.path), open(self.path, "ab+", opener=own) as file:
            file.seek(0)
            header = file.readline() if self._header else b""
            if header == self._header:
                return
            if strict and not self._header.startswith(header):
                raise ResultsError(
                    f"{self.path} has other columns than this version writes: "
                    f"{header.decode(errors='replace').strip()}; use another --output, or "
                    "--overwrite to start again"
                )
            file.truncate(0)
            file.write(self._header)

    def lines(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The whole lines behind the header, from ``first`` to ``last``; none without a file."""
        if not self.path.exists():
            return
        with open(self.path, "rb", opener=own) as file:
            skipped = 1 if self._header else 0
            for line in islice(file, skipped + first, None if last is None else skipped + last):
                if not line.endswith(b"\n"):
                    return
                yield line

    def read(self, first: int, last: int) -> bytes:
        """:meth:`lines` as they are."""
        return b"".join(self.lines(first, last))

    def append(self, lines: bytes, *, wait: bool = True) -> None:
        """Writes lines, and by default waits until they are on the disk."""
        if wait:
            append_synced(self.path, lines)
            return
        with disk_errors(self.path), open(self.path, "ab", opener=own) as file:
            file.write(lines)

    def keep(self, count: int | None = None) -> None:
        """Cuts the file to its header and ``count`` whole lines (``None``: all that are whole)."""
        with disk_errors(self.path), open(self.path, "ab+", opener=own) as file:
            file.seek(0)
            end = len(file.readline()) if self._header else 0
            for number, line in enumerate(file):
                if number == count or not line.endswith(b"\n"):
                    break
                end += len(line)
            file.truncate(end)
