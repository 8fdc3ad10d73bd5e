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

from collections.abc import Callable, Iterator, Sequence
from math import factorial

import torch
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]
#: (f(v) - f(u)) / (v - u) of an elementwise f.
Secant = Callable[[Tensor, Tensor], Tensor]

#: Elements of a ReLU that are worked out at a time for each thread, within its cache.
BLOCK = 2**15
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
    apart = (v - u).abs_().clamp_min_(torch.finfo(u.dtype).tiny)
    return torch.maximum(u, v).div_(apart).clamp_(0.0, 1.0)


def coalition_slopes(
    rule: str, secant: Secant, bias: Tensor, own: Sequence[Tensor], total: Tensor, result: Tensor
) -> tuple[Tensor, Tensor]:
    """Every player's slope ``(P, *shape)``, and what their parts miss of the result: the bias.

    Where a coalition lies beyond the function's domain, the slope is the tangent at the total.

    Args:
        rule: one of :data:`~.variant.COALITION_RULES`.
        secant: of the function.
        bias: bias part of its input, ``(*shape)``.
        own: the players' parts, of this shape each.
        total: the input.
        result: the function of it.
    """
    slopes, rest = total.new_empty((len(own), *total.shape)), result.clone()
    whole = secant is not relu_secant
    for b, z, left, *others in _blocks(whole, bias, total, rest, *own, *slopes):
        players, made = others[: len(own)], others[len(own) :]
        _RULES[rule](secant, b, players, z, made)
        tangent = secant(z, z).nan_to_num(0.0, 0.0, 0.0) if whole else None
        for h, s in zip(players, made, strict=True):
            if tangent is not None:
                s.copy_(torch.where(s.isfinite(), s, tangent))
            left.sub_(s * h)
    return slopes, rest


def _blocks(whole: bool, *tensors: Tensor) -> Iterator[Sequence[Tensor]]:
    """The same few elements of all, in the memory of each, or all elements at once."""
    if whole or tensors[0].is_cuda or not all(t.is_contiguous() for t in tensors):
        yield tensors
    else:
        size = BLOCK * torch.get_num_threads()
        yield from zip(*(t.view(-1).split(size) for t in tensors), strict=True)


def _shapley(
    secant: Secant, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    """Sum over S without m of |S|! (P - |S| - 1)! / P! times the secant from S to S with m."""
    count, full = len(own), (1 << len(own)) - 1
    values = {0: bias, full: total}
    for s in range(1, full):
        top = s.bit_length() - 1
        values[s] = values[s ^ (1 << top)] + own[top]
    for m, slope in enumerate(out):
        slope.zero_()
        for s in (s for s in range(full) if not s >> m & 1):
            size = s.bit_count()
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            slope.add_(secant(values[s], values[s | 1 << m]).mul_(weight))


def _rescale(
    secant: Secant, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    between = secant(bias, total)
    for slope in out:
        slope.copy_(between)


def _reveal(
    secant: Secant, bias: Tensor, own: Sequence[Tensor], total: Tensor, out: Sequence[Tensor]
) -> None:
    up, down = bias.clone(), bias.clone()
    for h in own:
        up, down = up.add_(h.clamp(min=0)), down.add_(h.clamp(max=0))
    rise = (secant(bias, up) + secant(down, total)) / 2
    fall = (secant(bias, down) + secant(up, total)) / 2
    level = secant(bias, total)
    for h, slope in zip(own, out, strict=True):
        slope.copy_(torch.where(h > 0, rise, torch.where(h < 0, fall, level)))


_RULES = {"shapley": _shapley, "reveal": _reveal, "rescale": _rescale}
