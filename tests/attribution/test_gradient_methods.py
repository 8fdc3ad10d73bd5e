"""Gradient methods against dense Jacobians and quadrature written out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as Captum
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.attribution import method_named, parts, scores
from lmd_cli.attribution.gradients import (
    GradientTimesInput,
    IntegratedGradients,
    summed_by_modality,
)
from lmd_cli.attribution.lrp import Lrp
from lmd_cli.attribution.sampling import bilinear_sample
from lmd_cli.errors import MethodError
from tests.support.random_networks import Case, cases, differentiable
from tests.support.rule_oracle import normal

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


def compare(actual: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    for name, value in wanted.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(actual[name], value, rtol=0, atol=tolerance * scale)


def assert_complete(case: Case, actual: dict[str, Tensor]) -> None:
    with torch.no_grad():
        total = two_numbers(case.network(**pytree.tree_map(torch.clone, case.inputs)))
    compare({"total": sum(actual.values())}, {"total": total})  # type: ignore[dict-item]


@RUNS
@given(cases(max_blocks=4))
def test_gradient_times_input_is_the_jacobians(case: Case) -> None:
    assume(differentiable(case))
    x = pytree.tree_leaves(case.inputs)
    actual = scores(GradientTimesInput(), case.network, case.inputs, two_numbers)
    compare(actual, by_modality(case, jacobian_times(case, x, x)))
    assert_complete(case, actual)


@RUNS
@given(cases(max_blocks=3), st.sampled_from([1, 4]))
def test_integrated_gradients_are_the_quadrature_of_jacobians(case: Case, power: int) -> None:
    assume(differentiable(case))
    x, steps = pytree.tree_leaves(case.inputs), 5
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    sums = None
    for t, share in zip((nodes + 1) / 2, weights / 2, strict=True):
        node, weight = t**power, share * power * t ** (power - 1)
        products = jacobian_times(case, [leaf * node for leaf in x], x)
        terms = [weight * p for p in products]
        sums = terms if sums is None else [a + b for a, b in zip(sums, terms, strict=True)]
    assert sums is not None
    method = IntegratedGradients(steps=steps, power=power)
    actual = scores(method, case.network, case.inputs, two_numbers)
    compare(actual, by_modality(case, sums))
    assert_complete(case, actual)
    maps = parts(method, case.network, case.inputs)
    compare({name: two_numbers(tree) for name, tree in maps.items()}, actual)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(cases(max_blocks=3), st.sampled_from([GradientTimesInput(), IntegratedGradients(5)]))
def test_forward_mode_and_captum_agree(case: Case, method: Any) -> None:
    assume(differentiable(case))
    actual = scores(method, case.network, case.inputs, two_numbers)
    captums = summed_by_modality(method.attribute, case.network, case.inputs, two_numbers)
    compare({name: actual[name] for name in captums}, captums, CAPTUM_WEIGHTS)


def test_even_steps_are_captums_own() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.Linear(5, 2))
    network.double()
    features = {"camera": normal(2, 3), "radar": normal(2, 3, seed=1)}

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1))

    actual = scores(IntegratedGradients(7, power=1), fuse, features, lambda out: out)
    for number in range(2):
        captums = Captum(lambda *x: fuse(*x)).attribute(
            tuple(features.values()), target=number, n_steps=7
        )
        for name, value in zip(features, captums, strict=True):
            torch.testing.assert_close(
                actual[name][:, number], value.sum(1), rtol=0, atol=CAPTUM_WEIGHTS
            )


def sampled(camera: Tensor, radar: Tensor, mode: str = "bicubic") -> Tensor:
    """Torch has no forward-mode derivative of grid sampling."""
    grid = radar.permute(0, 2, 3, 1).tanh()  # (B, H, W, 2)
    return torch.nn.functional.grid_sample(camera, grid, mode=mode, align_corners=False)


ZERO = {"camera": torch.zeros(1, 3, 6, 6).double(), "radar": torch.zeros(1, 3, 6, 6).double()}
SAMPLED = {"camera": normal(2, 3, 4, 5), "radar": normal(2, 2, 4, 5, seed=1)}


def test_captum_takes_over_where_there_is_no_forward_mode() -> None:
    leaves = {name: x.clone().requires_grad_() for name, x in SAMPLED.items()}
    target = two_numbers(sampled(**leaves))
    actual = scores(GradientTimesInput(), sampled, SAMPLED, two_numbers)
    for number in range(2):
        gradients = torch.autograd.grad(
            target[:, number].sum(), list(leaves.values()), retain_graph=True
        )
        for (name, x), gradient in zip(SAMPLED.items(), gradients, strict=True):
            wanted = (gradient * x).flatten(1).sum(1)
            torch.testing.assert_close(actual[name][:, number], wanted)
    torch.testing.assert_close(sum(actual.values()), target.detach())
    steps = scores(IntegratedGradients(4), sampled, SAMPLED, two_numbers)
    torch.testing.assert_close(sum(steps.values()), target.detach())


@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_sampling_written_out(align_corners: bool) -> None:
    """Places inside, on the border and outside."""
    image, grid = normal(2, 3, 5, 7), 1.3 * normal(2, 4, 6, 2, seed=1)
    grid[0, 0, 0] = torch.tensor([-1.0, 1.0])
    wanted = torch.nn.functional.grid_sample(image, grid, align_corners=align_corners)
    actual = bilinear_sample(image, grid, align_corners=align_corners)
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)
    assert (wanted == 0).any()


def test_bilinear_sampling_has_maps() -> None:
    """Of both factors, the image and the places; against autograd on torch's own kernel."""
    actual = parts(GradientTimesInput(), partial(sampled, mode="bilinear"), SAMPLED)
    leaves = {name: x.clone().requires_grad_() for name, x in SAMPLED.items()}
    total = sampled(**leaves, mode="bilinear")
    for cell in ((0, 0, 1, 2), (1, 2, 3, 4)):
        gradients = torch.autograd.grad(total[cell], list(leaves.values()), retain_graph=True)
        for (name, x), gradient in zip(SAMPLED.items(), gradients, strict=True):
            torch.testing.assert_close(actual[name][cell], (gradient * x).sum())
    torch.testing.assert_close(sum(actual.values()), total.detach())


