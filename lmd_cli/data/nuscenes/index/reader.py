"""nuScenes' tables, as far as a split needs them: read one after the other, the rest let go.

nuscenes-devkit asks for more than an index needs (masks of the maps, labels of lidarseg), so that
half a data set does not open, and keeps every record of every scene.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lmd_cli.data.nuscenes.database import UNKNOWN_VELOCITY
from lmd_cli.data.nuscenes.index.values import RecordError, text
from lmd_cli.errors import DataError

#: Two annotations farther apart than this say nothing of a velocity, seconds (nuscenes-devkit's).
MAX_TIME_DIFFERENCE = 1.5
#: Tables that a data set without annotations may lack.
OPTIONAL = ("sample_annotation", "instance", "category")

Row = dict[str, Any]


class Tables:
    """What some scenes need of a version's tables.

    Args:
        folder: the version's.
        scenes: names of the scenes.

    Attributes:
        scenes: rows of the scene table, ordered by token.
        samples: rows of each scene token's samples, in the order of the table.
        key_frames: for each sample token, its key frames' ``sample_data`` tokens by channel.
        annotations: for each sample token, the tokens of its annotations.
        channels: modality of every channel.

    Raises:
        DataError: a table is missing or cannot be read.
        RecordError: a sensor has no channel.
    """

    def __init__(self, folder: Path, scenes: Collection[str]) -> None:
        self.folder = folder
        self._tables: dict[str, dict[str, Row]] = {}
        found = [row for row in read_table(folder, "scene") if row["name"] in scenes]
        self.scenes = sorted(found, key=lambda row: row["token"])
        self.samples: dict[str, list[Row]] = {row["token"]: [] for row in found}
        samples = self._load("sample", lambda row: row.get("scene_token") in self.samples)
        for row in samples.values():
            self.samples[row["scene_token"]].append(row)
        for name in ("sensor", "calibrated_sensor", "instance", "category"):
            self._load(name)
        data = self._load("sample_data", lambda row: row.get("sample_token") in samples)
        poses = {row.get("ego_pose_token") for row in data.values()}
        self._load("ego_pose", lambda row: row.get("token") in poses)
        boxes = self._load("sample_annotation", lambda row: row.get("sample_token") in samples)
        self.key_frames: dict[str, dict[str, str]] = {token: {} for token in samples}
        self.annotations: dict[str, list[str]] = {token: [] for token in samples}
        for token, row in boxes.items():
            self.annotations[row["sample_token"]].append(token)
        sensors = self._tables["sensor"].values()
        self.channels = {
            text("sensor", row, "channel"): text("sensor", row, "modality") for row in sensors
        }
        for token, row in data.items():
            if row.get("is_key_frame"):
                self.key_frames[row["sample_token"]][self._channel(row)] = token

    def _load(self, name: str, wanted: Callable[[Row], bool] | None = None) -> dict[str, Row]:
        rows = read_table(self.folder, name, wanted)
        self._tables[name] = {row["token"]: row for row in rows}
        return self._tables[name]

    def _channel(self, row: Row) -> str:
        """A file's channel; a broken reference is told where the file is needed."""
        calibration = self._tables["calibrated_sensor"].get(row["calibrated_sensor_token"], {})
        sensor = self._tables["sensor"].get(calibration.get("sensor_token", ""))
        if sensor is not None:
            return str(sensor["channel"])
        parts = Path(str(row["filename"])).parts  # samples/CHANNEL/name
        return parts[-2] if len(parts) > 1 else ""

    def get(self, table: str, token: Any) -> Row:
        """A record.

        Raises:
            RecordError: the table does not hold it.
        """
        try:
            return self._tables[table][token]
        except (KeyError, TypeError):
            raise RecordError(f"{table}.json has no record {token!r}") from None

    def category(self, annotation: Row) -> str:
        """The name of an annotation's category.

        Raises:
            RecordError: instance or category are not there.
        """
        instance = self.get("instance", annotation.get("instance_token"))
        return str(self.get("category", instance.get("category_token"))["name"])

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
        pairs = zip(last["translation"], first["translation"], strict=True)
        speed = tuple((end - start) / elapsed for end, start in pairs)
        return speed if all(map(math.isfinite, speed)) else UNKNOWN_VELOCITY

    def _seconds(self, annotation: Row) -> float:
        stamp = self.get("sample", annotation["sample_token"])["timestamp"]
        return 1e-6 * stamp  # type: ignore[no-any-return]


def read_table(folder: Path, name: str, wanted: Callable[[Row], bool] | None = None) -> list[Row]:
    """Rows of a table, in its order; only those that are ``wanted``, the rest is let go at once.

    Raises:
        DataError: it is missing, unless data sets without annotations lack it, or it is no table.
    """
    path = folder / f"{name}.json"

    def kept(row: Row) -> Row | None:
        return row if "token" not in row or wanted is None or wanted(row) else None

    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file, object_hook=None if wanted is None else kept)
    except FileNotFoundError:
        if name in OPTIONAL:
            return []
        raise DataError(f"{path}: file not found; it is one of the version's tables") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}", path=path) from error
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows if row is not None):
        raise DataError(f"{path} is no table: expected a list of records with a token", path=path)
    return [row for row in rows if row is not None]


def _is_row(row: Any) -> bool:
    return isinstance(row, Mapping) and isinstance(row.get("token"), str)
