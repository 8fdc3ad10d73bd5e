"""What the rules share: stacks beside totals of more dimensions, operators that are made of others,
and functions of several arguments of which only some carry parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, Bilinear, Map, each
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call


def spread(stack: Tensor, ndim: int) -> Tensor:
    """``(rows, *shape)`` as ``(rows, 1.., *shape)``: broadcasts against ``ndim`` dimensions."""
    missing = ndim + 1 - stack.dim()
    return stack.reshape(stack.shape[0], *(1,) * missing, *stack.shape[1:]) if missing else stack


def behind_rows(dim: int, ndim: int) -> int:
    """A dimension of a tensor as that of its stack."""
    return dim % max(ndim, 1) + 1


def folded(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of batches ``(B, ...)`` on a stack ``(rows, B, ...)``: one batch."""

    def run(h: Tensor) -> Tensor:
        return function(h.flatten(0, 1)).unflatten(0, (len(h), -1))

    return run


def composed(*names: str, equation: str) -> Callable[..., Any]:
    """Registers what operators are made of: a function of the same arguments."""

    def decorate(made_of: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(made_of)
        def rule(call: Call, **arguments: Any) -> tuple[Any, Any]:
            total, made = call.plain(), call.compose(made_of, **arguments)
            return total, list(made) if isinstance(made, tuple) else made

        aten_rule(*names, kind="composite", equation=equation)(rule)
        return made_of

    return decorate


def tensor_like(value: Any, other: Any) -> Tensor:
    """A number as a tensor of another's type."""
    if isinstance(value, Tensor):
        return value
    return torch.as_tensor(value, dtype=other.dtype, device=other.device)


def function_of(call: Call, *names: str) -> Callable[..., Any]:
    """The call as a function of some of its arguments, by name; the others are fixed."""
    function, schema_names = call.function, call.operator.schema_names  # type: ignore[union-attr]
    others = {schema_names[k]: v for k, v in call.given.items() if k not in names}

    def run(**named: Any) -> Any:
        return function(**others, **{schema_names[k]: v for k, v in named.items()})

    return run


def jointly_linear(
    call: Call, function: Callable[..., Tensor], operands: Sequence[Any], stacked: bool = False
) -> Affine:
    """The map of a function that is linear in several operands together.

    Operands that carry no parts are constants, and what they make is bias.

    Args:
        function: of the operands, tensors or numbers.
        stacked: it takes stacks too, those of constants being of one row.
    """
    call.may_mask(*operands)
    carried = [i for i, value in enumerate(operands) if call.carries(value)]
    zeros = [None if call.carries(value) else _zero(value) for value in operands]

    def filled(values: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        given = list(others)
        for i, value in zip(carried, values, strict=True):
            given[i] = value
        return given

    def row(*parts: Tensor) -> Tensor:
        return function(*filled(parts, zeros))

    def rows(*stacks: Tensor) -> Tensor:
        return function(*filled(stacks, [_row_of(value) for value in zeros]))

    constant = None
    if len(carried) < len(operands):
        constant = function(*filled([_zero(operands[i]) for i in carried], operands))
    return Affine(rows if stacked else each(row), call.operands(*operands), constant)


def _zero(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else type(value)(0)


def _row_of(value: Any) -> Any:
    return value.unsqueeze(0) if isinstance(value, Tensor) else value


def product(
    call: Call,
    a: Any,
    b: Any,
    rows: Callable[[Tensor, Tensor], Tensor],
    constant: Tensor | None = None,
) -> Map:
    """A product of two arguments, one or both of which carry parts.

    Args:
        rows: takes stacks ``(rows, *shape)`` of both, of equally many rows or of one.
        constant: what is added.
    """
    if call.carries(a) and call.carries(b):
        return Bilinear(rows, (a, b))
    if call.carries(a):
        fixed = _row_of(b)
        return Affine(lambda h: rows(h, fixed), (a,), constant)
    fixed = _row_of(a)
    return Affine(lambda h: rows(fixed, h), (b,), constant)


def pairwise(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A product of tensors applied to stacks row by row, one row serving all."""

    def rows(a: Tensor, b: Tensor) -> Tensor:
        count = max(len(a), len(b))
        return torch.stack([function(a[i % len(a)], b[i % len(b)]) for i in range(count)])

    return rows
