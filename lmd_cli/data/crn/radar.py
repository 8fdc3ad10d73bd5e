"""Radar points as CRN takes them: in the perspective view of each camera.

The steps and constants are those of CRN's two preprocessing scripts and its data set, which pass
points on in files of float32; here nothing is written, and all of it happens in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmd_cli.config.data import RADAR_FIELDS
from lmd_cli.data.crn.images import Window
from lmd_cli.data.nuscenes.database import SampleRecord, SensorFrame
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid, move
from lmd_cli.data.nuscenes.radar_files import RadarFilters
from lmd_cli.data.nuscenes.sweeps import PointEdit

#: The radars in the order in which CRN puts their points together.
PERSPECTIVE_RADARS = (
    *("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT"),
    *("RADAR_BACK_LEFT", "RADAR_BACK_RIGHT"),
)
#: Sweeps that reach the network; CRN's files hold eight, of which it leaves out the last two.
PERSPECTIVE_SWEEPS = 6
#: States of the points that CRN keeps.
PERSPECTIVE_FILTERS = RadarFilters((0, 4, 8, 9, 10, 11, 12, 15, 16, 17), range(8), (3,))
#: Limits to a point's horizontal distance from the LiDAR and to its depth, both exclusive, metres.
NEAREST, FARTHEST = 0.1, 100.0
#: What a free slot holds in all of its columns.
FREE = -999.0
RCS_MEAN, RCS_STD = np.float32(4.783), np.float32(7.576)
SPEED_MEAN, SPEED_STD = np.float32(0.677), np.float32(1.976)

Reader = Callable[[str], NDArray[np.float64]]


@dataclass(frozen=True)
class RadarView:
    """What the network takes of one view.

    Attributes:
        slots: rows of points, P.
        depth_bound: points must be nearer than this, metres.
        nsweeps: sweeps whose points are taken, the newest included.
    """

    slots: int
    depth_bound: float
    nsweeps: int = PERSPECTIVE_SWEEPS


def keyframe_points(
    record: SampleRecord, read: Reader, edit: PointEdit | None = None
) -> NDArray[np.float32]:
    """Points of the radars around one key frame, (n, 7): x, y, z, rcs, vx, vy, sweep.

    In the frame of the LiDAR at the key frame; positions in metres, velocities (compensated for
    the vehicle's motion) in m/s, rcs in dBsm, sweep 0 for the newest. Moving points are brought
    forward to the LiDAR's time. Channels in the order of the rig, each from the newest sweep to
    the oldest.

    Args:
        record: the key frame.
        read: gives the points (18, n) of a radar file, :data:`lmd_cli.config.data.RADAR_FIELDS`.
        edit: changes each sweep's points first.
    """
    change = edit or (lambda cloud, sweep: cloud)
    lidar = record.reference
    lidar_T_global = invert_rigid(lidar.global_T_ego() @ lidar.ego_T_sensor())
    clouds = [
        _lidar_points(change(read(sweep.filename), sweep), sweep, number, lidar, lidar_T_global)
        for sweeps in record.radars.values()
        for number, sweep in enumerate(sweeps)
    ]
    points = np.concatenate(clouds, axis=1).T.astype(np.float32)  # (n, 7)
    distance = np.hypot(points[:, 0], points[:, 1])
    return points[(distance > NEAREST) & (distance < FARTHEST)]


def _lidar_points(
    cloud: Matrix, sweep: SensorFrame, number: int, lidar: SensorFrame, lidar_T_global: Matrix
) -> Matrix:
    """One sweep (18, n) in the LiDAR's frame, (7, n)."""
    fields = dict(zip(RADAR_FIELDS, cloud, strict=True))
    radar_T_ego_rotation = sweep.ego_T_sensor()[:3, :3]
    xyz = move(lidar_T_global @ sweep.global_T_ego() @ sweep.ego_T_sensor(), cloud[:3])
    flat = np.stack([fields["vx_comp"], fields["vy_comp"], np.zeros(cloud.shape[1])])  # (3, n)
    # From mounting to mounting: how the vehicle turned in between is left out, as in CRN.
    velocity = (lidar.ego_T_sensor()[:3, :3].T @ radar_T_ego_rotation @ flat)[:2]
    lag = 1e-6 * lidar.timestamp - 1e-6 * sweep.timestamp
    xyz[:2] += velocity * lag
    numbers = np.full((1, cloud.shape[1]), float(number))
    return np.concatenate([xyz, fields["rcs"][None], velocity, numbers])


def camera_rows(
    points: NDArray[np.float32], lidar: SensorFrame, camera: SensorFrame
) -> NDArray[np.float32]:
    """The points that a camera sees, (k, 7): u, v (its pixels), depth (m), rcs, vx, vy, sweep.

    Points and pixels on the very edge of the image (one pixel wide) are left out. CRN goes
    through positions on the city's map in float32, which moves a point by up to 0.1 mm.

    Args:
        points: (n, 7) from :func:`keyframe_points`.
        lidar: whose frame they are in.
        camera: a camera at the same key frame.
    """
    global_T_lidar = lidar.global_T_ego() @ lidar.ego_T_sensor()
    camera_T_global = invert_rigid(camera.global_T_ego() @ camera.ego_T_sensor())
    xyz = move(camera_T_global @ global_T_lidar, points[:, :3].T.astype(np.float64))  # (3, n)
    ahead = (xyz[2] > NEAREST) & (xyz[2] < FARTHEST)
    xyz, features = xyz[:, ahead], points[ahead, 3:]
    u, v, _ = np.asarray(camera.intrinsic) @ xyz / xyz[2]
    seen = (u > 1) & (u < camera.width - 1) & (v > 1) & (v < camera.height - 1)
    rows = np.concatenate([np.stack([u, v, xyz[2]]).T, features], axis=1)  # (k, 7)
    return rows[seen].astype(np.float32)


def network_rows(rows: NDArray[np.float32], window: Window, view: RadarView) -> NDArray[np.float32]:
    """CRN's ``pts_pv`` of one view, (P, 5): u (network pixels), depth (m), 1, rcs, speed.

    Radar cross-section and speed are normalised. Points are ordered by sweep, the newest first,
    within a sweep as in ``rows``. A view without a point gets one made-up point near the far
    left; free slots hold -999. Where there are more points than slots, the first are kept: CRN
    takes a random choice of them, this is the same in every run.

    Args:
        rows: (k, 7) from :func:`camera_rows`.
        window: how the camera's image becomes the network's input.
        view: number of slots and depth bound.
    """
    out = np.full((view.slots, 5), FREE, dtype=np.float32)
    kept = taken_rows(rows, window, view)
    if not len(kept):
        out[0] = 0.1, view.depth_bound - 1, 0.1, 0.0, 0.0
        return out
    out[: len(kept), 0] = kept[:, 0]
    out[: len(kept), 1] = kept[:, 2]
    out[: len(kept), 2] = 1.0
    out[: len(kept), 3] = (kept[:, 3] - RCS_MEAN) / RCS_STD
    out[: len(kept), 4] = (np.hypot(kept[:, 4], kept[:, 5]) - SPEED_MEAN) / SPEED_STD
    return out


def taken_rows(rows: NDArray[np.float32], window: Window, view: RadarView) -> NDArray[np.float32]:
    """Those of :func:`camera_rows` that reach the network, in its order, (k, 7), u and v in its
    pixels."""
    kept = _inside(rows, window, view)
    return kept[np.argsort(kept[:, 6], kind="stable")][: view.slots]


def _inside(rows: NDArray[np.float32], window: Window, view: RadarView) -> NDArray[np.float32]:
    """Rows with u, v in network pixels; only those in the window, the bound and the sweeps."""
    moved = rows.copy()
    moved[:, :2] = rows[:, :2] * np.float32(window.scale) - np.array(
        [window.left, window.top], np.float32
    )
    # Truncated toward zero, as CRN does: what is up to a pixel above the window is in it.
    column, row = np.trunc(moved[:, 0]), np.trunc(moved[:, 1])
    height, width = window.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return moved[inside & (rows[:, 2] < view.depth_bound) & (rows[:, 6] < view.nsweeps)]
