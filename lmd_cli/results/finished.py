"""The finished samples of ``lmd score``, ``sanity`` and ``detect``, one line of JSON each.

A command that was killed goes on from the last whole line; its results are made from the lines, so
they are the same bytes as those of a command that was not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmd_cli.results.journal import Journal
from lmd_cli.results.record import require_own
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.runtime.files import disk_errors

NAME = "finished.jsonl"


class FinishedSamples:
    """The finished samples in one folder.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path):
        self._folder = RunFolder(folder)
        self._journal = Journal(folder / NAME)
        self.path = self._journal.path

    @contextmanager
    def claimed(
        self, record: Mapping[str, Any], overwrite: bool, *, names_only: bool = False
    ) -> Iterator[list[dict[str, Any]]]:
        """Keeps others out, and gives what is finished.

        Args:
            record: what identifies the run, see :data:`~.record.IDENTITY`.
            overwrite: discard what is there.
            names_only: of each entry keep its ``sample`` alone: :meth:`entries` gives the rest.

        Raises:
            ResultsError: the folder holds another run's results, or another process writes there.
            RunError: the disk is full.
        """
        with self._folder.locked():
            if overwrite:
                self._remove()
            results = self.path if self.path.exists() else None
            require_own(self._folder.read_record(), record, self.path.parent, results)
            self._folder.write_record({"status": "unfinished", **record})
            yield self._whole_lines(names_only)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Writes a finished sample's line and waits until it is on the disk."""
        self._journal.append(json.dumps(entry).encode() + b"\n")

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes ``run.json`` once all else is written."""
        self._folder.write_record({"status": "finished", **record})

    def _remove(self) -> None:
        with disk_errors(self.path):
            self.path.unlink(missing_ok=True)  # before run.json, which says whose the lines are
            (self.path.parent / "run.json").unlink(missing_ok=True)

    def entries(self, count: int) -> Iterator[dict[str, Any]]:
        """The first finished samples, one at a time."""
        return map(_entry, self._journal.lines(0, count))

    def _whole_lines(self, names_only: bool) -> list[dict[str, Any]]:
        """The entries up to the first line that is torn; what follows is cut off."""
        if not self.path.exists():
            return []
        whole = takewhile(bool, map(_entry, self._journal.lines()))
        entries = [{"sample": e.get("sample")} if names_only else e for e in whole]
        self._journal.keep(len(entries))
        return entries


def _entry(line: bytes) -> dict[str, Any]:
    """A sample's entry; empty if the line holds none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}
