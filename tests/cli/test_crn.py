"""CRN from the command line, and what is said of configs and weights that do not fit it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lmd_cli.assembly.build import untrained
from lmd_cli.config.loading import load_config
from tests.support.calling import Lmd
from tests.support.tiny_settings import crn_config


@pytest.fixture(scope="module")
def config(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crn_config(tmp_path_factory.mktemp("crn"), tiny_root)


def test_evaluate(lmd: Lmd, config: Path):
    result = lmd("evaluate", "-c", config, "--output", "out")
    assert result.exit_code == 0, result.output
    metrics = pd.read_csv("out/metrics.csv")
    kept = metrics[metrics.expected == "keep"]
    assert (kept.mse_mean == 0).all()
    record = json.loads(Path("out/run.json").read_text())
    assert record["status"] == "finished"
    assert record["replay_deviation"] < 1e-4
    assert record["conservation_residual"] < 1e-4


def test_padded_samples_are_recorded_and_noted(lmd: Lmd, config: Path):
    """Two scenes of three samples, two key frames two samples apart: the first two are padded."""
    result = lmd("evaluate", "-c", config, "--output", "out", "--limit", "1")
    record = json.loads(Path("out/run.json").read_text())
    assert sorted(record["padded"].values()) == [1, 1, 1, 1]
    said = " ".join(result.stdout.split())
    assert "than the network fuses: 4 samples; the scene's first key frame stands in" in said


def test_decompose_with_the_interaction_apart(lmd: Lmd, config: Path):
    result = lmd("decompose", "-c", config, "--set", "bilinear=interaction", "--output", "out")
    assert result.exit_code == 0, result.output
    arrays = dict(np.load("out/parts.npz"))
    assert list(arrays) == ["total", "camera", "radar", "bias", "interaction", "ground_truth"]
    parts = sum(arrays[name].astype(np.float64) for name in list(arrays)[1:5])
    np.testing.assert_allclose(parts, arrays["total"], atol=1e-5 * abs(arrays["total"]).max())
    layers = pd.read_csv("out/layers.csv", keep_default_na=False)
    assert layers.share_interaction.max() > 0
    assert Path("out/decomposition.png").stat().st_size > 10_000


def test_check(lmd: Lmd, config: Path):
    result = lmd("check", "-c", config)
    assert result.exit_code == 0, result.output
    assert "sampling locations in fuser.attn_layers.0" in result.stdout


def test_the_output_is_turned_forward_up(lmd: Lmd, config: Path):
    """The file's maps have forward rows, whatever the network's axes are."""
    lmd("decompose", "-c", config, "--output", "out")
    from lmd_cli.assembly.build import build_dataset

    cars = build_dataset(load_config(config))[0].tensors["cars"][0].numpy()  # (y left, x forward)
    assert cars.any()
    assert np.array_equal(np.load("out/parts.npz")["ground_truth"], cars.T[:, ::-1])


REFUSED = {  # setting -> what is said
    "model.backbone=r101": "model.backbone is 'r101': expected r18 or r50",
    "model.sizes.embd=8": "unknown key model.sizes.embd; did you mean model.sizes.embed?",
    "model.encoder=res50": "unknown key model.encoder",
    "model.boundary=head": "model.boundary is 'head': expected product or fuser",
    "model.output=cars": "model.output is 'cars': expected a name such as heatmap.car",
    "model.output=heatmap.tram": "CRN has no output 'heatmap.tram': choose one of heatmap.car",
    "model.image_size=[60, 160]": "CRN's image_size is (60, 160): expected multiples of 32",
    "model.sizes.cells=20": "CRN's cells is 20: expected a multiple of 8",
    "model.modalities=[camera, lidar]": "model.modalities is ['camera', 'lidar']: expected [camera",
    "bilinear=both": "bilinear is 'both': expected bias or interaction",
    "model.name=bevfusion": "model.name is 'bevfusion': expected simplebev or crn",
    "variants=[identity-ratio-hard]": "'identity-ratio-hard' is not a variant",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_settings_that_do_not_fit(lmd: Lmd, config: Path, setting: str):
    result = lmd("decompose", "-c", config, "--set", setting)
    assert result.exit_code == 2, result.output
    assert REFUSED[setting] in result.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "model.backbone=r50",
            "weights of a CRN with a ResNet-18 image backbone, the config says 50",
        ),
        ("model.key_frames=4", "weights of a CRN that fuses 2 key frames, the config says 4"),
    ],
)
def test_weights_of_another_network(lmd: Lmd, config: Path, setting: str, said: str):
    network = untrained(load_config(config))
    torch.save({f"model.{k}": v for k, v in network.state_dict().items()}, "plain.pth")
    lightning = {"state_dict": torch.load("plain.pth", weights_only=True)}
    torch.save(lightning, "weights.ckpt")
    good = lmd("decompose", "-c", config, "--checkpoint", "weights.ckpt", "--output", "out")
    assert good.exit_code == 0, good.output
    bad = lmd("decompose", "-c", config, "--checkpoint", "weights.ckpt", "--set", setting)
    assert bad.exit_code == 2
    assert said in bad.stderr


SMALLER = {
    "radar_cam": ["model.image_size=[64, 112]", "model.grid=[24, 4, 24]"],
    "lidar_cam": ["model.image_size=[64, 112]", "model.grid=[24, 4, 24]"],
    "radar_lidar_cam": ["model.image_size=[64, 112]", "model.grid=[24, 4, 24]"],
    "crn": ["model.backbone=r18", "model.image_size=[64, 160]", "model.sizes.cells=16"],
}


@pytest.mark.parametrize("network", SMALLER)
def test_shipped_configs_evaluate_on_the_synthetic_root(lmd: Lmd, tiny_root: Path, network: str):
    """Published widths with random weights, on smaller images and maps for speed."""
    common = ["data.version=v1.0-mini", "data.split=mini_val", "perturbation.count=1"]
    chosen = [*common, "perturbation.stride=auto", "threads=1", *SMALLER[network]]
    given = [word for setting in chosen for word in ("--set", setting)]
    result = lmd(
        *("evaluate", "-c", network, "--dataroot", tiny_root, "--checkpoint", "random"),
        *(*given, "--output", "out", "--limit", "1"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(Path("out/run.json").read_text())["conservation_residual"] < 1e-4
