"""A run's folder and a survey with numbers of our own, and texts that try to break out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lmd_cli.evaluation.comparisons import measured_comparisons
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.results.run_folder import PAIR_FIELDS, SAMPLE_FIELDS
from lmd_cli.results.survey import Shown, Survey, sample_fields
from lmd_cli.runtime.files import csv_lines

PLANE = Plane(20, 20, -10.0, 10.0, -10.0, 10.0)
PARTS = ["camera", "radar", "bias"]
#: Would run, load or close something if it were not escaped.
HOSTILE = (
    '</script><script>window.broken = 1</script><img src=x onerror="window.broken = 2">'
    "<!--<script>\u2028'\"{{ 7 * 7 }}{% raw %}&amp;]]> $\\frac{"
)
VARIANTS = ["identity-ratio", "uniform-identity"]
#: Of a vehicle, what `removal_fields` names: lost without the radar; either will do; found only
#: without the radar.
REMOVED = (
    *((1, 1.0, "radar", 1, 0, 0, 2.0, -1.0, -2.0),),
    *((1, 2.0, "any of several", 1, 1, 0, 1.0, 1.5, -2.0),),
    *((0, -1.0, "", 0, 1, 0, -2.0, 0.5, -2.0),),
)


def run_folder(
    path: Path, *, samples: int = 3, status: str = "finished", text: str = "", random: bool = False
) -> Path:
    """What ``lmd evaluate`` leaves after ``samples`` of three samples; ``text`` in every string."""
    path.mkdir()
    generator = np.random.default_rng(0)
    cells = measured_comparisons(["camera", "radar"])
    pairs = [
        (f"t{k}{text}", f"t{(k + 1) % 3}", 1, variant, cell.perturbed_name, cell.target, *values)
        for k in range(samples)
        for variant in VARIANTS
        for cell in cells
        for values in [(float(generator.uniform(-1, 1)), float(generator.uniform(0, 3)))]
    ]
    count = len(VARIANTS) * len(cells)
    rows = [
        (k, f"t{k}{text}", "ok", count, "", 10, 20, 1e-7, 2e-7 if k < 2 else None)
        for k in range(samples)
    ]
    (path / "pairs.csv").write_bytes(csv_lines([PAIR_FIELDS, *pairs]))
    (path / "samples.csv").write_bytes(csv_lines([SAMPLE_FIELDS, *rows]))
    (path / "run.json").write_text(json.dumps(record(status, text, random)))
    (path / "notes.txt").write_text(f"A note.{text}\n")
    return path


def record(status: str, text: str, random: bool) -> dict[str, Any]:
    return {
        "status": status,
        "config": {
            "data": {"dataroot": f"/data{text}", "version": "v1.0-mini", "split": "mini_val"},
            "model": {"name": "simplebev", "modalities": ["camera", "radar"]},
            "variants": VARIANTS,
        },
        "checkpoint": f"weights{text}",
        "weights": {"sha256": None if random else "ab" * 32, "random": random},
        "samples": {"count": 3, "sha256": "cd" * 32},
        "schedule": {"stride": 1, "count": 1},
        "threads": 1,
        "device": "cpu",
        "versions": {"torch": f"2{text}"},
        "vehicle_iou": 0.5,
        "conservation_residual": 1e-7,
        "replay_deviation": 2e-7,
    }


def survey(text: str = "", samples: int = 3) -> Survey:
    """Maps with a bright block that moves with the sample, and a vehicle on it."""
    shown = [_shown(k, text) for k in range(samples)]
    facts = (4, 10, 2, 1.5, 16, 1, 1)
    alone = ("only together", "camera", "camera")
    objects = [
        (
            *(f"t{k}{text}", f"scene{text}", k % 2, 0, f"v{k}{text}", f"car{k // 2}{text}"),
            *(1, f"vehicle.car{text}"),
            *(-5.5 + 5 * k, -4.5 + 4 * k, 12.0, *facts, 1.0 + k, 2.0, 0.5 * k, -1.0 - k),
            *(alone[k % 3], *REMOVED[k % 3]),
        )
        for k in range(samples)
    ]
    false = (f"t0{text}", f"scene{text}", 0, 0, "detection 1", "", 0, "", 5.0, 5.0, 7.0)
    answers = (1.0, 2.0, 0.0, -1.0, "camera", 1, 1.0, "camera", 0, 1, 0, -1.0, 1.0, -1.0)
    objects.append((*false, *[None] * 4, 4, 1, 1, *answers))
    changes = (0.5, 0.25, None)
    counts = (1, 10, 20, *(2, 3, 8, 20), *(0, 1, 5, 20), *(0, 0, 0, 20))
    surveyed = [
        (
            f"t{k}{text}",
            f"scene{text}",
            f"Rain{text}",
            f"{k}.0 s{text}",
            1,
            0.1 * k,
            1e-7,
            *changes,
            *counts,
        )
        for k in range(3)
    ]
    assert len(surveyed[0]) == len(sample_fields(PARTS))
    layers = [(0, f"fusion{text}", "torch.cat", 0.5, 0.5, 0.0), (1, "head", "conv", 0.2, 0.3, 0.5)]
    return Survey(PLANE, "identity-ratio", PARTS, shown, objects, surveyed[:samples], layers, PARTS)


def _shown(k: int, text: str) -> Shown:
    parts = np.zeros((3, PLANE.rows, PLANE.columns), dtype=np.float32)
    row, column = 4 + 4 * k, 3 + 5 * k
    parts[0, row : row + 3, column : column + 3] = 4.0
    parts[1, row + 1 : row + 4, column : column + 3] = 3.0
    parts[2] = -1.0
    frames = np.array([[-1, 0, 0, 0, 0]], dtype=np.float32)
    outline = PLANE.left + np.array([[0, 0], [3, 0], [3, 3], [0, 3]]) + [column, row]
    truth = PLANE.mask(outline)
    outlines = outline[None].astype(np.float32)
    named = (f"t{k}{text}", f"scene{text}", f"Rain{text}", f"{k}.0 s{text}")
    return Shown(k, *named, parts, truth, outlines, frames, {})


#: A network and data of one's own: a spot in each of two images.
NETWORK = """
import torch
from torch import nn


class Spots(list):
    def __init__(self):
        noise = torch.Generator().manual_seed(0)
        for i in range(3):
            left, right = 0.1 * torch.randn(2, 1, 12, 20, generator=noise)
            left[:, 2 + i, 4], right[:, 8, 15 - i] = 3.0, 3.0
            self.append({"left": left, "right": right})


class Net(nn.Module):
    modalities = ("left", "right")

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 3, padding=1)
        nn.init.constant_(self.mix.weight, 0.2)

    def encode(self, batch):
        return {name: batch[name] for name in self.modalities}

    def fuse(self, features):
        return {"spots": self.mix(torch.cat(list(features.values()), 1)).relu()}
"""
