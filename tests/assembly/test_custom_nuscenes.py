"""``data: {target: nuscenes}`` with a network of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.config.loading import load_config
from lmd_cli.errors import ConfigError, LmdError
from lmd_cli.workflows.decompose import decompose_sample
from lmd_cli.workflows.evaluate import evaluate
from tests.support.custom_module import CPU

NETWORK = """
import torch
from torch import nn


class Cells(nn.Module):
    modalities = ("camera", "radar")

    def __init__(self):
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def encode(self, batch):
        image = nn.functional.adaptive_avg_pool2d(batch["images"][:, 0], 16)
        counts = [torch.histogramdd(p[:, [2, 0]], [16, 16], range=[-32.0, 32] * 2).hist
                  for p in batch["radar_xyz"]]
        return {"camera": image, "radar": torch.stack(counts)[:, None]}

    def fuse(self, features):
        return {"vehicles": self.mix(torch.cat([features["camera"], features["radar"]], 1))}
"""
OPTIONS = {
    "version": "v1.0-mini",
    "split": "mini_val",
    "nsweeps": 2,
    "modalities": ["camera", "radar"],
    "image_size": [64, 112],
    "grid": [16, 4, 16],
    "bounds": [-32, 32, -5, 5, -32, 32],
}


@pytest.fixture
def made(tiny_root: Path, tmp_path: Path) -> Any:
    (tmp_path / "cells.py").write_text(NETWORK)
    model = {"target": "cells:Cells", "modalities": ["camera", "radar"], "output": "vehicles"}
    data = {"target": "nuscenes", "options": {"dataroot": str(tiny_root), **OPTIONS}}
    path = tmp_path / "cells.yaml"
    path.write_text(yaml.safe_dump({"model": model, "data": data, "perturbation": {"count": 1}}))
    return lambda *settings: load_config(path, settings)


def test_an_evaluation_with_the_vehicles_of_nuscenes(made: Any, tmp_path: Path):
    evaluate(made(), tmp_path / "run", limit=2)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "2 of 6 samples"
    assert record["conservation_residual"] < 1e-5
    assert 0.0 <= record["vehicle_iou"] <= 1.0


def test_a_sample_has_its_token_scene_truth_and_pictures(made: Any):
    split = decompose_sample(made())
    assert split.sample.scene == "scene-0103"
    assert split.ground_truth is not None
    assert split.ground_truth.shape == split.total.shape == (16, 16)
    assert float(split.ground_truth.max()) == 1.0
    assert len(split.pictures) == 6
    parts = sum(part.numpy() for part in split.parts.values())
    assert np.allclose(parts, split.total.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "data.options.splitt=mini_val",
            "unknown key data.options.splitt; did you mean data.options.split?",
        ),
        ("data.options.image_sizes=3", "did you mean data.options.image_size?"),
        ("data.options.nsweeps=0", "data.options.nsweeps is of another kind (0): expected an int"),
        ("data.options.grid=[1, 2]", "data.options.grid"),
        ("data.options.split=mini_vall", "did you mean mini_val?"),
        ("data.options.dataroot=nowhere", "data root nowhere not found"),
    ],
)
def test_options_that_cannot_be_used(made: Any, setting: str, said: str):
    with pytest.raises(LmdError) as caught:
        build_dataset(made(setting))
    assert said in str(caught.value)


def test_options_of_our_networks_are_checked_alike(made: Any):
    ours = made("model.target=simplebev", "model.options={encodr: res50}")
    with pytest.raises(ConfigError, match=r"key model.options.encodr; did you mean model.op"):
        build_network(ours, CPU)
    ours = made("model.target=crn", "model.options={boundary: nowhere}")
    with pytest.raises(ConfigError, match=r"options.boundary is of another kind \('nowhere'\)"):
        build_network(ours, CPU)
