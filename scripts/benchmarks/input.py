"""How long reading a sample takes on one core, and what of it.

    python scripts/benchmarks/input.py                          # a synthetic root, made for this
    python scripts/benchmarks/input.py --dataroot /data/nuscenes --version v1.0-trainval --split val
    python scripts/benchmarks/input.py --json                   # for machines

Images are as large as nuScenes' (900 x 1600), sizes and sweeps as published. The median over the
samples counts, files being in the system's cache: a slow disk comes on top. One worker process of
``lmd evaluate --workers N`` reads about as many samples a second as one core here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import torch

from lmd_cli.data import KeyframeSamples, NuScenesSamples, collate
from lmd_cli.data.simplebev.images import cam0_T_ego, camera_tensors
from lmd_cli.data.simplebev.lidar import lidar_for_network, lidar_points
from lmd_cli.data.simplebev.radar import radar_for_network, radar_points
from lmd_cli.data.simplebev.truth import vehicle_truth
from lmd_cli.data.synthetic import synthesize
from lmd_cli.geometry import Grid


def milliseconds(action: Callable[[int], Any], indices: range) -> float:
    """Median over the samples; each once before, so that its files are cached."""
    times = []
    for index in indices:
        action(index)
        begin = time.perf_counter()
        action(index)
        times.append(1e3 * (time.perf_counter() - begin))
    return median(times)


def parts_of_simplebev(data: NuScenesSamples, indices: range) -> dict[str, float]:
    """What a sample with camera, radar and LiDAR consists of."""
    records, root = data._records, data.dataroot
    fixed = {index: records[index] for index in indices}

    def images(index: int) -> None:
        camera_tensors(root, fixed[index].cameras, data.image_size, fixed[index].token)

    def radar(index: int) -> None:
        points = radar_points(root, fixed[index], data.radar_filters)
        radar_for_network(points, cam0_T_ego(fixed[index].cameras))

    def lidar(index: int) -> None:
        lidar_for_network(lidar_points(root, fixed[index]), cam0_T_ego(fixed[index].cameras))

    return {
        "record from the index": milliseconds(records.__getitem__, indices),
        "six images": milliseconds(images, indices),
        "radar, five sweeps of five": milliseconds(radar, indices),
        "LiDAR, five sweeps": milliseconds(lidar, indices),
        "truth": milliseconds(lambda i: vehicle_truth(data.boxes(i), data.grid), indices),
        "SimpleBEV sample, all three": milliseconds(lambda i: collate([data[i]]), indices),
    }


def measure(root: Path, version: str, split: str, count: int) -> dict[str, float]:
    """Milliseconds of each part, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    options: dict[str, Any] = {"image_size": (224, 400), "grid": Grid((200, 8, 200)), "nsweeps": 5}
    sensors = ("camera", "radar", "lidar")
    everything = NuScenesSamples(root, version, split, modalities=sensors, **options)
    radar_cam = NuScenesSamples(root, version, split, modalities=sensors[:2], **options)
    crn = KeyframeSamples(root, version, split)
    indices = range(min(count, len(everything)))
    times = parts_of_simplebev(everything, indices)
    times["SimpleBEV sample, radar and cameras"] = milliseconds(
        lambda i: collate([radar_cam[i]]), indices
    )
    times["CRN sample, four key frames"] = milliseconds(lambda i: collate([crn[i]]), indices)
    return times


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataroot", type=Path, help="a nuScenes root (default: a synthetic one)")
    parser.add_argument("--version", default="v1.0-mini")
    parser.add_argument("--split", default="mini_val")
    parser.add_argument("--samples", type=int, default=8, help="how many (default: 8)")
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = (900, 1600)
        root = arguments.dataroot or synthesize(
            Path(folder) / "root", split="mini_val", scenes=1, samples=8, image_size=size
        )
        times = measure(root, arguments.version, arguments.split, arguments.samples)
    if arguments.json:
        print(json.dumps({"milliseconds": times}))
        return
    for name, value in times.items():
        rate = f"{1e3 / value:8.1f} samples/s a core" if "sample" in name else ""
        print(f"{name:<38} {value:8.1f} ms {rate}".rstrip())


if __name__ == "__main__":
    main()
