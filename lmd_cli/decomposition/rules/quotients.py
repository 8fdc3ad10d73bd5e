"""Quotients and powers.

A quotient is linear in the numerator, with the divisor a constant of the operating point. That is
eq. 11's rescaling step, whose deviation is "saved from a single forward pass", for norms that a
network writes itself: ``(x - mean) / sqrt(var + eps)``, ``x * rsqrt(var + eps)`` and
``x / x.norm()`` give the parts that LayerNorm, RMSNorm and ``F.normalize`` give. So a reciprocal is
a constant too, however it is spelt (also as a negative power); all of it is bias, and so is a
constant over a divisor that carries parts. A rounded quotient is a step function of the quotient
(eq. 9), slope 0 near 0.

For an exponent p of 1 or more eq. 9's slope is a^(p - 1). Between 0 and 1 it has a pole at 0 and is
guarded as a square root is. An exponent that carries parts is an exponential.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition import secants
from lmd_cli.decomposition.coalition_slopes import curve_of
from lmd_cli.decomposition.maps import Affine, constant, slope
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.activation import (
    SECANT_GUARD,
    Elementwise,
    derivative,
    guarded,
    linearised,
)
from lmd_cli.decomposition.rules.common import composed, spread, tensor_like
from lmd_cli.decomposition.tracing.calls import Call, Result


@aten_rule("div", kind="quotient", equation="eq. 13; divisor as in eq. 11")
def divide(call: Call, input: Tensor, other: Any, rounding_mode: str | None = None) -> Result:
    """numerator / divisor."""
    total = call.plain()
    if rounding_mode is not None:
        return total, _rounded(call, input, other, total)
    divisor, varies, ndim = _held(call, other), call.carries(input), total.dim()
    made = constant(call.kept(total))
    if varies:
        made = Affine(lambda h: spread(h, ndim) / divisor, (input,))
    if call.carries(other):
        secant = secants.quotient(input, other, partial(spread, ndim=ndim), varies)
        made = replace(made, secant=secant)
    return total, made


def _held(call: Call, divisor: Any) -> Any:
    """The divisor's value."""
    if not call.carries(divisor):
        return divisor
    call.hold("divisor")
    return call.kept(divisor)


def _rounded(call: Call, x: Tensor, y: Any, total: Tensor) -> Affine:
    """A rounded quotient q of z = x / y: eq. 9's slope q / z, 0 where |z| is small."""
    divisor = _held(call, y)
    if not call.carries(x):
        return constant(call.kept(total))
    quotient = torch.true_divide(x, divisor)
    factor, rest = guarded(total, quotient, 0.0, SECANT_GUARD)
    return slope(factor / divisor, x.expand(total.shape), remainder=rest)


@aten_rule("floor_divide", kind="quotient", equation="eq. 9")
def floor_divide(call: Call, input: Tensor, other: Any) -> Result:
    """floor(x / y)."""
    total = call.plain()
    return total, _rounded(call, input, other, total)


@composed("remainder", equation="eq. 9")
def remainder(input: Any, other: Any) -> Tensor:
    """x - y floor(x / y), with the sign of y."""
    x = tensor_like(input, other)
    return x - torch.floor_divide(x, other) * other


@composed("fmod", equation="eq. 9")
def fmod(input: Any, other: Any) -> Tensor:
    """x - y trunc(x / y), with the sign of x: the remainder of the magnitudes."""
    x = tensor_like(input, other)
    sign, of_y = _sign(x), _sign(tensor_like(other, x))
    return x - torch.floor_divide(x * sign, other * of_y) * (sign * of_y) * other


def _sign(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1, 1).to(x.dtype)


@aten_rule("reciprocal", "rsqrt", kind="statistic", equation="eq. 11")
def reciprocal(call: Call, input: Tensor) -> Result:
    """1 / x and 1 / sqrt(x)."""
    total = call.plain()
    return total, _statistic(call, input, total, lambda v: call.run(input=v))


def _statistic(call: Call, x: Tensor, total: Tensor, function: Elementwise) -> Affine:
    """All of it bias."""
    curve = curve_of(function, partial(derivative, function))
    secant = None if x.is_complex() else secants.elementwise(x, curve)
    return replace(constant(call.kept(total)), secant=secant)


# -- powers ---------------------------------------------------------------------------------------


@aten_rule("pow", kind="activation", equation="eq. 9; a negative power as a divisor")
def power(call: Call, input: Any, exponent: Any) -> Result:
    """base ** exponent, one of which carries parts."""
    total = call.plain()
    if call.carries(input) and call.carries(exponent):
        raise call.refused("both the base and the exponent carry parts")
    if call.carries(exponent):
        x = exponent.expand(total.shape)
        return total, linearised(call, x, total, lambda v: torch.pow(input, v))
    x = input.expand(total.shape)
    if _all(exponent <= 0):
        return total, _statistic(call, x, total, lambda v: torch.pow(v, exponent))
    whole, root = _all(exponent >= 1), _all((exponent > 0) & (exponent < 1))
    if not (whole or root):
        return total, call.compose(_by_exponent, input, exponent)
    secant = (lambda v, y: torch.pow(v, exponent - 1)) if whole else None
    return total, linearised(call, x, total, lambda v: torch.pow(v, exponent), secant, steep=root)


def _all(condition: Any) -> bool:
    return bool(condition.all()) if isinstance(condition, Tensor) else condition


def _by_exponent(x: Tensor, p: Tensor) -> Tensor:
    """Exponents on both sides of 0 or 1: each element by its own."""
    made = torch.pow(x.detach(), p)
    for chosen, other in ((p >= 1, 1.0), ((p > 0) & (p < 1), 0.5)):
        power = torch.pow(torch.where(chosen, x, 1.0), torch.where(chosen, p, other))
        made = torch.where(chosen, power, made)
    return made
