"""Writes the synthetic world as a nuScenes root: files, tables, side table and manifest."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lmd_cli.data.synthetic import sensors
from lmd_cli.data.synthetic.actors import PLANTED
from lmd_cli.data.synthetic.cameras import CAMERAS, CameraView, render
from lmd_cli.data.synthetic.evidence import EVIDENCE_FILE, gather_evidence, visibility_level
from lmd_cli.data.synthetic.planted import PLANTED_FILE, planted_record
from lmd_cli.data.synthetic.tables import (
    MAP_FILE,
    Record,
    Tables,
    add_annotation,
    add_constants,
    add_instance,
    add_sample,
    add_sample_data,
    add_scene,
)
from lmd_cli.data.synthetic.world import KEYFRAME_INTERVAL, Placed, Scene, seeded

VERSION = "v1.0-mini"
JPEG_QUALITY = 92
#: How the names of the world's files begin.
WORLD = "synthetic"
_FIRST_TIMESTAMP = 1_532_402_927_000_000
_SCENE_GAP = 10_000_000_000  # microseconds between the starts of two scenes: 2 h 47 min


@dataclass
class _SceneWriter:
    """Writes one scene; remembers what its chains need."""

    root: Path
    tables: Tables
    scene: Scene
    start: int
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        self.samples: list[Record] = []
        self.chains: dict[str, list[Record]] = defaultdict(list)
        self.instances: dict[str, list[Record]] = defaultdict(list)
        self.categories: dict[str, str] = {}
        self.evidence: dict[str, Record] = {}
        self.planted: dict[str, list[Record]] = {}

    def add(self, index: int) -> None:
        """Write keyframe ``index`` with the sweeps before it."""
        time = index * KEYFRAME_INTERVAL
        sample = add_sample(self.tables, self.scene.name, index, self._stamp(time))
        self.samples.append(sample)
        placed = self.scene.placed(time)
        radar: Counter[str] = Counter()
        for back in range(sensors.SWEEPS - 1, 0, -1):
            moment = time - back * sensors.SWEEP_INTERVAL
            before = self.scene.placed(moment)
            radar += self._radars(sample, moment, before, key=False)
            self._lidar(sample, moment, before, key=False)
        radar_keyframe = self._radars(sample, time, placed, key=True)
        lidar = self._lidar(sample, time, placed, key=True)
        camera_views = self._cameras(sample, time, placed)
        counts = (radar + radar_keyframe, radar_keyframe, lidar)
        self._annotate(sample, placed, camera_views, counts)
        self.planted[sample["token"]] = [
            planted_record(self.scene.name, item, camera_views, radar + radar_keyframe)
            for item in placed
            if item.actor.kind in PLANTED
        ]

    def finish(self) -> None:
        """Link the chains and add the scene and its instances."""
        add_scene(self.tables, self.scene.name, self.samples)
        for records in self.chains.values():
            self.tables.link(records)
        for key, notes in self.instances.items():
            add_instance(self.tables, self.categories[key], notes)

    def _stamp(self, time: float) -> int:
        return self.start + round(time * 1e6)

    def _file(self, sample: Record, channel: str, time: float, key: bool, data: bytes) -> None:
        stamp = self._stamp(time)
        suffix = {"C": "jpg", "R": "pcd", "L": "pcd.bin"}[channel[0]]
        folder = "samples" if key else "sweeps"
        name = f"{folder}/{channel}/{WORLD}-{self.tables.seed}__{channel}__{stamp}.{suffix}"
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        size = self.image_size if channel in CAMERAS else None
        pose = self.scene.ego_pose(time)
        record = add_sample_data(self.tables, sample, channel, name, stamp, pose, size)
        self.chains[channel].append(record)

    def _radars(self, sample: Record, time: float, placed: list[Placed], key: bool) -> Counter[str]:
        returns = sensors.radar_returns(self.scene, time, placed, key)
        ego, speed = self.scene.ego_pose(time), self.scene.ego_speed
        rng = seeded(self.scene.seed, self.scene.name, "states", round(time * 1000))
        for channel, chosen in sensors.split_by_radar(returns, ego).items():
            records = sensors.radar_records(rng, returns.keep(chosen), channel, ego, speed)
            self._file(sample, channel, time, key, sensors.pcd_bytes(records))
        return _count(returns, placed)

    def _lidar(self, sample: Record, time: float, placed: list[Placed], key: bool) -> Counter[str]:
        returns = sensors.lidar_returns(self.scene, time, placed)
        data = sensors.lidar_bytes(returns, self.scene.ego_pose(time))
        self._file(sample, sensors.LIDAR, time, key, data)
        return _count(returns, placed)

    def _cameras(
        self, sample: Record, time: float, placed: list[Placed]
    ) -> dict[str, list[CameraView]]:
        camera_views = defaultdict(list)
        for channel in CAMERAS:
            image, seen = render(self.scene, time, placed, channel, self.image_size)
            _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            self._file(sample, channel, time, True, code.tobytes())
            for camera_view in seen:
                camera_views[camera_view.key].append(camera_view)
        return camera_views

    def _annotate(
        self,
        sample: Record,
        placed: list[Placed],
        camera_views: dict[str, list[CameraView]],
        counts: tuple[Counter[str], Counter[str], Counter[str]],
    ) -> None:
        for item in placed:
            if not item.actor.annotated:
                continue
            evidence = gather_evidence(item, camera_views, *counts)
            points = {
                "num_lidar_pts": evidence.lidar_returns,
                "num_radar_pts": evidence.radar_returns_keyframe,
            }
            level, key = visibility_level(evidence), item.actor.key
            note = add_annotation(self.tables, self.scene.name, sample, item, level, points)
            self.instances[key].append(note)
            self.categories[key] = item.actor.category
            self.evidence[note["token"]] = evidence.to_json()


def _count(returns: sensors.Returns, placed: list[Placed]) -> Counter[str]:
    owners = returns.owner[returns.owner >= 0]
    numbers = np.bincount(owners, minlength=len(placed))
    return Counter({p.actor.key: int(n) for p, n in zip(placed, numbers, strict=True) if n})


def write_world(
    root: Path,
    scenes: list[str],
    order: Callable[[str], int],
    samples: int,
    seed: int,
    image_size: tuple[int, int],
    planted: bool = False,
) -> Iterator[int]:
    """Write a nuScenes root below ``root``; yields the number of finished samples.

    Args:
        scenes: names of the scenes.
        order: a scene's place in time, independent of which others are written.
        samples: keyframes per scene.
        image_size: (H, W).
        planted: with planted false alarms, listed in a table of their own.
    """
    tables, evidence, done = Tables(seed), {}, 0
    listed: dict[str, list[Record]] = {}
    add_constants(tables, image_size)
    for name in scenes:
        start = _FIRST_TIMESTAMP + order(name) * _SCENE_GAP
        writer = _SceneWriter(root, tables, Scene(name, seed, planted), start, image_size)
        for index in range(samples):
            writer.add(index)
            done += 1
            yield done
        writer.finish()
        evidence.update(writer.evidence)
        listed.update(writer.planted)
    _write_tables(root, tables, evidence)
    if planted:
        (root / VERSION / PLANTED_FILE).write_text(json.dumps(listed, indent=0))


def _write_tables(root: Path, tables: Tables, evidence: dict[str, Record]) -> None:
    folder = root / VERSION
    folder.mkdir(parents=True)
    for name, rows in tables.rows.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
    (folder / EVIDENCE_FILE).write_text(json.dumps(evidence, indent=0))
    mask = np.full((64, 64), 255, dtype=np.uint8)
    _, code = cv2.imencode(".png", mask)
    (root / MAP_FILE).parent.mkdir(parents=True)
    (root / MAP_FILE).write_bytes(code.tobytes())


def is_synthetic(names: Iterable[str]) -> bool:
    """Whether a data set is of the synthetic world, by the names of its files in the tables."""
    return any(re.fullmatch(rf"(?:[^/]+/)+{WORLD}-\d+__[^/]+", name) for name in names)
