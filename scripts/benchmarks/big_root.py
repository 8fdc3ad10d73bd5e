"""Writes a nuScenes root with tables of v1.0-trainval's size and made-up content, without data.

    python scripts/benchmarks/big_root.py /tmp/bigroot

850 scenes, 34 149 samples, 2.6 million files of sensors, 1.16 million annotations: about 2.5 GB.
For scripts/benchmarks/index.py; ``--scenes`` makes it smaller.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from lmd_cli.data.nuscenes.database import CAMERAS, RADARS
from lmd_cli.data.nuscenes.index.scenes import nuscenes_splits

VERSION = "v1.0-trainval"
SAMPLES, SCENES = 34_149, 850
#: Files of a channel for each sample, the key frame's included; 77 in all, as in nuScenes.
RATES = {
    **dict.fromkeys(CAMERAS, 6),
    **dict.fromkeys(RADARS, 6),
    "RADAR_FRONT": 7,
    "LIDAR_TOP": 10,
}
VEHICLES = ("vehicle.car",) * 15 + ("vehicle.truck", "vehicle.bus.rigid", "vehicle.bicycle")
OTHERS = ("human.pedestrian.adult",) * 8 + ("movable_object.barrier",) * 8
OBJECTS = (*VEHICLES, "vehicle.motorcycle", "vehicle.trailer", *OTHERS[:14])
TABLES = (
    *("attribute", "visibility", "log", "map", "category", "instance", "sensor"),
    *("calibrated_sensor", "ego_pose", "scene", "sample", "sample_data", "sample_annotation"),
)
INTRINSIC = [[1266.417203046554, 0, 816.267019744], [0, 1266.417203046554, 491.5], [0, 0, 1]]


def token(*words: object) -> str:
    """32 hexadecimal digits, as nuScenes' tokens."""
    return hashlib.md5("/".join(map(str, words)).encode()).hexdigest()


class Table:
    """A JSON list, written row by row."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.rows = file, 0

    def add(self, own: str, /, **values: Any) -> None:
        """One row."""
        self._file.write("[\n" if not self.rows else ",\n")
        self._file.write(json.dumps({"token": own, **values}))
        self.rows += 1

    def close(self) -> None:
        """End the list."""
        self._file.write("\n]\n" if self.rows else "[]\n")


def constants(tables: dict[str, Table], root: Path) -> None:
    """Rows that belong to no scene, and the map's image, which the devkit wants to see."""
    (root / "maps").mkdir(parents=True)
    Image.new("L", (8, 8)).save(root / "maps" / "blank.png")
    log = {"logfile": "", "vehicle": "n015", "date_captured": "2018-07-24"}
    tables["log"].add("log", **log, location="singapore-onenorth")
    tables["map"].add("map", log_tokens=["log"], category="", filename="maps/blank.png")
    for level in "1234":
        tables["visibility"].add(level, level="", description="")
    for category in dict.fromkeys(OBJECTS):
        tables["category"].add(token(category), name=category, description="")
    for channel in RATES:
        modality = {"C": "camera", "R": "radar", "L": "lidar"}[channel[0]]
        tables["sensor"].add(token(channel), channel=channel, modality=modality)


def place(number: int) -> dict[str, list[float]]:
    """Some position and heading with as many digits as real ones have."""
    angle = 0.37 * number
    translation = [411.3039349319818 + 1e-3 * number, 1180.8903791765097 + math.sin(angle), 0.0]
    return {"translation": translation, "rotation": [math.cos(angle), 0.01, 0.02, math.sin(angle)]}


