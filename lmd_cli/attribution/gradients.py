"""Gradient x input and integrated gradients, summed over each modality's features.

Summed over a modality's features x_m, gradient times input is the directional derivative J x_m: one
pass of forward-mode differentiation gives it for the whole output at once, where captum needs a
pass backwards for each number. Grid sampling, which torch cannot differentiate forwards, is written
out (:mod:`.sampling`); networks with another such operation are left to captum, number by number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.attribution.interface import (
    Explainer,
    Features,
    Fuse,
    Maps,
    Target,
    autograd_followed,
    cause,
    completed,
    run,
)
from lmd_cli.attribution.removal import Accumulator, Plain
from lmd_cli.attribution.sampling import WrittenOutSampling
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.errors import ContractError, MethodError

Forward = Callable[..., Tensor]

#: Points of integrated gradients' quadrature, by default and at most.
STEPS, MOST_STEPS = 32, 1024


class _Gradients:
    """Sum over nodes of weight * J(node * x) x_m, for each modality m."""

    name: str
    nodes: list[tuple[float, float]]

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        return Plain(self._split, fuse)

    def scores(self, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
        """For each modality and ``bias``, its share (B, n) of ``target``."""
        try:
            maps = self._split(fuse, features)
        except _NoForwardError:
            return self._by_captum(fuse, features, target)
        return {name: target(tree) for name, tree in maps.items()}

    def _split(self, fuse: Fuse, features: Features) -> Maps:
        shares = Accumulator()
        for node, weight in self.nodes:
            for name in features:
                with _forward_mode(self.name):
                    shares.add(name, derivative(fuse, features, name, node), weight)
        return completed(run(fuse, features), {name: shares.sums[name] for name in features})

    def _by_captum(self, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
        with autograd_followed(self.name):
            shares = summed_by_modality(self.attribute, fuse, features, target)
        return completed(target(run(fuse, features)), shares)

    def attribute(
        self, forward: Forward, inputs: tuple[Tensor, ...], number: int
    ) -> tuple[Tensor, ...]:
        """One run of captum: each input's attributions for one column of the function."""
        raise NotImplementedError


class GradientTimesInput(_Gradients):
    """The gradient of the output times the features.

    The bias is what the products miss of the output: constants, and all curvature.
    """

    name = "gradient-x-input"
    nodes = [(1.0, 1.0)]  # noqa: RUF012  (never written to)

    def attribute(
        self, forward: Forward, inputs: tuple[Tensor, ...], number: int
    ) -> tuple[Tensor, ...]:
        from captum.attr import InputXGradient

        with warnings.catch_warnings():  # captum says that it turns gradients on, on our copies
            warnings.filterwarnings("ignore", message="Input Tensor . did not already require")
            return InputXGradient(forward).attribute(inputs, target=number)


class IntegratedGradients(_Gradients):
    """The gradient averaged along the way from zero features, times the features.

    The bias is the output at zero features; the parts sum to the output up to the error of the
    quadrature, which goes to the bias too.

    The way is walked as a = t^power: norms with statistics of their own input make a network of
    scaled features change most just behind zero, where even steps see nothing.

    Args:
        steps: points of the Gauss-Legendre quadrature in t.
        power: 1 for even steps.
    """

    def __init__(self, steps: int = STEPS, power: int = 4):
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"steps must be 1 to {MOST_STEPS}, not {steps}")
        self.name = "integrated-gradients" + (f":{steps}" if steps != STEPS else "")
        points, weights = np.polynomial.legendre.leggauss(steps)
        times = [(float(p + 1) / 2, float(w) / 2) for p, w in zip(points, weights, strict=True)]
        self.nodes = [(t**power, w * power * t ** (power - 1)) for t, w in times]

    def completeness_error(self, fuse: Fuse, features: Features, target: Target) -> Tensor:
        """target(x) - target(0) - sum of the modalities' shares, (B, n): what the quadrature
        misses."""
        nothing = target(run(fuse, features, frozenset(features)))
        return self.scores(fuse, features, target)[BIAS] - nothing

    def attribute(
        self, forward: Forward, inputs: tuple[Tensor, ...], number: int
    ) -> tuple[Tensor, ...]:
        """Gradient x input at every node: the gradient of x -> f(a x) is a times f's at a x."""
        sums = [torch.zeros_like(x) for x in inputs]
        for node, weight in self.nodes:

            def scaled(*moved: Tensor, node: float = node) -> Tensor:
                return forward(*(node * x for x in moved))

            shares = GradientTimesInput().attribute(scaled, inputs, number)
            for total, term in zip(sums, shares, strict=True):
                total += term.detach() * (weight / node)
        return tuple(sums)


# -- forward mode -------------------------------------------------------------------------


class _NoForwardError(MethodError):
    """torch cannot differentiate an operation of the network forwards."""


@contextmanager
def _forward_mode(method: str) -> Iterator[None]:
    try:
        with torch.no_grad(), forward_ad.dual_level(), WrittenOutSampling():
            yield
    except (NotImplementedError, ContractError) as error:
        reason = str(cause(error)).partition("\n")[0]
        if "forward AD" not in reason:
            raise
        raise _NoForwardError(
            f"{method} gives no map of this network, only single numbers: {reason}"
        ) from error


def derivative(fuse: Fuse, features: Features, name: str, node: float) -> Any:
    """J(node * x) x_m inside a level of forward-mode differentiation, of the output's structure."""

    def moved(leaf: Tensor) -> Tensor:
        return leaf * node

    def lifted(leaf: Tensor) -> Tensor:
        return forward_ad.make_dual(moved(leaf), leaf.clone())

    inputs = {m: map_tensors(lifted if m == name else moved, t) for m, t in features.items()}
    return map_tensors(_tangent, fuse(**inputs))


def _tangent(value: Tensor) -> Tensor:
    tangent = forward_ad.unpack_dual(value).tangent
    return torch.zeros_like(value) if tangent is None else tangent.clone()


# -- captum -------------------------------------------------------------------------------


def summed_by_modality(
    attribute: Callable[[Forward, tuple[Tensor, ...], int], tuple[Tensor, ...]],
    fuse: Fuse,
    features: Features,
    target: Target,
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
        torch.stack(
            [x.detach().flatten(1).sum(1) for x, o in zip(c, owners, strict=True) if o == name]
        )
        for c in columns
    ]
    return torch.stack([column.sum(0) for column in sums], dim=1)
