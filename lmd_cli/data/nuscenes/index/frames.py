"""The files of a split's sensors as rows of arrays."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.index import values
from lmd_cli.data.nuscenes.index.annotations import PLACE, problem_row
from lmd_cli.data.nuscenes.index.columns import (
    Columns,
    Numbers,
    by_first_use,
    named_rows,
    rows_by_number,
)
from lmd_cli.data.nuscenes.index.reader import Row, Tables
from lmd_cli.runtime.printable import in_one_line

CALIBRATION = np.dtype([*PLACE, ("intrinsic", "<f8", (3, 3)), ("camera", "?")])
FRAME = [
    *[("timestamp", "<i8"), ("ego_translation", "<f8", (3,)), ("ego_rotation", "<f8", (4,))],
    *[("calibration", "<i4"), ("width", "<i4"), ("height", "<i4")],
]
_TABLE, _MOUNTS = "sample_data", "calibrated_sensor"
#: A row that is none, and one that should be there and is not.
_NONE, _ABSENT = -1, -2
#: What a row of whole numbers holds; the first three are numbers of tokens.
_INTEGERS = ("own", "before", "pose", "calibration", "timestamp", "width", "height")


class Frames:
    """Key frames of cameras and all files of the other sensors; rows are made of those that samples
    need, in the order in which they ask.

    Args:
        tables: where they are.
        problems: those that are known, with their numbers; more are added.

    Attributes:
        used: channels that any sample has.

    Raises:
        DataError: a table cannot be read.
        RecordError: a token is no text, or there twice.
    """

    def __init__(self, tables: Tables, problems: dict[str, int]) -> None:
        self._tables, self._problems = tables, problems
        self._key_frames: dict[str, dict[str, int]] = {token: {} for token in tables.times}
        self._tokens, self._names = Numbers(), list[bytes]()
        self._columns, self._poses = Columns(len(_INTEGERS)), Columns(1, 7)
        self._calibrations: dict[str, tuple[int, tuple[Any, ...]]] = {}
        self._broken: dict[int, values.RecordError] = {}
        self._broken_poses: dict[int, values.RecordError] = {}
        self._read()
        self._read_poses()
        self.used = {channel for frames in self._key_frames.values() for channel in frames}
        self._index()

    def _read(self) -> None:
        samples, cameras = self._tables.times, self._tables.cameras()
        for row in self._tables.rows(_TABLE):
            sample, mount = row.get("sample_token"), row.get("calibrated_sensor_token")
            if type(sample) is not str:
                raise values.problem(_TABLE, row, "sample_token", "a text")
            if sample not in samples:
                continue
            if row.get("is_key_frame") is not False:
                self._add_key_frame(sample, self._tables.channel(row))
            elif type(mount) is str and mount in cameras:
                continue
            self._add(row)

    def _add_key_frame(self, sample: str, channel: str) -> None:
        """Notes that the row that is added next is one."""
        row, frames = len(self._columns), self._key_frames[sample]
        if channel in frames:
            several = f"{_TABLE}.json has more than one key frame of {channel} for"
            self._broken[row] = values.RecordError(f"{several} {in_one_line(sample)}")
        frames[channel] = row

    def _add(self, row: Row) -> None:
        own, name, integers = self._tokens[values.text(_TABLE, row, "token")], b"", (0,) * 6
        try:
            values.truth(_TABLE, row, "is_key_frame")
            integers = self._referring(row)
            name = values.text(_TABLE, row, "filename").encode()
        except values.RecordError as error:
            self._broken.setdefault(len(self._columns), error)
        self._columns.add((own, *integers))
        self._names.append(name)

    def _referring(self, row: Row) -> tuple[int, int, int, int, int, int]:
        """Values of :data:`_INTEGERS` but for the first.

        Raises:
            RecordError: of this record, or its calibration.
        """
        before, pose = (
            values.optional(_TABLE, row, "prev"),
            values.text(_TABLE, row, "ego_pose_token"),
        )
        calibration, camera = self._calibration(row)
        width, height = (_pixels(row, "width"), _pixels(row, "height")) if camera else (0, 0)
        time = values.whole(_TABLE, row, "timestamp")
        return self._tokens[before], self._tokens[pose], calibration, time, width, height

    def _calibration(self, row: Row) -> tuple[int, bool]:
        """The number of a file's calibration, and whether it is a camera's."""
        try:
            number, calibration = self._calibrations[row["calibrated_sensor_token"]]
        except (KeyError, TypeError):
            mount = self._tables.referenced(_TABLE, row, _MOUNTS)
            sensor = self._tables.referenced(_MOUNTS, mount, "sensor")
            camera = values.text("sensor", sensor, "modality") == "camera"
            calibration = (
                values.place(_MOUNTS, mount, "translation", values.ON_VEHICLE),
                values.quaternion(_MOUNTS, mount),
                values.intrinsics(_MOUNTS, mount) if camera else [(0.0, 0.0, 0.0)] * 3,
                camera,
            )
            number = len(self._calibrations)
            self._calibrations[mount["token"]] = (number, calibration)
        return number, calibration[-1]

    def _read_poses(self) -> None:
        for row in self._tables.rows("ego_pose"):
            number = self._tokens.get(row["token"])
            if number:
                self._add_pose(number, row)

    def _add_pose(self, number: int, row: Row) -> None:
        pose: tuple[float, ...] = (0.0,) * 7
        try:
            place = values.place("ego_pose", row, "translation", values.ON_EARTH)
            pose = place + values.quaternion("ego_pose", row)
        except values.RecordError as error:
            self._broken_poses[number] = error
        self._poses.add((number,), pose)

    def _index(self) -> None:
        """Looks up each row's pose and the row before, and begins the rows that are made."""
        own, before, pose = self._columns.integers[:, :3].T
        rows = rows_by_number(_TABLE, self._tokens, own)
        poses = rows_by_number("ego_pose", self._tokens, self._poses.integers[:, 0])
        poses[list(self._broken_poses)] = -1
        self._pose_rows = poses[pose]
        lacking = self._pose_rows < 0
        lacking[list(self._broken)] = True
        self._lacking = lacking.tobytes()
        rows[rows < 0], rows[0] = _ABSENT, _NONE
        # Items of an array are quicker than numpy's.
        self._before = array("q", rows[before].tobytes())
        self._made = array("q", [_NONE]) * len(own)
        self._order, self._prev = array("q"), array("q")

    def add(self, sample: str, channel: str) -> int:
        """Row of a sample's key frame; it and, but for cameras, the sweeps before it are made."""
        source = self._key_frames[sample].get(channel)
        if source is None:
            lacking = f"{_TABLE}.json has no key frame of {channel} for {in_one_line(sample)}"
            return problem_row(self._problems, values.RecordError(lacking))
        newest = at = self._make(source)
        while at >= 0 and self._tables.channels[channel] != "camera":
            source = self._before[self._order[at]]
            if source == _NONE:
                break
            known = source >= 0 and self._made[source] >= 0
            self._prev[at] = before = self._make(source) if source >= 0 else self._no_record(at)
            at = _NONE if known else before
        return newest

    def _make(self, source: int) -> int:
        """The row made of a row of the table, now or before; or that of a problem."""
        if self._made[source] < 0:
            if self._lacking[source]:
                return problem_row(self._problems, self._problem(source))
            self._made[source] = len(self._order)
            self._order.append(source)
            self._prev.append(_NONE)
        return self._made[source]

    def _no_record(self, at: int) -> int:
        """The row of a problem: the file before one does not exist."""
        token = self._token(self._columns.integers[self._order[at], 1])
        return problem_row(self._problems, values.absent(_TABLE, token))

    def _problem(self, source: int) -> values.RecordError:
        pose = self._columns.integers[source, 2]
        known = self._broken.get(source) or self._broken_poses.get(pose)
        return known or values.absent("ego_pose", self._token(pose))

    def _token(self, number: int) -> str:
        return list(self._tokens)[number]

    def table(self) -> dict[str, NDArray[Any]]:
        """The rows that were made, the file's name first; those before them; calibrations."""
        order = np.array(self._order, dtype=np.int64)
        integers = dict(zip(_INTEGERS, self._columns.integers[order].T, strict=True))
        integers["calibration"], used = by_first_use(integers["calibration"])
        frames = named_rows("filename", [self._names[row] for row in self._order], FRAME)
        for name in ("calibration", "timestamp", "width", "height"):
            frames[name] = integers[name]
        poses = self._poses.floats[self._pose_rows[order]]
        frames["ego_translation"], frames["ego_rotation"] = poses[:, :3], poses[:, 3:]
        calibrations = [calibration for _, calibration in self._calibrations.values()]
        return {
            "frames": frames,
            "prev": np.array(self._prev, dtype="<i4"),
            "calibrations": np.array([calibrations[row] for row in used], dtype=CALIBRATION),
        }


def _pixels(row: Row, side: str) -> int:
    """Width or height of an image."""
    return values.whole(_TABLE, row, side, 1, values.PIXELS)
