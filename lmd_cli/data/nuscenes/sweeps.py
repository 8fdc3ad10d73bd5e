"""Past sweeps of a moving sensor brought into one frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmd_cli.data.nuscenes.database import SensorFrame
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid, move

#: What is done to a sweep's points (d, n), which are in its sensor's frame.
PointEdit = Callable[[Matrix, SensorFrame], Matrix]
#: Points nearer than this along both x and y of their sensor are the vehicle itself, metres.
MIN_DISTANCE = 2.2


def remove_close(points: Matrix, distance: float = MIN_DISTANCE) -> Matrix:
    """Drop the points (d, n) whose |x| and |y| are both below ``distance``."""
    return points[:, ~(np.abs(points[:2]) < distance).all(axis=0)]


def accumulate(
    clouds: Sequence[Matrix],
    sweeps: Sequence[SensorFrame],
    reference: SensorFrame,
    edit: PointEdit | None = None,
) -> Matrix:
    """Clouds (d, n_i) of sensor frames to one cloud (d + 1, n) in the reference's ego frame.

    Close points are dropped in the sensor's own frame. The last row is the time lag behind the
    reference in seconds. ``edit`` changes a cloud before that.
    """
    if edit is not None:
        clouds = [edit(cloud, sweep) for cloud, sweep in zip(clouds, sweeps, strict=True)]
    ego_T_global = invert_rigid(reference.global_T_ego())
    return np.concatenate(
        [
            _to_ego(cloud, sweep, ego_T_global, 1e-6 * reference.timestamp)
            for cloud, sweep in zip(clouds, sweeps, strict=True)
        ],
        axis=1,
    )


def _to_ego(cloud: Matrix, sweep: SensorFrame, ego_T_global: Matrix, now: float) -> Matrix:
    kept = remove_close(cloud)
    ego_T_sensor = ego_T_global @ sweep.global_T_ego() @ sweep.ego_T_sensor()
    lag = now - 1e-6 * sweep.timestamp
    moved = np.empty((kept.shape[0] + 1, kept.shape[1]), kept.dtype)  # (d + 1, n)
    moved[:3] = move(ego_T_sensor, kept[:3])  # computed in float64 whatever the cloud's type
    moved[3:-1] = kept[3:]
    moved[-1] = lag
    return moved
