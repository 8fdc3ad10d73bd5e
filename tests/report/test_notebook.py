"""Results as a notebook shows them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import lmd_cli
from lmd_cli.config.loading import load_config
from lmd_cli.decomposition import Decomposition, InputError
from lmd_cli.report.notebook import SMALL, Picture, html


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 1)
        self.second = nn.ReLU()

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.second(self.first(torch.cat([camera, radar], 1)))


@pytest.fixture
def result() -> Decomposition:
    inputs = {"camera": torch.randn(2, 1, 4, 8), "radar": torch.randn(2, 1, 4, 8)}
    return lmd_cli.decompose(Fusion(), inputs, layers="all")


def images(page: str) -> list[Image.Image]:
    encoded = re.findall(r"base64,([^\"]+)", page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


def test_html_has_shares_and_a_small_map_of_each_part(result: Decomposition) -> None:
    page = result._repr_html_()
    assert page is not None
    heads = re.findall(r"<th>(.*?)</th>", page)
    assert heads == ["fused prediction", "camera", "radar", "bias"]
    for share in result.shares().values():
        assert f"<td>{share:.1%}</td>" in page
    shown = images(page)
    assert [image.size for image in shown] == [(2 * SMALL, SMALL)] * 4
    strongest = result.parts["camera"][0, 0].argmax()
    darkness = 255 - np.asarray(shown[1].resize((8, 4), Image.Resampling.NEAREST))[..., 0].ravel()
    assert darkness[strongest] == darkness.max()


def test_html_escapes_names() -> None:
    result = lmd_cli.decompose(lambda **x: x["<b>"] * 2, {"<b>": torch.ones(1, 1, 2, 2)})
    assert "&lt;b&gt;" in html(result)
    assert "<b>" not in html(result)


def test_numbers_have_shares_and_no_maps() -> None:
    page = html(lmd_cli.decompose(lambda a: 2 * a, {"a": torch.ones(1, 3)}))
    assert "<td>100.0%</td>" in page
    assert not images(page)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_is_shown_and_saved(result: Decomposition, tmp_path: Path, kind: str) -> None:
    picture = result.plot(style="signed", sample=1, channel=2)
    written = picture.save(tmp_path / f"one.{kind}").read_bytes()
    assert written == picture.draw(kind)
    assert written[:4] == {"png": b"\x89PNG", "svg": b"<?xm", "pdf": b"%PDF"}[kind]
    assert picture._repr_png_()[0] != result.plot(sample=0, channel=2)._repr_png_()[0]


def test_what_cannot_be_drawn_is_refused(result: Decomposition, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"channel 3: an output of shape \(2, 3, 4, 8\) has 3"):
        result.plot(channel=3)
    with pytest.raises(InputError, match="sample -1"):
        result.plot(sample=-1)
    with pytest.raises(InputError, match="style 'blue' is not one of signed"):
        result.plot(style="blue")
    with pytest.raises(InputError, match=r"ends in \.png, \.svg or \.pdf"):
        result.plot().save(tmp_path / "one.jpg")
    both = lmd_cli.decompose(lambda a: {"x": a, "y": 2 * a}, {"a": torch.ones(1, 1, 2, 2)})
    with pytest.raises(InputError, match=r"several tensors \(\['x'\], \['y'\]\): index the result"):
        both.plot()
    assert isinstance(both["x"].plot(), Picture)


def test_layers_are_a_frame(result: Decomposition) -> None:
    frame = result.layers_frame()
    assert list(frame["layer"]) == ["first", "second", ""]
    assert list(frame.columns[2:]) == ["residual", "share_camera", "share_radar", "share_bias"]
    assert np.allclose(frame.filter(like="share_").sum(axis=1), 1.0)
    assert frame["share_radar"][0] == result.layers["first"].shares()["radar"]


def test_a_sample_shows_itself_and_is_drawn(tiny_config: Path) -> None:
    config = load_config(str(tiny_config))
    split = lmd_cli.sample(config)
    assert lmd_cli.sample(tiny_config).sample.token == split.sample.token  # the file will do
    assert repr(split).startswith(f"sample {split.sample.token} of scene-0103, rules ")
    assert len(images(split._repr_html_() or "")) == 4
    positive, signed = split.plot(style="positive").draw("png"), split.plot().draw("png")
    assert positive[:4] == signed[:4] == b"\x89PNG"
    assert positive != signed
