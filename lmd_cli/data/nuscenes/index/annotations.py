"""The annotations of a split's samples as rows of arrays."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import UNKNOWN_VELOCITY, VEHICLE
from lmd_cli.data.nuscenes.index import values
from lmd_cli.data.nuscenes.index.columns import (
    Columns,
    Numbers,
    by_first_use,
    named_rows,
    rows_by_number,
)
from lmd_cli.data.nuscenes.index.reader import Row, Tables

PLACE = [("translation", "<f8", (3,)), ("rotation", "<f8", (4,))]
ANNOTATION = [
    *[("category", "<i4"), ("instance", "<i4"), ("visibility", "<i4")],
    *[*PLACE, ("size", "<f8", (3,))],
    *[("num_lidar_pts", "<i4"), ("num_radar_pts", "<i4"), ("velocity", "<f8", (3,))],
]
#: For each sample, its rows.
OTHERS = np.dtype([("first", "<i8"), ("count", "<i4"), ("problem", "<i4")])
#: Two annotations farther apart than this say nothing of a velocity, seconds (nuscenes-devkit's).
MAX_TIME_DIFFERENCE = 1.5
_TABLE, _LEVELS = "sample_annotation", ("0", "1", "2", "3", "4")
#: What a row of whole numbers holds; the first three are numbers of tokens.
_INTEGERS = (
    *("own", "before", "after", "category", "instance", "visibility"),
    *("num_lidar_pts", "num_radar_pts"),
)


class Annotations:
    """Annotations of some samples, in the order of the table.

    Those of instances that are known to be of other categories than
    :func:`~lmd_cli.data.nuscenes.database.is_indexed` are left out.

    Args:
        tables: where they are.

    Attributes:
        vehicles, others: for each sample token, rows; where nobody knows which it is (a broken
            reference), it counts as a vehicle.
        problems: what is wrong with a row.
        any: whether any sample has annotations at all.

    Raises:
        DataError: the table cannot be read.
        RecordError: a token is no text, or there twice.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._tokens, self._categories, self._instances = Numbers(), Numbers(), Numbers()
        self._kinds: dict[str, tuple[int, int, bool]] = {}
        self._columns = Columns(len(_INTEGERS), 1 + 3 + 4 + 3)
        self.vehicles: defaultdict[str, list[int]] = defaultdict(list)
        self.others: defaultdict[str, list[int]] = defaultdict(list)
        self.problems: dict[int, values.RecordError] = {}
        self.any = False
        self._read()
        self._names = [list(names) for names in (self._tokens, self._categories, self._instances)]
        self._velocities = self._estimated_velocities()

    def _read(self) -> None:
        tables, unread = self._tables, self._tables.other_instances()
        for row in tables.rows(_TABLE):
            sample = row.get("sample_token")
            if type(sample) is not str:
                raise values.problem(_TABLE, row, "sample_token", "a text")
            if sample in tables.times:
                self.any = True
                instance = row.get("instance_token")
                if not isinstance(instance, str) or instance not in unread:
                    self._add(row)

    def _add(self, row: Row) -> None:
        number = self._tokens[values.text(_TABLE, row, "token")]
        seconds = 1e-6 * self._tables.times[row["sample_token"]]
        kind, links, counts = (0, 0, True), (0, 0), (0, 0, 0)
        place: tuple[float, ...] = UNKNOWN_VELOCITY
        box: tuple[float, ...] = (0.0,) * 7
        try:
            kind = self._kind(row)
            place = values.place(_TABLE, row, "translation", values.ON_EARTH)
            box = values.quaternion(_TABLE, row) + values.box_size(_TABLE, row)
            links = self._link(row, "prev"), self._link(row, "next")
            counts = _visibility(row), _count(row, "num_lidar_pts"), _count(row, "num_radar_pts")
        except values.RecordError as error:
            self.problems[len(self._columns)] = error
        of_sample = self.vehicles if kind[2] else self.others
        of_sample[row["sample_token"]].append(len(self._columns))
        self._columns.add((number, *links, *kind[:2], *counts), (seconds, *place, *box))

    def _link(self, row: Row, field: str) -> int:
        """The number of the token of the annotation before or after; 0 for none."""
        return self._tokens[values.optional(_TABLE, row, field)]

    def _kind(self, row: Row) -> tuple[int, int, bool]:
        """Numbers of an annotation's category and instance, and whether it is a vehicle.

        Raises:
            RecordError: of this record, its instance or its category.
        """
        try:
            return self._kinds[row["instance_token"]]
        except (KeyError, TypeError):
            name, instance = self._tables.category(row), row["instance_token"]
        kind = self._categories[name], self._instances[instance], VEHICLE in name
        self._kinds[instance] = kind
        return kind

    def _estimated_velocities(self) -> NDArray[np.float64]:
        """nuscenes-devkit's estimates (rows, 3), m/s; NaN where there is none, or where a neighbour
        is missing (tables cut to a few samples)."""
        own, before, after = self._columns.integers[:, :3].T
        seconds, places = self._columns.floats[:, 0], self._columns.floats[:, 1:4]
        rows = rows_by_number(_TABLE, self._tokens, own)
        first = np.where(before, rows[before], rows[own])
        last = np.where(after, rows[after], rows[own])
        elapsed = seconds[last] - seconds[first]
        longest = MAX_TIME_DIFFERENCE * np.where((before > 0) & (after > 0), 2, 1)
        known = ((before > 0) | (after > 0)) & (first >= 0) & (last >= 0)
        known &= (elapsed <= longest) & (elapsed != 0)
        with np.errstate(all="ignore"):
            speed: NDArray[np.float64] = (places[last] - places[first]) / elapsed[:, None]
        speed[~(known & np.isfinite(speed).all(axis=1))] = UNKNOWN_VELOCITY
        return speed

    def table(self, rows: list[int]) -> tuple[NDArray[np.void], dict[str, list[str]]]:
        """Some rows as an array of :data:`ANNOTATION`, the token first; and what its numbers of
        categories and instances stand for."""
        tokens, categories, instances = self._names
        chosen = np.array(rows, dtype=np.int64)
        integers = dict(zip(_INTEGERS, self._columns.integers[chosen].T, strict=True))
        floats = self._columns.floats[chosen]
        integers["category"], of_category = by_first_use(integers["category"])
        integers["instance"], of_instance = by_first_use(integers["instance"])
        table = named_rows("token", [tokens[i].encode() for i in integers["own"]], ANNOTATION)
        for name in _INTEGERS[3:]:
            table[name] = integers[name]
        table["translation"], table["rotation"] = floats[:, 1:4], floats[:, 4:8]
        table["size"], table["velocity"] = floats[:, 8:], self._velocities[chosen]
        names = {
            "categories": [categories[i] for i in of_category],
            "instances": [instances[i] for i in of_instance],
        }
        return table, names


