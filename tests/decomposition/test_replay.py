"""Eq. 14 taken literally gives the parts: the linearised network, run on one modality at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from random_networks import Case, cases
from rule_oracle import normal
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import (
    Decomposition,
    DecompositionError,
    decompose,
    decompose_onward,
    variant_names,
)
from lmd_cli.decomposition.replay import Linearised, replay, replay_deviation


def run(case: Case) -> Decomposition:
    return decompose(case.network, case.inputs, case.variant, extras=case.extras, keep_frozen=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases())
def test_replayed_parts_are_the_parts(case: Case) -> None:
    result = run(case)
    assert replay_deviation(replay(case.network, case.inputs, result), result) < 1e-11


@settings(max_examples=20, deadline=None, derandomize=True)
@given(cases())
def test_extras_are_what_the_linearised_network_gives_for_them(case: Case) -> None:
    """An extra rides along; replayed, it is the only modality that enters."""
    result = run(case)
    perturbed = {name: values[0] for name, values in case.extras.items()}
    replayed = replay(case.network, perturbed, result)
    for name in case.inputs:
        found, wanted = result.extras[name][0], replayed[name]
        for a, b in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
            scale = max(1.0, float(b.abs().max()))
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * scale)


def test_without_maps_there_is_nothing_to_replay() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).double()
    inputs = {"camera": normal(2, 3)}
    result = decompose(lambda camera: network(camera), inputs)
    with pytest.raises(DecompositionError, match="keep_frozen=True"):
        replay(lambda camera: network(camera), inputs, result)


def test_a_function_that_goes_another_way_is_told() -> None:
    calls: list[int] = []

    def function(camera: Tensor) -> Tensor:
        calls.append(1)
        return camera.relu() if len(calls) == 1 else camera.relu().relu()

    inputs = {"camera": normal(2, 3)}
    result = decompose(function, inputs, keep_frozen=True)
    with pytest.raises(DecompositionError, match="more nonlinear operations"):
        replay(function, inputs, result)


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
    result = decompose_onward(
        tail, total, parts, variant, bias=bias, extras=extras, keep_frozen=True
    )
    found = Linearised(tail, result, bias).part("radar", others)
    wanted = torch.cat(list(result.extras["radar"]))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
