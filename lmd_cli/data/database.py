"""The tables of a nuScenes version, reduced to the records that one split needs.

nuscenes-devkit holds the whole database in memory; what samples need of it is a small part, which
is kept here in plain values, so that loader workers can be given a copy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.frames import rigid
from lmd_cli.errors import DataError

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
#: What the category of an annotation must contain to count as a vehicle.
VEHICLE = "vehicle"
UNKNOWN_VELOCITY = (math.nan, math.nan, math.nan)


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

    ``velocity`` in m/s along the global axes, NaN where it is unknown.
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

    @property
    def speed(self) -> float:
        """On the ground, m/s; NaN where it is unknown."""
        return float(np.linalg.norm(self.velocity[:2]))


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One keyframe: six cameras in the order of :data:`CAMERAS`; sweeps from the newest back.

    ``description`` is the scene's, in nuScenes' own words (``Night, rain, ...``).
    """

    token: str
    scene: str
    cameras: tuple[SensorFrame, ...]
    radars: dict[str, tuple[SensorFrame, ...]]
    lidar: tuple[SensorFrame, ...]
    vehicles: tuple[Annotation, ...]
    description: str = ""


def open_database(dataroot: Path | str, version: str) -> Any:
    """nuscenes-devkit's ``NuScenes`` for a version.

    Raises:
        DataError: the data root or version does not exist (says what does), or the devkit cannot
            read it.
    """
    root = Path(dataroot).expanduser()
    if not root.is_dir():
        raise DataError(f"data root {root} not found; {_there(root.parent)}", path=root)
    if not (root / version / "scene.json").is_file():
        versions = sorted(table.parent.name for table in root.glob("*/scene.json"))
        what = f"versions there: {', '.join(versions)}" if versions else _there(root)
        raise DataError(f"version {version} not found in {root}; {what}", path=root / version)
    # Late: the devkit takes a second or two to import.
    from nuscenes.nuscenes import NuScenes

    try:
        return NuScenes(version=version, dataroot=str(root), verbose=False)
    except (AssertionError, OSError, LookupError, ValueError) as error:
        problem = f"nuscenes-devkit cannot open {root / version}: {error}"
        raise DataError(problem, path=root / version) from error


def _there(folder: Path) -> str:
    """What a folder holds, in words."""
    if not folder.is_dir():
        return f"nor does {folder} exist"
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{folder} holds {', '.join(names[:10]) + more if names else 'nothing'}"


def split_scenes(split: str, present: Iterable[str], version: str) -> tuple[set[str], set[str]]:
    """Names of the split's scenes that are ``present`` in the version, and of those that are not.

    Raises:
        DataError: no such split (says which there are), or none of its scenes is present.
    """
    from nuscenes.utils.splits import create_splits_scenes

    splits: dict[str, list[str]] = create_splits_scenes()
    if split not in splits:
        near = difflib.get_close_matches(split, splits, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(f"split {split} not found{hint}; splits: {', '.join(splits)}")
    names = set(present)
    scenes = set(splits[split])
    if not scenes & names:
        usable = [name for name, members in splits.items() if names & set(members)]
        raise DataError(
            f"no scene of split {split} is in version {version}, whose {len(names)} scenes "
            f"belong to: {', '.join(usable) or 'no known split'}"
        )
    return scenes & names, scenes - names


def sample_records(
    database: Any,
    scenes: set[str],
    *,
    radar_sweeps: int,
    lidar_sweeps: int,
) -> list[SampleRecord]:
    """Records of the scenes' samples, ordered by (scene token, timestamp).

    Args:
        database: the devkit's ``NuScenes``.
        scenes: names of the scenes.
        radar_sweeps: sweeps of each radar, the keyframe's included; 0 for no radar.
        lidar_sweeps: the same for the LiDAR; at least 1, as ground truth is in its frame.

    Raises:
        DataError: the tables lack a record that another one names.
    """
    names = {scene["token"]: scene["name"] for scene in database.scene}
    described = {scene["name"]: str(scene.get("description", "")) for scene in database.scene}
    rows = [row for row in database.sample if names[row["scene_token"]] in scenes]
    rows.sort(key=lambda row: (row["scene_token"], row["timestamp"]))
    records = []
    for row in rows:
        scene = names[row["scene_token"]]
        try:
            record = _record(database, row, scene, radar_sweeps, lidar_sweeps)
            records.append(replace(record, description=described[scene]))
        except KeyError as error:
            problem = (
                f"the {database.version} tables lack {error}, which sample {row['token']} needs"
            )
            raise DataError(problem, token=row["token"]) from error
    return records


def _record(db: Any, row: dict, scene: str, radar_sweeps: int, lidar_sweeps: int) -> SampleRecord:
    data = row["data"]
    radars = RADARS if radar_sweeps else ()
    annotations = [db.get("sample_annotation", token) for token in row["anns"]]
    return SampleRecord(
        token=row["token"],
        scene=scene,
        cameras=tuple(_frame(db, db.get("sample_data", data[camera])) for camera in CAMERAS),
        radars={radar: _sweeps(db, data[radar], radar_sweeps) for radar in radars},
        lidar=_sweeps(db, data[LIDAR], lidar_sweeps),
        vehicles=tuple(_annotation(db, a) for a in annotations if VEHICLE in a["category_name"]),
    )


def _sweeps(db: Any, token: str, count: int) -> tuple[SensorFrame, ...]:
    """The keyframe and up to ``count - 1`` sweeps before it, fewer at the start of a scene."""
    frames: list[SensorFrame] = []
    while token and len(frames) < count:
        row = db.get("sample_data", token)
        frames.append(_frame(db, row))
        token = row["prev"]
    return tuple(frames)


def _frame(db: Any, row: dict) -> SensorFrame:
    pose = db.get("ego_pose", row["ego_pose_token"])
    sensor = db.get("calibrated_sensor", row["calibrated_sensor_token"])
    return SensorFrame(
        filename=row["filename"],
        timestamp=row["timestamp"],
        ego_translation=pose["translation"],
        ego_rotation=pose["rotation"],
        sensor_translation=sensor["translation"],
        sensor_rotation=sensor["rotation"],
        intrinsic=sensor["camera_intrinsic"],
        width=row["width"],
        height=row["height"],
    )


def _annotation(db: Any, row: dict) -> Annotation:
    return Annotation(
        token=row["token"],
        category=row["category_name"],
        visibility=int(row["visibility_token"]),
        translation=row["translation"],
        rotation=row["rotation"],
        size=row["size"],
        num_lidar_pts=row["num_lidar_pts"],
        num_radar_pts=row["num_radar_pts"],
        velocity=_velocity(db, row["token"]),
    )


def _velocity(db: Any, token: str) -> Sequence[float]:
    """The devkit's estimate; NaN too where a neighbour is missing (tables cut to a few samples)."""
    try:
        velocity: list[float] = db.box_velocity(token).tolist()
    except KeyError:
        return UNKNOWN_VELOCITY
    return velocity