class Boxes:
    """Annotations of a kind, sample by sample.

    Args:
        annotations: of all kinds.
        problems: those that are known, with their numbers; more are added.

    Attributes:
        problems: these.
        ranges: for each sample the first of its rows, their number, and the row of a problem.
    """

    def __init__(self, annotations: Annotations, problems: dict[str, int]) -> None:
        self._annotations, self.problems = annotations, problems
        self._rows: list[int] = []
        self.ranges: list[tuple[int, int, int]] = []

    def add(self, rows: list[int]) -> tuple[int, int, int]:
        """A sample's annotations; gives its range."""
        first, problem, broken = len(self._rows), -1, self._annotations.problems
        self._rows += [row for row in rows if row not in broken]
        for row in rows:
            if row in broken:
                problem = problem_row(self.problems, broken[row])
        self.ranges.append((first, len(self._rows) - first, problem))
        return self.ranges[-1]

    def table(self) -> tuple[NDArray[np.void], dict[str, list[str]]]:
        """Rows of :data:`ANNOTATION`, the token first, and what their numbers stand for."""
        return self._annotations.table(self._rows)


def problem_row(problems: dict[str, int], error: values.RecordError) -> int:
    """The row that stands for a problem, which is added to those that are known."""
    return -2 - problems.setdefault(str(error), len(problems))


def _count(row: Row, field: str) -> int:
    """Points in a box; 0 where the tables do not say."""
    if row.get(field) in (None, ""):
        return 0
    return max(values.whole(_TABLE, row, field, -1, 2**31 - 1), 0)


def _visibility(row: Row) -> int:
    """nuScenes' level, a token of one digit; 0 where the tables do not say."""
    level = row.get("visibility_token")
    if level in ("", *_LEVELS):
        return int(level or 0)
    return 0 if level is None else values.whole(_TABLE, row, "visibility_token", 0, 4)
