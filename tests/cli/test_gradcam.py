"""``lmd gradcam`` and the figures of ``lmd decompose``, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from tests.support.calling import Lmd

LAYER = "decoder.layer1.0.bn1"


def test_maps_of_a_vehicle(lmd: Lmd, tiny_config: Path):
    dataset = build_dataset(load_config(str(tiny_config)))
    box = max(dataset.boxes(0), key=lambda b: -abs(b.center[0]) - abs(b.center[2]))
    arguments = ("gradcam", "-c", tiny_config, "--layer", LAYER, "--output", "out")
    result = lmd(*arguments, "--object", box.token, "--modality", "radar")
    assert result.exit_code == 0, result.output
    assert "score" in result.output
    onwards = f"results: out; next: lmd decompose --config {tiny_config}"
    assert result.stdout.splitlines()[-1] == onwards
    with np.load("out/gradcam.npz") as arrays:
        assert arrays["region"].any()
        assert not arrays["region"].all()
        assert arrays["radar"].shape == arrays["whole"].shape
        assert (arrays["radar"] >= 0).all()
    assert Path("out/gradcam.png").read_bytes().startswith(b"\x89PNG")
    typo = box.token[:-1] + "x"
    result = lmd(*arguments, "--object", typo)
    assert result.exit_code == 2
    assert f"object {typo} is not a vehicle of this sample; near: {box.token}" in result.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--region", "0,0,90,90"], "x (right) from -50 to 50, y (forward) from -50 to 50 m"),
        (["--region", "a,b"], "expected x0,y0,x1,y1"),
        (["--region", "5,5,1,1"], "x0 < x1"),
        (["--object", "nothing"], "is not a vehicle of this sample; its vehicles: "),
        (["--modality", "lidar"], "modality 'lidar' is none of camera, radar"),
        (["--region", "0,0,9,9", "--object", "x"], "not both"),
    ],
)
def test_what_cannot_be_explained(lmd: Lmd, tiny_config: Path, given: list[str], said: str):
    result = lmd("gradcam", "-c", tiny_config, "--layer", LAYER, *given)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_layer_that_is_not_there(lmd: Lmd, tiny_config: Path):
    result = lmd("gradcam", "-c", tiny_config, "--layer", "decoder.layer1.0.bn9")
    assert result.exit_code == 2
    assert "near: decoder.layer1.0.bn" in result.stderr


def test_figures_in_styles_and_a_grid(lmd: Lmd, tiny_config: Path):
    styles = ("--style", "positive", "--style", "signed", "--format", "svg", "--format", "png")
    result = lmd("decompose", "-c", tiny_config, "--output", "one", *styles)
    assert result.exit_code == 0, result.output
    names = {path.name for path in Path("one").iterdir()}
    figures = {f"decomposition{s}.{f}" for s in ("", "_positive") for f in ("svg", "png")}
    assert figures | {"layers.svg", "layers.png", "parts.npz", "layers.csv"} <= names
    result = lmd("decompose", "-c", tiny_config, "--output", "two", "--samples", 2)
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path("two").iterdir()] == ["grid.png"]
    result = lmd("decompose", "-c", tiny_config, "--samples", "99")
    assert result.exit_code == 2
    assert "99 samples asked for; the split has 6" in result.stderr
