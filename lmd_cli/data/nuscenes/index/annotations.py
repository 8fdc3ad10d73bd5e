"""A split's annotations as rows of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmd_cli.data.nuscenes.index import values
from lmd_cli.data.nuscenes.index.reader import Row, Tables

PLACE = [("translation", "<f8", (3,)), ("rotation", "<f8", (4,))]
ANNOTATION = [
    *[("category", "<i4"), ("instance", "<i4"), ("visibility", "<i4")],
    *[*PLACE, ("size", "<f8", (3,))],
    *[("num_lidar_pts", "<i4"), ("num_radar_pts", "<i4"), ("velocity", "<f8", (3,))],
]
#: For each sample, its rows.
OTHERS = np.dtype([("first", "<i8"), ("count", "<i4"), ("problem", "<i4")])


class Boxes:
    """Annotations of a kind, sample by sample.

    Args:
        tables: where they are.
        problems: those that are known, with their numbers; more are added.

    Attributes:
        ranges: for each sample the first of its rows, their number, and the row of a problem.
    """

    def __init__(self, tables: Tables, problems: dict[str, int]) -> None:
        self._tables, self._problems = tables, problems
        self._categories: dict[str, int] = {}
        self._instances: dict[str, int] = {}
        self._rows: list[tuple[Any, ...]] = []
        self.ranges: list[tuple[int, int, int]] = []

    def add(self, tokens: list[str]) -> tuple[int, int, int]:
        """A sample's annotations; gives its range."""
        first, problem = len(self._rows), -1
        for token in tokens:
            try:
                self._rows.append(self._row(self._tables.get("sample_annotation", token)))
            except values.RecordError as error:
                problem = problem_row(self._problems, error)
        self.ranges.append((first, len(self._rows) - first, problem))
        return self.ranges[-1]

    def _row(self, row: Row) -> tuple[Any, ...]:
        """Raises RecordError: of this record, its instance or its category."""
        table, name = "sample_annotation", self._tables.category(row)
        box = (
            values.place(table, row, "translation", values.ON_EARTH),
            values.quaternion(table, row),
            values.box_size(table, row),
        )
        counts = (_count(row, "num_lidar_pts"), _count(row, "num_radar_pts"))
        category = self._categories.setdefault(name, len(self._categories))
        velocity = self._tables.velocity(row["token"])
        instance = self._instances.setdefault(row["instance_token"], len(self._instances))
        return row["token"].encode(), category, instance, _visibility(row), *box, *counts, velocity

    def take_rows(self) -> list[tuple[Any, ...]]:
        """Rows of :data:`ANNOTATION`, the token first, which are no longer kept here."""
        rows, self._rows = self._rows, []
        return rows

    def names(self) -> dict[str, list[str]]:
        """What the rows' numbers stand for."""
        return {
            "categories": list(self._categories),
            "instances": list(self._instances),
            "problems": list(self._problems),
        }


def problem_row(problems: dict[str, int], error: values.RecordError) -> int:
    """The row that stands for a problem, which is added to those that are known."""
    return -2 - problems.setdefault(str(error), len(problems))


def _count(row: Row, field: str) -> int:
    """Points in a box; 0 where the tables do not say."""
    if row.get(field) in (None, ""):
        return 0
    return max(values.whole("sample_annotation", row, field, -1, 2**31 - 1), 0)


def _visibility(row: Row) -> int:
    """nuScenes' level; 0 where the tables do not say."""
    if row.get("visibility_token") in (None, ""):
        return 0
    return values.whole("sample_annotation", row, "visibility_token", 0, 4)
