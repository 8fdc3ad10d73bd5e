"""LiDAR files: nuScenes' ``.pcd.bin``, and ``.pcd`` of any encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.files import PCD, file_error, read_bytes, wrong_format
from lmd_cli.data.nuscenes.pcd import NotPcdError, read_pcd
from lmd_cli.data.nuscenes.points import require_few_zeros, require_points

#: Values of a LiDAR point in the file: x, y, z, intensity, ring.
VALUES = 5


#: Rings of a LiDAR, at most; a value that is no such number is none.
RINGS = 1024


NOT_FIVE = "is it a cloud of other values than x, y, z, intensity, ring?"


@np.errstate(invalid="ignore")  # what is no number is refused, once all are there
def read_lidar(path: Path | str, *, token: str | None = None) -> NDArray[np.float32]:
    """Points of a LiDAR file, (5, n): x, y, z (m, sensor frame), intensity, ring.

    A ``.pcd.bin`` as nuScenes has them, or a ``.pcd``, where intensity and ring may be missing
    and are then 0.

    Raises:
        DataError: the file is missing, empty, does not hold whole points, or holds values that
            are none of a LiDAR's.
    """
    path = Path(path)
    content = read_bytes(path, token)
    try:
        points = _of_pcd(content) if path.suffix == ".pcd" else _of_bytes(content)
    except NotPcdError as error:
        raise file_error(path, str(error), token) from error
    require_points(path, ("x", "y", "z", "intensity", "ring"), points, token)
    if path.suffix != ".pcd":  # in a .pcd, zeros may stand for beams that do not return
        require_few_zeros(path, points, token)
    rings = points[4]
    wrong = np.flatnonzero((rings != np.floor(rings)) | (rings < 0) | (rings >= RINGS))
    if len(wrong):
        problem = (
            f"point {wrong[0]} is of ring {rings[wrong[0]]:g}, which is no ring number (0 to "
            f"{RINGS - 1}); {NOT_FIVE}"
        )
        raise file_error(path, problem, token)
    return points


def _of_bytes(content: bytes) -> NDArray[np.float32]:
    """The points (5, n) of a ``.pcd.bin``."""
    if kind := wrong_format(content):
        raise NotPcdError(f"{kind}, expected float32 values x, y, z, intensity, ring")
    if len(content) % (4 * VALUES):
        size = f"{len(content)} bytes are not whole points of {4 * VALUES} bytes"
        raise NotPcdError(f"truncated, or of another width: {size}; {NOT_FIVE}")
    return np.frombuffer(content, "<f4").reshape(-1, VALUES).T


def _of_pcd(content: bytes) -> NDArray[np.float32]:
    """The points (5, n) of a ``.pcd``."""
    try:
        table = read_pcd(content)
    except NotPcdError as error:
        raise NotPcdError(wrong_format(content, PCD) or str(error)) from error
    there = table.dtype.names or ()
    lacking = [name for name in ("x", "y", "z") if name not in there]
    if lacking:
        raise NotPcdError(f"it has no field {', '.join(lacking)}; it has {', '.join(there)}")
    empty = np.zeros(len(table))
    columns = [table[n] if n in there else empty for n in ("x", "y", "z", "intensity", "ring")]
    return np.stack(columns).astype(np.float32)
