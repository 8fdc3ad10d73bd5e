"""Reads and validates the values of a table's record."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmd_cli.runtime.printable import in_one_line

#: A sensor is mounted within this distance of its vehicle; a box is no larger, metres.
ON_VEHICLE = 1e3
#: No place on a map, in any system of coordinates, is farther from its origin, metres.
ON_EARTH = 1e8
#: The largest number of pixels along an image's side.
PIXELS = 2**20
#: A matrix of intrinsics that stretches one direction so much more than another has no inverse.
CONDITION = 1e10
#: What a value is shown as in a message, at most.
_SHOWN = 80

Row = Mapping[str, Any]


class RecordError(Exception):
    """A record that cannot be used: its table, token and field, and what was expected."""


def problem(table: str, row: Row, field: str, expected: str) -> RecordError:
    """The error for a record's field."""
    value = repr(row[field]) if field in row else "missing"
    shown = value if len(value) <= _SHOWN else f"{value[: _SHOWN - 3]}..."
    token = in_one_line(str(row.get("token")))
    return RecordError(f"{table}.json, record {token}: {field} is {shown}; expected {expected}")


def present(table: str, row: Row, field: str) -> Any:
    """A value of any kind.

    Raises:
        RecordError: the record lacks the field, or it is null.
    """
    if row.get(field) is None:
        raise problem(table, row, field, "a value")
    return row[field]


def place(table: str, row: Row, field: str, farthest: float) -> tuple[float, ...]:
    """Three finite numbers, metres.

    Raises:
        RecordError: they are none, or one is beyond ``farthest``.
    """
    numbers = _numbers(row.get(field), 3)
    if numbers is None or max(map(abs, numbers)) > farthest:
        limit = f"{farthest:.0f}" if farthest < 1e6 else f"{farthest:.0e}"
        raise problem(table, row, field, f"3 finite numbers within {limit} m")
    return numbers


def quaternion(table: str, row: Row, field: str = "rotation") -> tuple[float, ...]:
    """A rotation (w, x, y, z).

    Raises:
        RecordError: it is no four finite numbers, or all are zero.
    """
    numbers = _numbers(row.get(field), 4)
    if numbers is None or not 1e-6 < math.hypot(*numbers) < 1e6:
        raise problem(table, row, field, "a quaternion (w, x, y, z) of length 1")
    return numbers


def box_size(table: str, row: Row, field: str = "size") -> tuple[float, ...]:
    """Width, length and height, metres.

    Raises:
        RecordError: they are no three positive numbers.
    """
    numbers = _numbers(row.get(field), 3)
    if numbers is None or min(numbers) <= 0 or max(numbers) > ON_VEHICLE:
        raise problem(table, row, field, "3 positive numbers (width, length, height in m)")
    return numbers


def intrinsics(table: str, row: Row, field: str = "camera_intrinsic") -> list[tuple[float, ...]]:
    """A camera's matrix, 3 rows of 3.

    Raises:
        RecordError: it is none, or singular.
    """
    rows = row.get(field)
    parsed = [_numbers(line, 3) for line in rows] if isinstance(rows, list | tuple) else []
    lines = [line for line in parsed if line is not None]
    if len(parsed) != 3 or len(lines) != 3 or not _invertible(lines):
        raise problem(table, row, field, "3 rows of 3 finite numbers, a matrix with an inverse")
    return lines


def _invertible(lines: list[tuple[float, ...]]) -> bool:
    return bool(np.any(lines)) and bool(np.linalg.cond(np.array(lines)) < CONDITION)


def whole(table: str, row: Row, field: str, least: int = 0, most: int = 2**62) -> int:
    """A whole number.

    Raises:
        RecordError: it is none, or beyond the bounds.
    """
    try:
        number = int(row[field])
    except (KeyError, TypeError, ValueError, OverflowError):
        number = least - 1
    if not least <= number <= most:
        raise problem(table, row, field, f"a whole number from {least}")
    return number


def text(table: str, row: Row, field: str) -> str:
    """A text that is not empty and may be a file's name.

    Raises:
        RecordError: it is none, or holds zero bytes or halves of characters.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value or re.search("[\0\ud800-\udfff]", value):
        raise problem(table, row, field, "a text")
    return value


def _is_number(value: Any) -> bool:
    kind = type(value)
    return kind is float or kind is int or isinstance(value, int | float)


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or none."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return None
    if not all(map(_is_number, values)):
        return None
    try:
        numbers = tuple(map(float, values))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
