"""Concatenation, stacking, selection by masks, scattering: jointly linear in several tensors.

Plain floating tensors and numbers that are joined in are constants and go to the bias part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.registry import aliases, inplace_aliases, register_rule
from lmd_cli.decomposition.rules.common import call_plain, over_rows, union_rows
from lmd_cli.decomposition.tensor import DecomposedTensor, Piece, plain

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session


def joint_parts(
    session: Session, run: Callable[..., Tensor], operands: Sequence[Any]
) -> tuple[Tensor, tuple[int, ...]]:
    """Parts of a function that is jointly linear in ``operands``.

    Args:
        run: called with the operands; a part of a decomposed one, zeros or itself for a constant.
        operands: decomposed tensors, plain tensors and numbers.

    Returns:
        The stack ``(rows, *shape)`` and its rows.
    """
    carried = [x for x in operands if isinstance(x, DecomposedTensor)]
    has_constants = any(not isinstance(x, DecomposedTensor) for x in operands)
    bias = session.layout.bias
    rows = union_rows(carried, *((bias,) if has_constants else ()))
    stacks = [x.expand_rows(rows) for x in carried]
    parts = over_rows(lambda *h: run(*_fill(operands, h, _zero)), *stacks)
    if has_constants:
        row = rows.index(bias)
        parts[row] = run(*_fill(operands, [s[row] for s in stacks], lambda c: c))
    return parts, rows


def _fill(
    operands: Sequence[Any], parts: Sequence[Tensor], constant: Callable[[Any], Any]
) -> list[Any]:
    remaining = iter(parts)
    return [next(remaining) if isinstance(x, DecomposedTensor) else constant(x) for x in operands]


def _zero(constant: Any) -> Any:
    return torch.zeros_like(constant) if isinstance(constant, Tensor) else type(constant)(0)


@register_rule(*aliases("cat", "concat", "concatenate"), kind="sum", equation="eq. 5")
def concatenate(session: Session, func: Any, tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    """Concatenation. Along channels, parts that meet in no row are kept apart until needed, so
    that the fusion convolution meets each sensor's own channels only."""
    dim = kwargs.pop("axis", dim)
    total = func([plain(x) for x in tensors], dim)
    pieces = _pieces(tensors, dim)
    if pieces:
        return session.remember(DecomposedTensor.wrap_pieces(total, pieces))
    at = dim % total.dim()
    parts, rows = joint_parts(session, lambda *h: torch.cat(h, at), tensors)
    return session.make(total, parts.to(total.dtype), rows)


def _pieces(tensors: Sequence[Any], dim: int) -> list[Piece]:
    if not all(isinstance(x, DecomposedTensor) and x.total.dim() > 2 for x in tensors):
        return []
    rows = [row for x in tensors for row in x.rows]
    same_type = len({x.total.dtype for x in tensors}) == 1
    if dim % tensors[0].total.dim() != 1 or len(set(rows)) < len(rows) or not same_type:
        return []
    starts = [sum(x.total.shape[1] for x in tensors[:i]) for i in range(len(tensors))]
    return [
        Piece(start, x.total.shape[1], x.rows, x.parts)
        for start, x in zip(starts, tensors, strict=True)
    ]


@register_rule(
    *aliases("stack", "hstack", "vstack", "dstack", "column_stack", "row_stack"),
    kind="sum",
    equation="eq. 5",
)
def stack(session: Session, func: Any, tensors: Any, *args: Any, **kwargs: Any) -> Any:
    """Stacking along a new or a fixed dimension."""
    total = call_plain(func, (list(tensors), *args), kwargs)
    parts, rows = joint_parts(session, lambda *h: func(h, *args, **kwargs), tensors)
    return session.make(total, parts, rows)


