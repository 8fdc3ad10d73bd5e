"""Validates points that were read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmd_cli.data.nuscenes.files import file_error
from lmd_cli.data.nuscenes.frames import Matrix

#: No sensor sees farther, metres.
FARTHEST = 1000.0


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
        raise file_error(path, _told(names[name], points[name, point], point, bad), token)


def _told(name: str, value: float, point: int, bad: Matrix) -> str:
    total, others = bad.shape[1], int(bad.any(axis=0).sum()) - 1
    limit = f", beyond {FARTHEST:.0f} m" if np.isfinite(value) else ""
    more = f" (and {others} more such points)" if others else ""
    return f"point {point} of {total} is no measurement: {name} is {value:g}{limit}{more}"
