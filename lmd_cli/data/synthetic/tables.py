"""The thirteen tables of nuScenes for the synthetic world.

Tokens are digests of what they name (seed, table, key), so they do not depend on what else was
made. All sensors of one keyframe share its timestamp; each has an ego pose of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from lmd_cli.data.synthetic.cameras import CAMERAS, intrinsics
from lmd_cli.data.synthetic.sensors import LIDAR, LIDAR_MOUNT, RADARS
from lmd_cli.data.synthetic.world import Array, Placed, Pose

Record = dict[str, Any]

TABLE_NAMES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor"),
    *("ego_pose", "log", "scene", "sample", "sample_data", "sample_annotation", "map"),
)
CATEGORIES = (
    *(f"human.pedestrian.{kind}" for kind in ("adult", "child", "wheelchair", "stroller")),
    *(f"human.pedestrian.{kind}" for kind in ("personal_mobility", "police_officer")),
    *("human.pedestrian.construction_worker", "animal"),
    *("vehicle.car", "vehicle.motorcycle", "vehicle.bicycle", "vehicle.bus.bendy"),
    *("vehicle.bus.rigid", "vehicle.truck", "vehicle.construction", "vehicle.trailer"),
    *("vehicle.emergency.ambulance", "vehicle.emergency.police"),
    *("movable_object.barrier", "movable_object.trafficcone", "movable_object.pushable_pullable"),
    *("movable_object.debris", "static_object.bicycle_rack"),
)
ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider"),
    *("cycle.without_rider", "pedestrian.sitting_lying_down", "pedestrian.standing"),
    "pedestrian.moving",
)
VISIBILITIES = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}
MAP_FILE = "maps/blank.png"


@dataclass
class Tables:
    """Rows by table name, filled in the order of writing."""

    seed: int
    rows: dict[str, list[Record]] = field(
        default_factory=lambda: {name: [] for name in TABLE_NAMES}
    )

    def token(self, table: str, *keys: object) -> str:
        """The token of a record, 32 hexadecimal digits."""
        name = "/".join(map(str, (self.seed, table, *keys)))
        return hashlib.sha256(name.encode()).hexdigest()[:32]

    def add(self, table: str, token: str, **fields: Any) -> Record:
        """Append a record and return it."""
        record = {"token": token, **fields}
        self.rows[table].append(record)
        return record

    def link(self, records: list[Record]) -> None:
        """Set ``prev`` and ``next`` along a list of records."""
        for before, after in itertools.pairwise(records):
            before["next"], after["prev"] = after["token"], before["token"]


def yaw_quaternion(yaw: float) -> list[float]:
    """Rotation about the vertical as (w, x, y, z)."""
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def _optical_quaternion(yaw: float) -> list[float]:
    """Rotation of a level camera's axes (right, down, forward) as (w, x, y, z)."""
    w, z = math.cos(yaw / 2), math.sin(yaw / 2)
    # A turn about z times (1, -1, 1, -1) / 2, the quaternion of cameras.BODY_T_OPTICAL.
    return [(w + z) / 2, -(w + z) / 2, (w - z) / 2, (z - w) / 2]


def add_constants(tables: Tables, image_size: tuple[int, int]) -> None:
    """Everything that does not belong to a scene: classes, sensors, calibrations, log, map."""
    for name in CATEGORIES:
        tables.add("category", tables.token("category", name), name=name, description="")
    for name in ATTRIBUTES:
        tables.add("attribute", tables.token("attribute", name), name=name, description="")
    for token, level in VISIBILITIES.items():
        tables.add("visibility", token, level=level, description="")
    for channel, (mount, yaw, _) in CAMERAS.items():
        matrix = intrinsics(channel, image_size)
        rotation = _optical_quaternion(math.radians(yaw))
        _add_sensor(tables, channel, "camera", mount, rotation, matrix)
    for channel, (mount, yaw) in RADARS.items():
        _add_sensor(tables, channel, "radar", mount, yaw_quaternion(math.radians(yaw)), None)
    mount, yaw = LIDAR_MOUNT
    _add_sensor(tables, LIDAR, "lidar", mount, yaw_quaternion(math.radians(yaw)), None)
    _add_log(tables)


