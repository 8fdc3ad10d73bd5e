"""Eq. 14 taken literally gives the parts: the linearised network, run on one modality at a time."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import (
    Decomposition,
    DecompositionError,
    decompose,
    decompose_onward,
    variant_names,
)
from lmd_cli.decomposition.linearised.partial import PartiallyLinear
from lmd_cli.decomposition.linearised.replay import Linearised, replay, replay_deviation
from tests.support.random_networks import Case, cases
from tests.support.rule_oracle import normal


def run(case: Case) -> Decomposition:
    return decompose(case.network, case.inputs, case.variant, extras=case.extras, keep_maps=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases())
def test_replayed_parts_are_the_parts(case: Case) -> None:
    result = run(case)
    assert replay_deviation(replay(result, case.inputs), result) < 1e-11


@settings(max_examples=20, deadline=None, derandomize=True)
@given(cases())
def test_extras_are_what_the_linearised_network_gives_for_them(case: Case) -> None:
    """An extra rides along; replayed, it is the only modality that enters."""
    result = run(case)
    perturbed = {name: values[0] for name, values in case.extras.items()}
    replayed = replay(result, perturbed)
    for name in case.inputs:
        actual, wanted = result.extras[name][0], replayed[name]
        for a, b in zip(pytree.tree_leaves(actual), pytree.tree_leaves(wanted), strict=True):
            scale = max(1.0, float(b.abs().max()))
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * scale)


def test_without_maps_there_is_nothing_to_replay() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).double()
    inputs = {"camera": normal(2, 3)}
    result = decompose(lambda camera: network(camera), inputs)
    with pytest.raises(DecompositionError, match="keep_maps=True"):
        replay(result, inputs)


def test_the_function_does_not_run_again() -> None:
    """So it cannot go another way."""
    calls: list[int] = []

    def function(camera: Tensor) -> Tensor:
        calls.append(1)
        return camera.relu() if len(calls) == 1 else camera.relu().relu()

    inputs = {"camera": normal(2, 3)}
    result = decompose(function, inputs, keep_maps=True)
    assert replay_deviation(replay(result, inputs), result) < 1e-15
    assert calls == [1]


def _sum(camera: Tensor, radar: Tensor) -> Tensor:
    x = camera * 2.0
    y = x + 1.0  # its parts are those of x
    y[:, 0] = 5.0
    x[:, 1] *= 3.0
    return x + y + radar


def _canvas(camera: Tensor, radar: Tensor) -> Tensor:
    y = torch.ones(2, 4, dtype=torch.float64)
    y[:, 1:] = camera
    y[:, :2] += 2.0
    return y * radar.sum()


def _weights(camera: Tensor, radar: Tensor) -> Tensor:
    a = torch.softmax(camera @ radar.mT, -1)
    b = a + 0.0
    a[:, 0] = 0.0
    return (a + b) @ radar


def _composite(camera: Tensor, radar: Tensor) -> Tensor:
    x = camera * 2.0
    y = torch.prod(x[:, :1], 1)
    y[0] = 3.0
    return x + y.unsqueeze(1) * radar


@pytest.mark.parametrize("variant", ["identity-ratio", "coalitions"])
@pytest.mark.parametrize("function", [_sum, _canvas, _weights, _composite])
def test_writes_reach_no_operand_and_no_constant(
    function: Callable[..., Tensor], variant: str
) -> None:
    """Where a map only moves elements its result may lie in their memory."""
    inputs = {"camera": normal(2, 3), "radar": normal(2, 3, seed=1)}
    result = decompose(function, inputs, variant, keep_maps=True)
    for _ in range(2):  # the program is as it was after each use
        assert replay_deviation(replay(result, inputs), result) < 1e-14
        if variant != "coalitions":
            plain = PartiallyLinear(result, frozenset())(**inputs)
            torch.testing.assert_close(plain, function(**inputs), rtol=0, atol=1e-14)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer_norm": lambda x: F.layer_norm(x, (3,)),
    "instance_norm": lambda x: F.instance_norm(x),
    "softmax": lambda x: x.softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "max_pool": lambda x: F.max_pool2d(x, 2, 1),
    "max": lambda x: x.max(-1)[0],
    "sort": lambda x: x.sort(-1)[0],
    "divisor": lambda x: x / (1.0 + x.abs()),
    "reciprocal": lambda x: 1.0 / x,
    "maximum": lambda x: torch.maximum(x, -x),
    "silu": F.silu,
    "square": lambda x: x * x,
}


@pytest.mark.parametrize("variant", ["identity-ratio", "identity-ratio-shapley-taylor"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_program_holds_no_operand(name: str, variant: str) -> None:
    operands: list[weakref.ref[Tensor]] = []

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar
        operands.append(weakref.ref(x))
        return OPERATIONS[name](x) * 1.0

    inputs = {"camera": normal(2, 3, 3), "radar": normal(2, 3, 3, seed=1)}
    result = decompose(function, inputs, variant, keep_maps=True)
    gc.collect()
    assert result.program is not None
    assert operands[0]() is None


def test_inputs_of_other_shapes_are_refused() -> None:
    result = decompose(torch.relu, {"input": normal(2, 3)}, keep_maps=True)
    for shape in ((2, 4), (3, 3)):
        with pytest.raises(DecompositionError, match=r"'input' was decomposed at shape \(2, 3\)"):
            replay(result, {"input": normal(*shape)})


@pytest.mark.parametrize("where", ["replayed", "parts"])
def test_a_deviation_of_what_is_no_number_is_none(where: str) -> None:
    """It compares as beyond any tolerance."""
    inputs = {"camera": normal(2, 3), "radar": normal(2, 3, seed=1)}
    result = decompose(lambda camera, radar: camera + radar, inputs, keep_maps=True)
    again = replay(result, inputs)
    (again["radar"] if where == "replayed" else result.parts["radar"])[0, 0] = torch.nan
    assert math.isnan(replay_deviation(again, result))


def test_a_batch_goes_where_the_operating_point_is_a_batch_of_one() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.InstanceNorm2d(3)).double()
    inputs = {"input": normal(1, 2, 6, 6)}
    result = decompose(network, inputs, keep_maps=True)
    others = normal(4, 2, 6, 6, seed=1)
    actual = replay(result, {"input": others}, only=["input"])["input"]
    for one, x in zip(actual.split(1), others.split(1), strict=True):
        torch.testing.assert_close(one, replay(result, {"input": x})["input"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("variant", variant_names())
def test_a_batch_through_the_linear_network_is_the_extras(variant: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tail = nn.Sequential(nn.InstanceNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4))
    tail = tail.double().eval()
    parts = {"camera": normal(1, 4, 4, 4), "radar": normal(1, 4, 4, 4, seed=1)}
    bias = normal(1, 4, 4, 4, seed=2)
    others = normal(5, 4, 4, 4, seed=3)
    total = parts["camera"] + parts["radar"] + bias
    extras = {"radar": list(others.split(1))}
    result = decompose_onward(tail, total, parts, variant, bias=bias, extras=extras, keep_maps=True)
    actual = Linearised(result).part("radar", others)
    wanted = torch.cat(list(result.extras["radar"]))
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)
