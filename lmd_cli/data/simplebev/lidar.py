"""LiDAR: nuScenes' ``.pcd.bin`` files, ``.pcd`` files, and the sweeps put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import SampleRecord
from lmd_cli.data.nuscenes.files import PCD, data_file, file_error, read_bytes, told_kind
from lmd_cli.data.nuscenes.frames import Matrix, move
from lmd_cli.data.nuscenes.pcd import NotPcdError, read_pcd
from lmd_cli.data.nuscenes.points import require_points
from lmd_cli.data.nuscenes.sweeps import accumulate

#: Values of a LiDAR point in the file: x, y, z, intensity, ring.
VALUES = 5
#: Rings of a LiDAR, at most; a value that is no such number is none.
RINGS = 1024
NOT_FIVE = "is it a cloud of other values than x, y, z, intensity, ring?"
#: SimpleBEV drops the points within this distance of the ego origin, metres.
MIN_EGO_DISTANCE = 1.0


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
    if kind := told_kind(content):
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
        raise NotPcdError(told_kind(content, PCD) or str(error)) from error
    there = table.dtype.names or ()
    lacking = [name for name in ("x", "y", "z") if name not in there]
    if lacking:
        raise NotPcdError(f"it has no field {', '.join(lacking)}; it has {', '.join(there)}")
    empty = np.zeros(len(table))
    columns = [table[n] if n in there else empty for n in ("x", "y", "z", "intensity", "ring")]
    return np.stack(columns).astype(np.float32)


def lidar_points(root: Path, record: SampleRecord) -> NDArray[np.float32]:
    """Sweeps of the LiDARs, (6, n): the file's five values, then the time lag in seconds.

    Positions are in the ego frame at the time of the first LiDAR's keyframe, metres; each from
    the newest sweep to the oldest.

    Raises:
        DataError: a file is missing or damaged; names it and the sample.
    """
    sweeps = [sweep for frames in record.lidars.values() for sweep in frames]
    clouds = [
        read_lidar(data_file(root, sweep.filename, record.token), token=record.token)
        for sweep in sweeps
    ]
    return accumulate(clouds, sweeps, record.reference)


def lidar_for_network(points: Matrix, cam0_T_ego: Matrix) -> Matrix:
    """Positions (n, 3) in the reference camera's axes, float32.

    Points within a metre of the ego origin are dropped, as in SimpleBEV. It also caps a cloud at
    30 000 points per sweep, for the sake of fixed shapes; we keep them all.

    Args:
        points: (6, n) as :func:`lidar_points` gives them.
        cam0_T_ego: (4, 4) float32.
    """
    xyz = points[:3].astype(np.float32)
    xyz = xyz[:, np.linalg.norm(xyz, axis=0) > MIN_EGO_DISTANCE]
    return np.ascontiguousarray(move(cam0_T_ego, xyz).T)
