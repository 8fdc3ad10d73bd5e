"""Elementwise functions of several tensors that are made of sums, products and selections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, inplace_aliases
from lmd_cli.decomposition.rules.composite import composed

_SELECTION = "eq. 9 (slope 0 or 1)"


@composed(*aliases("maximum"), equation=_SELECTION)
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """Each element from the tensor that has the larger one; from the first where they are equal."""
    return torch.where(input >= other, input, other)


@composed(*aliases("minimum"), equation=_SELECTION)
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """Each element from the tensor that has the smaller one."""
    return torch.where(input <= other, input, other)


@composed(*aliases("fmax"), equation=_SELECTION)
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """:func:`maximum`, where a NaN loses."""
    return torch.where((input >= other) | torch.isnan(other), input, other)


@composed(*aliases("fmin"), equation=_SELECTION)
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """:func:`minimum`, where a NaN loses."""
    return torch.where((input <= other) | torch.isnan(other), input, other)


def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Finite elements as they are, constants elsewhere."""
    finite = torch.isfinite(input)
    return torch.where(finite, input, torch.nan_to_num(input.detach(), nan, posinf, neginf))


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight (end - input), each of which may carry parts."""
    return input + weight * (end - input)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    return input + (tensor1 * tensor2) * value


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    return input + (tensor1 / tensor2) * value


def floor_divide(input: Any, other: Any) -> Tensor:
    """floor(x / y)."""
    return torch.floor(torch.true_divide(input, other))


def remainder(input: Any, other: Any) -> Tensor:
    """x - y floor(x / y), with the sign of y."""
    return input - torch.floor(torch.true_divide(input, other)) * other


def fmod(input: Any, other: Any) -> Tensor:
    """x - y trunc(x / y), with the sign of x."""
    return input - torch.trunc(torch.true_divide(input, other)) * other


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(x^2 + y^2)."""
    return torch.sqrt(torch.square(input) + torch.square(other))


_WITH_TWINS: dict[str, tuple[Callable[..., Any], str]] = {
    "nan_to_num": (nan_to_num, "eq. 6"),
    "lerp": (lerp, "eq. 6, App. D.2"),
    "addcmul": (addcmul, "eq. 6, App. D.2"),
    "addcdiv": (addcdiv, "eq. 6; divisor as in eq. 11"),
    "floor_divide": (floor_divide, "eq. 9"),
    "remainder": (remainder, "eq. 9"),
    "fmod": (fmod, "eq. 9"),
    "hypot": (hypot, "eq. 9"),
}
for _name, (_made_of, _equation) in _WITH_TWINS.items():
    composed(*aliases(_name), equation=_equation)(_made_of)
    composed(*inplace_aliases(_name), equation=_equation, inplace=True)(_made_of)

composed(torch.Tensor.__floordiv__, equation="eq. 9")(floor_divide)
composed(torch.Tensor.__mod__, equation="eq. 9")(remainder)


@composed(*aliases("glu"), equation="eq. 9, App. D.2")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """A half of the channels times the sigmoid of the other."""
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


@composed(F.softmin, equation="eq. 9, App. D.2")
def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """softmax(-x)."""
    return torch.softmax(-input, -1 if dim is None else dim, dtype=dtype)


def _flat(tensors: tuple[Any, ...]) -> tuple[Tensor, ...]:
    nested = len(tensors) == 1 and isinstance(tensors[0], (list, tuple))
    return tuple(tensors[0]) if nested else tensors


@composed(torch.broadcast_tensors, equation="eq. 13")
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All tensors in their common shape."""
    shape = torch.broadcast_shapes(*(t.shape for t in _flat(tensors)))
    return tuple(t.expand(shape) for t in _flat(tensors))


@composed(torch.meshgrid, equation="eq. 13")
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Grids of coordinates from (n,) and (m,): two of (n, m), or of (m, n) under ``xy``."""
    axes = _flat(tensors)
    order = list(range(len(axes)))
    if indexing == "xy" and len(axes) > 1:
        order[:2] = [1, 0]
    shape = [0] * len(axes)
    for place, axis in zip(order, axes, strict=True):
        shape[place] = axis.numel()
    return tuple(
        axis.reshape([-1 if d == place else 1 for d in range(len(axes))]).expand(shape)
        for place, axis in zip(order, axes, strict=True)
    )
