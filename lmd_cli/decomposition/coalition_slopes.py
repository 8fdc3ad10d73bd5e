"""Slopes between the values that coalitions of modalities make, in place of eq. 9's from zero.

The input of an elementwise function f is z = b + sum of h_m with the bias part b. With
v(S) = f(b + the parts in S), what f gives beyond f(b) is shared among the modalities, and the
interaction as one more, element by element:

- ``shapley``: Shapley values phi_m = s_m h_m of v (Shapley, 1953; DASP, Ancona et al., 2019);
- ``reveal``: Shapley values of two groups, all positive and all negative parts (RevealCancel,
  Shrikumar et al., 2017);
- ``rescale``: one slope for all, (f(z) - f(b)) / (z - b) (DeepLIFT's Rescale rule).

The slopes are constants of the operating point, so that a part stays linear in its own input. The
bias becomes f(b): f(z) less the parts. A modality without a part is no player: a zero part changes
nobody's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from math import factorial
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.errors import InputError

Elementwise: TypeAlias = Callable[[Tensor], Tensor]
#: A place x, and what is known of a function there: f(x), f'(x), and if need be how far from x, and
#: from f(x), is near.
Point: TypeAlias = tuple[Tensor, ...]
#: Two places and a weight.
Edge: TypeAlias = tuple[Point, Point, float]

#: Elements that are worked out at a time for each thread, within its cache.
BLOCK = 2**16
#: Modalities and interaction for which all coalitions are gone through.
MOST_PLAYERS = 8
#: Below this difference of place and value, relative to them, a secant is the mean derivative.
_NEAR = {torch.float64: 1e-6, torch.float32: 1e-3}


class Curve(NamedTuple):
    """An elementwise function.

    Attributes:
        at: what is known at a place.
        mean: writes the weighted mean of the secants along some edges, all of the same step h.
        smooth: it is defined everywhere and can run on any few of the elements.
    """

    at: Callable[[Tensor], Point]
    mean: Callable[[Sequence[Edge], Tensor, Tensor], None]
    smooth: bool = True

    def secant(self, u: Point, v: Point) -> Tensor:
        """(f(v) - f(u)) / (v - u)."""
        step = v[0] - u[0]
        slope = torch.empty_like(step)
        self.mean([(u, v, 1.0)], step, slope)
        return slope


def curve_of(function: Elementwise, derivative: Elementwise) -> Curve:
    """Any function's, of whatever scale."""

    def at(x: Tensor) -> Point:
        y, near = function(x), _near(x)
        little = x.abs().clamp_min_(1.0).mul_(near)
        return x, y, derivative(x), little, y.abs().mul_(near)

    return Curve(at, _mean, smooth=False)


