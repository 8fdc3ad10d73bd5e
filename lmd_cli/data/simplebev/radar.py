"""Radar: the sweeps of all radars put together, as SimpleBEV takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import SampleRecord
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.frames import Matrix, move
from lmd_cli.data.nuscenes.radar_files import RadarFields, RadarFilters, read_radar
from lmd_cli.data.nuscenes.sweeps import PointEdit, accumulate


def radar_points(
    root: Path,
    record: SampleRecord,
    filters: RadarFilters | None = None,
    fields: RadarFields | None = None,
    edit: PointEdit | None = None,
) -> NDArray[np.float64]:
    """Sweeps of the radars, (19, n): :data:`RADAR_FIELDS`, then the time lag in seconds.

    Positions are in the ego frame at the time of the reference radar, metres; channels in the
    order of the rig, each from the newest sweep to the oldest. Velocities stay in the frame of
    their own sensor, as SimpleBEV leaves them. ``edit`` changes each sweep's points first.

    Raises:
        DataError: a file is missing or damaged; names it and the sample.
    """
    token = record.token
    sweeps = [sweep for frames in record.radars.values() for sweep in frames]
    clouds = [
        read_radar(data_file(root, s.filename, token), filters, token=token, fields=fields)
        for s in sweeps
    ]
    return accumulate(clouds, sweeps, record.reference_radar, edit)


def radar_for_network(points: Matrix, cam0_T_ego: Matrix) -> tuple[Matrix, Matrix]:
    """Positions (n + 1, 3) in the reference camera's axes, and features (n + 1, 16), float32.

    The last point is a padding point at the ego origin with all features zero. SimpleBEV pads
    every cloud with such points before it moves them to the camera, so that the voxel of the ego
    origin is always occupied: its occupancy networks were trained with that, and its networks on
    radar features see zeros there either way.

    Args:
        points: (19, n) as :func:`radar_points` gives them.
        cam0_T_ego: (4, 4) float32.
    """
    padded = np.pad(points.astype(np.float32), ((0, 0), (0, 1)))  # (19, n + 1)
    xyz = move(cam0_T_ego, padded[:3])  # (3, n + 1)
    return np.ascontiguousarray(xyz.T), np.ascontiguousarray(padded[3:].T)
