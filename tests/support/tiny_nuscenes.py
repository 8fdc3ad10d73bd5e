"""A nuScenes root of a few kilobytes, written from scratch: random content, valid tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image
from pyquaternion import Quaternion

from lmd_cli.data import NuScenesSamples
from lmd_cli.geometry import Grid

VERSION = "v1.0-mini"
IMAGE_SIZE = (90, 160)
NAN_RADAR = "RADAR_BACK_LEFT"  # its files mark themselves empty by a NaN
SWEEPS, KEYFRAMES = 5, (1, 4)  # frames of a point sensor in a scene, and which are keyframes

FORWARD = Quaternion(0.5, -0.5, 0.5, -0.5)  # a camera that looks along the vehicle
CAMERAS = {
    "CAM_FRONT": (0, [1.7, 0.0, 1.5]),
    "CAM_FRONT_RIGHT": (-55, [1.55, -0.5, 1.5]),
    "CAM_FRONT_LEFT": (55, [1.5, 0.5, 1.5]),
    "CAM_BACK": (180, [0.0, 0.0, 1.6]),
    "CAM_BACK_LEFT": (110, [1.0, 0.5, 1.6]),
    "CAM_BACK_RIGHT": (-110, [1.0, -0.5, 1.55]),
}
RADARS = {
    "RADAR_FRONT": (0, [3.4, 0.0, 0.5]),
    "RADAR_FRONT_LEFT": (90, [2.4, 0.8, 0.6]),
    "RADAR_FRONT_RIGHT": (-90, [2.4, -0.8, 0.6]),
    "RADAR_BACK_LEFT": (175, [-0.6, 0.6, 0.5]),
    "RADAR_BACK_RIGHT": (-175, [-0.6, -0.6, 0.5]),
}
LIDAR = {"LIDAR_TOP": (-90, [0.94, 0.0, 1.84])}

# category, visibility, forward and left of the vehicle (m), yaw (deg), width, length, height
OBJECTS = (
    ("vehicle.car", 4, 15.2, 3.1, 20, (1.9, 4.6, 1.6)),
    ("vehicle.truck", 1, 22.4, -8.3, -75, (2.5, 8.1, 3.2)),
    ("human.pedestrian.adult", 4, 9.0, 2.0, 0, (0.6, 0.7, 1.7)),
    ("vehicle.bicycle", 2, -6.3, -4.7, 130, (0.6, 1.8, 1.5)),
    ("vehicle.bus.rigid", 3, 180.0, 0.0, 5, (3.0, 11.0, 3.4)),  # out of the grid
)

RADAR_HEADER = """\
# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z dyn_prop id rcs vx vy vx_comp vy_comp is_quality_valid ambig_state x_rms y_rms \
invalid_state pdh0 vx_rms vy_rms
SIZE 4 4 4 1 2 4 4 4 4 4 1 1 1 1 1 1 1 1
TYPE F F F I I F F F F F I I I I I I I I
COUNT 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1
WIDTH {width}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {width}
DATA binary
"""
RADAR_POINT = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z")]
    + [("dyn_prop", "i1"), ("id", "<i2")]
    + [(name, "<f4") for name in ("rcs", "vx", "vy", "vx_comp", "vy_comp")]
    + [(name, "i1") for name in ("is_quality_valid", "ambig_state", "x_rms", "y_rms")]
    + [(name, "i1") for name in ("invalid_state", "pdh0", "vx_rms", "vy_rms")]
)


def radar_table(rng: Generator, width: int) -> np.ndarray:
    """Random radar points, states in the documented ranges; some points beside the sensor."""
    table = np.zeros(width, RADAR_POINT)
    for name in RADAR_POINT.names or ():
        if RADAR_POINT[name].kind == "f":
            table[name] = rng.normal(0, 20, width)
        else:
            table[name] = rng.integers(0, 5, width)
    table["invalid_state"] = rng.choice([0, 0, 4, 17], width)
    table["dyn_prop"] = rng.integers(0, 8, width)
    table["ambig_state"] = rng.choice([3, 3, 3, 0, 4], width)
    table["id"] = rng.integers(-300, 300, width)
    table["x"][::4], table["y"][::4] = 1.0, rng.normal(0, 2, len(table[::4]))
    return table


def write_radar(path: Path, table: np.ndarray) -> None:
    """A binary ``.pcd`` as nuScenes has it, with the last byte that the devkit asks for."""
    header = RADAR_HEADER.format(width=len(table)).encode()
    path.write_bytes(header + table.tobytes() + b"\n")


def write_lidar(path: Path, rng: Generator, count: int = 200) -> None:
    """A ``.pcd.bin``: x, y, z, intensity, ring; some points beside the sensor."""
    points = rng.normal(0, 15, (count, 5)).astype("<f4")
    points[:, 4] = np.arange(count) % 32
    points[::5, :2] = rng.normal(0, 2, points[::5, :2].shape)
    path.write_bytes(points.tobytes())


def write_image(path: Path, rng: Generator) -> None:
    height, width = IMAGE_SIZE
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def write_radar_frame(path: Path, rng: Generator) -> None:
    table = radar_table(rng, int(rng.integers(20, 40)))
    if NAN_RADAR in path.name:
        for name in ("x", "y", "z"):
            table[name][0] = np.nan
    write_radar(path, table)


class _Writer:
    """Collects the tables of a root while the sensors' files are written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(7)
        names = "attribute visibility log map category instance sensor calibrated_sensor ego_pose"
        self.tables: dict[str, list[dict]] = {name: [] for name in names.split()}
        for name in ("scene", "sample", "sample_data", "sample_annotation"):
            self.tables[name] = []

    def add(self, table: str, token: str, **values: object) -> str:
        self.tables[table].append({"token": token, **values})
        return token

    def constants(self) -> None:
        (self.root / "maps").mkdir(parents=True)
        Image.new("L", (8, 8)).save(self.root / "maps" / "blank.png")
        self.add("log", "log", logfile="", vehicle="", date_captured="", location="nowhere")
        self.add("map", "map", log_tokens=["log"], category="", filename="maps/blank.png")
        for level in "1234":
            self.add("visibility", level, level="", description="")
        self.add("attribute", "attribute", name="vehicle.moving", description="")
        for category in {row[0]: None for row in OBJECTS}:
            self.add("category", category, name=category, description="")
        for channel in (*CAMERAS, *RADARS, *LIDAR):
            modality = {"C": "camera", "R": "radar", "L": "lidar"}[channel[0]]
            self.add("sensor", channel, channel=channel, modality=modality)
            self._calibration(channel)

    def _calibration(self, channel: str) -> None:
        yaw, position = (CAMERAS | RADARS | LIDAR)[channel]
        rotation = Quaternion(axis=[0, 0, 1], degrees=yaw)
        intrinsic: list = []
        if channel in CAMERAS:
            # A slight tilt, so that no two corners of a box are level.
            rotation = rotation * FORWARD * Quaternion(axis=[1, 0.3, 0.7], degrees=0.4)
            intrinsic = [[126.6, 0.0, 81.6], [0.0, 126.6, 49.2], [0.0, 0.0, 1.0]]
        self.add(
            "calibrated_sensor",
            f"cs-{channel}",
            sensor_token=channel,
            translation=position,
            rotation=list(rotation),
            camera_intrinsic=intrinsic,
        )

    def scene(self, token: str, name: str, start: int) -> None:
        samples = [f"{name}-sample{i}" for i in range(len(KEYFRAMES))]
        for i, sample in enumerate(samples):
            stamp = start + 77_000 * KEYFRAMES[i]
            around = {"prev": "".join(samples[i - 1 : i]), "next": "".join(samples[i + 1 : i + 2])}
            self.add("sample", sample, timestamp=stamp, scene_token=token, **around)
            self._annotations(sample, stamp)
        ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1]}
        ends |= {"nbr_samples": str(len(samples))}
        self.add("scene", token, name=name, log_token="log", description="", **ends)
        for channel in CAMERAS:
            self._frames(name, channel, start + 9_000, list(KEYFRAMES), write_image)
        for channel in RADARS:
            self._frames(name, channel, start - 3_000, list(range(SWEEPS)), write_radar_frame)
        for channel in LIDAR:
            self._frames(name, channel, start, list(range(SWEEPS)), write_lidar)

    def _frames(
        self,
        scene: str,
        channel: str,
        start: int,
        steps: list[int],
        write: Callable[[Path, Generator], None],
    ) -> None:
        """The files of one sensor in one scene, chained by ``prev`` and ``next``."""
        suffix = {"C": "jpg", "R": "pcd", "L": "pcd.bin"}[channel[0]]
        tokens = [f"{scene}-{channel}-{step}" for step in steps]
        for i, step in enumerate(steps):
            key = step in KEYFRAMES
            folder = Path("samples" if key else "sweeps") / channel
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            filename = folder / f"{tokens[i]}.{suffix}"
            write(self.root / filename, self.rng)
            stamp = start + 77_000 * step
            height, width = IMAGE_SIZE if suffix == "jpg" else (0, 0)
            self.add(
                "sample_data",
                tokens[i],
                sample_token=f"{scene}-sample{sum(step > k for k in KEYFRAMES[:-1])}",
                ego_pose_token=self._pose(tokens[i], stamp),
                calibrated_sensor_token=f"cs-{channel}",
                filename=filename.as_posix(),
                fileformat=suffix,
                timestamp=stamp,
                is_key_frame=key,
                width=width,
                height=height,
                prev="".join(tokens[i - 1 : i]),
                next="".join(tokens[i + 1 : i + 2]),
            )

    def _pose(self, token: str, stamp: int) -> str:
        translation, rotation = ego_pose(stamp)
        pose = {"translation": translation, "rotation": list(rotation)}
        return self.add("ego_pose", f"pose-{token}", timestamp=stamp, **pose)

    def _annotations(self, sample: str, stamp: int) -> None:
        origin, heading = ego_pose(stamp)
        for i, (category, visibility, ahead, left, yaw, size) in enumerate(OBJECTS):
            instance = f"{sample}-instance{i}"
            self.add("instance", instance, category_token=category)
            place = np.array(origin) + heading.rotate([ahead, left, size[2] / 2])
            self.add(
                "sample_annotation",
                f"{sample}-box{i}",
                sample_token=sample,
                instance_token=instance,
                visibility_token=str(visibility),
                attribute_tokens=[],
                translation=list(place),
                size=size,
                rotation=list(heading * Quaternion(axis=[0, 0, 1], degrees=yaw)),
                num_lidar_pts=10 + i,
                num_radar_pts=i,
                prev="",
                next="",
            )


