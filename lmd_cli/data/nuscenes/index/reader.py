"""Reads nuScenes' tables as far as a split needs them.

nuscenes-devkit asks for more than an index needs (masks of the maps, labels of lidarseg), so that
half a data set does not open, and keeps every record of every scene.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lmd_cli.data.nuscenes.database import is_indexed
from lmd_cli.data.nuscenes.files import read_head, wrong_format
from lmd_cli.data.nuscenes.index import values
from lmd_cli.data.nuscenes.index.elements import list_elements
from lmd_cli.errors import DataError, ForeignFileError
from lmd_cli.runtime.files import open_given

#: Tables that a data set without annotations may lack.
OPTIONAL = ("sample_annotation", "instance", "category")

Row = dict[str, Any]


class Tables:
    """What some scenes need of a version's tables; the largest are only passed through.

    Args:
        folder: the version's.
        scenes: names of the scenes.

    Attributes:
        scenes: rows of the scene table, ordered by token.
        times: for each sample token its time, microseconds.
        channels: modality of every channel.

    Raises:
        DataError: a table is missing or cannot be read.
        RecordError: a sensor has no channel, a sample no time, or a token is there twice.
    """

    def __init__(self, folder: Path, scenes: Collection[str]) -> None:
        self.folder = folder
        rows = [row for row in self._by_token("scene").values() if row["name"] in scenes]
        self.scenes = sorted(rows, key=lambda row: row["token"])
        self._samples: dict[str, list[str]] = {row["token"]: [] for row in rows}
        self.times: dict[str, int] = {}
        for row in self.rows("sample"):
            self._add_sample(row)
        small = ("sensor", "calibrated_sensor", "instance", "category")
        self._tables = {name: self._by_token(name) for name in small}
        sensors = self._tables["sensor"].values()
        self.channels = {
            values.text("sensor", row, "channel"): values.text("sensor", row, "modality")
            for row in sensors
        }

    def _add_sample(self, row: Row) -> None:
        if values.text("sample", row, "scene_token") in self._samples:
            token = values.text("sample", row, "token")
            if token in self.times:
                raise values.twice("sample", token)
            self.times[token] = values.whole("sample", row, "timestamp")
            self._samples[row["scene_token"]].append(token)

    def _by_token(self, name: str) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for row in self.rows(name):
            if row["token"] in rows:
                raise values.twice(name, row["token"])
            rows[row["token"]] = row
        return rows

    def samples(self, scene: Row) -> list[str]:
        """Tokens of a scene's samples, ordered by time."""
        return sorted(self._samples[scene["token"]], key=self.times.__getitem__)

    def cameras(self) -> set[str]:
        """Tokens of the cameras' calibrations."""
        sensors = self._tables["sensor"].items()
        cameras = {token for token, row in sensors if row["modality"] == "camera"}
        calibrations = self._tables["calibrated_sensor"].items()
        return {token for token, row in calibrations if _has(cameras, row.get("sensor_token"))}

    def other_instances(self) -> set[str]:
        """Tokens of instances that are known to be of categories that are not indexed."""
        names = self._tables["category"].items()
        others = {token for token, row in names if _is_other(row.get("name"))}
        instances = self._tables["instance"].items()
        return {token for token, row in instances if _has(others, row.get("category_token"))}

    def channel(self, row: Row) -> str:
        """The channel of a record of ``sample_data``; a broken reference is reported where the
        file is needed."""
        token = str(row.get("calibrated_sensor_token"))
        calibration = self._tables["calibrated_sensor"].get(token, {})
        sensor = self._tables["sensor"].get(str(calibration.get("sensor_token")))
        if sensor is not None:
            return values.text("sensor", sensor, "channel")
        parts = Path(str(row.get("filename"))).parts  # samples/CHANNEL/name
        return parts[-2] if len(parts) > 1 else ""

    def referenced(self, table: str, row: Row, other: str) -> Row:
        """The record of another table that a record refers to.

        Raises:
            RecordError: the record has no reference, or the other table does not hold it.
        """
        token = values.present(table, row, f"{other}_token")
        if not _has(self._tables[other], token):
            raise values.absent(other, token)
        return self._tables[other][token]

    def category(self, annotation: Row) -> str:
        """The name of an annotation's category.

        Raises:
            RecordError: instance or category are not there.
        """
        instance = self.referenced("sample_annotation", annotation, "instance")
        category = self.referenced("instance", instance, "category")
        return values.text("category", category, "name")

    def rows(self, name: str) -> Iterator[Row]:
        """Rows of a table, in its order.

        Raises:
            DataError: it is missing, unless data sets without annotations lack it, or no table.
        """
        return table_rows(self.folder, name)


def table_rows(folder: Path, name: str) -> Iterator[Row]:
    """See :meth:`Tables.rows`."""
    path, row = folder / f"{name}.json", None
    try:
        # Some editors begin a file with a mark of its encoding.
        with open(path, encoding="utf-8-sig", opener=open_given) as file:
            for row in list_elements(file):
                if type(row) is not dict or type(row.get("token")) is not str:
                    raise DataError(
                        f"{path} is no table: expected a list of records with a token", path=path
                    )
                yield row
        if row is None and name not in OPTIONAL:
            raise DataError(f"{path} is a table without a record; expected at least one", path=path)
    except FileNotFoundError:
        if name not in OPTIONAL:
            raise DataError(f"{path}: file not found; it is one of the version's tables") from None
    except (OSError, ValueError, RecursionError, ForeignFileError) as error:
        raise DataError(
            f"{path} cannot be read as a table: {_why(path, error)}", path=path
        ) from error


def _why(path: Path, error: Exception) -> str:
    """What the file is instead, and what Python's limits mean in other words."""
    if isinstance(error, ValueError) and (kind := wrong_format(read_head(path))):
        return kind
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if type(error) is ValueError and "set_int_max_str_digits" in str(error):
        return "a number has thousands of digits"
    return str(error)


def _is_other(category: Any) -> bool:
    """Whether a category's annotations are not read; of one without a name nobody knows."""
    return isinstance(category, str) and category != "" and not is_indexed(category)


def _has(tokens: Collection[str], token: Any) -> bool:
    """Whether a value is a token that is among some."""
    return isinstance(token, str) and token in tokens