def _add_sensor(
    tables: Tables,
    channel: str,
    modality: str,
    mount: tuple[float, float, float],
    rotation: list[float],
    matrix: Array | None,
) -> None:
    sensor = tables.token("sensor", channel)
    tables.add("sensor", sensor, channel=channel, modality=modality)
    tables.add(
        "calibrated_sensor",
        tables.token("calibrated_sensor", channel),
        sensor_token=sensor,
        translation=list(mount),
        rotation=rotation,
        camera_intrinsic=[] if matrix is None else matrix.tolist(),
    )


def _add_log(tables: Tables) -> None:
    log = tables.token("log")
    tables.add(
        "log",
        log,
        logfile=f"synthetic-{tables.seed}",
        vehicle="synthetic",
        date_captured="2018-07-24",
        location="singapore-onenorth",
    )
    tables.add(
        "map",
        tables.token("map"),
        log_tokens=[log],
        category="semantic_prior",
        filename=MAP_FILE,
    )


def add_sample(tables: Tables, scene: str, index: int, timestamp: int) -> Record:
    """A keyframe; ``prev`` and ``next`` are linked later."""
    return tables.add(
        "sample",
        tables.token("sample", scene, index),
        timestamp=timestamp,
        prev="",
        next="",
        scene_token=tables.token("scene", scene),
    )


def add_sample_data(
    tables: Tables,
    sample: Record,
    channel: str,
    filename: str,
    timestamp: int,
    pose: Pose,
    size: tuple[int, int] | None,
) -> Record:
    """One file of one sensor, with its ego pose; ``size`` is (H, W) of an image."""
    key = tables.token("sample_data", channel, filename)
    tables.add(
        "ego_pose",
        key,
        timestamp=timestamp,
        rotation=yaw_quaternion(pose.yaw),
        translation=[pose.x, pose.y, 0.0],
    )
    return tables.add(
        "sample_data",
        key,
        sample_token=sample["token"],
        ego_pose_token=key,
        calibrated_sensor_token=tables.token("calibrated_sensor", channel),
        timestamp=timestamp,
        fileformat={"C": "jpg", "R": "pcd", "L": "pcd"}[channel[0]],
        is_key_frame=filename.startswith("samples/"),
        height=size[0] if size else 0,
        width=size[1] if size else 0,
        filename=filename,
        prev="",
        next="",
    )


def add_annotation(
    tables: Tables, scene: str, sample: Record, item: Placed, visibility: str, counts: Record
) -> Record:
    """The box of an actor in one keyframe; ``counts`` holds its points per sensor."""
    key = item.actor.key
    return tables.add(
        "sample_annotation",
        tables.token("sample_annotation", sample["token"], key),
        sample_token=sample["token"],
        instance_token=tables.token("instance", scene, key),
        visibility_token=visibility,
        attribute_tokens=[tables.token("attribute", _attribute(item))],
        translation=list(item.centre),
        size=list(item.actor.size),
        rotation=yaw_quaternion(item.pose.yaw),
        prev="",
        next="",
        **counts,
    )


def _attribute(item: Placed) -> str:
    if item.actor.kind == "pedestrian":
        return "pedestrian.standing"
    if item.actor.category == "vehicle.motorcycle":
        return "cycle.with_rider"
    return "vehicle.moving" if item.actor.speed else "vehicle.parked"


def add_instance(tables: Tables, category: str, annotations: list[Record]) -> None:
    """One actor with the annotations it has in its scene, which are linked."""
    tables.link(annotations)
    tables.add(
        "instance",
        annotations[0]["instance_token"],
        category_token=tables.token("category", category),
        nbr_annotations=len(annotations),
        first_annotation_token=annotations[0]["token"],
        last_annotation_token=annotations[-1]["token"],
    )


def add_scene(tables: Tables, name: str, samples: list[Record]) -> None:
    """A scene with its keyframes, which are linked."""
    tables.link(samples)
    tables.add(
        "scene",
        tables.token("scene", name),
        log_token=tables.token("log"),
        nbr_samples=len(samples),
        name=name,
        description="synthetic",
        first_sample_token=samples[0]["token"],
        last_sample_token=samples[-1]["token"],
    )
