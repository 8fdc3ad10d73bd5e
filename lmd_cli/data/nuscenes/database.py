"""Records that samples need of a nuScenes version's tables, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.frames import rigid

#: The cameras, the reference camera first.
CAMERAS = (
    *("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT"),
    *("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"),
)
#: The radars, in the order in which their points are put together.
RADARS = (
    *("RADAR_BACK_RIGHT", "RADAR_BACK_LEFT"),
    *("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT"),
)
LIDAR = "LIDAR_TOP"
#: The radar whose key frame says where the points of all radars are, if a rig has it.
REFERENCE_RADAR = "RADAR_FRONT"
#: What the category of an annotation must contain to count as a vehicle.
VEHICLE = "vehicle"
#: Classes of nuScenes' detection task by category, as in nuscenes-devkit (which worker processes do
#: not import).
DETECTION_CLASSES = {
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
}
#: Where nuScenes' evaluation counts no bicycle and no motorcycle.
BICYCLE_RACK = "static_object.bicycle_rack"
UNKNOWN_VELOCITY = (math.nan, math.nan, math.nan)


def is_indexed(category: str) -> bool:
    """Whether annotations of a category are read: of vehicles, of the detection task's classes, and
    of bicycle racks."""
    return VEHICLE in category or category in DETECTION_CLASSES or category == BICYCLE_RACK


@dataclass(frozen=True, slots=True)
class SensorFrame:
    """One file of one sensor, with the calibration and the vehicle's pose at that time.

    Translations in metres, rotations as quaternions (w, x, y, z), ``timestamp`` in microseconds,
    ``filename`` relative to the data root; ``intrinsic`` (3 rows of 3), ``width`` and ``height``
    (pixels) of a camera only.
    """

    filename: str
    timestamp: int
    ego_translation: Sequence[float]
    ego_rotation: Sequence[float]
    sensor_translation: Sequence[float]
    sensor_rotation: Sequence[float]
    intrinsic: Sequence[Sequence[float]]
    width: int
    height: int

    def global_T_ego(self) -> NDArray[np.float64]:
        """The vehicle's pose, (4, 4)."""
        return rigid(self.ego_translation, self.ego_rotation)

    def ego_T_sensor(self) -> NDArray[np.float64]:
        """The sensor's mounting, (4, 4)."""
        return rigid(self.sensor_translation, self.sensor_rotation)


@dataclass(frozen=True, slots=True)
class Annotation:
    """A box in the global frame: metres, quaternion (w, x, y, z); width, length, height.

    ``visibility`` is nuScenes' level from 1 to 4, 0 where the tables give none; ``velocity`` in
    m/s along the global axes, NaN where it is unknown; ``instance`` is the object's token.
    """

    token: str
    category: str
    visibility: int
    translation: Sequence[float]
    rotation: Sequence[float]
    size: Sequence[float]
    num_lidar_pts: int
    num_radar_pts: int
    velocity: Sequence[float] = UNKNOWN_VELOCITY
    instance: str = ""

    @property
    def speed(self) -> float:
        """On the ground, m/s; NaN where it is unknown."""
        return float(np.linalg.norm(self.velocity[:2]))


@dataclass(frozen=True, slots=True)
class Rig:
    """The channels that samples are read from, in order; the first camera is the reference."""

    cameras: tuple[str, ...] = CAMERAS
    radars: tuple[str, ...] = RADARS
    lidars: tuple[str, ...] = (LIDAR,)


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One keyframe: cameras in the order of the rig's; sweeps by channel, from the newest back.

    ``description`` is the scene's, in nuScenes' own words (``Night, rain, ...``).
    """

    token: str
    scene: str
    cameras: tuple[SensorFrame, ...]
    radars: Mapping[str, tuple[SensorFrame, ...]]
    lidars: Mapping[str, tuple[SensorFrame, ...]]
    vehicles: tuple[Annotation, ...]
    description: str = ""

    @property
    def reference(self) -> SensorFrame:
        """Whose ego pose boxes are seen from: the first LiDAR's, or without one the first
        camera's."""
        return next(iter(self.lidars.values()), self.cameras)[0]

    @property
    def reference_radar(self) -> SensorFrame:
        """Whose ego pose the points of all radars are seen from: RADAR_FRONT's, or the first's."""
        return self.radars.get(REFERENCE_RADAR, next(iter(self.radars.values())))[0]
