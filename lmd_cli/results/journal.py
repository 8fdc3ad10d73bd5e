"""Finished samples of a command, one line of JSON each, so that no finished work is lost.

A command that was killed goes on from the last whole line; its results are made from the lines, so
they are the same bytes as those of a command that was not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmd_cli.results.record import require_own
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.runtime.files import append_synced, disk_errors, open_plain, read_own

NAME = "finished.jsonl"


class Ledger:
    """The lines of one folder.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path):
        self._folder = RunFolder(folder)
        self.path = folder / NAME

    @contextmanager
    def claimed(self, record: Mapping[str, Any], overwrite: bool) -> Iterator[list[dict[str, Any]]]:
        """Keeps others out, and gives what is finished.

        Args:
            record: what identifies the run, see :data:`~.record.IDENTITY`.
            overwrite: forget what is there.

        Raises:
            ResultsError: the folder holds another run's results, or another process writes there.
            RunError: the disk is full.
        """
        with self._folder.locked():
            if overwrite:
                self._forget()
            results = self.path if self.path.exists() else None
            require_own(self._folder.read_record(), record, self.path.parent, results)
            self._folder.write_record({"status": "unfinished", **record})
            yield self._whole_lines()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Writes a finished sample's line and waits until it is on the disk."""
        append_synced(self.path, json.dumps(entry).encode() + b"\n")

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes ``run.json`` once all else is written."""
        self._folder.write_record({"status": "finished", **record})

    def _forget(self) -> None:
        with disk_errors(self.path):
            self.path.unlink(missing_ok=True)  # before run.json, which says whose the lines are
            (self.path.parent / "run.json").unlink(missing_ok=True)

    def _whole_lines(self) -> list[dict[str, Any]]:
        """The entries up to the first line that is torn; what follows is cut off."""
        if not self.path.exists():
            return []
        entries, end = [], 0
        for line in read_own(self.path).splitlines(keepends=True):
            entry = _entry(line)
            if entry is None:
                break
            entries.append(entry)
            end += len(line)
        with disk_errors(self.path), open(self.path, "rb+", opener=open_plain) as file:
            file.truncate(end)
        return entries


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
