"""Gradient x input and integrated gradients, summed over each modality's features (captum)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.attribution.interface import (
    Features,
    Fuse,
    Target,
    autograd_followed,
    combine,
    run,
    without,
)
from lmd_cli.decomposition.layout import BIAS

#: From captum's (forward function, inputs, number of the target) to one tensor for each input.
Attribute = Callable[[Callable[..., Tensor], tuple[Tensor, ...], int], tuple[Tensor, ...]]


class GradientTimesInput:
    """The gradient of each target times the features.

    The bias is what the products miss of the target: constants, and all curvature.
    """

    name = "gradient-x-input"

    def scores(self, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
        with autograd_followed(self.name):
            found = summed_by_modality(_input_x_gradient, fuse, features, target)
        return _completed(target(run(fuse, features)), found)


class IntegratedGradients:
    """The gradient averaged along the way from zero features, times the features.

    The bias is the target at zero features; the shares sum to the target up to the error of the
    quadrature, which goes to the bias too.

    captum weighs its steps in float32, so the shares are good to about 1e-7.

    Args:
        steps: points of the Gauss-Legendre quadrature.
        batch: at most so many of them go through the network at once.
    """

    name = "integrated-gradients"

    def __init__(self, steps: int = 32, batch: int = 8):
        self.steps, self.batch = steps, batch

    def scores(self, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
        with autograd_followed(self.name):
            found = summed_by_modality(self._attribute, fuse, features, target)
        return _completed(target(run(fuse, features)), found)

    def completeness_error(self, fuse: Fuse, features: Features, target: Target) -> Tensor:
        """target(x) - target(0) - sum of the modalities' shares, (B, n): what the quadrature
        misses."""
        nothing = target(run(fuse, without(features, frozenset(features))))
        return self.scores(fuse, features, target)[BIAS] - nothing

    def _attribute(
        self, forward: Callable[..., Tensor], inputs: tuple[Tensor, ...], number: int
    ) -> tuple[Tensor, ...]:
        from captum.attr import IntegratedGradients as Captum

        batch = max(self.batch, len(inputs[0]))
        return Captum(forward).attribute(
            inputs, target=number, n_steps=self.steps, internal_batch_size=batch
        )


def _input_x_gradient(
    forward: Callable[..., Tensor], inputs: tuple[Tensor, ...], number: int
) -> tuple[Tensor, ...]:
    from captum.attr import InputXGradient

    with warnings.catch_warnings():  # captum says that it turns gradients on, on our own copies
        warnings.filterwarnings("ignore", message="Input Tensor . did not already require")
        return InputXGradient(forward).attribute(inputs, target=number)


def summed_by_modality(
    attribute: Attribute, fuse: Fuse, features: Features, target: Target
) -> dict[str, Tensor]:
    """A captum attribution of every target, summed over each modality's tensors.

    Args:
        attribute: one run of captum.
        features: trees of tensors of batch B.
        target: from the output to (B, n).

    Returns:
        (B, n) for each modality.
    """
    leaves, structure = pytree.tree_flatten(dict(features))
    owners = [name for name, tree in features.items() for _ in pytree.tree_leaves(tree)]
    inputs = tuple(leaf.detach().clone() for leaf in leaves)

    def forward(*moved: Tensor) -> Tensor:
        # A copy that it may write to in place: captum's own tensors are leaves.
        tree = pytree.tree_unflatten([x.clone() for x in moved], structure)
        return target(fuse(**tree))

    count = target(run(fuse, features)).shape[1]
    columns = [attribute(forward, inputs, number) for number in range(count)]
    return {name: _sums(columns, owners, name, inputs[0]) for name in features}


def _sums(columns: list[tuple[Tensor, ...]], owners: list[str], name: str, like: Tensor) -> Tensor:
    """(B, n): each column's tensors of one modality, summed over everything but the batch."""
    if not columns:
        return like.new_zeros((len(like), 0))
    sums = [
        sum(
            x.detach().flatten(1).sum(1)
            for x, owner in zip(c, owners, strict=True)
            if owner == name
        )
        for c in columns
    ]
    return torch.stack(sums, dim=1)  # type: ignore[arg-type]


def _completed(total: Tensor, found: dict[str, Tensor]) -> dict[str, Any]:
    return {**found, BIAS: combine(lambda t, *shares: t - sum(shares), total, *found.values())}
