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
from lmd_cli.runtime.files import disk_errors, remove_output

NAME = "finished.jsonl"


class FinishedSamples:
    """The finished samples in one folder.

    Args:
        folder: made if it is not there.

    Attributes:
        path: of the lines.
        computed: whether any sample was finished now.
    """

    def __init__(self, folder: Path):
        self._folder = RunFolder(folder)
        self._journal = Journal(folder / NAME)
        self.path = self._journal.path
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
        with self._folder.locked():
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

    def append(self, entry: Mapping[str, Any]) -> None:
        """Writes a finished sample's line and waits until it is on the disk."""
        self._journal.append(json.dumps(entry).encode() + b"\n")
        self.computed = True

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
