"""LiDAR: the sweeps put together, as SimpleBEV takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import SampleRecord
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.frames import Matrix, move
from lmd_cli.data.nuscenes.lidar_files import read_lidar
from lmd_cli.data.nuscenes.sweeps import PointEdit, accumulate

#: SimpleBEV drops the points within this distance of the ego origin, metres.
MIN_EGO_DISTANCE = 1.0


def lidar_points(
    root: Path, record: SampleRecord, edit: PointEdit | None = None
) -> NDArray[np.float32]:
    """Sweeps of the LiDARs, (6, n): the file's five values, then the time lag in seconds.

    Positions are in the ego frame at the time of the first LiDAR's keyframe, metres; each from
    the newest sweep to the oldest; ``edit`` changes each sweep's points first.

    Raises:
        DataError: a file is missing or damaged; names it and the sample.
    """
    sweeps = [sweep for frames in record.lidars.values() for sweep in frames]
    clouds = [
        read_lidar(data_file(root, sweep.filename, record.token), token=record.token)
        for sweep in sweeps
    ]
    return accumulate(clouds, sweeps, record.reference, edit)


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
