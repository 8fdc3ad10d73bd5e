"""Quotients: linear in the numerator, with the divisor a constant of the operating point.

That is eq. 11's rescaling step, whose deviation is "saved from a single forward pass", for norms
that a network writes itself: ``(x - mean) / sqrt(var + eps)``, ``x * rsqrt(var + eps)`` and
``x / x.norm()`` give the parts that LayerNorm, RMSNorm and ``F.normalize`` give. So a reciprocal is
a constant too, however it is spelt; all of it is bias, and so is a constant over a decomposed
divisor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenConstant, Stream
from lmd_cli.decomposition.registry import aliases, inplace_aliases, register_rule
from lmd_cli.decomposition.rules.common import stack_like
from lmd_cli.decomposition.tensor import DecomposedTensor, plain

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_DIVISIONS = ("div", "divide", "true_divide")
_QUOTIENT: dict[str, Any] = {"kind": "quotient", "equation": "eq. 13; divisor as in eq. 11"}


def fraction(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Numerator and divisor of a division; ``x.__rtruediv__(y)`` is y / x."""
    given = {**dict(zip(("input", "other"), args, strict=False)), **kwargs}
    first, second = given["input"], given["other"]
    return (second, first) if func is torch.Tensor.__rtruediv__ else (first, second)


def _freeze_divisor(session: Session, func: Any, divisor: Any, rounding: Any) -> Any:
    """The divisor's value, kept for a replay if it depends on the inputs."""
    if rounding is not None:
        raise session.refuse(func, "rounding is not linear; use torch.floor(x / y) or trunc")
    if isinstance(divisor, DecomposedTensor):
        session.freeze(FrozenConstant.of(divisor.total))
        session.hold_constant(func, "divisor")
    return plain(divisor)


@register_rule(
    *aliases(*_DIVISIONS), torch.Tensor.__truediv__, torch.Tensor.__rtruediv__, **_QUOTIENT
)
def divide(
    session: Session, func: Any, input: Any, other: Any, *, rounding_mode: str | None = None
) -> Any:
    """numerator / divisor."""
    total = func(plain(input), plain(other), **_only(rounding_mode=rounding_mode))
    numerator, divisor = fraction(func, (input, other), {})
    divisor = _freeze_divisor(session, func, divisor, rounding_mode)
    if not isinstance(numerator, DecomposedTensor):
        return session.make(total, total.clone().unsqueeze(0), (session.layout.bias,))
    parts = stack_like(numerator, numerator.rows, total.dim()) / divisor
    return session.make(total, parts.to(total.dtype).expand(-1, *total.shape), numerator.rows)


@register_rule(*inplace_aliases(*_DIVISIONS), torch.Tensor.__itruediv__, inplace=True, **_QUOTIENT)
def divide_(
    session: Session, func: Any, input: Any, other: Any, *, rounding_mode: str | None = None
) -> Any:
    """numerator /= divisor."""
    session.own(input)
    divisor = _freeze_divisor(session, func, other, rounding_mode)
    parts = stack_like(input, input.rows, input.total.dim()) / divisor
    func(input.total, divisor)
    return session.assign(input, parts, input.rows)


def _only(**kwargs: Any) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if value is not None}


@dataclass(frozen=True)
class FrozenStatistic:
    """A constant of the operating point: the bias's stream carries it, the modalities' nothing."""

    value: Tensor

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        value = self.value.expand(torch.broadcast_shapes(h.shape, self.value.shape))
        return value.clone() if stream.is_bias else torch.zeros_like(value)


def statistic(session: Session, total: Tensor) -> DecomposedTensor:
    """A value that is bias and nothing else."""
    session.freeze(FrozenStatistic(total.clone()))
    return session.make(total, total.clone().unsqueeze(0), (session.layout.bias,))


def statistic_(session: Session, x: DecomposedTensor) -> DecomposedTensor:
    """The same after ``x.total`` was overwritten by the value."""
    session.freeze(FrozenStatistic(x.total.clone()))
    rows = tuple(sorted({*x.rows, session.layout.bias}))
    parts = x.total.new_zeros((len(rows), *x.total.shape))
    parts[rows.index(session.layout.bias)] = x.total
    return session.assign(x, parts, rows)


_RECIPROCALS = ("reciprocal", "rsqrt")


@register_rule(*aliases(*_RECIPROCALS), kind="statistic", equation="eq. 11")
def reciprocal(session: Session, func: Any, input: DecomposedTensor) -> Any:
    """1 / x and 1 / sqrt(x)."""
    return statistic(session, func(input.total))


@register_rule(*inplace_aliases(*_RECIPROCALS), kind="statistic", equation="eq. 11", inplace=True)
def reciprocal_(session: Session, func: Any, input: DecomposedTensor) -> Any:
    """The same in place."""
    session.own(input)
    func(input.total)
    return statistic_(session, input)
