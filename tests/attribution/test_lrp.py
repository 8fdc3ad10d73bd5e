"""LRP against captum, against its definition written out, and against LMD, its transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.attribution import scores
from lmd_cli.attribution.lrp import Lrp
from lmd_cli.decomposition import decompose
from lmd_cli.errors import MethodError
from tests.support.random_networks import Case, cases, differentiable
from tests.support.rule_oracle import normal

#: captum's own constant (captum.attr._utils.lrp_rules.PropagationRule.STABILITY_FACTOR).
CAPTUM_EPSILON = 1e-9


def two_numbers(output: Any) -> Tensor:
    flat = torch.cat([leaf.flatten(1) for leaf in pytree.tree_leaves(output)], 1)
    return torch.stack([flat.mean(1), flat[:, 0]], 1)


class Supported(nn.Module):
    """Layers that captum's LRP has rules for."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 4, 3, bias=False),
            nn.Tanh(),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
        norm = self.convolutions[1]
        with torch.no_grad():
            for parameter in (norm.running_mean, norm.weight, norm.bias):
                parameter.normal_()
            norm.running_var.uniform_(0.5, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.convolutions(image).flatten(1))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_captums_where_captum_has_rules(seed: int) -> None:
    torch.manual_seed(seed)
    network, x = Supported().double().eval(), normal(2, 3, 13, 13, seed=seed)
    actual = scores(Lrp(CAPTUM_EPSILON), network, {"image": x}, lambda y: y)
    for target in range(3):
        wanted = captum.attr.LRP(network).attribute(x, target=target).flatten(1).sum(1)
        torch.testing.assert_close(actual["image"][:, target], wanted, rtol=1e-6, atol=1e-8)


def epsilon_rule(x: Tensor, weight: Tensor, z: Tensor, relevance: Tensor, eps: float) -> Tensor:
    """R_i = sum_j x_i w_ji R_j / (z_j + eps sign z_j) for one sample, by loops."""
    out = torch.zeros_like(x)
    for i in range(len(x)):
        for j in range(len(z)):
            sign = -1.0 if z[j] < 0 else 1.0
            out[i] += x[i] * weight[j, i] * relevance[j] / (z[j] + eps * sign)
    return out


