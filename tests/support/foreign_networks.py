"""What a network that nobody here wrote must do: total bit for bit, conservation, replay."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import Decomposition, decompose, explain_coverage
from lmd_cli.decomposition.linearised.replay import deviation, replay
from lmd_cli.decomposition.pytrees import leaves
from tests.support.rule_oracle import assert_replayed
from tests.support.rule_oracle import normal as normal_on_the_cpu

WHY = "optional: pip install -c constraints.txt -e '.[breadth]'"
Function = Callable[..., Any]
Inputs = dict[str, Tensor]
DEVICE = torch.device(os.environ.get("LMD_TEST_DEVICE", "cpu"))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal noise on the device."""
    return normal_on_the_cpu(*shape, seed=seed).to(DEVICE)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in float64 and evaluation mode, always with the same random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build().double().eval()
        with torch.no_grad():  # norms whose affine maps are not the trivial ones
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return network.to(DEVICE)


def check(
    network: nn.Module,
    function: Function,
    inputs: Inputs,
    variants: tuple[str, ...] = ("identity-ratio", "uniform-identity-sum-taylor"),
    least: int = 10,
    **options: Any,
) -> None:
    """Total, conservation at every operation, a replay of eq. 14, perturbed inputs, and no gap in
    the coverage.

    Args:
        least: how many operations there are at least.
    """
    with torch.no_grad():
        plain = tensors(function(**inputs))
    coverage = explain_coverage(function, inputs, root=network, **options)
    assert coverage.gaps == ()
    perturbed = {
        name: x + 0.3 * normal(*x.shape, seed=7 + i) for i, (name, x) in enumerate(inputs.items())
    }
    options |= {"extras": {name: [x] for name, x in perturbed.items()}, "keep_maps": True}
    for variant in variants:
        result = decompose(function, inputs, variant, root=network, audit="raise", **options)
        for total, wanted in zip(tensors(result.total), plain, strict=True):
            assert torch.equal(total, wanted)
        assert max(record.residual for record in result.operations) < 1e-10
        assert len(result.operations) >= least
        for part in result.parts.values():
            assert max(float(t.abs().max()) for t in tensors(part)) > 0
        assert_finite(result)
        actual = replay(result, perturbed, only=inputs)
        assert deviation({m: (actual[m], result.extras[m][0]) for m in inputs}) < 1e-10
    assert_replayed(inputs, result)


def tensors(tree: Any) -> list[Tensor]:
    """The floating tensors of a result."""
    return [t for t in leaves(tree) if isinstance(t, Tensor) and t.is_floating_point()]


def assert_finite(result: Decomposition) -> None:
    """The parts are finite, and the bias is where the total is."""
    for part in result.parts.values():
        assert all(torch.isfinite(t).all() for t in tensors(part))
    for bias, total in zip(tensors(result.bias), tensors(result.total), strict=True):
        assert torch.equal(torch.isfinite(bias), torch.isfinite(total))
