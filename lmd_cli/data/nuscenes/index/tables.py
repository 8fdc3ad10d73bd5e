"""From a version's tables to the arrays of an index."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import CAMERAS, LIDAR, RADARS, VEHICLE
from lmd_cli.data.nuscenes.index import values
from lmd_cli.data.nuscenes.index.annotations import ANNOTATION, OTHERS, PLACE, Boxes, problem_row
from lmd_cli.data.nuscenes.index.reader import Row, Tables, read_table
from lmd_cli.data.nuscenes.index.records import SplitIndex
from lmd_cli.data.nuscenes.index.splits import Split, split_scenes
from lmd_cli.errors import DataError
from lmd_cli.runtime.printable import in_one_line

Progress = Callable[[int, int], None]

CALIBRATION = np.dtype([*PLACE, ("intrinsic", "<f8", (3, 3)), ("camera", "?")])
SAMPLE = [
    *[("scene", "<i4"), ("first_annotation", "<i8"), ("annotations", "<i4"), ("problem", "<i4")]
]
FRAME = [
    *[("timestamp", "<i8"), ("ego_translation", "<f8", (3,)), ("ego_rotation", "<f8", (4,))],
    *[("calibration", "<i4"), ("width", "<i4"), ("height", "<i4")],
]


def build_index(
    root: Path, version: str, split: Split, progress: Progress | None = None
) -> SplitIndex:
    """A split's index, in memory.

    Args:
        root: the nuScenes root.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val``, or names of scenes.
        progress: called with (finished steps, all steps): the tables read, then each scene.

    Raises:
        DataError: an unknown split, one without a scene in this version, or tables that do not
            fit together.
    """
    with _as_nuscenes(root / version):
        return _built(root, version, split, progress or (lambda done, total: None))


@contextlib.contextmanager
def _as_nuscenes(tables: Path) -> Iterator[None]:
    """What we stumble over in tables of another kind, as a message."""
    try:
        yield
    except values.RecordError as error:
        raise DataError(f"{tables.name}/{error}", path=tables) from error
    except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError) as error:
        raise DataError(
            f"{tables}: the tables hold something else than nuScenes' tables do ({error}); is a "
            "file damaged, or made by another program?",
            path=tables,
        ) from error
    except (RecursionError, AssertionError) as error:
        raise DataError(f"{tables}: the tables cannot be read: {error}", path=tables) from error


def _built(root: Path, version: str, split: Split, report: Progress) -> SplitIndex:
    folder = root / version
    # Read apart, so that a mistyped split is refused before gigabytes are read.
    names = [values.text("scene", row, "name") for row in read_table(folder, "scene")]
    present, absent = split_scenes(folder, split, names)
    steps = 1 + len(present)
    report(0, steps)
    with _no_collection():
        builder = _Builder(Tables(folder, present))
        builder.add_boxes()
        builder.tables.load_frames()
        report(1, steps)
        for done, scene in enumerate(builder.tables.scenes, start=2):
            builder.add_scene(scene)
            report(done, steps)
        return builder.finish(sorted(absent))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of records make the garbage collector search for cycles that are not there."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Builder:
    """Collects rows, scene by scene; what cannot be used becomes a problem of those who need it."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.channels = _ordered(tables.channels)
        self.samples: list[tuple[Any, ...]] = []
        self.key_frames: list[list[int]] = []
        self.frames: list[tuple[Any, ...]] = []
        self.prev: list[int] = []
        self.calibrations: dict[str, tuple[int, tuple[Any, ...]]] = {}
        self.problems: dict[str, int] = {}
        self.vehicles, self.others = Boxes(self.tables, self.problems), Boxes(self.tables, {})
        self._row_of: dict[str, int] = {}
        self._before: list[str | None] = []

    def add_boxes(self) -> None:
        """All samples and their annotations, one of the largest tables, which is then let go."""
        self.tables.load_boxes()
        for number, scene in enumerate(self.tables.scenes):
            for row in self._in_order(scene):
                sample = row["token"]
                vehicles, others = self._vehicles_and_others(sample)
                self.others.add(others)
                self.samples.append((sample.encode(), number, *self.vehicles.add(vehicles)))
        self.tables.release("sample_annotation")
        self.boxes = {
            "annotations": _table(self.vehicles.take_rows(), "token", ANNOTATION),
            "others": _table(self.others.take_rows(), "token", ANNOTATION),
            "others_of": np.array(self.others.ranges, dtype=OTHERS),
        }

    def _vehicles_and_others(self, sample: str) -> tuple[list[str], list[str]]:
        """Tokens of a sample's annotations; of broken references nobody knows, so they count as
        vehicles."""
        kinds: tuple[list[str], list[str]] = ([], [])
        for token in self.tables.annotations[sample]:
            try:
                category = self.tables.category(self.tables.get("sample_annotation", token))
            except values.RecordError:
                category = VEHICLE
            kinds[VEHICLE not in category].append(token)
        return kinds

    def _in_order(self, scene: Row) -> list[Row]:
        """A scene's samples, ordered by time."""
        rows = self.tables.samples[scene["token"]]
        return sorted(rows, key=lambda row: values.whole("sample", row, "timestamp"))

    def add_scene(self, scene: Row) -> None:
        """The frames of a scene's samples."""
        for row in self._in_order(scene):
            data = self.tables.key_frames[row["token"]]
            self.key_frames.append([self._frame(data.get(c), c, row) for c in self.channels])

    def _frame(self, token: str | None, channel: str, sample: Row) -> int:
        """Row of a frame; it and, but for cameras, the sweeps before it are added."""
        if token is None:
            name = in_one_line(sample["token"])
            lacking = f"sample_data.json has no key frame of {channel} for {name}"
            return self._problem(values.RecordError(lacking))
        newest = self._add_frame(token)
        row = newest
        while row >= 0 and self.tables.channels[channel] != "camera":
            token = self._before[row]
            known = self._row_of.get(token) if token else -1
            self.prev[row] = self._add_frame(str(token)) if known is None else known
            row = self.prev[row] if known is None else -1
        return newest

    def _add_frame(self, token: str) -> int:
        """Row of a frame that may be there already, without the one before it."""
        if token in self._row_of:
            return self._row_of[token]
        try:
            row = self.tables.get("sample_data", token)
            self.frames.append(self._frame_values(row))
        except values.RecordError as error:
            return self._problem(error)
        self.tables.release("sample_data", token)
        self._before.append(row.get("prev"))
        self.prev.append(-1)
        self._row_of[token] = len(self.frames) - 1
        return len(self.frames) - 1

    def _frame_values(self, row: Row) -> tuple[Any, ...]:
        """A row of :data:`FRAME`, its name first.

        Raises:
            RecordError: of this record, its pose or its calibration.
        """
        pose = self.tables.referenced("sample_data", row, "ego_pose")
        mount = self.tables.referenced("sample_data", row, "calibrated_sensor")
        sensor = self.tables.referenced("calibrated_sensor", mount, "sensor")
        modality = values.present("sensor", sensor, "modality")
        size = _pixels(row) if modality == "camera" else (0, 0)
        return (
            values.text("sample_data", row, "filename").encode(),
            values.whole("sample_data", row, "timestamp"),
            values.place("ego_pose", pose, "translation", values.ON_EARTH),
            values.quaternion("ego_pose", pose),
            self._calibration(mount, modality == "camera"),
            *size,
        )

    def _problem(self, error: values.RecordError) -> int:
        """The row that stands for a problem."""
        return problem_row(self.problems, error)

    def _calibration(self, row: Row, camera: bool) -> int:
        """Row of a calibration."""
        token, table = row["token"], "calibrated_sensor"
        if token not in self.calibrations:
            calibration = (
                values.place(table, row, "translation", values.ON_VEHICLE),
                values.quaternion(table, row),
                values.intrinsics(table, row) if camera else [(0.0, 0.0, 0.0)] * 3,
                camera,
            )
            self.calibrations[token] = (len(self.calibrations), calibration)
        return self.calibrations[token][0]

    def finish(self, absent: list[str]) -> SplitIndex:
        """Everything so far as arrays; channels that no sample has are left out."""
        self.tables.release("ego_pose")
        key_frames = np.array(self.key_frames, dtype="<i4").reshape(-1, len(self.channels))
        there = self._there()
        meta = {
            "version": self.tables.folder.name,
            "scenes": [
                (row["name"], str(row.get("description", ""))) for row in self.tables.scenes
            ],
            "absent": absent,
            **self.vehicles.names(),
            "channels": {self.channels[i]: self.tables.channels[self.channels[i]] for i in there},
            "annotated": self.tables.annotated,
            "others": self.others.names(),
        }
        arrays = {
            "samples": _table(self.samples, "token", SAMPLE),
            "key_frames": np.ascontiguousarray(key_frames[:, there]),
            "frames": _table(self.frames, "filename", FRAME),
            "prev": np.array(self.prev, dtype="<i4"),
            "calibrations": np.array(
                [calibration for _, calibration in self.calibrations.values()], dtype=CALIBRATION
            ),
            **self.boxes,
        }
        return SplitIndex(arrays, meta)

    def _there(self) -> list[int]:
        """Columns of the channels that any sample has."""
        used = {channel for frames in self.tables.key_frames.values() for channel in frames}
        return [i for i, channel in enumerate(self.channels) if channel in used]


def _ordered(channels: Mapping[str, str]) -> list[str]:
    """Channels of the sensors that are read: nuScenes' first, then by name."""
    known = [channel for channel in (*CAMERAS, *RADARS, LIDAR) if channel in channels]
    read = ("camera", "radar", "lidar")
    return known + sorted(c for c, kind in channels.items() if kind in read and c not in known)


def _pixels(row: Row) -> tuple[int, int]:
    """Width and height of an image."""
    width, height = (
        values.whole("sample_data", row, name, 1, values.PIXELS) for name in ("width", "height")
    )
    return width, height


def _table(rows: list[tuple[Any, ...]], name: str, fields: list[Any]) -> NDArray[np.void]:
    """Rows as an array; their first column is a name, as wide as the longest."""
    width = max((len(row[0]) for row in rows), default=1) or 1
    return np.array(rows, dtype=np.dtype([(name, f"S{width}"), *fields]))
