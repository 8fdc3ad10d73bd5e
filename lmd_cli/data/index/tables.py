"""From nuscenes-devkit's database to the arrays of an index."""

from __future__ import annotations

import contextlib
import difflib
import gc
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.database import CAMERAS, UNKNOWN_VELOCITY, VEHICLE
from lmd_cli.data.index.records import CHANNELS, SplitIndex
from lmd_cli.errors import DataError

Progress = Callable[[int, int], None]

_PLACE = [("translation", "<f8", (3,)), ("rotation", "<f8", (4,))]
CALIBRATION = np.dtype([*_PLACE, ("intrinsic", "<f8", (3, 3)), ("camera", "?")])
SAMPLE = [
    *[("scene", "<i4"), ("frames", "<i4", (len(CHANNELS),))],
    *[("first_annotation", "<i8"), ("annotations", "<i4")],
]
FRAME = [
    *[("timestamp", "<i8"), ("ego_translation", "<f8", (3,)), ("ego_rotation", "<f8", (4,))],
    *[("calibration", "<i4"), ("width", "<i4"), ("height", "<i4")],
]
ANNOTATION = [
    *[("category", "<i4"), ("visibility", "<i4"), *_PLACE, ("size", "<f8", (3,))],
    *[("num_lidar_pts", "<i4"), ("num_radar_pts", "<i4"), ("velocity", "<f8", (3,))],
]


def open_database(root: Path, version: str) -> Any:
    """nuscenes-devkit's ``NuScenes`` for a version.

    Raises:
        DataError: the devkit cannot read it.
    """
    # Late: the devkit takes a second or two to import.
    from nuscenes.nuscenes import NuScenes

    try:
        return NuScenes(version=version, dataroot=str(root), verbose=False)
    except MemoryError:
        raise
    except Exception as error:  # of any kind: it looks at nothing before it uses it
        problem = f"nuscenes-devkit cannot open {root / version}: {error}"
        raise DataError(problem, path=root / version) from error


def split_scenes(split: str, present: Iterable[str], version: str) -> tuple[set[str], set[str]]:
    """Names of the split's scenes that are ``present`` in the version, and of those that are not.

    Raises:
        DataError: no such split (says which there are), or none of its scenes is present.
    """
    from nuscenes.utils.splits import create_splits_scenes

    splits: dict[str, list[str]] = create_splits_scenes()
    if split not in splits:
        near = difflib.get_close_matches(split, splits, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(f"split {split} not found{hint}; splits: {', '.join(splits)}")
    names = set(present)
    scenes = set(splits[split])
    if not scenes & names:
        usable = [name for name, members in splits.items() if names & set(members)]
        raise DataError(
            f"no scene of split {split} is in version {version}, whose {len(names)} scenes "
            f"belong to: {', '.join(usable) or 'no known split'}"
        )
    return scenes & names, scenes - names


def build_index(
    root: Path, version: str, split: str, progress: Progress | None = None
) -> SplitIndex:
    """A split's index, in memory.

    Args:
        root: the nuScenes root.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val``.
        progress: called with (finished steps, all steps): the tables read, then each scene.

    Raises:
        DataError: an unknown split, one without a scene in this version, or tables that do not
            fit together.
    """
    with _as_nuscenes(root / version):
        return _built(root, version, split, progress or (lambda done, total: None))


@contextlib.contextmanager
def _as_nuscenes(tables: Path) -> Iterator[None]:
    """What the devkit or we stumble over in tables of another kind, as a message."""
    try:
        yield
    except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError) as error:
        raise DataError(
            f"{tables}: the tables hold something else than nuScenes' tables do "
            f"({type(error).__name__}: {error}); is a file damaged, or made by another program?",
            path=tables,
        ) from error
    except (RecursionError, AssertionError) as error:
        raise DataError(f"{tables}: the tables cannot be read: {error}", path=tables) from error


def _built(root: Path, version: str, split: str, report: Progress) -> SplitIndex:
    present, absent = split_scenes(split, _scene_names(root, version), version)
    steps = 1 + len(present)
    report(0, steps)
    with _no_collection():
        database = open_database(root, version)
        report(1, steps)
        builder = _Builder(database, present)
        for done, scene in enumerate(builder.scenes_in_order(), start=2):
            builder.add_scene(scene)
            report(done, steps)
        return builder.finish(sorted(absent))


