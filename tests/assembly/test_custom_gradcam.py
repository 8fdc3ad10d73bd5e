"""``lmd gradcam`` on a network of one's own: regions are in pixels of its map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from lmd_cli.cli.app import app

NETWORK = """
import torch
from torch import nn


class Images(list):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        left, right = torch.rand(2, 1, 6, 10, generator=generator)
        self.append({"left": left, "right": right})


class Net(nn.Module):
    modalities = ("left", "right")

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 3, 1)
        self.head, self.idle = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

    def encode(self, batch):
        return {name: batch[name] for name in self.modalities}

    def fuse(self, features):
        both = torch.cat(list(features.values()), 1)
        hidden = self.mix(both)
        scores = self.head(hidden.relu())
        return {"maps": scores, "idle": self.idle(both), "numbers": scores.mean((2, 3))}
"""


@pytest.fixture
def gradcam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "images.py").write_text(NETWORK)
    (tmp_path / "images.yaml").write_text(
        "model: {target: 'images:Net', modalities: [left, right], output: maps, channel: 1}\n"
        "data: {target: 'images:Images'}\n"
    )
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["gradcam", "--config", "images.yaml", *arguments])

    return call


def test_maps_of_a_region_in_pixels(gradcam: object):
    from lmd_cli.assembly.build import build_dataset, build_network
    from lmd_cli.config.loading import load_config

    result = gradcam("--layer", "mix", "--region", "2,1,5,3", "--output", "out")  # type: ignore[operator]
    assert result.exit_code == 0, result.output
    assert Path("out/gradcam.png").read_bytes().startswith(b"\x89PNG")
    config = load_config("images.yaml")
    import torch

    net = build_network(config, torch.device("cpu")).network
    item = build_dataset(config)[0].tensors
    hidden = net.mix(torch.cat([item["left"], item["right"]], 1))
    live = hidden[0, :, 1:3, 2:5] > 0  # the slope of the ReLU inside the region
    alpha = (live * net.head.weight[1].detach()).sum((1, 2)) / 60  # the mean gradient, eq. 19
    with np.load("out/gradcam.npz") as arrays:
        assert arrays["region"].sum() == 6
        assert arrays["region"][1:3, 2:5].all()
        assert np.allclose(arrays["weights"], alpha.numpy(), atol=1e-6)
        whole = torch.einsum("k,khw->hw", alpha, hidden[0].detach()).clamp(min=0)
        assert np.allclose(arrays["whole"], whole.numpy(), atol=1e-6)
        assert {"left", "right", "bias"} <= set(arrays)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--region", "0,0,11,3"], "x (columns) from 0 to 10, y (rows, the first on top) from 0"),
        (["--region", "0,0,0.4,3"], "holds the middle of no pixel"),
        (["--region", "a"], "expected x0,y0,x1,y1 with x (columns) from 0 to 10"),
        (["--object", "x"], "--object needs annotated vehicles; give --region in pixels"),
        (["--modality", "radar"], "modality 'radar' is not one of left, right"),
        (["--layer", "idle"], "layer 'idle' does not influence the output"),
        (["--layer", "mixx"], "the network has no layer 'mixx'; near: mix"),
        (["--set", "model.output=numbers"], "output numbers is 2 numbers and no map"),
    ],
)
def test_what_cannot_be_explained(gradcam: object, arguments: list[str], said: str):
    layer = [] if "--layer" in arguments else ["--layer", "mix"]
    result = gradcam(*layer, *arguments)  # type: ignore[operator]
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
