"""Eq. 14 taken literally gives the parts: the linearised network, run on one modality at a time."""

from __future__ import annotations

import math

import pytest
import torch
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
