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
from torch import Tensor

from lmd_cli.decomposition.errors import InputError

Elementwise: TypeAlias = Callable[[Tensor], Tensor]
#: A place x, and what is known of a function there: f(x), f'(x) / 2, and how far from x is near;
#: if need be also how far from f(x).
Point: TypeAlias = tuple[Tensor, ...]

#: Elements that are worked out at a time for each thread, within its cache.
BLOCK = 2**15
#: Modalities and interaction for which all coalitions are gone through.
MOST_PLAYERS = 8
#: Below this difference of place and value, relative to them, a secant is the mean derivative.
_NEAR = {torch.float64: 1e-6, torch.float32: 1e-3}


class Curve(NamedTuple):
    """An elementwise function.

    Attributes:
        at: what is known at a place.
        secant: (f(v) - f(u)) / (v - u) for the points u and v.
        smooth: it is defined everywhere and can run on any few of the elements.
    """

    at: Callable[[Tensor], Point]
    secant: Callable[[Point, Point], Tensor]
    smooth: bool = True


def curve_of(function: Elementwise, derivative: Elementwise) -> Curve:
    """Any function's, of whatever scale."""

    def at(x: Tensor) -> Point:
        y = function(x)
        return x, y, derivative(x) / 2, _little(x), y.abs().mul_(_near(y))

    return Curve(at, _secant, smooth=False)


def closed_form(both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Curve:
    """Of a smooth function that bends over 1 or more, given as f(x) and f'(x)."""

    def at(x: Tensor) -> Point:
        y, slope = both(x)
        return x, y, slope.mul_(0.5), _little(x)

    return Curve(at, _secant)


def _near(x: Tensor) -> float:
    return _NEAR.get(x.dtype, 1e-2)


def _little(x: Tensor) -> Tensor:
    return x.abs().clamp_min_(1.0).mul_(_near(x))


def _secant(u: Point, v: Point) -> Tensor:
    """The mean of the derivatives where the places, and the values, nearly meet."""
    across, up = v[0] - u[0], v[1] - u[1]
    near = across.abs().le_(u[3])  # 0 or 1: choosing by a mask takes far longer than arithmetic
    if len(u) > 4:
        near.mul_(up.abs().le_(u[4]))
    return up.lerp_(u[2] + v[2], near).div_(across.lerp_(near.new_ones(()), near))


def _relu_secant(u: Point, v: Point) -> Tensor:
    """Without a difference of values: max(u, v) / |v - u| within [0, 1]; 0 at 0."""
    across = (v[0] - u[0]).abs_().clamp_min_(torch.finfo(u[0].dtype).tiny)
    return torch.maximum(u[0], v[0]).div_(across).clamp_(0.0, 1.0)


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    below = torch.erf(x * math.sqrt(0.5)).add_(1.0).mul_(0.5)
    density = torch.exp(x * x * -0.5).mul_(1.0 / math.sqrt(2.0 * math.pi))
    return x * below, density.mul_(x).add_(below)


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(x)
    return x * gate, gate * (1.0 + x * (1.0 - gate))


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.sigmoid(x)
    return y, y * (1.0 - y)


def _tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.tanh(x)
    return y, 1.0 - y * y


#: Functions without arguments of their own, by ATen's name.
CURVES = {
    "relu": Curve(lambda x: (x,), _relu_secant),
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
    slopes, rest = total.new_empty((len(own), *total.shape)), result.clone()
    for b, z, left, *others in _blocks(curve.smooth, bias, total, rest, *own, *slopes):
        players, made = others[: len(own)], others[len(own) :]
        _RULES[rule](curve, b, players, z, made)
        if not curve.smooth:
            tangent = curve.secant(*[curve.at(z)] * 2).nan_to_num_(0.0, 0.0, 0.0)
            for s in made:
                s.copy_(torch.where(s.isfinite(), s, tangent))
        for h, s in zip(players, made, strict=True):
            left.sub_(s * h)
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
    for m, slope in enumerate(out):
        slope.zero_()
        for s in (s for s in range(full) if not s >> m & 1):
            size = s.bit_count()
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            slope.add_(curve.secant(points[s], points[s | 1 << m]), alpha=weight)


def _rescale(
    curve: Curve, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    between = curve.secant(curve.at(bias), curve.at(total))
    for slope in out:
        slope.copy_(between)


def _reveal(
    curve: Curve, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    up, down = bias.clone(), bias.clone()
    for h in own:
        up, down = up.add_(h.clamp(min=0)), down.add_(h.clamp(max=0))
    none, high, low, whole = map(curve.at, (bias, up, down, total))
    rise = (curve.secant(none, high) + curve.secant(low, whole)) / 2
    fall = (curve.secant(none, low) + curve.secant(high, whole)) / 2
    level = curve.secant(none, whole)
    for h, slope in zip(own, out, strict=True):
        sign = h.sign()
        slope.copy_(fall.lerp(rise, sign.clamp(min=0)).lerp_(level, 1.0 - sign.abs_()))


_RULES = {"shapley": _shapley, "reveal": _reveal, "rescale": _rescale}
