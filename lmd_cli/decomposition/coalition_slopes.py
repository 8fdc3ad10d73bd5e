"""Slopes between the values that coalitions of modalities make, in place of eq. 9's from zero.

The input of an elementwise function f is z = b + sum of h_m with the bias part b. With
v(S) = f(b + the parts in S), what f gives beyond f(b) is shared among the modalities, and the
interaction as one more, element by element:

- ``shapley``: Shapley values phi_m = s_m h_m of v (Shapley, 1953; DASP, Ancona et al., 2019);
- ``reveal``: Shapley values of two groups, all positive and all negative parts (RevealCancel,
  Shrikumar et al., 2017);
- ``rescale``: one slope for all, (f(z) - f(b)) / (z - b) (DeepLIFT's Rescale rule).

The slopes are constants of the operating point, so that a part stays linear in its own input. The
bias becomes f(b): f(z) less the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import torch
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]
#: (f(v) - f(u)) / (v - u) of an elementwise f.
Secant = Callable[[Tensor, Tensor], Tensor]

#: Below this difference, in units of the larger value, a secant is the derivative in the middle.
_NEAR = {torch.float64: 1e-6, torch.float32: 1e-3}


def secant_of(function: Elementwise, derivative: Elementwise) -> Secant:
    """The secant of any function; its derivative half-way where the two values nearly meet."""

    def secant(u: Tensor, v: Tensor) -> Tensor:
        difference = v - u
        near = _NEAR.get(u.dtype, 1e-2) * torch.maximum(u.abs(), v.abs())
        far = difference.abs() > near
        slope = (function(v) - function(u)) / torch.where(far, difference, 1.0)
        return torch.where(far, slope, derivative((u + v) / 2))

    return secant


def relu_secant(u: Tensor, v: Tensor) -> Tensor:
    """ReLU's, without a difference of its values: max(u, v) / |v - u| within [0, 1]; 0 at 0."""
    return (torch.maximum(u, v) / (v - u).abs_()).nan_to_num_(0.0).clamp_(0.0, 1.0)


def coalition_slopes(rule: str, secant: Secant, bias: Tensor, own: Tensor, total: Tensor) -> Tensor:
    """Every player's slope ``(P, *shape)``; the tangent at the total where a coalition lies beyond
    the function's domain.

    Args:
        rule: one of :data:`~.variant.COALITION_RULES`.
        secant: of the function.
        bias: bias part of its input, ``(*shape)``.
        own: the players' parts, ``(P, *shape)``.
        total: the input.
    """
    slopes = _RULES[rule](secant, bias, own, total)
    if secant is relu_secant:
        return slopes
    tangent = secant(total, total).nan_to_num(0.0, 0.0, 0.0)
    return torch.where(slopes.isfinite(), slopes, tangent)


def _shapley(secant: Secant, bias: Tensor, own: Tensor, total: Tensor) -> Tensor:
    """Sum over S without m of |S|! (P - |S| - 1)! / P! times the secant from S to S with m."""
    count, full = len(own), (1 << len(own)) - 1
    values = {0: bias, full: total}
    for s in range(1, full):
        top = s.bit_length() - 1
        values[s] = values[s ^ (1 << top)] + own[top]
    slopes = torch.zeros_like(own)
    for m in range(count):
        for s in (s for s in range(full) if not s >> m & 1):
            size = s.bit_count()
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            slopes[m] += weight * secant(values[s], values[s | 1 << m])
    return slopes


def _rescale(secant: Secant, bias: Tensor, own: Tensor, total: Tensor) -> Tensor:
    return secant(bias, total).expand_as(own)


def _reveal(secant: Secant, bias: Tensor, own: Tensor, total: Tensor) -> Tensor:
    up, down = bias + own.clamp(min=0).sum(0), bias + own.clamp(max=0).sum(0)
    rise = (secant(bias, up) + secant(down, total)) / 2
    fall = (secant(bias, down) + secant(up, total)) / 2
    return torch.where(own > 0, rise, torch.where(own < 0, fall, secant(bias, total)))


_RULES = {"shapley": _shapley, "reveal": _reveal, "rescale": _rescale}
