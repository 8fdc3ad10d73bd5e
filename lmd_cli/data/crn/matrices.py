"""Calibration matrices of CRN's cameras, relative to the vehicle at the current key frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pyquaternion import Quaternion

from lmd_cli.data.nuscenes.database import SensorFrame
from lmd_cli.data.nuscenes.frames import invert_rigid, rigid

#: The cameras in CRN's order.
PERSPECTIVE_CAMERAS = (
    *("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    *("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"),
)


def sensor2ego(frame: SensorFrame, current: SensorFrame) -> NDArray[np.float32]:
    """CRN's ``sensor2ego_mats``: the camera at ``frame`` to the ego frame at ``current``, (4, 4).

    ``current`` is the same camera at the current key frame: each camera has an ego frame of its
    own. Multiplied in float64; CRN multiplies in float32 with positions on the city's map, and so
    is off by up to their spacing there, a tenth of a millimetre.
    """
    ego_T_global = invert_rigid(current.global_T_ego())
    return (ego_T_global @ frame.global_T_ego() @ frame.ego_T_sensor()).astype(np.float32)


def intrinsics(frame: SensorFrame) -> NDArray[np.float32]:
    """CRN's ``intrin_mats`` (4, 4): pixels of the camera, not of the network's input."""
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = frame.intrinsic
    return matrix


def global_T_mean_ego(frames: Sequence[SensorFrame]) -> NDArray[np.float64]:
    """The mean of the vehicle's poses at the frames, (4, 4): CRN's ego frame for boxes.

    Positions and quaternions are averaged component by component. A quaternion and its negative
    are the same rotation, so all take the sign that is nearest to the first.
    """
    translation = np.mean([frame.ego_translation for frame in frames], axis=0)
    rotations = np.array([frame.ego_rotation for frame in frames])  # (n, 4)
    aligned = rotations * np.where(rotations @ rotations[0] < 0, -1.0, 1.0)[:, None]
    mean = Quaternion(aligned.mean(axis=0)).normalised
    return rigid(translation, mean.elements)
