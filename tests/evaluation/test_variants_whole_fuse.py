"""Variants that share passes of a whole ``fuse``, where features may be multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import Variant, variant_names
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.evaluation.variants import Prediction, VariantPredictions
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit
from tests.support.predict_alone import predict_alone

NAMES = ("uniform-identity", "identity-identity", "identity-uniform", "identity-ratio")
FOUR = [Variant.parse(name) for name in NAMES]


class Fusing(nn.Module):
    """A product of features first; then norms, attention with a bias, and an activation.

    Args:
        last: what comes behind, a function of the attended map and of the attention.
    """

    modalities = ("camera", "radar")

    def __init__(self, last: str = "nothing"):
        super().__init__()
        torch.manual_seed(4)
        self.last, self.calls = last, 0
        self.mix, self.query, self.value = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.layer = nn.LayerNorm(4)
        for norm in (self.first, self.second, self.layer):
            nn.init.normal_(norm.bias)

    def fuse(self, features: Any) -> dict[str, Tensor]:
        self.calls += 1
        camera, radar = features["camera"]["map"], features["radar"]
        met = torch.cat([camera * camera, camera * radar], 1) + torch.cat([radar, radar], 1)
        x = self.first(self.mix(met)).relu()
        x = self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = torch.softmax(self.query(x).flatten(2), -1).view_as(x)
        weights = self.second(weights) if self.last == "norm of weights" else weights
        x = self.second(weights * self.value(x)).relu()
        return {"map": x * torch.sigmoid(x) if self.last == "gate" else x}


def visit() -> Visit:
    def encoding(index: int) -> Encoding:
        noise = torch.Generator().manual_seed(index)
        camera, radar = torch.randn(2, 1, 2, 3, 4, generator=noise, dtype=torch.float64)
        return Encoding(index, str(index), None, {"camera": {"map": camera}, "radar": radar})

    return Visit(0, encoding(0), [encoding(1), Skipped(2, "gone", "unreadable"), encoding(3)])


def same(actual: Prediction, wanted: Prediction) -> None:
    scale = max(float(part.abs().max()) for part in wanted.parts.values())
    assert torch.equal(actual.total, wanted.total)
    assert actual.residual < 1e-12
    for name, part in wanted.parts.items():
        torch.testing.assert_close(actual.parts[name], part, rtol=0, atol=1e-12 * scale)
        for a, b in zip(actual.perturbed[name], wanted.perturbed[name], strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("last", ["nothing", "gate", "norm of weights"])
def test_every_variant_is_as_by_itself(last: str) -> None:
    network = Fusing(last).double().eval()
    together = VariantPredictions(network, visit(), "map")
    for name in [
        *variant_names(),
        "uniform-identity-identity-taylor",
        "uniform-identity-taylor-frozen",
    ]:
        variant = Variant.parse(name)
        same(together.under(variant), predict_alone(network, visit(), variant, "map"))


@pytest.mark.parametrize(
    ("last", "calls", "constants"),
    [
        ("nothing", 2, ["batch_norm", "norm"]),
        ("gate", 4, []),
        ("norm of weights", 3, ["batch_norm", "norm"]),
    ],
)
def test_passes_of_the_table_of_variants(
    last: str, calls: int, constants: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two base variants and two kinds of constants; behind a gate each variant by itself; where
    constants of a norm reach attention weights, that kind is given up."""
    network = Fusing(last).double().eval()
    together = VariantPredictions(network, visit(), "map")
    network.calls = 0
    run, streams = Program.run, []

    def noted(self: Program, starts: Any, stream: Any) -> Any:
        streams.append(stream.origin)
        return run(self, starts, stream)

    monkeypatch.setattr(Program, "run", noted)
    for variant in FOUR:
        together.under(variant)
    assert network.calls == calls
    assert sorted(streams) == constants


def test_a_variant_does_not_depend_on_the_company_it_keeps() -> None:
    network = Fusing().double().eval()
    together = VariantPredictions(network, visit(), "map")
    for variant in FOUR:
        shared, alone = (
            together.under(variant),
            VariantPredictions(network, visit(), "map").under(variant),
        )
        for name, part in alone.parts.items():
            assert torch.equal(part, shared.parts[name])


def test_coalitions_of_a_whole_fuse() -> None:
    """Products, a softmax and norms; the exact values of the output, and partners as alone."""
    network, variant = (
        Fusing("gate").double().eval().requires_grad_(False),
        Variant.parse("coalitions"),
    )
    here = visit()
    assert isinstance(here.sample, Encoding)
    prediction = VariantPredictions(network, here, "map").under(variant)
    alone = predict_alone(network, here, variant, "map")
    for name, part in prediction.parts.items():
        torch.testing.assert_close(part, alone.parts[name], rtol=0, atol=1e-11)
        assert prediction.perturbed[name][1] is None
    camera, radar = here.sample.features["camera"]["map"], here.sample.features["radar"]
    (none, c, r, both) = (
        network.fuse({"camera": {"map": a * camera}, "radar": b * radar})["map"]
        for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))
    )
    wanted = (c - none + both - r) / 2
    torch.testing.assert_close(prediction.parts["camera"], wanted, rtol=0, atol=1e-11)