@register_rule(torch.where, torch.Tensor.where, kind="sum", equation="eq. 6")
def where(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Selection by a constant mask; ``x.where(mask, y)`` is ``where(mask, x, y)``."""
    total = call_plain(func, args, kwargs)
    if len(args) + len(kwargs) == 1:
        return total  # the positions of what is not zero: constants of the operating point
    names = ("condition", "input") if func is torch.where else ("input", "condition")
    given = {**dict(zip((*names, "other"), args, strict=False)), **kwargs}
    mask, x, y = (given[name] for name in ("condition", "input", "other"))
    parts, rows = joint_parts(session, lambda a, b: torch.where(mask, a, b), (x, y))
    return session.make(total, parts.to(total.dtype), rows)


def _mask_parts(session: Session, x: DecomposedTensor, mask: Tensor, value: Any) -> Any:
    return joint_parts(session, lambda a, b: torch.where(mask, b, a), (x, value))


@register_rule(*aliases("masked_fill"), kind="sum", equation="eq. 6")
def masked_fill(session: Session, func: Any, input: Any, mask: Any, value: Any) -> Any:
    """A constant written where the mask is set is bias."""
    total = call_plain(func, (input, mask, value), {})
    parts, rows = _mask_parts(session, input, mask, value)
    return session.make(total, parts, rows)


@register_rule(*inplace_aliases("masked_fill"), kind="sum", equation="eq. 6", inplace=True)
def masked_fill_(session: Session, func: Any, x: Any, mask: Any, value: Any) -> Any:
    """As :func:`masked_fill`, in place."""
    session.own(x)
    parts, rows = _mask_parts(session, x, mask, value)
    func(x.total, mask, plain(value))
    return session.assign(x, parts, rows)


@register_rule(
    *aliases("index_add", "index_copy", "scatter", "scatter_add", "slice_scatter"),
    *aliases("select_scatter", "diagonal_scatter", "masked_scatter"),
    kind="sum",
    equation="eq. 6",
)
def scatter(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Scattering one tensor into another at constant positions."""
    _refuse_reduction(session, func, kwargs)
    total = call_plain(func, args, kwargs)
    operands, run = _operands(getattr(torch, func.__name__), args, kwargs)
    parts, rows = joint_parts(session, run, operands)
    return session.make(total, parts, rows)


@register_rule(
    *inplace_aliases("index_add", "index_copy", "scatter", "scatter_add", "masked_scatter"),
    kind="sum",
    equation="eq. 6",
    inplace=True,
)
def scatter_(session: Session, func: Any, x: DecomposedTensor, *args: Any, **kwargs: Any) -> Any:
    """As :func:`scatter`, in place."""
    _refuse_reduction(session, func, kwargs)
    session.own(x)
    twin = getattr(torch, func.__name__.removesuffix("_"))
    operands, run = _operands(twin, (x, *args), kwargs)
    parts, rows = joint_parts(session, run, operands)
    call_plain(func, (x, *args), kwargs)
    return session.assign(x, parts, rows)


def _refuse_reduction(session: Session, func: Any, kwargs: dict[str, Any]) -> None:
    if kwargs.get("reduce") is not None:
        raise session.refuse(func, f"reduce={kwargs['reduce']!r} is not linear")


def _operands(func: Any, args: Any, kwargs: Any) -> tuple[list[Any], Callable[..., Tensor]]:
    """The floating tensors among the arguments, and the call as a function of them."""
    if func.__name__ == "scatter":
        args, kwargs = _scattered_tensor(args, kwargs)
    leaves, spec = pytree.tree_flatten(
        (args, kwargs), is_leaf=lambda v: isinstance(v, DecomposedTensor)
    )
    slots = [i for i, v in enumerate(leaves) if _is_operand(v)]

    def run(*values: Any) -> Tensor:
        filled = list(leaves)
        for i, value in zip(slots, values, strict=True):
            filled[i] = value
        a, k = pytree.tree_unflatten(filled, spec)
        return func(*a, **k)

    return [leaves[i] for i in slots], run


def _scattered_tensor(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """``scatter``'s arguments by name, a number to be scattered as a tensor."""
    given = {**dict(zip(("input", "dim", "index", "src"), args, strict=False)), **kwargs}
    value = given.pop("value", given.get("src"))
    if not isinstance(value, Tensor):
        value = torch.full_like(given["index"], value, dtype=plain(given["input"]).dtype)
    return (given["input"], given["dim"], given["index"], value), {}


def _is_operand(value: Any) -> bool:
    if isinstance(value, DecomposedTensor):
        return True
    return isinstance(value, Tensor) and value.is_floating_point()


@register_rule(torch.Tensor.__setitem__, kind="sum", equation="eq. 6", inplace=True)
def setitem(session: Session, func: Any, x: DecomposedTensor, index: Any, value: Any) -> None:
    """x[index] = value: a constant value is bias."""
    session.own(x)
    value = float(value) if isinstance(value, (int, bool)) else value

    def run(h: Tensor, v: Any) -> Tensor:
        h = h.clone()
        h[index] = v
        return h

    parts, rows = joint_parts(session, run, (x, value))
    func(x.total, index, plain(value))
    session.assign(x, parts, rows)


@register_rule(torch.Tensor.copy_, kind="sum", equation="eq. 6", inplace=True)
def copy_(session: Session, func: Any, x: DecomposedTensor, source: Any, *args: Any) -> Any:
    """Overwrites a decomposed tensor."""
    session.own(x)
    parts, rows = joint_parts(
        session, lambda h, v: torch.zeros_like(h) + v.to(h.dtype), (x, source)
    )
    func(x.total, plain(source), *args)
    return session.assign(x, parts, rows)


@register_rule(
    torch.Tensor.zero_,
    torch.Tensor.fill_,
    torch.zero_,
    torch.fill_,
    kind="sum",
    equation="eq. 6",
    inplace=True,
)
def fill_(session: Session, func: Any, x: DecomposedTensor, value: Any = 0.0) -> Any:
    """Overwrites with one value; a constant is bias."""
    session.own(x)
    parts, rows = joint_parts(session, lambda h, v: torch.zeros_like(h) + v, (x, value))
    func(x.total, *(() if "zero" in func.__name__ else (plain(value),)))
    return session.assign(x, parts, rows)
