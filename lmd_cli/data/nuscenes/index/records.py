"""Samples' records, made on demand from an index's arrays.

The arrays of an index:

- ``samples``: token, scene (a number), the first and number of its rows in ``annotations``, and a
  problem with one of them; ordered by (scene token, timestamp).
- ``key_frames`` (samples, channels): rows of ``frames``.
- ``frames``: one file of a sensor each, with the vehicle's pose, a row of ``calibrations``, and
  an image's size. Cameras have their key frames only, the other sensors every sweep.
- ``prev`` (frames,): the row of the sweep before.
- ``calibrations``, and ``annotations`` (vehicles only).
- ``others``: annotations of the detection task's other classes and of bicycle racks, which few
  need; ``others_of`` (samples,) as the last columns of ``samples``. Their names and problems are in
  ``meta["others"]``.

Rows are numbers from 0; -1 is none, and -2 - k one that cannot be used: entry k of ``problems``
says why, so that only those who need it stumble over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import Annotation, Rig, SampleRecord, SensorFrame
from lmd_cli.data.nuscenes.index.storage import Arrays, read_arrays
from lmd_cli.errors import DataError
from lmd_cli.runtime.printable import in_one_line

#: Raised whenever what an index holds, or how, changes.
FORMAT = 5


class SplitIndex:
    """What a split needs of the tables.

    Args:
        arrays: see this module.
        meta: ``version``; ``scenes``, pairs of name and description; ``absent``, names of scenes;
            ``categories``; ``instances``, tokens of the objects; ``problems``; ``channels``,
            modality by name in the order of ``key_frames``; ``annotated``, whether any sample has
            annotations; ``others``, ``categories``, ``instances`` and ``problems`` of these.
        path: the file that the arrays are mapped from; none if they are in memory only.
    """

    def __init__(self, arrays: Arrays, meta: dict[str, Any], path: Path | None = None) -> None:
        self.arrays, self.meta, self.path = arrays, meta, path

    @classmethod
    def load(cls, path: Path) -> SplitIndex:
        """An index's file.

        Raises:
            FileNotFoundError: there is none.
            DamagedError: it is not what was written.
        """
        return cls(*read_arrays(path), path)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process maps the file for itself."""
        if self.path is not None:
            return SplitIndex.load, (self.path,)
        return SplitIndex, (self.arrays, self.meta)

    def __len__(self) -> int:
        return len(self.arrays["samples"])

    def tokens(self) -> list[str]:
        """Sample tokens, in order."""
        return [token.decode() for token in self.arrays["samples"]["token"].tolist()]

    def of_scenes(self, column: int) -> list[str]:
        """Each sample's scene's name (column 0) or description (1)."""
        values = [scene[column] for scene in self.meta["scenes"]]
        return [values[number] for number in self.arrays["samples"]["scene"].tolist()]

    @property
    def channels(self) -> dict[str, str]:
        """Modality of each channel that the split has, by name."""
        return dict(self.meta["channels"])

    def problems(
        self, rig: Rig, radar_sweeps: int, lidar_sweeps: int, samples: Sequence[int]
    ) -> dict[str, str]:
        """What keeps some samples of a rig from being loaded, and for each the first of them."""
        if not self.meta["problems"]:
            return {}
        problems: dict[str, str] = {}
        tokens = self.arrays["samples"]["token"]
        asked = ((rig.cameras, 1), (rig.radars, radar_sweeps), (rig.lidars, lidar_sweeps))
        rows = [self.arrays["samples"]["problem"][:, None]]
        rows += [step for channels, sweeps in asked for step in self._steps(channels, sweeps)]
        chosen = np.asarray(samples, dtype=np.int64)
        every, tokens = np.concatenate(rows, axis=1)[chosen], tokens[chosen]
        for sample, column in np.argwhere(every < -1):
            text = self._text(int(every[sample, column]))
            problems.setdefault(text, tokens[sample].decode())
        return problems

    def problems_of_others(self, samples: Sequence[int]) -> dict[str, str]:
        """What keeps :meth:`others` of some samples from being used, and the first of them."""
        tokens, rows = self.tokens(), self.arrays["others_of"]["problem"].tolist()
        problems: dict[str, str] = {}
        for sample in samples:
            if rows[sample] < -1:
                problems.setdefault(self._text(rows[sample], "others"), tokens[sample])
        return problems

    def _steps(self, channels: Sequence[str], sweeps: int) -> Iterator[NDArray[np.int32]]:
        """Rows (samples, channels) of the key frames, then of the sweeps before them."""
        rows = self.arrays["key_frames"][:, [list(self.channels).index(c) for c in channels]]
        for _ in range(sweeps):
            yield rows
            rows = np.where(rows >= 0, self._before(rows), -1)

    def _before(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        prev = self.arrays["prev"]
        return prev[np.maximum(rows, 0)] if len(prev) else rows  # type: ignore[no-any-return]

    def _text(self, row: int, kind: str = "") -> str:
        """The problem that a row stands for."""
        return f"{self.meta['version']}/{self._names(kind)['problems'][-2 - row]}"

    def _names(self, kind: str) -> dict[str, Any]:
        """What numbers stand for, of vehicles and frames or of ``others``."""
        names: dict[str, Any] = self.meta[kind] if kind else self.meta
        return names

    def record(
        self, index: int, radar_sweeps: int, lidar_sweeps: int, rig: Rig | None = None
    ) -> SampleRecord:
        """A sample's record with so many sweeps, the key frame's included.

        Raises:
            DataError: one of the tables' records cannot be used.
        """
        rig, channels = rig or Rig(), self.channels
        token, scene, first, count, problem = _plain(self.arrays["samples"][index])
        sample = token.decode()
        frames = dict(zip(channels, self.arrays["key_frames"][index].tolist(), strict=True))

        def sweeps(names: Sequence[str], number: int) -> dict[str, tuple[SensorFrame, ...]]:
            return {n: self._frames(self._chain(frames[n], number), sample) for n in names}

        name, description = self.meta["scenes"][scene]
        self._require(problem, sample)
        return SampleRecord(
            token=sample,
            scene=name,
            cameras=self._frames([frames[channel] for channel in rig.cameras], sample),
            radars=sweeps(rig.radars if radar_sweeps else (), radar_sweeps),
            lidars=sweeps(rig.lidars, lidar_sweeps),
            vehicles=self._annotations(self.arrays["annotations"][first : first + count]),
            description=description,
        )

    def others(self, index: int) -> tuple[Annotation, ...]:
        """A sample's annotations that are no vehicles, in the order of the table.

        Raises:
            DataError: one of the tables' records cannot be used.
        """
        first, count, problem = _plain(self.arrays["others_of"][index])
        self._require(problem, self.arrays["samples"]["token"][index].decode(), "others")
        return self._annotations(self.arrays["others"][first : first + count], "others")

    def _require(self, row: int, sample: str, kind: str = "") -> None:
        if row < -1:
            needed = f"{self._text(row, kind)} (needed by sample {in_one_line(sample)})"
            raise DataError(needed, token=sample)

    def _chain(self, frame: int, sweeps: int) -> list[int]:
        """Rows of a frame and up to ``sweeps - 1`` before it, fewer at the start of a scene."""
        rows: list[int] = []
        while frame != -1 and len(rows) < sweeps:
            rows.append(frame)
            frame = int(self.arrays["prev"][frame]) if frame >= 0 else -1
        return rows

    def _frames(self, rows: Sequence[int], sample: str) -> tuple[SensorFrame, ...]:
        """The frames of some rows.

        Raises:
            DataError: one of them stands for a problem.
        """
        table, calibrations = self.arrays["frames"], self.arrays["calibrations"]
        frames = []
        for row in rows:
            self._require(row, sample)
            name, timestamp, place, turn, calibration, width, height = _plain(table[row])
            at, rotation, intrinsic, camera = _plain(calibrations[calibration])
            matrix = intrinsic if camera else []
            pose = (place, turn, at, rotation)
            frames.append(SensorFrame(name.decode(), timestamp, *pose, matrix, width, height))
        return tuple(frames)

    def _annotations(self, rows: NDArray[np.void], kind: str = "") -> tuple[Annotation, ...]:
        names = self._names(kind)
        made = []
        for row in rows:
            token, category, instance, *values = _plain(row)
            values.append(names["instances"][instance])
            made.append(Annotation(token.decode(), names["categories"][category], *values))
        return tuple(made)


def _plain(row: np.void) -> list[Any]:
    """A row's fields as plain values: numbers, bytes, and lists of numbers."""
    return [v.tolist() if isinstance(v, np.ndarray) else v for v in row.item()]


class Records(Sequence[SampleRecord]):
    """An index's records of a rig with a number of sweeps; each is made when it is asked for.

    Args:
        split: the index.
        rig: channels that are read.
        radar_sweeps, lidar_sweeps: of each.
        rows: numbers of the samples that are meant; all by default.
    """

    def __init__(
        self,
        split: SplitIndex,
        rig: Rig,
        radar_sweeps: int,
        lidar_sweeps: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.split, self.rig, self._sweeps = split, rig, (radar_sweeps, lidar_sweeps)
        self.rows: Sequence[int] = range(len(split)) if rows is None else rows

    def chosen(self, rows: Sequence[int]) -> Records:
        """The records of some of the split's samples."""
        return Records(self.split, self.rig, *self._sweeps, rows)

    def tokens(self) -> list[str]:
        """Tokens of the samples that are meant."""
        every = self.split.tokens()
        return [every[row] for row in self.rows]

    def of_scenes(self, column: int) -> list[str]:
        """Each such sample's scene's name (column 0) or description (1)."""
        every = self.split.of_scenes(column)
        return [every[row] for row in self.rows]

    def at_row(self, row: int) -> SampleRecord:
        """The record of any of the split's samples."""
        return self.split.record(row, *self._sweeps, self.rig)

    def others(self, at: int) -> tuple[Annotation, ...]:
        """A sample's annotations that are no vehicles, see :meth:`SplitIndex.others`."""
        return self.split.others(self.rows[at])

    def problems(self, rows: Sequence[int]) -> dict[str, str]:
        """What keeps records from being used, and for each the first sample that needs it."""
        return self.split.problems(self.rig, *self._sweeps, rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> SampleRecord: ...

    @overload
    def __getitem__(self, at: slice) -> list[SampleRecord]: ...

    def __getitem__(self, at: int | slice) -> SampleRecord | list[SampleRecord]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        return self.at_row(self.rows[at])