def _scene_names(root: Path, version: str) -> list[str]:
    """Read apart, so that a mistyped split is refused before the devkit reads gigabytes."""
    path = root / version / "scene.json"
    try:
        return [scene["name"] for scene in json.loads(path.read_bytes())]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}", path=path) from error


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
    """Collects rows, scene by scene."""

    def __init__(self, database: Any, scenes: set[str]) -> None:
        self._db = database
        self._scenes = [row for row in database.scene if row["name"] in scenes]
        self._scenes.sort(key=lambda row: row["token"])
        self._samples_of: dict[str, list[dict]] = {}
        for row in database.sample:
            self._samples_of.setdefault(row["scene_token"], []).append(row)
        self.samples: list[tuple[Any, ...]] = []
        self.frames: list[tuple[Any, ...]] = []
        self.prev: list[int] = []
        self.calibrations: dict[str, tuple[int, tuple[Any, ...]]] = {}
        self.annotations: list[tuple[Any, ...]] = []
        self.categories: dict[str, int] = {}
        self.missing: list[str] = []
        self._row_of: dict[str, int] = {}

    def scenes_in_order(self) -> list[dict]:
        """The split's scenes, ordered by token."""
        return self._scenes

    def add_scene(self, scene: dict) -> None:
        """The rows of a scene's samples, ordered by time."""
        rows = self._samples_of.get(scene["token"], [])
        for row in sorted(rows, key=lambda row: row["timestamp"]):
            try:
                self._add_sample(row, self._scenes.index(scene))
            except KeyError as error:
                tables = f"the {self._db.version} tables"
                problem = f"{tables} lack {error}, which sample {row['token']} needs"
                raise DataError(problem, token=row["token"]) from error
            except (TypeError, ValueError) as error:
                problem = f"the {self._db.version} tables hold a value of another kind than "
                problem += f"nuScenes', which sample {row['token']} needs: {error}"
                raise DataError(problem, token=row["token"]) from error

    def _add_sample(self, row: dict, scene: int) -> None:
        data = row["data"]
        frames = [self._frame(data.get(channel), channel) for channel in CHANNELS]
        first = len(self.annotations)
        for token in row["anns"]:
            annotation = self._db.get("sample_annotation", token)
            if VEHICLE in annotation["category_name"]:
                self.annotations.append(self._annotation(annotation))
        count = len(self.annotations) - first
        self.samples.append((row["token"].encode(), scene, frames, first, count))

    def _frame(self, token: str | None, channel: str) -> int:
        """Row of a frame; it and, but for cameras, the sweeps before it are added."""
        if token is None:
            return self._lacking(channel)
        newest = self._add_frame(token)
        row = newest
        while row >= 0 and channel not in CAMERAS:
            token = self._db.get("sample_data", token)["prev"]
            known = self._row_of.get(token) if token else -1
            self.prev[row] = self._add_frame(token) if known is None else known
            row = self.prev[row] if known is None else -1
        return newest

    def _add_frame(self, token: str) -> int:
        """Row of a frame that is not there yet, without the one before it."""
        try:
            row = self._db.get("sample_data", token)
            pose = self._db.get("ego_pose", row["ego_pose_token"])
            calibration = self._calibration(row["calibrated_sensor_token"])
        except KeyError as error:
            return self._lacking(str(error.args[0]))
        place = (_numbers(pose["translation"], 3), _numbers(pose["rotation"], 4))
        size = (int(row["width"]), int(row["height"]))
        name = row["filename"].encode()
        self.frames.append((name, int(row["timestamp"]), *place, calibration, *size))
        self.prev.append(-1)
        self._row_of[token] = len(self.frames) - 1
        return len(self.frames) - 1

    def _lacking(self, name: str) -> int:
        self.missing.append(name)
        return -1 - len(self.missing)

    def _calibration(self, token: str) -> int:
        if token not in self.calibrations:
            row = self._db.get("calibrated_sensor", token)
            matrix = row["camera_intrinsic"]
            intrinsic = [_numbers(line, 3) for line in matrix or [(0.0, 0.0, 0.0)] * 3]
            place = (_numbers(row["translation"], 3), _numbers(row["rotation"], 4))
            values = (*place, intrinsic, bool(matrix))
            self.calibrations[token] = (len(self.calibrations), values)
        return self.calibrations[token][0]

    def _annotation(self, row: dict) -> tuple[Any, ...]:
        category = self.categories.setdefault(row["category_name"], len(self.categories))
        sizes = {"translation": 3, "rotation": 4, "size": 3}
        box = (_numbers(row[name], count) for name, count in sizes.items())
        points = (int(row["num_lidar_pts"]), int(row["num_radar_pts"]))
        visibility = int(row["visibility_token"])
        velocity = _velocity(self._db, row["token"])
        return (row["token"].encode(), category, visibility, *box, *points, velocity)

    def finish(self, absent: list[str]) -> SplitIndex:
        """Everything so far as arrays."""
        scenes = [(row["name"], str(row.get("description", ""))) for row in self._scenes]
        meta = {
            "version": self._db.version,
            "scenes": scenes,
            "absent": absent,
            "categories": list(self.categories),
            "missing": self.missing,
        }
        arrays = {
            "samples": _table(self.samples, "token", SAMPLE),
            "frames": _table(self.frames, "filename", FRAME),
            "prev": np.array(self.prev, dtype="<i4"),
            "calibrations": np.array(
                [values for _, values in self.calibrations.values()], dtype=CALIBRATION
            ),
            "annotations": _table(self.annotations, "token", ANNOTATION),
        }
        return SplitIndex(arrays, meta)


def _table(rows: list[tuple[Any, ...]], name: str, fields: list[Any]) -> NDArray[np.void]:
    """Rows as an array; their first column is a name, as wide as the longest."""
    width = max((len(row[0]) for row in rows), default=1) or 1
    return np.array(rows, dtype=np.dtype([(name, f"S{width}"), *fields]))


def _numbers(values: Iterable[float], count: int) -> tuple[float, ...]:
    found = tuple(map(float, values))
    if len(found) != count:
        raise ValueError(f"{values} is not {count} numbers")
    return found


def _velocity(db: Any, token: str) -> tuple[float, ...]:
    """The devkit's estimate; NaN too where a neighbour is missing (tables cut to a few samples)."""
    try:
        return tuple(db.box_velocity(token).tolist())
    except KeyError:
        return UNKNOWN_VELOCITY
