"""Gradient methods against dense Jacobians and quadrature written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from random_networks import Case, cases
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.attribution import scores
from lmd_cli.attribution.gradients import GradientTimesInput, IntegratedGradients
from lmd_cli.attribution.lrp import Lrp
from lmd_cli.errors import MethodError

#: captum's quadrature weights are float32 numbers (6e-8), summed over the steps.
CAPTUM_WEIGHTS = 3e-7
RUNS = settings(max_examples=15, deadline=None, derandomize=True)


def two_numbers(output: Any) -> Tensor:
    """The mean of the output and its first element, (B, 2)."""
    flat = torch.cat([leaf.flatten(1) for leaf in pytree.tree_leaves(output)], 1)
    return torch.stack([flat.mean(1), flat[:, 0]], 1)


def jacobian_times(case: Case, at: list[Tensor], times: list[Tensor]) -> list[Tensor]:
    """For each input tensor, sum of d target / d x * times, (B, 2), from the dense Jacobian."""
    structure = pytree.tree_structure(case.inputs)

    def run(*tensors: Tensor) -> Tensor:
        tree = pytree.tree_unflatten([t.clone() for t in tensors], structure)
        return two_numbers(case.network(**tree))

    jacobians = torch.autograd.functional.jacobian(run, tuple(at))  # (B, 2, B, ...)
    products = []
    for jacobian, x in zip(jacobians, times, strict=True):
        batch = torch.arange(len(x))
        own = jacobian[batch, :, batch]  # (B, 2, ...): samples do not meet
        products.append((own * x.unsqueeze(1)).flatten(2).sum(2))
    return products


def by_modality(case: Case, products: list[Tensor]) -> dict[str, Tensor]:
    owners = [n for n, tree in case.inputs.items() for _ in pytree.tree_leaves(tree)]
    return {
        name: torch.stack([p for p, o in zip(products, owners, strict=True) if o == name]).sum(0)
        for name in case.inputs
    }


def compare(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    for name, value in wanted.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance * scale)


def assert_complete(case: Case, found: dict[str, Tensor]) -> None:
    with torch.no_grad():
        total = two_numbers(case.network(**pytree.tree_map(torch.clone, case.inputs)))
    compare({"total": sum(found.values())}, {"total": total})  # type: ignore[dict-item]


@RUNS
@given(cases(max_blocks=4))
def test_gradient_times_input_is_the_jacobians(case: Case) -> None:
    x = pytree.tree_leaves(case.inputs)
    found = scores(GradientTimesInput(), case.network, case.inputs, two_numbers)
    compare(found, by_modality(case, jacobian_times(case, x, x)))
    assert_complete(case, found)


@RUNS
@given(cases(max_blocks=3))
def test_integrated_gradients_are_the_quadrature_of_jacobians(case: Case) -> None:
    x, steps = pytree.tree_leaves(case.inputs), 5
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    sums = None
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        products = jacobian_times(case, [leaf * node for leaf in x], x)
        terms = [weight * p for p in products]
        sums = terms if sums is None else [a + b for a, b in zip(sums, terms, strict=True)]
    assert sums is not None
    method = IntegratedGradients(steps=steps, batch=2)
    found = scores(method, case.network, case.inputs, two_numbers)
    compare(found, by_modality(case, sums), CAPTUM_WEIGHTS)
    assert_complete(case, found)


def test_integrated_gradients_of_a_smooth_function_are_complete() -> None:
    features = {"camera": torch.randn(2, 3).double(), "radar": torch.randn(2, 3).double()}

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return (camera * radar).tanh() + camera.sin() + 0.3

    method = IntegratedGradients(steps=32)
    found = scores(method, fuse, features, lambda out: out)
    assert (
        float(method.completeness_error(fuse, features, lambda out: out).abs().max())
        < CAPTUM_WEIGHTS
    )
    wanted = torch.full((2, 3), 0.3).double()
    torch.testing.assert_close(found["bias"], wanted, rtol=0, atol=CAPTUM_WEIGHTS)


@pytest.mark.parametrize("method", [GradientTimesInput(), IntegratedGradients(2), Lrp()])
def test_writes_that_autograd_cannot_follow_are_told(method: Any) -> None:
    def fuse(camera: Tensor) -> Tensor:
        left, right = camera.chunk(2, 1)
        left.mul_(2.0)
        return left + right

    with pytest.raises(MethodError, match=f"{method.name} needs gradients, and the network writes"):
        scores(method, fuse, {"camera": torch.randn(1, 4)}, lambda y: y)


@pytest.mark.parametrize("method", [GradientTimesInput(), IntegratedGradients(steps=2)])
def test_no_target_gives_no_column(method: Any) -> None:
    features = {"camera": torch.randn(2, 3), "radar": torch.randn(2, 3)}
    found = scores(method, lambda camera, radar: camera + radar, features, lambda out: out[:, :0])
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "camera": (2, 0),
        "radar": (2, 0),
        "bias": (2, 0),
    }
