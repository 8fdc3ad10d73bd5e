"""LiDAR: nuScenes' ``.pcd.bin`` files, and the sweeps of LIDAR_TOP put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.database import SampleRecord
from lmd_cli.data.files import data_file, file_error, read_bytes
from lmd_cli.data.frames import Matrix, move
from lmd_cli.data.sweeps import accumulate

#: Values of a LiDAR point in the file: x, y, z, intensity, ring.
VALUES = 5
#: SimpleBEV drops the points within this distance of the ego origin, metres.
MIN_EGO_DISTANCE = 1.0


def read_lidar(path: Path | str, *, token: str | None = None) -> NDArray[np.float32]:
    """Points of a LiDAR ``.pcd.bin`` file, (5, n): x, y, z (m, sensor frame), intensity, ring.

    Raises:
        DataError: the file is missing, empty, or does not hold whole points.
    """
    path = Path(path)
    content = read_bytes(path, token)
    if not content or len(content) % (4 * VALUES):
        problem = f"truncated: {len(content)} bytes are not whole points of {4 * VALUES} bytes"
        raise file_error(path, problem if content else "truncated: the file is empty", token)
    return np.frombuffer(content, "<f4").reshape(-1, VALUES).T


def lidar_points(root: Path, record: SampleRecord) -> NDArray[np.float32]:
    """Sweeps of LIDAR_TOP, (6, n): the file's five values, then the time lag in seconds.

    Positions are in the ego frame at the time of the keyframe, metres; from the newest sweep to
    the oldest.

    Raises:
        DataError: a file is missing or damaged; names it and the sample.
    """
    clouds = [
        read_lidar(data_file(root, sweep.filename, record.token), token=record.token)
        for sweep in record.lidar
    ]
    return accumulate(clouds, record.lidar, record.lidar[0])


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
