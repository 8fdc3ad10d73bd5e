"""Slopes between coalitions' values in whole networks, wherever their parts are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import (
    DecompositionError,
    Variant,
    decompose,
    decompose_bias,
    decompose_onward,
    register_activation,
    unregister_rule,
)
from lmd_cli.decomposition.linearised.partial import ACTIVATIONS, PartiallyLinear, first_deviation
from lmd_cli.decomposition.linearised.replay import (
    Linearised,
    replay,
    replay_deviation,
)
from lmd_cli.evaluation.variants import base_variant
from tests.decomposition.test_coalition_slopes import (
    EVERY_RULE,
    ORACLES,
    by_orders,
    close,
    extras,
    inputs,
    variant,
)
from tests.support.rule_oracle import assert_replayed, normal

SHAPE = (1, 3, 6, 5)


class Fusing(nn.Module):
    """Convolutions, norms of both kinds, smooth and other activations, and a product."""

    def __init__(self, modalities: int = 2):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix = nn.Conv2d(3 * modalities, 8, 3, padding=1)
            self.norm, self.act = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
            self.deep = nn.Conv2d(8, 6, 3, padding=1)
            self.inner, self.head = nn.InstanceNorm2d(6), nn.Conv2d(6, 2, 1)
            for buffer in (self.norm.running_mean, self.norm.running_var):
                assert buffer is not None
                buffer.uniform_(0.5, 1.5)
        self.double().eval().requires_grad_(False)

    def forward(self, **x: Tensor) -> Tensor:
        h = self.act(self.norm(self.mix(torch.cat(list(x.values()), 1))))
        return self.head(F.gelu(self.inner(self.deep(h)))).sigmoid()


def gated(camera: Tensor, radar: Tensor) -> Tensor:
    """A product of two features, and an activation behind it."""
    return torch.tanh((camera + 0.2) * torch.sigmoid(radar) + 0.1)


@EVERY_RULE
@pytest.mark.parametrize("count", [1, 2, 3])
def test_networks(count: int, rule: str) -> None:
    """Conservation, the program, and replaced sensors, one by one and together."""
    network, given = Fusing(count), inputs(count, SHAPE)
    riding = extras(given)
    result = decompose(network, given, variant(rule), extras=riding, audit=True, keep_maps=True)
    assert torch.equal(result.total, network(**given))
    assert max(record.residual for record in result.operations) < 1e-12
    assert_replayed(given, result)
    assert replay_deviation(replay(result, given), result) < 1e-12
    linear = Linearised(result)
    for name, (x,) in riding.items():
        close(linear.part(name, x), result.extras[name][0])
        close(replay(result, {name: x}, [name])[name], result.extras[name][0])
        both = torch.cat([x, given[name]])
        close(linear.part(name, both)[1:], result.parts[name])


@EVERY_RULE
def test_a_part_is_linear_in_its_own_input_and_depends_on_no_other(rule: str) -> None:
    """At the clean sample's operating point: keep cells are exact, whatever is replaced."""
    given = inputs(2, SHAPE)
    x, y = normal(*SHAPE, seed=7), normal(*SHAPE, seed=8)
    result = decompose(Fusing(), given, variant(rule), keep_maps=True)
    linear = Linearised(result)
    combined = linear.part("camera", 2 * x - 3 * y)
    close(combined, 2 * linear.part("camera", x) - 3 * linear.part("camera", y), 1e-11)
    for radar in (y, torch.zeros_like(y)):
        replaced = replay(result, {"camera": given["camera"], "radar": radar})
        assert torch.equal(replaced["camera"], linear.part("camera", given["camera"]))
    assert not linear.part("camera", torch.zeros_like(x)).any()


@EVERY_RULE
def test_batches_are_their_samples(rule: str) -> None:
    network, given = Fusing(), inputs(2, (3, *SHAPE[1:]))
    result = decompose(network, given, variant(rule))
    for i in range(3):
        alone = decompose(network, {m: x[i : i + 1] for m, x in given.items()}, variant(rule))
        for m in given:
            close(result.parts[m][i : i + 1], alone.parts[m])
        close(result.bias[i : i + 1], alone.bias)


@EVERY_RULE
@pytest.mark.parametrize("batch_norm", ["identity", "uniform"])
def test_shared_constants_are_of_the_players(batch_norm: str, rule: str) -> None:
    """``uniform``: the slopes are those for parts that hold their share of the norm's constant."""
    norm = nn.BatchNorm2d(3).double().eval()
    norm.bias.data.copy_(torch.tensor([0.5, -0.4, 0.3]))
    given = inputs(2, SHAPE)
    result = decompose(
        lambda camera, radar: torch.relu(norm(camera + radar + 0.25)),
        given,
        f"{batch_norm}-ratio-{rule}",
        keep_maps=True,
    )
    scale = 1 / (1 + norm.eps) ** 0.5
    constant = norm.bias.detach().view(1, 3, 1, 1)
    share = constant / 3 if batch_norm == "uniform" else torch.zeros_like(constant)
    bias = (0.25 * scale + constant - 2 * share).expand(SHAPE)
    players = [x * scale + share for x in given.values()]
    for m, value in zip(given, ORACLES[rule](torch.relu, bias, players), strict=True):
        close(result.parts[m], value)
    close(result.bias, torch.relu(bias))
    assert_replayed(given, result)