def closed_form(both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Curve:
    """Of a smooth function that bends over 1 or more, given as f(x) and f'(x)."""
    return Curve(lambda x: (x, *both(x)), _smooth_mean)


def _near(x: Tensor) -> float:
    return _NEAR.get(x.dtype, 1e-2)


def _mean(edges: Sequence[Edge], h: Tensor, out: Tensor) -> None:
    out.zero_()
    for u, v, weight in edges:
        out.add_(_secant(u, v), alpha=weight)


def _secant(u: Point, v: Point) -> Tensor:
    """The mean of the derivatives where the places, and the values, nearly meet."""
    across, up = v[0] - u[0], v[1] - u[1]
    near = across.abs().le_(u[3])  # 0 or 1: choosing by a mask takes far longer than arithmetic
    near.mul_(up.abs().le_(u[4]))
    slope = (u[2] + v[2]).mul_(0.5)
    return up.lerp_(slope, near).div_(across.lerp_(near.new_ones(()), near))


def _smooth_mean(edges: Sequence[Edge], h: Tensor, out: Tensor) -> None:
    """The mean of the derivatives where h nearly vanishes beside the first place; one division."""
    rise, slope = torch.zeros_like(h), out.zero_()
    for u, v, weight in edges:
        rise.add_(v[1], alpha=weight).sub_(u[1], alpha=weight)
        slope.add_(v[2], alpha=weight / 2).add_(u[2], alpha=weight / 2)
    near = h.abs().le_(edges[0][0][0].abs().clamp_(1.0, 32.0).mul_(_near(h)))
    torch.div(rise.lerp_(slope, near), h.lerp(near.new_ones(()), near), out=out)


def _relu_mean(edges: Sequence[Edge], h: Tensor, out: Tensor) -> None:
    """Without a difference of values: max(u, v) / |h| within [0, 1]; 0 at 0."""
    across = h.abs().clamp_min_(torch.finfo(h.dtype).tiny)
    out.zero_()
    for u, v, weight in edges:
        out.add_(torch.maximum(u[0], v[0]).div_(across).clamp_(0.0, 1.0), alpha=weight)


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.erf(x * math.sqrt(0.5)).add_(1.0).mul_(x).mul_(0.5)
    return y, torch.ops.aten.gelu_backward(torch.ones_like(x), x)


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.silu(x), torch.ops.aten.silu_backward(torch.ones_like(x), x)


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.sigmoid(x)
    return y, y * (1.0 - y)


def _tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.tanh(x)
    return y, 1.0 - y * y


#: Functions without arguments of their own, by ATen's name.
CURVES = {
    "relu": Curve(lambda x: (x,), _relu_mean),
    **{f.__name__[1:]: closed_form(f) for f in (_gelu, _silu, _sigmoid, _tanh)},
}


def coalition_slopes(
    rule: str, curve: Curve, bias: Tensor, own: Sequence[Tensor], total: Tensor, result: Tensor
) -> tuple[Tensor, Tensor]:
    """Every player's slope ``(P, *shape)``, and what their parts miss of the result: the bias.

    Where a coalition lies beyond the function's domain, the slope is the tangent at the total.

    Args:
        rule: one of :data:`~.variant.COALITION_RULES`.
        curve: the function.
        bias: bias part of its input, ``(*shape)``.
        own: the players' parts, of this shape each.
        total: the input.
        result: the function of it.
    """
    slopes, rest = total.new_empty((len(own), *total.shape)), torch.empty_like(result)
    if not own:
        return slopes, rest.copy_(result)
    for b, z, y, left, *others in _blocks(curve.smooth, bias, total, result, rest, *own, *slopes):
        players, made = others[: len(own)], others[len(own) :]
        _RULES[rule](curve, b, players, z, made)
        if not curve.smooth:
            tangent = curve.at(z)[2].nan_to_num(0.0, 0.0, 0.0)
            for s in made:
                s.copy_(torch.where(s.isfinite(), s, tangent))
        for h, s in zip(players, made, strict=True):
            y = torch.addcmul(y, s, h, value=-1.0, out=left)
    return slopes, rest


def _blocks(smooth: bool, *tensors: Tensor) -> Iterator[Sequence[Tensor]]:
    """The same few elements of all, in the memory of each, or all elements at once."""
    if not smooth or tensors[0].is_cuda or not all(t.is_contiguous() for t in tensors):
        yield tensors
    else:
        size = BLOCK * torch.get_num_threads()
        yield from zip(*(t.view(-1).split(size) for t in tensors), strict=True)


def _shapley(
    curve: Curve, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    """Sum over S without m of |S|! (P - |S| - 1)! / P! times the secant from S to S with m."""
    count, full = len(own), (1 << len(own)) - 1
    if count > MOST_PLAYERS:
        raise InputError(
            f"shapley: {count} players at an activation need {count << count - 1} slopes of "
            "coalitions for each; take reveal, whose cost is linear in them"
        )
    values = {0: bias, full: total}
    for s in range(1, full):
        top = s.bit_length() - 1
        values[s] = values[s ^ (1 << top)] + own[top]
    points = {s: curve.at(z) for s, z in values.items()}
    weights = [factorial(n) * factorial(count - n - 1) / factorial(count) for n in range(count)]
    for m, (h, slope) in enumerate(zip(own, out, strict=True)):
        without = (s for s in range(full) if not s >> m & 1)
        edges = [(points[s], points[s | 1 << m], weights[s.bit_count()]) for s in without]
        curve.mean(edges, h, slope)


def _rescale(
    curve: Curve, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    first, *others = out
    curve.mean([(curve.at(bias), curve.at(total), 1.0)], total - bias, first)
    for slope in others:
        slope.copy_(first)


def _reveal(
    curve: Curve, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    up, down = torch.zeros_like(bias), torch.zeros_like(bias)
    for h in own:
        up.add_(h.clamp(min=0))
        down.add_(h.clamp(max=0))
    none, high, low, whole = map(curve.at, (bias, bias + up, bias + down, total))
    rise, fall, level = (torch.empty_like(bias) for _ in range(3))
    curve.mean([(none, high, 0.5), (low, whole, 0.5)], up, rise)
    curve.mean([(none, low, 0.5), (high, whole, 0.5)], down, fall)
    curve.mean([(none, whole, 1.0)], total - bias, level)
    for h, slope in zip(own, out, strict=True):
        sign = h.sign()
        torch.lerp(level, rise, sign.clamp(min=0), out=slope).lerp_(fall, sign.clamp_(max=0).neg_())


_RULES = {"shapley": _shapley, "reveal": _reveal, "rescale": _rescale}
