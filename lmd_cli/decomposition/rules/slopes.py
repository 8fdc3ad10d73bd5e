"""Closed forms of eq. 9's slope, output / input, for the common activations.

Each function takes the total ``x`` (any shape) and the activation's own arguments. For
activations with f(0) = 0 the slope is the secant from the origin, with its limit at 0: never a
division by ``x + eps``. The others (f(0) != 0) have no secant near 0; see :mod:`.activation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def ratio(y: Tensor, x: Tensor, limit: float) -> Tensor:
    """y / x where x is not 0, ``limit`` there."""
    zero = x == 0
    return torch.where(zero, torch.full_like(x, limit), y / torch.where(zero, 1.0, x))


def relu(x: Tensor) -> Tensor:
    """A mask in {0, 1}; 0 at 0."""
    return (x > 0).to(x.dtype)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """1 or the negative slope."""
    return torch.where(x > 0, torch.ones_like(x), negative_slope)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """1 or the learnt slope, which broadcasts against x."""
    return torch.where(x > 0, torch.ones_like(x), weight)


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, **options: Any) -> Tensor:
    """Evaluation mode: the mean slope."""
    return leaky_relu(x, (lower + upper) / 2)


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor | None:
    """1 inside the limits, limit / x outside, as :func:`clamp`."""
    return clamp(x, min_val, max_val)


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """scale, or scale alpha expm1(input_scale x) / x: ELU, SELU with the published constants."""
    below = alpha * ratio(torch.expm1(x.clamp(max=0) * input_scale), x, input_scale)
    return scale * torch.where(x > 0, torch.ones_like(x), below)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """1, or expm1(x / alpha) / (x / alpha)."""
    z = x / alpha
    return torch.where(x > 0, torch.ones_like(x), ratio(torch.expm1(z.clamp(max=0)), z, 1.0))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Phi(x), the normal distribution function; 1/2 at 0."""
    if approximate == "tanh":
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * (1.0 + torch.tanh(inner))
    return 0.5 * torch.erfc(-x * math.sqrt(0.5))


def silu(x: Tensor) -> Tensor:
    """sigmoid(x); 1/2 at 0."""
    return torch.sigmoid(x)


def mish(x: Tensor) -> Tensor:
    """tanh(softplus(x))."""
    return torch.tanh(F.softplus(x))


def hardswish(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6."""
    return F.relu6(x + 3.0) / 6.0


def tanh(x: Tensor) -> Tensor:
    """tanh(x) / x, 1 at 0."""
    return ratio(torch.tanh(x), x, 1.0)


def tanhshrink(x: Tensor) -> Tensor:
    """1 - tanh(x) / x."""
    return 1.0 - tanh(x)


def softsign(x: Tensor) -> Tensor:
    """1 / (1 + |x|)."""
    return 1.0 / (1.0 + x.abs())


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """A mask: |x| > lambd."""
    return (x.abs() > lambd).to(x.dtype)


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """max(1 - lambd / |x|, 0)."""
    return ratio(F.softshrink(x, lambd), x, 0.0)


def absolute(x: Tensor) -> Tensor:
    """sign(x)."""
    return x.sign()


def arctangent(x: Tensor) -> Tensor:
    """atan(x) / x, 1 at 0."""
    return ratio(torch.atan(x), x, 1.0)


def sine(x: Tensor) -> Tensor:
    """sin(x) / x, 1 at 0."""
    return ratio(torch.sin(x), x, 1.0)


def error_function(x: Tensor) -> Tensor:
    """erf(x) / x, 2 / sqrt(pi) at 0."""
    return ratio(torch.erf(x), x, 2.0 / math.sqrt(math.pi))


def exp_minus_one(x: Tensor) -> Tensor:
    """expm1(x) / x, 1 at 0."""
    return ratio(torch.expm1(x), x, 1.0)


def clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor | None:
    """clamp(x) / x if the limits admit 0, else nothing (then f(0) != 0)."""
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    if (min is not None and min > 0) or (max is not None and max < 0):
        return None
    inside = 0.0 if min == 0 or max == 0 else 1.0
    return ratio(x.clamp(min, max), x, inside)


def through_origin(function: Callable[..., Tensor], limit: float) -> Callable[..., Tensor]:
    """The slope f(x) / x of any function with f(0) = 0, ``limit`` at 0."""
    return lambda x, **options: ratio(function(x, **options), x, limit)
