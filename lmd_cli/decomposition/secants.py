"""Secants: the affine map along which an operation moves from its value at u to that at v.

A secant is linear in its argument h, with f(u) + L (v - u) = f(v). Elementwise functions have a
slope (:mod:`.coalition_slopes`); here are the operations of many elements. Where an operation
offers no secant, its map at the operating point takes its place, and what that misses of
f(v) - f(u) is a constant of the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lmd_cli.decomposition.coalition_slopes import CURVES, Curve
from lmd_cli.decomposition.maps import Affine, Secant, slope

#: Takes a stack ``(rows, *shape)`` to its mean over what is normalised, broadcastable to it.
Mean = Callable[[Tensor], Tensor]


def elementwise(x: Tensor, curve: Curve) -> Secant:
    """(f(v) - f(u)) / (v - u), element by element."""

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        u, v = curve.at(us[0]), curve.at(vs[0])
        factor = curve.secant(u, v)
        if not curve.smooth:  # its derivative may have a pole
            straight = ((v[1] - u[1]) / (v[0] - u[0])).nan_to_num(0.0, 0.0, 0.0)
            factor = torch.where(factor.isfinite(), factor, straight)
        return slope(factor, splits=False)

    return Secant((x,), between)


def normalised(
    x: Tensor, mean: Mean, weight: Tensor | None, eps: float, centred: bool = True
) -> Secant:
    """A norm gamma x~ / s with s^2 = E[x~^2] + eps and, where centred, x~ = x - E[x].

    y(v) - y(u) = h~ / s_v - u~ E[(u~ + v~) h~] / (s_u s_v (s_u + s_v)), or the same with u and v
    exchanged: the larger of s_u and s_v divides.
    """

    def centre(h: Tensor) -> Tensor:
        return h - mean(h) if centred else h

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        u, v = centre(us[0]), centre(vs[0])
        s_u, s_v = ((mean(z.square()) + eps).sqrt() for z in (u, v))
        gamma = 1.0 if weight is None else weight
        scale, both = gamma / torch.maximum(s_u, s_v), u + v
        turned = torch.where(s_v >= s_u, u, v) * (gamma / (s_u * s_v * (s_u + s_v)))

        def run(h: Tensor) -> Tensor:
            moved = centre(h)
            return torch.addcmul(moved * scale, turned, mean(both * moved), value=-1)

        return Affine(run)

    return Secant((x,), between)


def softmax(x: Tensor, dim: int) -> Secant:
    """(q h - y_u sum(q h)) / Z_v with the secants q of exp and Z = sum(exp), or the same with u
    and v exchanged: the larger of Z_u and Z_v divides.

    Args:
        dim: of a stack ``(rows, *shape)``.
    """

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        q, e_u, e_v = _exponentials(us[0].unsqueeze(0), vs[0].unsqueeze(0), (dim,))
        z_u, z_v = (e.sum(dim, keepdim=True) for e in (e_u, e_v))
        y_u, y_v = (torch.softmax(z, dim - 1).unsqueeze(0).nan_to_num(0.0) for z in (us[0], vs[0]))
        near, divisor = torch.where(z_v >= z_u, y_u, y_v), torch.maximum(z_u, z_v)
        divisor = torch.where(divisor == 0, 1.0, divisor)  # all is masked

        def run(h: Tensor) -> Tensor:
            moved = torch.where(q == 0, 0.0, q * h)
            return (moved - near * moved.sum(dim, keepdim=True)) / divisor

        return Affine(run)

    return Secant((x,), between)


def logsumexp(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Secant:
    """sum(q h) times the secant of the logarithm; ``dims`` of a stack."""
    at = tuple(d - 1 for d in dims)

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        q, e_u, e_v = _exponentials(us[0].unsqueeze(0), vs[0].unsqueeze(0), dims)
        z_u, z_v = (e.sum(dims, keepdim=True) for e in (e_u, e_v))
        most = torch.maximum(z_u, z_v)
        less = (z_v - z_u).abs() / most  # |log(z_v) - log(z_u)| = -log1p(-less)
        near = torch.where(less == 0, 1.0, -torch.log1p(-less) / less) / most
        rise = torch.logsumexp(vs[0], at, keepdim=True) - torch.logsumexp(us[0], at, keepdim=True)
        factor = torch.where(less < 0.5, near, rise.unsqueeze(0) / (z_v - z_u))

        def run(h: Tensor) -> Tensor:
            made = torch.where(q == 0, 0.0, q * h).sum(dims, keepdim=True) * factor
            return made if keepdim else made.squeeze(dims)

        return Affine(run)

    return Secant((x,), between)


def _exponentials(u: Tensor, v: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The secant of exp, and exp at both ends, all over exp of the largest."""
    top = torch.maximum(u, v).amax(dims, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
    e_u, e_v = (u - top).exp(), (v - top).exp()
    apart = (v - u).abs().nan_to_num(0.0)  # infinite in both: masked
    falls = torch.where(apart == 0, 1.0, -torch.expm1(-apart) / apart)
    return torch.maximum(e_u, e_v) * falls.nan_to_num(0.0), e_u, e_v


def product(times: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Secant:
    """h_a mean(b) + mean(a) h_b with the means of both ends."""

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        mean_a, mean_b = (((u + v) / 2).unsqueeze(0) for u, v in zip(us, vs, strict=True))
        return Affine(lambda h_a, h_b: times(h_a, mean_b) + times(mean_a, h_b))

    return Secant((a, b), between)


def quotient(a: Tensor, b: Tensor, spread: Callable[[Tensor], Tensor], varies: bool) -> Secant:
    """(h_a - y_u h_b) / b_v with y = a / b, or the same with u and v exchanged: the larger of |b_u|
    and |b_v| divides. ``varies``: a carries parts too."""

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        (a_u, b_u), (a_v, b_v) = ((ends[0] if varies else a, ends[-1]) for ends in (us, vs))
        far = b_v.abs() >= b_u.abs()
        near = torch.where(far, a_u / b_u, a_v / b_v).unsqueeze(0)
        divisor = spread(torch.where(far, b_v, b_u).unsqueeze(0))

        def run(*h: Tensor) -> Tensor:
            falls = near * spread(h[-1])
            return (spread(h[0]) - falls if varies else -falls) / divisor

        return Affine(run)

    return Secant((a, b) if varies else (b,), between)


def extreme(
    x: Tensor, where: Callable[[Tensor], Tensor], read: Callable[[Tensor, Tensor], Tensor]
) -> Secant:
    """A maximum or minimum: f(v) - f(u) lies between h where u has it and h where v has it.

    Args:
        where: the places of the chosen elements for values of ``x``.
        read: a stack at such places.
    """

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        u, v = us[0].unsqueeze(0), vs[0].unsqueeze(0)
        at_u, at_v = where(us[0]), where(vs[0])
        moved = _moved(u, v)
        low, high = read(moved, at_u), read(moved, at_v)
        rise, apart = _moved(read(u, at_u), read(v, at_v)) - low, high - low
        share = torch.where(apart == 0, 0.5, rise / apart).clamp(0.0, 1.0)
        return Affine(lambda h: torch.lerp(read(h, at_u), read(h, at_v), share))

    return Secant((x,), between)


def _moved(u: Tensor, v: Tensor) -> Tensor:
    """v - u, 0 where both are the same infinity (masked)."""
    return (v - u).masked_fill(u == v, 0.0)


def larger_or_smaller(
    operands: tuple[Tensor, ...],
    a: Tensor,
    b: Tensor,
    larger: bool,
    spread: Callable[[Tensor], Tensor],
) -> Secant:
    """max(a, b) = b + relu(a - b), min(a, b) = a - relu(a - b), with relu's secant.

    Args:
        operands: those of a and b that carry parts.
    """

    carried = [any(t is o for o in operands) for t in (a, b)]

    def both(values: Sequence[Tensor], fixed: Sequence[Tensor]) -> Sequence[Tensor]:
        given = iter(values)
        return [next(given) if own else f for own, f in zip(carried, fixed, strict=True)]

    def between(us: Sequence[Tensor], vs: Sequence[Tensor]) -> Affine:
        (a_u, b_u), (a_v, b_v) = both(us, (a, b)), both(vs, (a, b))
        relu = CURVES["relu"]
        steep = relu.secant(relu.at(a_u - b_u), relu.at(a_v - b_v))
        steep = torch.where(steep.isnan(), (a_v > b_v).to(steep.dtype), steep)  # masked
        zeros = [torch.zeros_like(t).unsqueeze(0) for t in (a, b)]

        def run(*h: Tensor) -> Tensor:
            h_a, h_b = map(spread, both(h, zeros))
            return torch.lerp(h_b, h_a, steep if larger else 1.0 - steep)

        return Affine(run)

    return Secant(operands, between)