@pytest.mark.parametrize("eps", [1e-9, 0.1])
def test_the_definition_by_loops(eps: float) -> None:
    first, second = nn.Linear(5, 4).double(), nn.Linear(4, 2).double()
    camera, radar = normal(1, 2), normal(1, 3, seed=1)

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return second(F.silu(first(torch.cat([camera, radar], 1))))

    actual = scores(Lrp(eps), fuse, {"camera": camera, "radar": radar}, lambda y: y)
    x = torch.cat([camera, radar], 1)[0]
    with torch.no_grad():
        hidden = first(x)
        active = F.silu(hidden)
        out = second(active)
        for target in range(2):
            relevance = torch.zeros(2).double()
            relevance[target] = out[target]
            relevance = epsilon_rule(active, second.weight, out, relevance, eps)
            relevance = epsilon_rule(x, first.weight, hidden, relevance, eps)  # passed directly
            shares = {"camera": relevance[:2].sum(), "radar": relevance[2:].sum()}
            for name, wanted in shares.items():
                torch.testing.assert_close(actual[name][0, target], wanted, rtol=1e-10, atol=1e-12)
        total = sum(actual.values())
        torch.testing.assert_close(total, out.unsqueeze(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", ["layer", "instance"])
def test_normalisation_with_constant_variance(layer: str) -> None:
    """Scaling passes relevance directly, centring is linear; the shift is not handed on."""
    norm = (
        nn.LayerNorm(6).double() if layer == "layer" else nn.InstanceNorm1d(1, affine=True).double()
    )
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = normal(1, 1, 6)
    actual = scores(Lrp(1e-12), lambda image: norm(image), {"image": x}, lambda y: y.flatten(1))
    centred = x - x.mean(-1, keepdim=True)
    deviation = torch.sqrt(x.var(-1, correction=0, keepdim=True) + norm.eps)
    wanted = (centred / deviation * norm.weight).flatten(1)  # the share of y without the shift
    torch.testing.assert_close(actual["image"], wanted.detach(), rtol=1e-8, atol=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(cases(max_blocks=5))
def test_without_stabiliser_it_is_lmds_part_of_the_target(case: Case) -> None:
    assume(differentiable(case))
    actual = scores(Lrp(0.0), case.network, case.inputs, two_numbers)
    wanted = decompose(case.network, case.inputs, "identity-ratio")
    for name in case.inputs:
        part = two_numbers(wanted.parts[name])
        if not torch.isfinite(actual[name]).all():  # some z is 0: 0 / 0 without a stabiliser
            continue
        scale = max(1.0, float(part.abs().max()))
        torch.testing.assert_close(actual[name], part, rtol=0, atol=1e-9 * scale)


def test_a_product_gives_half_to_each_factor() -> None:
    features = {"camera": normal(2, 3), "radar": normal(2, 3, seed=1)}
    actual = scores(Lrp(1e-12), lambda camera, radar: camera * radar, features, lambda y: y)
    half = features["camera"] * features["radar"] / 2
    torch.testing.assert_close(actual["camera"], half, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(actual["radar"], half, rtol=1e-8, atol=1e-9)


def test_attention_weights_are_constants() -> None:
    features = {"query": normal(1, 4, 6), "value": normal(1, 5, 6, seed=1)}

    def fuse(query: Tensor, value: Tensor) -> Tensor:
        return torch.softmax(query @ torch.ones(6, 5).double(), -1) @ value

    actual = scores(Lrp(1e-12), fuse, features, lambda y: y.flatten(1)[:, :3])
    assert not actual["query"].any()
    total = fuse(**features).flatten(1)[:, :3]
    torch.testing.assert_close(actual["value"], total, rtol=1e-8, atol=1e-9)


def test_an_operation_without_a_rule_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, camera: Tensor) -> Tensor:
            return torch.lgamma(camera)

    with pytest.raises(MethodError, match=r"lrp has no rule for torch\.lgamma.*Odd"):
        scores(Lrp(), Odd(), {"camera": normal(1, 4)}, lambda y: y)


def test_complex_numbers_are_refused() -> None:
    class Spectrum(nn.Module):
        def forward(self, camera: Tensor) -> Tensor:
            return torch.fft.rfft(camera).real

    with pytest.raises(MethodError, match=r"complex numbers: torch\.fft\.rfft.*Spectrum"):
        scores(Lrp(), Spectrum(), {"camera": normal(1, 4)}, lambda y: y)


def test_writes_in_place_are_what_they_write() -> None:
    """To whole tensors and to views, also where both belong to features."""
    features = {"camera": normal(1, 4), "radar": normal(1, 4, seed=1)}

    def in_place(camera: Tensor, radar: Tensor) -> Tensor:
        out = (camera * 1.0).lerp_(radar, 0.25)
        out[:, :2] += radar[:, 1:3]
        out[:, 3].mul_(2.0)
        return out

    def apart(camera: Tensor, radar: Tensor) -> Tensor:
        out = camera + 0.25 * (radar - camera)
        left, last = out[:, :2] + radar[:, 1:3], out[:, 3:] * 2.0
        return torch.cat([left, out[:, 2:3], last], 1)

    actual = scores(Lrp(1e-12), in_place, features, lambda y: y)
    wanted = scores(Lrp(1e-12), apart, features, lambda y: y)
    for name, share in wanted.items():
        torch.testing.assert_close(actual[name], share, rtol=0, atol=1e-10)


def test_a_target_that_no_feature_reaches_is_all_bias() -> None:
    def fuse(camera: Tensor) -> Tensor:
        return torch.cat([camera, torch.full((1, 2), 3.0, dtype=camera.dtype)], 1)

    for target in (lambda y: y[:, 4:], lambda y: y[:, 4:].detach(), lambda y: y[:, :1] * 0 + 3):
        actual = scores(Lrp(), fuse, {"camera": normal(1, 4)}, target)
        assert not actual["camera"].any()
        assert bool((actual["bias"] == 3).all())


def test_a_norm_written_by_hand_is_the_norm() -> None:
    """Its divisor is a constant however it is spelt."""
    x = {"camera": normal(1, 6)}

    def score(norm: Callable[[Tensor], Tensor]) -> Tensor:
        return scores(Lrp(1e-12), norm, x, lambda y: y[:, :2])["camera"]

    wanted = score(lambda camera: camera * (camera.detach().square().mean(-1, True) + 1e-5).rsqrt())
    for by_hand in (
        lambda camera: camera / (camera.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt(),
        lambda camera: camera * 1.0 / (camera.pow(2).mean(-1, keepdim=True) + 1e-5) ** 0.5,
        lambda camera: (camera * 1.0).div_((camera.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()),
    ):
        torch.testing.assert_close(score(by_hand), wanted, rtol=1e-9, atol=1e-9)


def test_batch_statistics_are_refused_before_they_change() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2)).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(Exception, match=r"call \.eval\(\) on the network"):
        scores(Lrp(), lambda camera: network(camera), {"camera": normal(2, 2, 3, 3)}, two_numbers)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