def test_without_forward_mode_there_is_no_map() -> None:
    with pytest.raises(MethodError, match=r"gradient-x-input gives no map .* grid_sampler_2d"):
        parts(GradientTimesInput(), sampled, SAMPLED)


def test_integrated_gradients_of_a_smooth_function_are_complete() -> None:
    features = {"camera": torch.randn(2, 3).double(), "radar": torch.randn(2, 3).double()}

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return (camera * radar).tanh() + camera.sin() + 0.3

    method = IntegratedGradients(steps=32)
    actual = scores(method, fuse, features, lambda out: out)
    assert (
        float(method.completeness_error(fuse, features, lambda out: out).abs().max())
        < CAPTUM_WEIGHTS
    )
    wanted = torch.full((2, 3), 0.3, dtype=torch.float64)
    torch.testing.assert_close(actual["bias"], wanted, rtol=0, atol=1e-9)


def chunked(camera: Tensor) -> Tensor:
    """Autograd refuses to write to one of several views."""
    left, right = camera.chunk(2, 1)
    left.mul_(2.0)
    return left + right


def test_forward_mode_follows_writes_to_views() -> None:
    x = normal(1, 4)
    actual = scores(GradientTimesInput(), chunked, {"camera": x}, lambda y: y)
    torch.testing.assert_close(actual["camera"], chunked(x.clone()))


def test_lrp_follows_writes_to_views() -> None:
    """It goes back through the linear maps, not through the network."""
    x = normal(1, 4)
    actual = scores(Lrp(1e-12), chunked, {"camera": x}, lambda y: y)
    torch.testing.assert_close(actual["camera"], chunked(x.clone()), rtol=0, atol=1e-10)


def test_writes_that_autograd_cannot_follow_are_reported() -> None:
    features = {**SAMPLED, "camera": normal(2, 6, 4, 5)}

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return sampled(chunked(camera), radar)

    with pytest.raises(
        MethodError, match="gradient-x-input needs gradients, and the network writes"
    ):
        scores(GradientTimesInput(), fuse, features, two_numbers)


@pytest.mark.parametrize("method", [GradientTimesInput(), IntegratedGradients(steps=2)])
def test_no_target_gives_no_column(method: Any) -> None:
    features = {"camera": torch.randn(2, 3), "radar": torch.randn(2, 3)}
    actual = scores(method, lambda camera, radar: camera + radar, features, lambda out: out[:, :0])
    assert {name: tuple(value.shape) for name, value in actual.items()} == {
        "camera": (2, 0),
        "radar": (2, 0),
        "bias": (2, 0),
    }


def test_steps_by_name() -> None:
    method = method_named("integrated-gradients:8")
    assert method.name == "integrated-gradients:8"
    assert len(method.nodes) == 8  # type: ignore[union-attr]
    assert method_named("integrated-gradients").name == "integrated-gradients"
    for steps in ("0", "many", "5000"):
        with pytest.raises(MethodError, match="expected a number of steps from 1 to 1024"):
            method_named(f"integrated-gradients:{steps}")


def test_more_steps_miss_less_behind_a_norm() -> None:
    """A norm with its own statistics turns just behind zero; even steps do not see it."""
    features = {"camera": normal(1, 3, 6, 6), "radar": normal(1, 3, 6, 6, seed=1)}

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return torch.nn.functional.instance_norm(camera + 0.5 * radar).relu()

    def target(output: Tensor) -> Tensor:
        return output.flatten(1)[:, :20]

    def missed(steps: int, power: int) -> float:
        method = IntegratedGradients(steps, power)
        return float(method.completeness_error(fuse, features, target).abs().sum())

    whole = float((target(fuse(**features)) - target(fuse(**ZERO))).abs().sum())
    assert missed(32, 4) < 0.01 * missed(32, 1)
    assert missed(128, 4) < 1e-3 * whole
