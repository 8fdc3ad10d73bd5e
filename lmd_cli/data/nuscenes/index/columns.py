"""Columns that grow row by row: a few bytes a row, where records of Python would be a kilobyte."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.index import values


class Numbers(dict[str, int]):
    """Names by number, in the order in which they were first asked for; number 0 is no name."""

    def __init__(self) -> None:
        super().__init__({"": 0})

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


class Columns:
    """Rows of so many whole numbers (``integers``) and of so many others (``floats``)."""

    def __init__(self, integers: int, floats: int = 1) -> None:
        self._widths = (integers, floats)
        self._integers, self._floats, self._count = array("q"), array("d"), 0

    def add(self, integers: Iterable[int], floats: Iterable[float] = (0.0,)) -> None:
        """One row."""
        self._integers.extend(integers)
        self._floats.extend(floats)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    @property
    def integers(self) -> NDArray[np.int64]:
        """(rows, columns), a view: no row can be added while it is in use."""
        return np.frombuffer(self._integers, dtype=np.int64).reshape(-1, self._widths[0])

    @property
    def floats(self) -> NDArray[np.float64]:
        """(rows, columns), a view: no row can be added while it is in use."""
        return np.frombuffer(self._floats, dtype=np.float64).reshape(-1, self._widths[1])


def rows_by_number(table: str, names: Numbers, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """For the number of each name the row that has it, -1 where none does.

    Args:
        table: what the rows are of.
        names: tokens.
        own: number of each row's token.

    Raises:
        RecordError: two rows have the same.
    """
    often = np.flatnonzero(np.bincount(own, minlength=1) > 1)
    if len(often):
        raise values.twice(table, list(names)[often[0]])
    rows = np.full(len(names), -1, dtype=np.int64)
    rows[own] = np.arange(len(own))
    return rows


def by_first_use(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Numbers counted anew from 0 in the order of their first use, and what they were before."""
    used, first, places = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[places.reshape(-1)], used[order].tolist()


def named_rows(name: str, names: list[bytes], fields: list[Any]) -> NDArray[np.void]:
    """A table whose first column holds names and is as wide as the longest; the others are zero."""
    width = max(map(len, names), default=1) or 1
    rows = np.zeros(len(names), dtype=np.dtype([(name, f"S{width}"), *fields]))
    rows[name] = names
    return rows
