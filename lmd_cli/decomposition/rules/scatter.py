"""Tensors written into others at constant positions (eq. 6): what stays keeps its parts, and a
constant that is written in is bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, each
from lmd_cli.decomposition.memory import extent_of
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import jointly_linear
from lmd_cli.decomposition.rules.linear import positions
from lmd_cli.decomposition.tracing.calls import Call

Result = tuple[Any, Any]


def written(call: Call, function: Callable[..., Tensor], *operands: Any) -> Result:
    """The total, and the map of a function that is linear in all operands together."""
    return call.plain(), jointly_linear(call, function, operands)


@aten_rule("scatter.src", "scatter.value", kind="sum", equation="eq. 6")
def scatter(
    call: Call, input: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None
) -> Result:
    """Elements replaced."""
    source = value if src is None else src
    return written(call, lambda x, v: torch.scatter(x, dim, index, v), input, source)


@aten_rule("scatter.reduce", "scatter.value_reduce", kind="sum", equation="eq. 6, App. D.2")
def scatter_reducing(
    call: Call,
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    value: Any = None,
    *,
    reduce: str,
) -> Result:
    """Elements added to, or multiplied."""
    source = value if src is None else src
    if reduce == "multiply":
        factors = source if isinstance(source, Tensor) else input.new_full(index.shape, source)
        return call.plain(), call.compose(multiplied, input, dim, index, factors)
    return written(call, lambda x, v: torch.scatter(x, dim, index, v, reduce=reduce), input, source)


@aten_rule("scatter_add", kind="sum", equation="eq. 6")
def scatter_add(call: Call, input: Tensor, dim: int, index: Tensor, src: Tensor) -> Result:
    """Elements added to."""
    return written(call, lambda x, s: torch.scatter_add(x, dim, index, s), input, src)


@aten_rule("index_add", kind="sum", equation="eq. 6")
def index_add(
    call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any = 1
) -> Result:
    """Slices added to."""
    return written(call, lambda x, s: torch.index_add(x, dim, index, s, alpha=alpha), input, source)


@aten_rule("index_copy", kind="sum", equation="eq. 6")
def index_copy(call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor) -> Result:
    """Slices replaced."""
    return written(call, lambda x, s: torch.index_copy(x, dim, index, s), input, source)


@aten_rule("index_fill", kind="sum", equation="eq. 6")
def index_fill(call: Call, input: Tensor, dim: int, index: Tensor, value: Any) -> Result:
    """Slices replaced by one value."""
    return written(call, lambda x, v: torch.index_fill(x, dim, index, v), input, value)


@aten_rule("index_put", "_unsafe_index_put", kind="sum", equation="eq. 6")
def index_put(
    call: Call,
    input: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
) -> Result:
    """Elements replaced by others, or added to: ``x[index] = values``."""
    where = positions(indices)

    def put(x: Tensor, v: Tensor) -> Tensor:
        return torch.ops.aten.index_put(x, where, v, accumulate)  # type: ignore[no-any-return]

    return written(call, put, input, values)


@aten_rule("put", kind="sum", equation="eq. 6")
def put(
    call: Call, input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False
) -> Result:
    """Elements of the flattened tensor replaced or added to."""
    return written(call, lambda x, s: torch.put(x, index, s, accumulate), input, source)


@aten_rule(*("slice_scatter", "select_scatter", "diagonal_scatter"), kind="sum", equation="eq. 6")
def view_scatter(call: Call, input: Tensor, src: Tensor, **where: Any) -> Result:
    """A view replaced."""
    function = call.function
    return written(call, lambda x, s: function(x, s, **where), input, src)


@aten_rule("as_strided_scatter", kind="sum", equation="eq. 6")
def as_strided_scatter(
    call: Call,
    input: Tensor,
    src: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None = None,
) -> Result:
    """Elements at places in memory replaced; parts are laid out as the total is for it."""
    shape, own, start = input.shape, input.stride(), input.storage_offset()
    offset = start if storage_offset is None else storage_offset
    length = max(start + extent_of(shape, own), offset + extent_of(size, stride))

    def run(x: Tensor, s: Tensor) -> Tensor:
        memory = x.new_zeros(length)
        made = memory.as_strided(shape, own, start).copy_(x)
        memory.as_strided(size, stride, offset).copy_(s)
        return made

    return written(call, run, input, src)


@aten_rule("masked_scatter", kind="sum", equation="eq. 6")
def masked_scatter(call: Call, input: Tensor, mask: Tensor, source: Tensor) -> Result:
    """Elements where a mask is set replaced by others in their order."""
    return written(call, lambda x, s: torch.masked_scatter(x, mask, s), input, source)


@aten_rule("block_diag", kind="sum", equation="eq. 5")
def block_diagonal(call: Call, tensors: Sequence[Tensor]) -> Result:
    """Matrices along the diagonal of a larger one."""
    return call.plain(), jointly_linear(call, lambda *t: torch.block_diag(*t), tensors)


@aten_rule("bincount", kind="linear", equation="eq. 13")
def bincount(
    call: Call, input: Tensor, weights: Tensor | None = None, minlength: int = 0
) -> Result:
    """Weights summed by number."""
    return call.plain(), Affine(each(lambda w: torch.bincount(input, w, minlength)), (weights,))  # type: ignore[arg-type]


# -- reductions -----------------------------------------------------------------------------------


@aten_rule("scatter_reduce.two", kind="sum", equation="eq. 6, 9, App. D.2")
def scatter_reduce(
    call: Call,
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    reduce: str,
    include_self: bool = True,
) -> Result:
    """Sums, means and products; of extremes the element that was extreme."""
    return call.plain(), reduced(call, input, dim, index, src, reduce, include_self)


@aten_rule("index_reduce", kind="sum", equation="eq. 6, 9, App. D.2")
def index_reduce(
    call: Call,
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    include_self: bool = True,
) -> Result:
    """The same for whole slices."""
    total = call.plain()
    ndim = max(input.dim(), 1)
    line = [-1 if d == dim % ndim else 1 for d in range(ndim)]
    where = index.reshape(line).expand(torch.atleast_1d(source).shape)
    return total, reduced(call, input, dim, where, source, reduce, include_self)


def reduced(
    call: Call, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool
) -> Any:
    """The map of ``torch.scatter_reduce``."""
    if reduce in ("amax", "amin"):
        return _extremes(call, x, dim, index, src, reduce, include_self)
    if reduce == "prod":
        return call.compose(multiplied, x, dim, index, src, include_self)

    def run(h: Tensor, source: Tensor) -> Tensor:
        return torch.scatter_reduce(h, dim, index, source, reduce, include_self=include_self)

    return jointly_linear(call, run, (x, src))


def multiplied(
    x: Tensor, dim: int, index: Tensor, src: Tensor, include_self: bool = True
) -> Tensor:
    """Products of what is there and all that goes to one place, one factor after the other."""
    own, index, source = torch.atleast_1d(x, index, src)
    dim, count = dim % own.dim(), index.shape[dim]
    made, there = own.clone(), _reachable(index, dim)
    source = source[tuple(slice(0, n) for n in index.shape)]
    empty = not include_self
    places = _order(index, dim) if index.numel() else index
    while places.numel() and bool((places < count).any()):
        first = _first(places, dim, index, own.shape)[there]
        none = first == count
        factor, before = source.gather(dim, first.masked_fill(none, 0)), made[there]
        made[there] = torch.where(none, before, factor if empty else before * factor)
        places, empty = places.masked_fill(places == first.gather(dim, index), count), False
    return made.reshape(x.shape)


def _extremes(
    call: Call, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool
) -> Affine:
    """Every part is read where the total was extreme, first in the tensor itself and then in the
    source in its order."""
    own, index, source = torch.atleast_1d(x, index, src)
    dim, count = dim % own.dim(), index.numel()
    inside, there = tuple(slice(0, n) for n in index.shape), _reachable(index, dim)
    total = torch.scatter_reduce(own, dim, index, source, reduce, include_self=include_self)
    first = _first_equal(total, dim, index, source[inside])
    reached = torch.zeros_like(total, dtype=torch.bool).scatter(dim, index, True)
    none = first == index.shape[dim]
    kept = ((own == total) & include_self | ~reached | none)[there]
    where = first.masked_fill(none, 0)[there]

    def run(h: Tensor, source: Tensor) -> Tensor:
        h, source = torch.atleast_1d(h, source)
        made = h.clone()
        if count:
            made[there] = torch.where(kept, h[there], source[inside].gather(dim, where))
        return made.reshape(shape)

    shape = x.shape
    return jointly_linear(call, run, (x, src))


def _reachable(index: Tensor, dim: int) -> tuple[slice, ...]:
    """The corner of a tensor that ``index`` can write to."""
    return tuple(slice(None) if d == dim else slice(0, n) for d, n in enumerate(index.shape))


def _order(index: Tensor, dim: int) -> Tensor:
    """The place of each element along ``dim``."""
    line = [-1 if d == dim else 1 for d in range(index.dim())]
    order = torch.arange(index.shape[dim], device=index.device)
    return order.reshape(line).expand(index.shape)


def _first(places: Tensor, dim: int, index: Tensor, shape: torch.Size) -> Tensor:
    """For each element of a result, the smallest of the places that go there; the source's length
    where there is none."""
    none = torch.full(shape, index.shape[dim], device=index.device)
    return none.scatter_reduce(dim, index, places, "amin")


def _first_equal(total: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """The first place of the source that went to each element of the total and equals it."""
    equal = total[_reachable(index, dim)].gather(dim, index) == src
    places = torch.where(equal, _order(index, dim), index.shape[dim])
    return _first(places, dim, index, total.shape)


#: Reductions of segments by their names in ``torch.scatter_reduce``, and of nothing at all.
SEGMENTS = {"max": ("amax", -math.inf), "min": ("amin", math.inf), "prod": ("prod", 1.0)}


@aten_rule("segment_reduce", kind="linear", equation="eq. 9, 13, App. D.2")
def segment_reduce(
    call: Call,
    data: Tensor,
    reduce: str,
    *,
    axis: int = 0,
    initial: Any = None,
    **where: Any,
) -> Result:
    """Sums, means and products of segments; of extremes the first element that was extreme."""
    total = call.plain()
    if reduce in SEGMENTS:
        how, nothing = SEGMENTS[reduce]
        start = nothing if initial is None else initial
        shape = [n + (d == axis) for d, n in enumerate(total.shape)]
        first = total.new_full(shape, start)  # one more, for what is in no segment
        index = _segments(data, axis, where.get("lengths"), where.get("offsets"))

        def segments(h: Tensor) -> Tensor:
            own = initial is not None
            made = torch.scatter_reduce(first, axis, index, h, how, include_self=own)
            return made.narrow(axis, 0, total.shape[axis])

        return total, call.compose(segments, data)
    function, where = call.function, {**where, "axis": axis}
    added = function(torch.zeros_like(data), reduce, initial=initial, **where)
    run = each(lambda h: function(h, reduce, initial=0.0, **where))  # empty segments: 0
    return total, Affine(run, (data,), added)


def _segments(data: Tensor, axis: int, lengths: Tensor | None, offsets: Tensor | None) -> Tensor:
    """The number of the segment that each element is in; beyond the last for none."""
    bounds = F.pad(lengths.cumsum(-1), (1, 0)) if offsets is None else offsets  # type: ignore[union-attr]
    places = torch.arange(data.shape[axis], device=data.device, dtype=bounds.dtype)
    places = places.expand(*bounds.shape[:-1], -1).contiguous()
    found = (torch.searchsorted(bounds.contiguous(), places, right=True) - 1) % bounds.shape[-1]
    return found.reshape(*found.shape, *(1,) * (data.dim() - found.dim())).expand(data.shape)