def ego_pose(stamp: int) -> tuple[list[float], Quaternion]:
    """Where a vehicle is that drives a curve with a little pitch."""
    seconds = 1e-6 * (stamp % 10**8)
    yaw = Quaternion(axis=[0, 0, 1], radians=0.6 + 0.2 * seconds)
    return [
        400.0 + 8 * seconds,
        1100.0 + 3 * seconds**2,
        0.1 * seconds,
    ], yaw * Quaternion(axis=[0, 1, 0], degrees=1.3)


def write_tiny_root(root: Path) -> Path:
    """Two scenes of ``mini_val`` and one of ``mini_train``, two samples each.

    The tokens' order is not the names' order, and the tables are in no order at all.
    """
    writer = _Writer(root)
    writer.constants()
    for token, name, start in (
        ("b-scene", "scene-0103", 1_000_000),
        ("a-scene", "scene-0916", 5_000_000),
        ("c-scene", "scene-0061", 9_000_000),
    ):
        writer.scene(token, name, start)
    writer.tables["sample"].reverse()
    (root / VERSION).mkdir()
    for name, rows in writer.tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows))
    return root


def open_samples(root: Path, **changes: Any) -> NuScenesSamples:
    """The tiny root's ``mini_val`` with every modality, unless told otherwise."""
    settings: dict[str, Any] = {
        "version": VERSION,
        "split": "mini_val",
        "modalities": ("camera", "radar", "lidar"),
        "nsweeps": 3,
        "image_size": (32, 56),
        "grid": Grid((40, 8, 40)),
        **changes,
    }
    version, split = settings.pop("version"), settings.pop("split")
    return NuScenesSamples(root, version, split, **settings)
