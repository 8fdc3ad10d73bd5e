"""A result in text, as plain values and in files; torch only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import (
    Decomposition,
    DecompositionError,
    InputError,
    decompose,
    presentation,
)


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, camera: Tensor, radar: Tensor) -> dict[str, Any]:
        mixed = self.mix(torch.cat([camera, radar], 1))
        return {"map": self.head(mixed), "more": [mixed.mean((2, 3)), (camera * radar, None)]}


@pytest.fixture
def result() -> Decomposition:
    inputs = {"camera": torch.randn(1, 2, 6, 6), "radar": torch.randn(1, 2, 6, 6)}
    extras = {"radar": [torch.randn(1, 2, 6, 6)]}
    return decompose(
        Fusion().eval(), inputs, extras=extras, layers=["mix.2"], audit=True, bilinear="interaction"
    )


def test_text_names_parts_shares_residual_rules_and_shape(result: Decomposition) -> None:
    first, *shares, last = repr(result).splitlines()
    assert first.startswith("Decomposition of ['map'] (1, 1, 6, 6), ['more'][0] (1, 4)")
    assert [line.split()[0] for line in shares] == ["camera", "radar", "bias", "interaction"]
    assert f"{result.shares()['camera']:.1%}" in shares[0]
    assert last == f"  residual {result.residual:.1e}, rules identity-ratio, layers kept: 1"
    assert repr(result["map"]).startswith("Parts of (1, 1, 6, 6)\n")


def test_shares_are_of_the_norms() -> None:
    inputs = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0, 5.0])}
    shares = decompose(lambda a, b: a + b, inputs).shares()
    assert shares == {"a": 0.5, "b": 0.5, "bias": 0.0}
    silent = {name: torch.zeros(2) for name in inputs}
    assert set(decompose(lambda a, b: a + b, silent).shares().values()) == {0.0}


def test_shares_are_of_what_carries_parts() -> None:
    """A mask and a table of places beside it are no bias of the prediction."""
    inputs = {"a": torch.tensor([3.0, -4.0])}
    result = decompose(lambda a: {"y": 2 * a, "mask": a > 0, "places": torch.arange(9.0)}, inputs)
    assert result.shares() == {"a": 1.0, "bias": 0.0}
    assert repr(result).startswith("Decomposition of ['y'] (2,), ['mask'] (2,), ['places'] (9,)\n")
    waves = decompose(lambda a: torch.complex(a, a), inputs)
    assert waves.shares() == {"a": 1.0, "bias": 0.0}


def test_plain_values_add_up(result: Decomposition) -> None:
    values = result.to_dict()
    assert list(values["parts"]) == ["camera", "radar", "bias", "interaction"]
    parts = sum(part["map"] for part in values["parts"].values())
    torch.testing.assert_close(parts, values["total"]["map"])
    assert values["variant"] == "identity-ratio"
    layer = values["layers"]["mix.2"]
    torch.testing.assert_close(sum(layer["parts"].values()), layer["total"])


class Pair(NamedTuple):
    near: Tensor


def test_what_cannot_be_saved_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    one = decompose(lambda a: Pair(2 * a), {"a": torch.ones(2)})
    path = tmp_path / "one.pt"
    path.write_text("kept")
    with pytest.raises(InputError, match="an output with a Pair cannot be saved"):
        one.save(path)
    assert path.read_text() == "kept"


def test_without_a_presentation_there_is_text_only(
    result: Decomposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presentation, "_load", None)
    assert result._repr_html_() is None
    for call in (result.plot, result.layers_frame):
        with pytest.raises(DecompositionError, match="take decompose from lmd_cli"):
            call()
