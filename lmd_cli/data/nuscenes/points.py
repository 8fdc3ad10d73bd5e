"""Validates points that were read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmd_cli.data.nuscenes.files import file_error
from lmd_cli.data.nuscenes.frames import Matrix

#: No sensor sees farther, metres.
FARTHEST = 1000.0
#: Points of zeros alone that a sensor gives, as a share of all: fewer than one ring of 32 whose
#: beams never return, which is the only ring that is number 0.
ZEROS = 0.05


def require_points(path: Path, names: Sequence[str], points: Matrix, token: str | None) -> None:
    """Refuses clouds with values that no sensor gives.

    Args:
        path: the file.
        names: of the values, positions x, y, z first.
        points: (d, n), metres.
        token: the sample that needs the file, for the message.

    Raises:
        DataError: a value is not finite, a point is farther than :data:`FARTHEST`, or all are zero;
            names the file, the first such point and the value.
    """
    if not points.size:
        return
    if not points.any():
        raise file_error(path, "all of its points are zeros", token)
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(points)
        bad[:3] |= np.abs(points[:3]) > FARTHEST
    if bad.any():
        name, point = np.argwhere(bad)[np.argwhere(bad)[:, 1].argmin()]
        raise file_error(path, _bad_value(names[name], points[name, point], point, bad), token)


def require_few_zeros(path: Path, points: Matrix, token: str | None) -> None:
    """Refuses clouds (d, n) of which a part was never written: all values of its points are zero.

    Raises:
        DataError: more than :data:`ZEROS` of the points; names the file and how many.
    """
    total, zeros = points.shape[1], int((~points.any(axis=0)).sum())
    if zeros > ZEROS * total:
        last = total - 1 - int(points.any(axis=0)[::-1].argmax())
        where = f", all after point {last}" if total - 1 - last == zeros else ""
        problem = f"truncated or not fully written: {zeros} of its {total} points are zeros alone"
        raise file_error(path, f"{problem}{where}", token)


def _bad_value(name: str, value: float, point: int, bad: Matrix) -> str:
    total, others = bad.shape[1], int(bad.any(axis=0).sum()) - 1
    limit = f", beyond {FARTHEST:.0f} m" if np.isfinite(value) else ""
    more = f" (and {others} more such points)" if others else ""
    return f"point {point} of {total} is no measurement: {name} is {value:g}{limit}{more}"
