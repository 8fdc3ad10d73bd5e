"""Addition, subtraction, and scaling by constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, inplace_aliases, register_rule
from lmd_cli.decomposition.rules.bilinear import bilinear, bilinear_rule
from lmd_cli.decomposition.rules.common import stack_like, union_rows
from lmd_cli.decomposition.tensor import DecomposedTensor, plain

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

Tensor_ = torch.Tensor


def combine(
    session: Session, total: Tensor, terms: list[tuple[Any, Any]]
) -> tuple[Tensor, tuple[int, ...]]:
    """Parts of ``sum of coefficient * operand``; plain operands go to the bias part.

    Args:
        total: the sum, any shape.
        terms: pairs (coefficient, operand); an operand may be decomposed, plain or a number.

    Returns:
        The stack ``(rows, *total.shape)`` and its rows.
    """
    carried = [(c, x) for c, x in terms if isinstance(x, DecomposedTensor)]
    constants = [c * x for c, x in terms if not isinstance(x, DecomposedTensor)]
    extra = (session.layout.bias,) if constants else ()
    rows = union_rows([x for _, x in carried], *extra)
    stacks = [_scaled(stack_like(x, rows, total.dim()), c) for c, x in carried]
    parts = stacks[0] if len(stacks) == 1 else stacks[0] + stacks[1]
    if parts.shape[1:] != total.shape or parts.dtype != total.dtype:
        parts = parts.to(total.dtype).expand(len(rows), *total.shape)
    if constants:
        parts = parts.clone()
        parts[rows.index(session.layout.bias)] += constants[0]
    return parts, rows


def _scaled(parts: Tensor, coefficient: Any) -> Tensor:
    return (
        parts if isinstance(coefficient, (int, float)) and coefficient == 1 else parts * coefficient
    )


def _sum(session: Session, func: Any, total: Tensor, terms: list[tuple[Any, Any]]) -> Any:
    parts, rows = combine(session, total, terms)
    return session.make(total, parts, rows)


@register_rule(*aliases("add"), kind="sum", equation="eq. 6")
def add(session: Session, func: Any, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input + alpha * other."""
    total = func(plain(input), plain(other), alpha=alpha)
    return _sum(session, func, total, [(1, input), (alpha, other)])


@register_rule(Tensor_.__add__, Tensor_.__radd__, kind="sum", equation="eq. 6")
def add_operator(session: Session, func: Any, x: Any, y: Any) -> Any:
    """x + y."""
    return _sum(session, func, func(plain(x), plain(y)), [(1, x), (1, y)])


@register_rule(*aliases("sub", "subtract"), kind="sum", equation="eq. 6")
def subtract(session: Session, func: Any, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input - alpha * other."""
    total = func(plain(input), plain(other), alpha=alpha)
    return _sum(session, func, total, [(1, input), (-alpha, other)])


@register_rule(Tensor_.__sub__, kind="sum", equation="eq. 6")
def subtract_operator(session: Session, func: Any, x: Any, y: Any) -> Any:
    """x - y."""
    return _sum(session, func, func(plain(x), plain(y)), [(1, x), (-1, y)])


@register_rule(torch.rsub, Tensor_.__rsub__, kind="sum", equation="eq. 6")
def reversed_subtract(
    session: Session, func: Any, input: Any, other: Any, *, alpha: Any = 1
) -> Any:
    """other - alpha * input."""
    more = {} if alpha == 1 else {"alpha": alpha}
    total = func(plain(input), plain(other), **more)
    return _sum(session, func, total, [(-alpha, input), (1, other)])


@register_rule(
    *inplace_aliases("add", "sub", "subtract"),
    Tensor_.__iadd__,
    Tensor_.__isub__,
    kind="sum",
    equation="eq. 6",
    inplace=True,
)
def add_(
    session: Session, func: Any, input: DecomposedTensor, other: Any, *, alpha: Any = 1
) -> Any:
    """input += alpha * other, input -= alpha * other.

    The parts come first: ``other`` may be a detached view of ``input``, which the write changes.
    """
    session.own(input)
    sign = -1 if "sub" in func.__name__ else 1
    parts, rows = combine(session, input.total, [(1, input), (sign * alpha, other)])
    more = {} if alpha == 1 else {"alpha": alpha}
    func(input.total, plain(other), **more)
    return session.assign(input, parts, rows)


@register_rule(
    *aliases("mul", "multiply"),
    Tensor_.__mul__,
    Tensor_.__rmul__,
    kind="product",
    equation="eq. 13",
)
def scale(session: Session, func: Any, input: Any, other: Any) -> Any:
    """A product by a constant; of two decomposed factors see :mod:`.bilinear`."""
    total = func(plain(input), plain(other))
    if isinstance(input, DecomposedTensor) and isinstance(other, DecomposedTensor):
        return bilinear_rule(session, total, input, other, torch.mul)
    carried, factor = (input, other) if isinstance(input, DecomposedTensor) else (other, input)
    parts = (stack_like(carried, carried.rows, total.dim()) * factor).to(total.dtype)
    return session.make(total, parts.expand(-1, *total.shape), carried.rows)


@register_rule(
    *inplace_aliases("mul", "multiply"),
    Tensor_.__imul__,
    kind="product",
    equation="eq. 13",
    inplace=True,
)
def scale_(session: Session, func: Any, input: DecomposedTensor, other: Any) -> Any:
    """input *= factor."""
    session.own(input)
    if isinstance(other, DecomposedTensor):
        parts, rows = bilinear(session, input.total * other.total, input, other, torch.mul)
        func(input.total, other.total)
        return session.assign(input, parts, rows)
    parts = stack_like(input, input.rows, input.total.dim()) * other
    func(input.total, other)
    return session.assign(input, parts, input.rows)


@register_rule(
    Tensor_.neg_, Tensor_.negative_, torch.neg_, kind="product", equation="eq. 13", inplace=True
)
def negate_(session: Session, func: Any, input: DecomposedTensor) -> Any:
    """input *= -1."""
    session.own(input)
    func(input.total)
    return session.assign(input, -input.parts, input.rows)
