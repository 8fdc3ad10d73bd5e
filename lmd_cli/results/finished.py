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
from lmd_cli.runtime.files import disk_errors, make_folder, remove_output, require_folder

NAME, STRETCHES = "finished.jsonl", "finished"


class FinishedSamples:
    """The finished samples in one folder.

    Ranks other than the first write stretches of their own, ``finished/000120.jsonl`` for samples
    from 120 on, which :meth:`merge` appends.

    Args:
        folder: made if it is not there.

    Attributes:
        job: under which other ranks may join, once the folder is :meth:`claimed`.
    """

    def __init__(self, folder: Path):
        self._folder = RunFolder(folder)
        self._journal = Journal(folder / NAME)
        self.path = self._journal.path
        self.job = ""

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
        with self._folder.locked() as self.job:
            if overwrite:
                self._remove()
            results = self.path if self.path.exists() else None
            require_own(self._folder.read_record(), record, self.path.parent, results)
            self._folder.write_record({"status": "unfinished", **record})
            yield self._whole_lines(names_only)

    @property
    def folder(self) -> RunFolder:
        """Where the lines are, and who may write there."""
        return self._folder

    def append(self, entry: Mapping[str, Any], first: int | None = None) -> None:
        """Writes a finished sample's line and waits until it is on the disk.

        Args:
            first: of the stretch that it belongs to; the run's own lines if none.
        """
        journal = self._journal if first is None else self.stretch(first)
        journal.append(json.dumps(entry).encode() + b"\n")

    def stretch(self, first: int) -> Journal:
        """The lines of the samples from ``first`` on, which another rank writes."""
        with disk_errors(self.path.parent):
            make_folder(self.path.parent / STRETCHES)
        return Journal(self.path.parent / STRETCHES / f"{first:06d}.jsonl")

    def stretches(self) -> list[tuple[int, Journal]]:
        """Those that are there, by their first sample."""
        require_folder(self.path.parent / STRETCHES)
        paths = sorted((self.path.parent / STRETCHES).glob("*.jsonl"))
        return [(int(path.stem), Journal(path)) for path in paths if path.stem.isdecimal()]

    def merge(self) -> int:
        """Appends every stretch that follows on, and deletes it; gives the number of samples.

        Cut off anywhere, it can be done again.
        """
        done = sum(1 for _ in self._journal.lines())
        for first, journal in self.stretches():
            lines = list(takewhile(_entry, journal.lines()))
            if first <= done < first + len(lines):
                self._journal.append(b"".join(lines[done - first :]))
                done = first + len(lines)
            if first + len(lines) <= done or not lines:
                with disk_errors(journal.path):
                    remove_output(journal.path)
        folder = self.path.parent / STRETCHES
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        return done

    def missing(self, done: int, last: int) -> list[range]:
        """Samples before ``last`` of which no line is there."""
        gaps: list[range] = []
        for first, journal in self.stretches():
            gaps.append(range(done, min(first, last)))
            done = max(done, first + sum(1 for _ in takewhile(_entry, journal.lines())))
        gaps.append(range(done, last))
        return [gap for gap in gaps if gap]

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes ``run.json`` once all else is written."""
        self._folder.write_record({"status": "finished", **record})

    def _remove(self) -> None:
        with disk_errors(self.path):
            for _, journal in self.stretches():
                remove_output(journal.path)
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