@EVERY_RULE
@pytest.mark.parametrize("products", [0, 1, 9])
def test_the_bias_by_itself(products: int, rule: str) -> None:
    """Its slopes need the parts, so that these are followed all the way."""
    for fuse in (Fusing(), gated):
        given = inputs(2, SHAPE)
        close(
            decompose_bias(fuse, given, variant(rule), products).bias,
            decompose(fuse, given, variant(rule)).bias,
        )


def test_the_bias_by_itself_under_rules_of_some_modules() -> None:
    from lmd_cli.decomposition import set_module_rules

    network, given = Fusing(), inputs(2, SHAPE)
    set_module_rules(network, {"act": {"activation": "shapley"}})
    close(
        decompose_bias(network, given, "identity-ratio", 0).bias,
        decompose(network, given, "identity-ratio").bias,
    )


@EVERY_RULE
def test_going_on_from_an_intermediate_tensor(rule: str) -> None:
    network, given = Fusing(), inputs(2, SHAPE)
    whole = decompose(network, given, variant(rule))
    layer = decompose(lambda **x: network.mix(torch.cat(list(x.values()), 1)), given, variant(rule))

    def tail(x: Tensor) -> Tensor:
        h = network.act(network.norm(x))
        return network.head(F.gelu(network.inner(network.deep(h)))).sigmoid()

    actual = decompose_onward(tail, layer.total, layer.parts, variant(rule), bias=layer.bias)
    for m in given:
        close(actual.parts[m], whole.parts[m])
    close(actual.bias, whole.bias)


@EVERY_RULE
def test_what_needs_maps_of_whole_inputs_is_refused(rule: str) -> None:
    result = decompose(Fusing(), inputs(2, SHAPE), variant(rule), keep_maps=True)
    with pytest.raises(DecompositionError, match="decompose with identity-ratio"):
        PartiallyLinear(result, ACTIVATIONS)
    with pytest.raises(DecompositionError, match="no stream of their own"):
        Linearised(result).constants("batch_norm")


@EVERY_RULE
def test_a_check_finds_no_deviating_step(rule: str) -> None:
    given = inputs(2, SHAPE)
    result = decompose(Fusing(), given, variant(rule), keep_maps=True)
    assert first_deviation(result, given, 1e-12) is None


@EVERY_RULE
def test_only_activations_differ(rule: str) -> None:
    """Max-pooling goes through its argmax and softmax is a constant, as under ``identity``."""
    given = inputs(2, SHAPE)

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        h = F.max_pool2d(camera + radar + 0.1, 2)
        return h.softmax(-1) @ h.transpose(-1, -2)

    actual, usual = (decompose(fuse, given, v) for v in (variant(rule), "identity-ratio"))
    for m in given:
        assert torch.equal(actual.parts[m], usual.parts[m])
    assert torch.equal(actual.bias, usual.bias)


def test_rules_of_some_modules() -> None:
    network, given = Fusing(), inputs(2, SHAPE)
    rules = {"act": {"activation": "shapley"}}
    mixed = decompose(network, given, "identity-ratio", rules=rules, keep_maps=True)
    assert_replayed(given, mixed)
    whole = decompose(network, given, variant("shapley"))
    assert not torch.allclose(mixed.parts["camera"], whole.parts["camera"], atol=1e-3)


class Softly(torch.autograd.Function):
    """sinh(x / 2), without a forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sinh(x / 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * torch.cosh(ctx.saved_tensors[0] / 2) / 2


@pytest.fixture
def softly() -> Iterator[Any]:
    register_activation(Softly.apply, lambda x: torch.sinh(x / 2) / x)
    yield Softly.apply
    unregister_rule(Softly.apply)


@EVERY_RULE
def test_an_activation_of_one_s_own(rule: str, softly: Any) -> None:
    given, bias = inputs(2), normal(2, 3, 4, 5, seed=99)
    result = decompose(lambda camera, radar: softly(camera + radar + bias), given, variant(rule))
    wanted = ORACLES[rule](lambda x: torch.sinh(x / 2), bias, list(given.values()))
    for m, value in zip(given, wanted, strict=True):
        close(result.parts[m], value)


@EVERY_RULE
def test_gradients_flow_through_the_parts(rule: str) -> None:
    """A part's gradient is its slope; slopes and the bias are constants."""
    given, bias = inputs(2), normal(2, 3, 4, 5, seed=99)
    leaves = {m: x.clone().requires_grad_() for m, x in given.items()}
    result = decompose(
        lambda camera, radar: torch.relu(camera + radar + bias), leaves, variant(rule), grad=True
    )
    gradient = torch.autograd.grad(result.parts["camera"].sum(), leaves["camera"])[0]
    close(gradient * given["camera"], result.parts["camera"].detach())


def test_no_family() -> None:
    """Slopes depend on the parts: nothing is worked out with another variant's."""
    for name in ("uniform-identity-shapley", "identity-ratio-reveal", "uniform-ratio-rescale"):
        assert base_variant(Variant.parse(name)).name == name


def test_shapley_values_of_a_whole_layer() -> None:
    """A single activation and nothing else that is nonlinear: exact values of the output."""
    given, zero = inputs(3, SHAPE), torch.zeros(SHAPE).double()
    first, last = (nn.Conv2d(3, 3, 3, padding=1).double().requires_grad_(False) for _ in range(2))
    result = decompose(
        lambda **x: last(torch.relu(first(sum(x.values(), zero)))), given, variant("shapley")
    )
    wanted = by_orders(lambda x: last(torch.relu(first(x))), zero, list(given.values()))
    for m, v in zip(given, wanted, strict=True):
        close(result.parts[m], v)
