"""Reads nuScenes' tables as far as a split needs them, one at a time.

nuscenes-devkit asks for more than an index needs (masks of the maps, labels of lidarseg), so that
half a data set does not open, and keeps every record of every scene.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from lmd_cli.data.nuscenes.database import UNKNOWN_VELOCITY, VEHICLE, is_indexed
from lmd_cli.data.nuscenes.index.elements import list_elements
from lmd_cli.data.nuscenes.index.values import RecordError, present, text, whole
from lmd_cli.errors import DataError, ForeignFileError
from lmd_cli.runtime.files import open_given

#: Two annotations farther apart than this say nothing of a velocity, seconds (nuscenes-devkit's).
MAX_TIME_DIFFERENCE = 1.5
#: Tables that a data set without annotations may lack.
OPTIONAL = ("sample_annotation", "instance", "category")
#: What is kept of the records that there are millions of.
FIELDS = {
    "sample_data": (
        *("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "timestamp"),
        *("is_key_frame", "height", "width", "filename", "prev"),
    ),
    "ego_pose": ("token", "translation", "rotation"),
    "sample_annotation": (
        *("token", "sample_token", "instance_token", "visibility_token", "translation"),
        *("rotation", "size", "num_lidar_pts", "num_radar_pts", "prev", "next"),
    ),
}

Row = dict[str, Any]


class Tables:
    """What some scenes need of a version's tables; the largest are read when asked for.

    Args:
        folder: the version's.
        scenes: names of the scenes.

    Attributes:
        scenes: rows of the scene table, ordered by token.
        samples: rows of each scene token's samples, in the order of the table.
        key_frames: for each sample token, its key frames' ``sample_data`` tokens by channel.
        annotations: for each sample token, the tokens of its annotations, those of instances
            that are known to be of other categories than :func:`~..database.is_indexed` left out.
        annotated: whether any sample has annotations at all.
        channels: modality of every channel.

    Raises:
        DataError: a table is missing or cannot be read.
        RecordError: a sensor has no channel.
    """

    def __init__(self, folder: Path, scenes: Collection[str]) -> None:
        self.folder = folder
        self._tables: dict[str, dict[str, Row]] = {}
        rows = [row for row in read_table(folder, "scene") if row["name"] in scenes]
        self.scenes = sorted(rows, key=lambda row: row["token"])
        self.samples: dict[str, list[Row]] = {row["token"]: [] for row in rows}
        samples = self._load("sample", lambda row: row.get("scene_token") in self.samples)
        for row in samples.values():
            self.samples[row["scene_token"]].append(row)
        self.key_frames: dict[str, dict[str, str]] = {token: {} for token in samples}
        self.annotations: dict[str, list[str]] = {token: [] for token in samples}
        self.annotated = False
        for name in ("sensor", "calibrated_sensor", "instance", "category"):
            self._load(name)
        sensors = self._tables["sensor"].values()
        self.channels = {
            text("sensor", row, "channel"): text("sensor", row, "modality") for row in sensors
        }

    def load_frames(self) -> None:
        """Key frames of cameras and all files of the other sensors, and the poses of these."""
        samples, calibration = self._tables["sample"], "calibrated_sensor_token"
        sensors = self._of("sensor", "modality", "camera")
        cameras = self._of("calibrated_sensor", "sensor_token", *sensors)

        def needed(row: Row) -> bool:
            if row.get("sample_token") not in samples:
                return False
            return bool(row.get("is_key_frame")) or str(row.get(calibration)) not in cameras

        poses = set()
        for token, row in self._load("sample_data", needed).items():
            # One text for all who refer to it: there are millions.
            sample = row["sample_token"] = samples[row["sample_token"]]["token"]
            if isinstance(row.get(calibration), str):
                row[calibration] = sys.intern(row[calibration])
            if row.get("ego_pose_token") == token:
                row["ego_pose_token"] = token
            poses.add(row.get("ego_pose_token"))
            if row.get("is_key_frame"):
                self.key_frames[sample][self._channel(row)] = token
        self._load("ego_pose", lambda row: row["token"] in poses)

    def load_boxes(self) -> None:
        """Annotations, without those of instances that are known to be of other categories."""
        names = self._tables["category"].values()
        others = [row["token"] for row in names if not is_indexed(str(row.get("name", VEHICLE)))]
        known = self._of("instance", "category_token", *others)

        def needed(row: Row) -> bool:
            if row.get("sample_token") not in self.annotations:
                return False
            self.annotated = True
            instance = row.get("instance_token")
            return not isinstance(instance, str) or instance not in known

        for token, row in self._load("sample_annotation", needed).items():
            self.annotations[row["sample_token"]].append(token)

    def _of(self, table: str, field: str, *values: Any) -> set[str]:
        """Tokens of a table's records whose field has one of some values."""
        return {t for t, row in self._tables[table].items() if row.get(field) in values}

    def _load(self, name: str, wanted: Callable[[Row], bool] | None = None) -> dict[str, Row]:
        rows = read_table(self.folder, name, wanted)
        self._tables[name] = {row["token"]: row for row in rows}
        return self._tables[name]

    def _channel(self, row: Row) -> str:
        """A file's channel; a broken reference is reported where the file is needed."""
        token = str(row.get("calibrated_sensor_token"))
        calibration = self._tables["calibrated_sensor"].get(token, {})
        sensor = self._tables["sensor"].get(calibration.get("sensor_token", ""))
        if sensor is not None:
            return text("sensor", sensor, "channel")
        parts = Path(str(row.get("filename"))).parts  # samples/CHANNEL/name
        return parts[-2] if len(parts) > 1 else ""

    def release(self, table: str, token: str | None = None) -> None:
        """Frees the memory of a record, or of a whole table."""
        if token is None:
            del self._tables[table]
        else:
            del self._tables[table][token]

    def get(self, table: str, token: Any) -> Row:
        """A record.

        Raises:
            RecordError: the table does not hold it.
        """
        try:
            return self._tables[table][token]
        except (KeyError, TypeError):
            raise RecordError(f"{table}.json has no record {token!r}") from None

    def referenced(self, table: str, row: Row, other: str) -> Row:
        """The record of another table that a record refers to.

        Raises:
            RecordError: the record has no reference, or the other table does not hold it.
        """
        return self.get(other, present(table, row, f"{other}_token"))

    def category(self, annotation: Row) -> str:
        """The name of an annotation's category.

        Raises:
            RecordError: instance or category are not there.
        """
        instance = self.referenced("sample_annotation", annotation, "instance")
        category = self.referenced("instance", instance, "category")
        return str(present("category", category, "name"))

    def velocity(self, token: str) -> tuple[float, ...]:
        """nuscenes-devkit's estimate, m/s; NaN where there is none, or where a neighbour is
        missing (tables cut to a few samples)."""
        current = self._tables["sample_annotation"][token]
        before, after = current.get("prev"), current.get("next")
        try:
            first = self.get("sample_annotation", before) if before else current
            last = self.get("sample_annotation", after) if after else current
            elapsed = self._seconds(last) - self._seconds(first)
        except RecordError:
            return UNKNOWN_VELOCITY
        longest = MAX_TIME_DIFFERENCE * (2 if before and after else 1)
        if not (before or after) or elapsed > longest or elapsed == 0:
            return UNKNOWN_VELOCITY
        places = (present("sample_annotation", row, "translation") for row in (last, first))
        pairs = zip(*places, strict=True)
        speed = tuple((end - start) / elapsed for end, start in pairs)
        return speed if all(map(math.isfinite, speed)) else UNKNOWN_VELOCITY

    def _seconds(self, annotation: Row) -> float:
        sample = self.referenced("sample_annotation", annotation, "sample")
        return 1e-6 * whole("sample", sample, "timestamp")


def read_table(folder: Path, name: str, wanted: Callable[[Row], bool] | None = None) -> list[Row]:
    """Rows of a table, in its order; only those that are ``wanted``, the rest is let go at once.

    Of the largest tables only the :data:`FIELDS` are kept.

    Raises:
        DataError: it is missing, unless data sets without annotations lack it, or it is no table.
    """
    path, fields, rows = folder / f"{name}.json", FIELDS.get(name), []
    try:
        # Some editors begin a file with a mark of its encoding.
        with open(path, encoding="utf-8-sig", opener=open_given) as file:
            for row in list_elements(file):
                if not _is_row(row):
                    raise DataError(
                        f"{path} is no table: expected a list of records with a token", path=path
                    )
                if wanted is None or wanted(row):
                    rows.append({f: row[f] for f in fields if f in row} if fields else row)
    except FileNotFoundError:
        if name in OPTIONAL:
            return []
        raise DataError(f"{path}: file not found; it is one of the version's tables") from None
    except (OSError, ValueError, RecursionError, ForeignFileError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}", path=path) from error
    return rows


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("token"), str)
