"""The finished samples of ``lmd score``, ``sanity`` and ``detect``, one line of JSON each.

A command that was killed goes on from the last whole line; its results are made from the lines, so
they are the same bytes as those of a command that was not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmd_cli.data.content import file_hashes
from lmd_cli.errors import ResultsError
from lmd_cli.results.journal import Journal
from lmd_cli.results.provenance import (
    DATA,
    INVOCATIONS,
    claim_data,
    hashes_of,
    note_end,
    note_start,
    require_unedited,
)
from lmd_cli.results.record import json_sha256, no_resume, require_own
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
        path: of the lines.
        computed: whether any sample was finished now.
        job: under which other ranks may join, once the folder is :meth:`claimed`.
    """

    def __init__(self, folder: Path):
        self._folder = RunFolder(folder)
        self._journal = Journal(folder / NAME)
        self.path = self._journal.path
        self.job = ""
        self.computed = False

    @contextmanager
    def claimed(
        self,
        record: Mapping[str, Any],
        overwrite: bool,
        dataset: Any,
        *,
        resume: bool = True,
        names_only: bool = False,
    ) -> Iterator[list[dict[str, Any]]]:
        """Keeps others out, and gives what is finished.

        Args:
            record: what identifies the run, see :data:`~.record.IDENTITY`.
            overwrite: discard what is there.
            dataset: the samples; hashes of some of their files are kept.
            resume: go on from what is there.
            names_only: of each entry keep its ``sample`` alone: :meth:`entries` gives the rest.

        Raises:
            ResultsError: the folder holds another run's results, some that were edited, or some
                that ``resume=False`` would lose; or another process writes there.
            RunError: the disk is full.
        """
        folder = self.path.parent
        with self._folder.locked() as self.job:
            if overwrite:
                self._remove()
            results = self.path if self.path.exists() else None
            if results is not None and not resume:
                raise no_resume(folder)
            before = self._folder.read_record()
            require_own(before, record, folder, results)
            require_unedited(folder, before)
            self._require_entries(before)
            claim_data(folder, file_hashes(dataset))
            self._folder.write_record({"status": "unfinished", **record})
            note_start(folder)
            began = time.monotonic()
            yield self._whole_lines(names_only)
            note_end(folder, "finished", time.monotonic() - began)

    def _require_entries(self, record: Mapping[str, Any] | None) -> None:
        """Refuses finished samples that somebody changed."""
        recorded = (record or {}).get("entries")
        if recorded and recorded["sha256"] != self.entries_sha256(recorded["count"]):
            raise ResultsError(
                f"{self.path} changed after the run ended (by the hash in run.json). Put the file "
                "back, or compute again with --overwrite"
            )

    def entries_sha256(self, count: int) -> str:
        """Hash of the first finished samples, without the seconds that they took."""
        digest = hashlib.sha256()
        for entry in self.entries(count):
            digest.update(json_sha256(without_times(entry)).encode())
        return digest.hexdigest()

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
        self.computed = True

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

    def finish(self, record: Mapping[str, Any], count: int, files: Sequence[str]) -> None:
        """Writes ``run.json`` once all else is written.

        Args:
            record: what is to be said of the run.
            count: the finished samples that results were made from.
            files: names of the results that are the same whenever the same is computed.
        """
        entries = {"count": count, "sha256": self.entries_sha256(count)}
        hashes = hashes_of(self.path.parent, files)
        whole = {"status": "finished", **record, "entries": entries, "files": hashes}
        self._folder.write_record(whole)

    def _remove(self) -> None:
        with disk_errors(self.path):
            for _, journal in self.stretches():
                remove_output(journal.path)
            # The lines before run.json, which says whose they are.
            for name in (NAME, DATA, INVOCATIONS, "run.json"):
                remove_output(self.path.parent / name)

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


def without_times(value: Any) -> Any:
    """An entry without what differs whenever it is computed again."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("seconds", "plain_seconds")}
        return {key: without_times(inner) for key, inner in kept.items()}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def _entry(line: bytes) -> dict[str, Any]:
    """A sample's entry; empty if the line holds none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}
