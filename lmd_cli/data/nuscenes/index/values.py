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
#: Whole numbers up to it are exact as floating-point numbers.
_EXACT = 2**53
#: Numbers are of these types; truth values, which Python counts among integers, are none.
_NUMBERS = {int, float}
#: Zero bytes and halves of characters, which no file's name has.
_UNUSABLE = re.compile("[\0\ud800-\udfff]").search

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
        RecordError: it is none, is singular, or has a focal length that is not positive.
    """
    rows = row.get(field)
    parsed = [_numbers(line, 3) for line in rows] if isinstance(rows, list) else []
    lines = [line for line in parsed if line is not None]
    if len(parsed) != 3 or len(lines) != 3 or not _invertible(lines):
        raise problem(table, row, field, "3 rows of 3 finite numbers, a matrix with an inverse")
    if min(lines[0][0], lines[1][1]) <= 0 or lines[2] != (0, 0, 1):
        expected = "[[fx, s, cx], [0, fy, cy], [0, 0, 1]] with focal lengths fx and fy above 0"
        raise problem(table, row, field, expected)
    return lines


def _invertible(lines: list[tuple[float, ...]]) -> bool:
    return bool(np.any(lines)) and bool(np.linalg.cond(np.array(lines)) < CONDITION)


def whole(table: str, row: Row, field: str, least: int = 0, most: int = 2**62) -> int:
    """A whole number, also one that is written with a decimal point.

    Raises:
        RecordError: it is none (a text is none), or beyond the bounds.
    """
    value = row.get(field)
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise problem(table, row, field, f"a whole number from {least}")
    return value


def truth(table: str, row: Row, field: str) -> bool:
    """A truth value; a text such as "False" is none.

    Raises:
        RecordError: it is none.
    """
    value = row.get(field)
    if not isinstance(value, bool):
        raise problem(table, row, field, "true or false")
    return value


def text(table: str, row: Row, field: str) -> str:
    """A text that is not empty and may be a file's name.

    Raises:
        RecordError: it is none, or holds zero bytes or halves of characters.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value or _UNUSABLE(value):
        raise problem(table, row, field, "a text")
    return value


def optional(table: str, row: Row, field: str) -> str:
    """A text that may be empty, as the token before the first; also where the table has none.

    Raises:
        RecordError: it is something else.
    """
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise problem(table, row, field, "a text, which may be empty")
    return value or ""


def absent(table: str, token: Any) -> RecordError:
    """The error for a token that no record has."""
    return RecordError(f"{table}.json has no record {token!r}")


def twice(table: str, token: str) -> RecordError:
    """The error for a token that two records have."""
    return RecordError(
        f"{table}.json has two records with the token {in_one_line(token)}; expected one"
    )


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or none."""
    if not isinstance(values, list) or len(values) != count:
        return None
    if not _NUMBERS.issuperset(map(type, values)):
        return None
    try:
        numbers = tuple(map(float, values))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
