"""``lmd gradcam`` and the figures of ``lmd decompose``, as a user calls them."""

from __future__ import annotations

import re
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
        (["--modality", "lidar"], "modality 'lidar' is not one of camera, radar"),
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
    assert sorted(path.name for path in Path("two").iterdir()) == ["grid.json", "grid.png"]
    result = lmd("decompose", "-c", tiny_config, "--samples", "99")
    assert result.exit_code == 2
    assert "99 samples asked for; the split has 6" in result.stderr


def test_nothing_is_replaced_silently(lmd: Lmd, tiny_config: Path):
    asked = ("gradcam", "-c", tiny_config, "--layer", LAYER)
    for more in ((), ("--region", "0,0,9,9")):
        assert lmd(*asked, *more).exit_code == 0
    (sample,) = Path("results/tiny/gradcam").iterdir()
    out, _ = sorted(sample.iterdir())
    out.rename("out")
    picture = Path("out/gradcam.png").read_bytes()
    result = lmd(*asked, "--output", "out", "--modality", "radar")
    assert result.exit_code == 2
    assert "out holds the results of another request:" in result.stderr
    assert "request.modality: None there, 'radar' here" in result.stderr
    assert "--overwrite" in result.stderr
    assert Path("out/gradcam.png").read_bytes() == picture
    assert lmd(*asked, "--output", "out").exit_code == 0  # the same request
    assert lmd(*asked, "--output", "out", "--modality", "radar", "--overwrite").exit_code == 0
    Path("out/gradcam.json").unlink()
    result = lmd(*asked, "--output", "out")
    assert result.exit_code == 2
    assert "out holds results without a gradcam.json" in result.stderr


def test_decompositions_are_not_replaced_silently(lmd: Lmd, tiny_config: Path):
    asked = ("decompose", "-c", tiny_config)
    assert lmd(*asked).exit_code == 0
    assert lmd(*asked, "--variant", "identity-ratio").exit_code == 0
    assert lmd(*asked, "--samples", 1).exit_code == 0
    assert lmd(*asked, "--samples", 2).exit_code == 0
    plain, other, *grids = sorted(Path("results/tiny/decompose").iterdir())
    assert other.name == f"{plain.name}-identity-ratio"
    assert [grid.name for grid in grids] == ["grid-1", "grid-2"]
    result = lmd(*asked, "--variant", "identity-ratio", "--output", plain)
    assert result.exit_code == 2
    assert "variant: 'identity-ratio-shapley' there, 'identity-ratio' here" in result.stderr
    assert lmd(*asked, "--set", "seed=4").exit_code == 2
    assert lmd(*asked, "--set", "seed=4", "--overwrite").exit_code == 0


def test_the_terminal_says_the_maxima_of_the_figure(
    lmd: Lmd, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
):
    from matplotlib.axes import Axes

    titles: list[str] = []
    real = Axes.set_title
    monkeypatch.setattr(
        Axes, "set_title", lambda self, text, **how: titles.append(text) or real(self, text, **how)
    )
    result = lmd("gradcam", "-c", tiny_config, "--layer", LAYER)
    assert result.exit_code == 0, result.output
    said = {
        value.rstrip(",")
        for value in re.findall(r"(?:layer|camera|radar|bias) (\S+)", result.stdout)
    }
    drawn = {m[1] for text in titles if (m := re.search(r"Grad-?CAM \(max (\S+)\)", text))}
    assert len(drawn) >= 2
    assert drawn == said