def add_scene(tables: dict[str, Table], name: str, samples: int, start: int) -> None:
    """A scene with all of its rows."""
    scene, tokens = token(name), [token(name, k) for k in range(samples)]
    ends = {"first_sample_token": tokens[0], "last_sample_token": tokens[-1]}
    about = {"log_token": "log", "nbr_samples": samples, "description": "Night, rain, made up"}
    tables["scene"].add(scene, name=name, **about, **ends)
    for k, (prev, own, following) in enumerate(chain(tokens)):
        stamp = {"timestamp": start + 500_000 * k, "prev": prev, "next": following}
        tables["sample"].add(own, **stamp, scene_token=scene)
    for channel, rate in RATES.items():
        add_frames(tables, name, tokens, channel, rate, start)
    for number, category in enumerate(OBJECTS):
        add_object(tables, name, tokens, number, category)


def chain(tokens: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each token between the one before and the one after, '' at the ends."""
    return zip(["", *tokens[:-1]], tokens, [*tokens[1:], ""], strict=True)


def add_frames(
    tables: dict[str, Table], scene: str, samples: list[str], channel: str, rate: int, start: int
) -> None:
    """A channel's files, the first of each sample's being the key frame, and their poses."""
    calibration = token(scene, channel)
    camera = channel.startswith("CAM")
    sensor = {"sensor_token": token(channel), "camera_intrinsic": INTRINSIC if camera else []}
    mount = place(len(channel)) | {"translation": [1.70079118954, 0.0159456324149, 1.51095763913]}
    tables["calibrated_sensor"].add(calibration, **sensor, **mount)
    suffix = {"C": "jpg", "R": "pcd", "L": "pcd.bin"}[channel[0]]
    height, width = (900, 1600) if camera else (0, 0)
    names = [token(scene, channel, i) for i in range(rate * len(samples))]
    for i, (prev, own, following) in enumerate(chain(names)):
        stamp, key = start + 500_000 * i // rate, i % rate == 0
        folder = f"{'samples' if key else 'sweeps'}/{channel}"
        tables["ego_pose"].add(own, timestamp=stamp, **place(i))
        tables["sample_data"].add(
            own,
            sample_token=samples[i // rate],
            ego_pose_token=own,
            calibrated_sensor_token=calibration,
            timestamp=stamp,
            fileformat=suffix,
            is_key_frame=key,
            height=height,
            width=width,
            filename=f"{folder}/n015-2018-07-24-11-22-45+0800__{channel}__{stamp}.{suffix}",
            prev=prev,
            next=following,
        )


def add_object(
    tables: dict[str, Table], scene: str, samples: list[str], number: int, category: str
) -> None:
    """A thing that is seen in every sample of its scene."""
    instance = token(scene, "instance", number)
    tables["instance"].add(instance, category_token=token(category))
    names = [token(scene, number, k) for k in range(len(samples))]
    for k, (prev, own, following) in enumerate(chain(names)):
        tables["sample_annotation"].add(
            own,
            sample_token=samples[k],
            instance_token=instance,
            visibility_token=str(1 + number % 4),
            attribute_tokens=[],
            size=[1.937, 4.625, 1.641],
            **place(k),
            num_lidar_pts=number,
            num_radar_pts=number % 5,
            prev=prev,
            next=following,
        )


def main() -> None:
    """Writes the root."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="a folder that does not exist")
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"1 to {SCENES}")
    arguments = parser.parse_args()
    splits = nuscenes_splits()
    names = [*splits["val"], *splits["train"]][: arguments.scenes]
    folder = arguments.output / VERSION
    folder.mkdir(parents=True)
    with ExitStack() as files:
        tables = {}
        for name in TABLES:
            tables[name] = Table(files.enter_context(open(folder / f"{name}.json", "w")))
            files.callback(tables[name].close)
        constants(tables, arguments.output)
        for i, scene in enumerate(names):
            samples = SAMPLES * (i + 1) // SCENES - SAMPLES * i // SCENES
            add_scene(tables, scene, samples, 1_531_000_000_000_000 + 30_000_000 * i)
    for name, table in tables.items():
        print(f"{table.rows:>9} rows in {name}.json")


if __name__ == "__main__":
    main()
