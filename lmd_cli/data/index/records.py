"""Samples' records, made on demand from an index's arrays.

The arrays of an index:

- ``samples``: token, scene (a number), ``frames`` (one for each of :data:`CHANNELS`, a row of
  ``frames``), and the first and number of its rows in ``annotations``; ordered by (scene token,
  timestamp).
- ``frames``: one file of a sensor each, with the vehicle's pose, a row of ``calibrations``, and
  an image's size. Cameras have their key frames only, the other sensors every sweep.
- ``prev`` (frames,): the row of the sweep before.
- ``calibrations``, and ``annotations`` (vehicles only).

Rows are numbers from 0; -1 is none, and -2 - k one that the tables name and do not hold: entry k
of ``missing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from lmd_cli.data.database import (
    CAMERAS,
    LIDAR,
    RADARS,
    Annotation,
    SampleRecord,
    SensorFrame,
)
from lmd_cli.data.index.storage import Arrays, read_arrays
from lmd_cli.errors import DataError

#: Raised whenever what an index holds, or how, changes.
FORMAT = 1
CHANNELS = (*CAMERAS, *RADARS, LIDAR)
_RADARS_AT = len(CAMERAS)
_LIDAR_AT = len(CAMERAS) + len(RADARS)


class SplitIndex:
    """What a split needs of the tables.

    Args:
        arrays: see this module.
        meta: ``version``; ``scenes``, pairs of name and description; ``absent``, names of scenes;
            ``categories``; ``missing``.
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

    def require(self, radar_sweeps: int, lidar_sweeps: int) -> None:
        """Make sure that the tables hold everything that so many sweeps need.

        Raises:
            DataError: they do not; names the record, and a sample that needs it.
        """
        if not self.meta["missing"]:
            return
        at = range(_RADARS_AT, _LIDAR_AT)
        self._require(list(range(_RADARS_AT)), 1)
        self._require(list(at), radar_sweeps)
        self._require([_LIDAR_AT], lidar_sweeps)

    def _require(self, columns: list[int], sweeps: int) -> None:
        frames = self.arrays["samples"]["frames"][:, columns]  # (samples, channels)
        for _ in range(sweeps):
            lacking = np.argwhere(frames < -1)
            if len(lacking):
                sample, channel = lacking[0]
                name = self.meta["missing"][-2 - frames[sample, channel]]
                token = self.arrays["samples"]["token"][sample].decode()
                tables = f"the {self.meta['version']} tables"
                raise DataError(f"{tables} lack {name!r}, which sample {token} needs", token=token)
            frames = np.where(frames >= 0, self.arrays["prev"][np.maximum(frames, 0)], -1)

    def record(self, index: int, radar_sweeps: int, lidar_sweeps: int) -> SampleRecord:
        """A sample's record with so many sweeps, the key frame's included.

        Raises:
            DataError: the tables give an image no size.
        """
        token, scene, frames, first, count = _plain(self.arrays["samples"][index])
        radars = {
            channel: self._frames(self._chain(frame, radar_sweeps))
            for channel, frame in zip(RADARS, frames[_RADARS_AT:_LIDAR_AT], strict=True)
        }
        cameras = self._frames(frames[:_RADARS_AT])
        sample = token.decode()
        _require_sizes(cameras, sample)
        name, description = self.meta["scenes"][scene]
        return SampleRecord(
            token=sample,
            scene=name,
            cameras=cameras,
            radars=radars if radar_sweeps else {},
            lidar=self._frames(self._chain(frames[_LIDAR_AT], lidar_sweeps)),
            vehicles=self._vehicles(first, first + count),
            description=description,
        )

    def _chain(self, frame: int, sweeps: int) -> list[int]:
        """Rows of a frame and up to ``sweeps - 1`` before it, fewer at the start of a scene."""
        rows: list[int] = []
        while frame >= 0 and len(rows) < sweeps:
            rows.append(frame)
            frame = int(self.arrays["prev"][frame])
        return rows

    def _frames(self, rows: Sequence[int]) -> tuple[SensorFrame, ...]:
        table, calibrations = self.arrays["frames"], self.arrays["calibrations"]
        found = []
        for row in rows:
            name, timestamp, place, turn, calibration, width, height = _plain(table[row])
            at, rotation, intrinsic, camera = _plain(calibrations[calibration])
            matrix = intrinsic if camera else []
            pose = (place, turn, at, rotation)
            found.append(SensorFrame(name.decode(), timestamp, *pose, matrix, width, height))
        return tuple(found)

    def _vehicles(self, first: int, last: int) -> tuple[Annotation, ...]:
        return tuple(self._vehicle(row) for row in self.arrays["annotations"][first:last])

    def _vehicle(self, row: np.void) -> Annotation:
        token, category, *values = _plain(row)
        return Annotation(token.decode(), self.meta["categories"][category], *values)


def _plain(row: np.void) -> list[Any]:
    """A row's fields as plain values: numbers, bytes, and lists of numbers."""
    return [v.tolist() if isinstance(v, np.ndarray) else v for v in row.item()]


def _require_sizes(cameras: Sequence[SensorFrame], token: str) -> None:
    for camera in cameras:
        if camera.width < 1 or camera.height < 1:
            problem = (
                f"the tables give {camera.filename} a size of {camera.width} x {camera.height}"
            )
            raise DataError(
                f"{problem} pixels (width x height; needed by sample {token}); both must be at "
                "least 1: get the version's tables again",
                token=token,
            )


class Records(Sequence[SampleRecord]):
    """An index's records with a number of sweeps; each is made anew when it is asked for."""

    def __init__(self, split: SplitIndex, radar_sweeps: int, lidar_sweeps: int) -> None:
        self.split, self._sweeps = split, (radar_sweeps, lidar_sweeps)

    def __len__(self) -> int:
        return len(self.split)

    @overload
    def __getitem__(self, at: int) -> SampleRecord: ...

    @overload
    def __getitem__(self, at: slice) -> list[SampleRecord]: ...

    def __getitem__(self, at: int | slice) -> SampleRecord | list[SampleRecord]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        return self.split.record(range(len(self))[at], *self._sweeps)
