"""An unfinished survey on disk, which resumes with the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmd_cli.errors import ResultsError
from lmd_cli.results.journal import Journal
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.results.survey import Draft, LayerMeans, Shown
from lmd_cli.results.survey_files import DAMAGED, FORMAT, maps_npz, read_maps, shown_of
from lmd_cli.runtime.files import (
    disk_errors,
    make_folder,
    read_own,
    write_atomically,
)

#: What the folder holds, beside ``shown_<position>.npz``; the state is written last.
ROWS, STATE = "rows.jsonl", "state.json"


class DraftFolder:
    """Keeps a :class:`~.survey.Draft`, see :class:`~.survey.Keeper`.

    After each sample its rows are appended, the maps of samples that are to be shown are written
    and the others removed, and then the state says how many samples count.

    Args:
        folder: made if it is not there.
        identity: what the survey is of; what is kept of another is thrown away.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.folder = folder
        self._rows = Journal(folder / ROWS)
        self._identity = json.loads(json.dumps({"format": FORMAT, **identity}))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out, and removes the folder when the block ends without an error.

        Raises:
            ResultsError: another process is making this survey.
            RunError: the folder cannot be written.
        """
        for folder in (self.folder.parent, self.folder):
            with disk_errors(folder):
                make_folder(folder)
        with RunFolder(self.folder).locked():
            yield
            shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self) -> None:
        """Drops what is kept."""
        with disk_errors(self.folder):
            (self.folder / STATE).unlink(missing_ok=True)

    def read(self, viewer: int) -> Draft:
        """The draft that is kept; an empty one if there is none of this identity."""
        state = self._state()
        if state is None:
            self._rows.keep(0)
            return Draft(viewer)
        try:
            return self._draft(viewer, state)
        except DAMAGED as error:
            raise ResultsError(
                f"{self.folder} is damaged ({error}); remove it to survey anew"
            ) from None

    def _draft(self, viewer: int, state: Mapping[str, Any]) -> Draft:
        lines = self._counted_rows(state["done"])
        draft = Draft(viewer, state["parts"], layers=LayerMeans(state["layers"]))
        for line in lines:
            index, sample, objects, pairs = json.loads(line)
            draft.indices.append(index)
            draft.samples.append(tuple(sample))
            draft.objects.append([tuple(row) for row in objects])
            draft.pairs.append([tuple(row) for row in pairs])
        for position in draft.wanted():
            named = (draft.indices[position], *draft.samples[position][:4])
            draft.shown[position] = self._read_shown(position, named)
        return draft

    def write(self, draft: Draft) -> None:
        """Keeps what the last sample has added."""
        position = len(draft.samples) - 1
        if position in draft.shown:
            write_atomically(self._shown_path(position), maps_npz([draft.shown[position]]))
        row = [draft.indices[-1], draft.samples[-1], draft.objects[-1], draft.pairs[-1]]
        line = json.dumps(row, ensure_ascii=False)
        self._rows.append(line.encode() + b"\n")
        state = {
            "identity": self._identity,
            "done": len(draft.samples),
            "parts": draft.parts,
            "layers": draft.layers.state(),
        }
        write_atomically(self.folder / STATE, json.dumps(state, ensure_ascii=False).encode())
        needed = set(map(self._shown_path, draft.shown))
        for path in set(self.folder.glob("shown_*.npz")) - needed:
            path.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any] | None:
        try:
            state = json.loads(read_own(self.folder / STATE))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        same = isinstance(state, dict) and state.get("identity") == self._identity
        return state if same else None

    def _counted_rows(self, count: int) -> list[bytes]:
        """The rows that the state counts; others are cut off.

        Raises:
            ResultsError: there are fewer.
        """
        lines = list(self._rows.lines(last=count))
        if len(lines) < count:
            raise ResultsError(
                f"{self._rows.path} has {len(lines)} of the {count} rows that {STATE} counts; "
                f"remove {self.folder} to survey anew"
            )
        self._rows.keep(count)
        return lines

    def _shown_path(self, position: int) -> Path:
        return self.folder / f"shown_{position}.npz"

    def _read_shown(self, position: int, named: tuple[Any, ...]) -> Shown:
        path = self._shown_path(position)
        try:
            return shown_of(read_maps(path), 0, named)
        except DAMAGED as error:
            raise ResultsError(
                f"{path} cannot be read ({error}); remove {self.folder} to survey anew"
            ) from None
