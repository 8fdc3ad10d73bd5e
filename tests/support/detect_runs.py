"""Runs of ``lmd detect``: what they wrote, and a network whose boxes are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lmd_cli.results.detection_rows import read_detections

needs_devkit = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="nuscenes-devkit needs numpy below 2"
)
MODULE = '''
import torch
from torch import nn

from lmd_cli.data import KeyframeSamples


class Truth(nn.Module):
    """Boxes that a data set puts into its samples, moved aside by a few centimetres."""

    modalities = ("camera", "radar")
    detection_classes = ("car",)

    def __init__(self, mode="good"):
        super().__init__()
        self.mode, self.weight = mode, nn.Parameter(torch.ones(1))

    def encode(self, batch):
        return {"camera": batch["boxes"] * self.weight, "radar": batch["boxes"] * 0}

    def fuse(self, features):
        return {"boxes": features["camera"] + features["radar"]}

    def decode(self, outputs):
        boxes = outputs["boxes"][0, 0] + torch.tensor([0.1] + 8 * [0.0])
        scores = torch.linspace(0.9, 0.5, len(boxes))
        if self.mode == "raises":
            raise KeyError("no such map")
        if self.mode == "nan":
            scores[-1] = float("nan")
        if self.mode == "flat":
            boxes[:, 5] = 0
        names = ["tram" if self.mode == "tram" else "car"] * len(boxes)
        if self.mode == "few":
            names = names[1:]
        one = {"boxes": boxes, "scores": scores, "names": names}
        if self.mode in ("placed", "misplaced"):
            row = len(boxes) if self.mode == "misplaced" else 0
            one["places"] = [("boxes", 0, i + row, 1) for i in range(len(boxes))]
        return [] if self.mode == "none" else [one]


class Mute(Truth):
    decode = None


class Boxes:
    def __init__(self, dataroot, posed=True):
        self.inner = KeyframeSamples(dataroot, "v1.0-mini", "mini_val", image_size=(32, 64))
        self.tokens = self.inner.tokens
        if posed:
            self.global_T_ego = self.inner.global_T_ego

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        boxes = self.inner.boxes(i)
        cars = [b for b in boxes if b.name == "car" and b.num_lidar_pts + b.num_radar_pts]
        values = [[*b.center, *b.size, b.yaw, *b.velocity] for b in cars]
        boxes = torch.tensor(values, dtype=torch.float32).reshape(-1, 9)
        return {"boxes": torch.nan_to_num(boxes)[None]}
'''


def boxes_of(folder: Path | str) -> dict:
    content = json.loads(Path(folder, "detections.json").read_text())
    assert set(content) == {"meta", "results"}
    return content["results"]


def rows_of(folder: str) -> list[dict]:
    return read_detections(Path(folder, "detections.csv"))
