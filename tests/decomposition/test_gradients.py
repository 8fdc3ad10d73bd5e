"""Gradients through the parts, number types, and torch's modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import Decomposition, decompose, variant_names
from tests.support.rule_oracle import normal


def small(activation: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norms = nn.BatchNorm2d(3), nn.InstanceNorm2d(3, affine=True)
        return nn.Sequential(
            *(nn.Conv2d(2, 3, 1), norms[0], activation, nn.MaxPool2d(2)),
            *(norms[1], nn.GELU(), nn.Conv2d(3, 1, 1)),
        ).eval()


def run(network: nn.Module, camera: Tensor, radar: Tensor, **options: Any) -> Decomposition:
    return decompose(
        lambda camera, radar: network(camera + radar), {"camera": camera, "radar": radar}, **options
    )


def rows(network: nn.Module, variant: str) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    def function(camera: Tensor, radar: Tensor) -> tuple[Tensor, ...]:
        result = run(network, camera, radar, variant=variant, grad=True)
        return *result.parts.values(), result.bias

    return function


X, Y = normal(1, 2, 4, 4), normal(1, 2, 4, 4, seed=1)


@pytest.mark.parametrize(
    ("variant", "activation"),
    [
        ("identity-ratio", nn.Sigmoid()),
        ("uniform-identity-sum", nn.ReLU(inplace=True)),
        ("identity-uniform-ratio", nn.SiLU()),
    ],
)
def test_gradients_of_the_parts(variant: str, activation: nn.Module) -> None:
    network = small(activation).double()
    x = X.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rows(network, variant)(x, Y), (x,), atol=1e-6)


@pytest.mark.parametrize("variant", variant_names())
def test_gradients_of_the_parts_sum_to_that_of_the_total(variant: str) -> None:
    network = small(nn.ReLU()).double()
    x = X.clone().requires_grad_()
    parts = torch.autograd.grad(sum(rows(network, variant)(x, Y)).square().sum(), x)[0]
    total = torch.autograd.grad(network(x + Y).square().sum(), x)[0]
    torch.testing.assert_close(parts, total, rtol=1e-10, atol=1e-12)


def test_gradients_reach_weights_and_extras() -> None:
    network = small(nn.SiLU()).double()
    extra = X.clone().requires_grad_()
    result = run(network, X, Y, extras={"camera": [extra]}, grad=True)
    result.extras["camera"][0].sum().backward()
    assert extra.grad is not None
    assert torch.isfinite(extra.grad).all()
    assert extra.grad.abs().max() > 0
    weights = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(weights) >= 4
    assert all(torch.isfinite(g).all() for g in weights)


def test_without_grad_nothing_is_recorded() -> None:
    network, x = small(nn.ReLU()).double(), X.clone().requires_grad_()
    with torch.enable_grad():
        result = run(network, x, Y)
    assert not result.total.requires_grad
    assert not result.parts["camera"].requires_grad
    with torch.no_grad():
        assert not run(network, x, Y, grad=True).total.requires_grad


def test_inference_mode_gives_the_same() -> None:
    network = small(nn.Sigmoid()).double()
    with torch.inference_mode():
        inside = run(network, X.clone(), Y.clone(), audit=True)
    outside = run(network, X, Y)
    assert torch.equal(inside.total, outside.total)
    assert torch.equal(inside.parts["radar"], outside.parts["radar"])


@pytest.mark.parametrize("clone", [True, False])
def test_a_derivative_in_inference_mode(clone: bool) -> None:
    """Of tensors that were made inside, and outside."""
    near = {name: 1e-3 * x for name, x in (("camera", X), ("radar", Y))}
    with torch.inference_mode():
        given = {name: x.clone() if clone else x for name, x in near.items()}
        inside = decompose(lambda camera, radar: torch.sigmoid(camera) + radar, given)
    torch.testing.assert_close(inside.parts["camera"], 0.25 * near["camera"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("variant", variant_names())
def test_float32_conserves_to_float32(variant: str) -> None:
    network = small(nn.Softplus()).float()
    result = run(network, X.float(), Y.float(), variant=variant, audit=True)
    assert torch.equal(result.total, network(X.float() + Y.float()).detach())
    assert result.total.dtype == result.bias.dtype == torch.float32
    assert max(record.residual for record in result.operations) < 1e-4
    exact = run(network.double(), X, Y, variant=variant)
    torch.testing.assert_close(
        result.parts["camera"].double(), exact.parts["camera"], rtol=1e-3, atol=1e-4
    )


def test_bfloat16_runs_and_keeps_the_total() -> None:
    network = small(nn.ReLU()).bfloat16()
    x, y = X.bfloat16(), Y.bfloat16()
    result = run(network, x, y)
    assert result.total.dtype == result.parts["camera"].dtype == torch.bfloat16
    assert torch.equal(result.total, network(x + y).detach())
    assert result.residual < 0.2  # eight bits of mantissa over seven operations
