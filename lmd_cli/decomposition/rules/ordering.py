"""Sorting and its kin: every part is read where the total's element was (slope 0 or 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.rules.selection import pick_along, select
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

#: Names of the arguments after the input; the indices come back beside the values.
_ORDERED = {
    "topk": ("k", "dim", "largest", "sorted"),
    "sort": ("dim", "descending"),
    "kthvalue": ("k", "dim", "keepdim"),
    "mode": ("dim", "keepdim"),
    "cummax": ("dim",),
    "cummin": ("dim",),
}


@register_rule(*aliases(*_ORDERED), kind="selection", equation="eq. 9")
def ordered(session: Session, func: Any, input: DecomposedTensor, *args: Any, **kwargs: Any) -> Any:
    """Values along one dimension, and where they were."""
    result = func(input.total, *args, **kwargs)
    given = {**dict(zip(_ORDERED[func.__name__], args, strict=False)), **kwargs}
    return _with_indices(session, input, result, given.get("dim", -1), given)


@register_rule(*aliases("median", "nanmedian"), kind="selection", equation="eq. 9")
def median(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    dim: int | None = None,
    *keep: bool,
    **kwargs: Any,
) -> Any:
    """The lower median along one dimension, or of all elements."""
    if dim is not None:
        keepdim = {"keepdim": keep[0]} if keep else kwargs
        result = func(input.total, dim, **keepdim)
        return _with_indices(session, input, result, dim, keepdim)
    total = func(input.total)
    where = (input.total.flatten() == total).nonzero()[0, 0]
    return select(session, input, total, lambda h: h.flatten()[where])


@register_rule(*aliases("msort"), kind="selection", equation="eq. 9")
def sorted_rows(session: Session, func: Any, input: DecomposedTensor) -> Any:
    """Sorted along the first dimension."""
    total, where = torch.sort(input.total, dim=0)
    return select(session, input, total, pick_along(0, where))


def _with_indices(
    session: Session, x: DecomposedTensor, result: Any, dim: int, given: dict[str, Any]
) -> Any:
    values, indices = result
    reduced = values.dim() < x.total.dim()
    pick = pick_along(dim, indices.unsqueeze(dim) if reduced else indices, squeeze=reduced)

    def finish(h: Tensor) -> Any:
        return type(result)((h, indices))

    return select(session, x, values, pick, finish)
