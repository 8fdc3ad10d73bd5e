"""Writes and reads at constant positions beyond :mod:`.joining` and :mod:`.structure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, inplace_aliases, register_rule
from lmd_cli.decomposition.rules.common import over_rows, per_part
from lmd_cli.decomposition.rules.composite import composed
from lmd_cli.decomposition.rules.joining import joint_parts
from lmd_cli.decomposition.rules.structure import without_masks
from lmd_cli.decomposition.tensor import DecomposedTensor, plain

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session


def _index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    return torch.index_put(input, indices, values, accumulate)


def _put_parts(session: Session, input: Any, indices: Any, values: Any, accumulate: Any) -> Any:
    at = without_masks(tuple(plain(i) for i in indices))
    return joint_parts(session, lambda h, v: _index_put(h, at, v, accumulate), (input, values))


@register_rule(*aliases("index_put"), kind="sum", equation="eq. 6")
def index_put(
    session: Session, func: Any, input: Any, indices: Any, values: Any, accumulate: bool = False
) -> Any:
    """Values written to, or added at, constant positions."""
    total = func(plain(input), indices, plain(values), accumulate)
    return session.make(total, *_put_parts(session, input, indices, values, accumulate))


@register_rule(*inplace_aliases("index_put"), kind="sum", equation="eq. 6", inplace=True)
def index_put_(
    session: Session, func: Any, x: Any, indices: Any, values: Any, accumulate: bool = False
) -> Any:
    """The same in place."""
    session.own(x)
    parts, rows = _put_parts(session, x, indices, values, accumulate)
    func(x.total, indices, plain(values), accumulate)
    return session.assign(x, parts, rows)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """One value at whole slices."""
    filled = torch.zeros(input.shape, dtype=torch.bool, device=input.device)
    return torch.masked_fill(input, filled.index_fill(dim, index, True), value)


composed(*aliases("index_fill"), equation="eq. 6")(index_fill)
composed(*inplace_aliases("index_fill"), equation="eq. 6", inplace=True)(index_fill)


@composed(*aliases("masked_select"), equation="eq. 13")
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where a mask is set, after broadcasting, as one row."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    return input.expand(shape)[mask.expand(shape)]


_LINEAR_REDUCTIONS = ("sum", "mean")


def _reduced(func: Any, reduce: str, include_self: bool, dim: int, index: Tensor) -> Any:
    def run(h: Any, source: Any) -> Tensor:
        return torch.scatter_reduce(h, dim, index, source, reduce, include_self=include_self)

    return run


@register_rule(*aliases("scatter_reduce"), kind="sum", equation="eq. 6")
def scatter_reduce(
    session: Session,
    func: Any,
    input: Any,
    dim: int,
    index: Tensor,
    src: Any,
    reduce: str,
    *,
    include_self: bool = True,
) -> Any:
    """Sums and means at constant positions.

    Raises:
        NoRuleError: another reduction.
    """
    if reduce not in _LINEAR_REDUCTIONS:
        raise session.refuse(func, f"reduce={reduce!r} is not linear; use sum or mean")
    run = _reduced(func, reduce, include_self, dim, index)
    total = func(plain(input), dim, index, plain(src), reduce, include_self=include_self)
    return session.make(total, *joint_parts(session, run, (input, src)))


@register_rule(*inplace_aliases("scatter_reduce"), kind="sum", equation="eq. 6", inplace=True)
def scatter_reduce_(
    session: Session,
    func: Any,
    x: Any,
    dim: int,
    index: Tensor,
    src: Any,
    reduce: str,
    *,
    include_self: bool = True,
) -> Any:
    """The same in place."""
    if reduce not in _LINEAR_REDUCTIONS:
        raise session.refuse(func, f"reduce={reduce!r} is not linear; use sum or mean")
    session.own(x)
    run = _reduced(func, reduce, include_self, dim, index)
    parts, rows = joint_parts(session, run, (x, src))
    func(x.total, dim, index, plain(src), reduce, include_self=include_self)
    return session.assign(x, parts, rows)


@register_rule(
    *inplace_aliases("tril", "triu", "cumsum", "deg2rad", "rad2deg"),
    kind="structure",
    equation="eq. 13",
    inplace=True,
)
def written_structure(
    session: Session, func: Any, x: DecomposedTensor, *args: Any, **kw: Any
) -> Any:
    """A linear map of each part, written over its input."""
    session.own(x)
    twin = getattr(torch, func.__name__.removesuffix("_"))
    parts = over_rows(lambda h: twin(h, *args, **kw), x.parts)
    func(x.total, *args, **kw)
    return session.assign(x, parts, x.rows)


_UNPOOLS = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)


@register_rule(*_UNPOOLS, kind="linear", equation="eq. 13")
def unpool(session: Session, func: Any, input: Any, indices: Tensor, *args: Any, **kw: Any) -> Any:
    """The inverse of max-pooling at constant positions."""
    return per_part(session, input, lambda h: func(h, indices, *args, **kw))


@composed(*aliases("block_diag"), equation="eq. 5")
def block_diagonal(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a larger one."""
    blocks = [t.reshape(1, -1) if t.dim() < 2 else t for t in tensors]
    width, rows, start = sum(b.shape[1] for b in blocks), [], 0
    for block in blocks:
        rows.append(F.pad(block, (start, width - start - block.shape[1])))
        start += block.shape[1]
    return torch.cat(rows)
