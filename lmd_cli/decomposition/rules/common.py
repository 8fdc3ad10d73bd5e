"""What the rules share: stacking parts next to totals, constants into the bias row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.custom import caller
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.tree import plain_tree

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session


def union_rows(tensors: Iterable[DecomposedTensor], *more: int) -> tuple[int, ...]:
    """Rows that any of the tensors has, plus ``more``, in order."""
    return tuple(sorted({row for x in tensors for row in x.rows} | set(more)))


def stack_like(x: DecomposedTensor, rows: tuple[int, ...], ndim: int) -> Tensor:
    """Parts ``(len(rows), 1.., *x.shape)``: broadcasts against a total of ``ndim`` dimensions."""
    parts = x.expand_rows(rows)
    missing = ndim - x.total.dim()
    return parts.reshape(parts.shape[0], *(1,) * missing, *x.total.shape) if missing else parts


def insert_row(
    parts: Tensor, rows: tuple[int, ...], row: int, value: Tensor
) -> tuple[Tensor, tuple[int, ...]]:
    """A stack ``(rows, *shape)`` with one more row, ``value`` (*shape), at its place."""
    at = sum(present < row for present in rows)
    stack = torch.cat([parts[:at], value.unsqueeze(0), parts[at:]])
    return stack, (*rows[:at], row, *rows[at:])


def add_terms(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b, where ``None`` is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def add_to_bias(parts: Tensor, rows: tuple[int, ...], layout: Layout, constant: Tensor) -> None:
    """Adds a plain constant to the bias row, in place; ``rows`` must contain the bias."""
    parts[rows.index(layout.bias)] += constant


def over_rows(run: Callable[..., Any], *stacks: Tensor) -> Any:
    """Maps ``run`` over the rows of stacks ``(rows, ...)``; what it returns is stacked likewise.

    Views of the rows are views of the stack, except where ``torch.vmap`` does not know a function.
    """
    try:
        return torch.vmap(run)(*stacks)
    except RuntimeError:  # no batching rule; an error of the call itself is raised again below
        rows = [run(*row) for row in zip(*stacks, strict=True)]
        return pytree.tree_map(lambda *parts: torch.stack(parts), *rows)


def per_part(session: Session, x: DecomposedTensor, run: Callable[[Tensor], Any]) -> Any:
    """Maps a linear ``run`` over the parts of ``x`` and joins the results with the total's."""
    return join(session, run(x.total), over_rows(run, x.parts), x.rows)


def join(session: Session, total: Any, stacks: Any, rows: tuple[int, ...]) -> Any:
    """Joins totals and stacks of the same structure (a tensor, or a tuple or list of them)."""
    if isinstance(total, Tensor):
        return session.make(total, stacks, rows)
    joined = [session.make(t, s, rows) for t, s in zip(total, stacks, strict=True)]
    return type(total)(joined) if type(total) in (tuple, list) else tuple(joined)


def two_factors(args: tuple[Any, ...]) -> tuple[int, int] | None:
    """Positions of exactly two decomposed arguments, or ``None``."""
    slots = [i for i, a in enumerate(args) if isinstance(a, DecomposedTensor)]
    return (slots[0], slots[1]) if len(slots) == 2 else None


def replacing(func: Any, args: tuple[Any, ...], slots: tuple[int, int], kwargs: Any) -> Any:
    """The call as a function of the two arguments at ``slots``."""
    first, second = slots

    def call(a: Tensor, b: Tensor) -> Any:
        between = args[first + 1 : second]
        return func(*args[:first], a, *between, b, *args[second + 1 :], **kwargs)

    return call


def only_decomposed(
    session: Session, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[DecomposedTensor, Callable[[Tensor], Any]]:
    """The single decomposed argument, and the call as a function of it alone.

    Raises:
        NoRuleError: several arguments carry parts (a product of two decomposed tensors).
    """
    slots = [i for i, a in enumerate(args) if isinstance(a, DecomposedTensor)]
    named = [k for k, v in kwargs.items() if isinstance(v, DecomposedTensor)]
    if len(slots) + len(named) != 1:
        raise session.refuse(func, product_refused())
    if slots:
        at = slots[0]
        return args[at], lambda h: func(*args[:at], h, *args[at + 1 :], **kwargs)
    return kwargs[named[0]], lambda h: func(*args, **{**kwargs, named[0]: h})


def product_refused() -> str:
    """Why a call with several decomposed factors has no rule."""
    return (
        "this multiplies decomposed tensors with each other (or an argument other than the input "
        "carries parts); it has a rule for one decomposed argument only"
    )


def require_plain(session: Session, func: Any, **arguments: Any) -> None:
    """Refuses parts in arguments that must be constants (weights, grids, indices).

    Raises:
        NoRuleError: one of them carries parts.
    """
    for name, value in arguments.items():
        if isinstance(value, DecomposedTensor):
            raise session.refuse(func, f"its {name} carries parts; {product_refused()}")


def call_plain(func: Any, args: Any, kwargs: Any) -> Any:
    """The plain network's call, bit for bit."""
    return caller(func)(*plain_tree(args), **plain_tree(kwargs))
