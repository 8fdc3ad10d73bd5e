"""Tensors written into others at constant positions, and reductions into them.

What stays keeps its parts, and a constant that is written in is bias (eq. 6). Reductions
(``scatter_reduce``) sum the parts (eq. 6), multiply them (appendix D.2), or read them where the
total was extreme (eq. 9).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, each
from lmd_cli.decomposition.memory import extent_of
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import function_of, jointly_linear
from lmd_cli.decomposition.tracing.calls import Call, Result


@aten_rule("scatter.src", "scatter.value", "scatter_add", "put", kind="sum", equation="eq. 6")
@aten_rule("index_add", "index_copy", "index_fill", "masked_scatter", kind="sum", equation="eq. 6")
@aten_rule("index_put", "_unsafe_index_put", kind="sum", equation="eq. 6")
@aten_rule("slice_scatter", "select_scatter", "diagonal_scatter", kind="sum", equation="eq. 6")
def scatter(call: Call, input: Tensor, **given: Any) -> Result:
    """Elements, slices or views replaced, or added to: linear in the tensor and the source."""
    name = next(name for name in ("src", "source", "values", "value") if name in given)
    write = function_of(call, "input", name)
    operands = (input, given[name])
    return call.plain(), jointly_linear(call, lambda x, s: write(input=x, **{name: s}), operands)


@aten_rule("scatter.reduce", "scatter.value_reduce", kind="sum", equation="eq. 6, App. D.2")
def scatter_reducing(call: Call, input: Tensor, *, reduce: str, **given: Any) -> Result:
    """Elements added to, or multiplied."""
    if reduce != "multiply":
        return scatter(call, input, **given)
    dim, index, source = given["dim"], given["index"], given.get("src")
    factors = input.new_full(index.shape, given["value"]) if source is None else source
    return call.plain(), reduced(call, input, dim, index, factors, "prod")


@aten_rule("as_strided_scatter", kind="sum", equation="eq. 6")
def as_strided_scatter(
    call: Call, input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int], **given: Any
) -> Result:
    """Elements at places in memory replaced; parts are laid out as the total is for it."""
    shape, own, start = input.shape, input.stride(), input.storage_offset()
    offset = start if given.get("storage_offset") is None else given["storage_offset"]
    length = max(start + extent_of(shape, own), offset + extent_of(size, stride))

    def run(x: Tensor, s: Tensor) -> Tensor:
        memory = x.new_zeros(length)
        made = memory.as_strided(shape, own, start).copy_(x)
        memory.as_strided(size, stride, offset).copy_(s)
        return made

    return call.plain(), jointly_linear(call, run, (input, src))


@aten_rule("bincount", kind="linear", equation="eq. 13")
def bincount(call: Call, input: Tensor, weights: Tensor, **_: Any) -> Result:
    """Weights summed by number."""
    count = function_of(call, "weights")
    return call.plain(), Affine(each(lambda w: count(weights=w)), (weights,))


# -- reductions -----------------------------------------------------------------------------------


@aten_rule("scatter_reduce.two", kind="sum", equation="eq. 6, 9, App. D.2")
def scatter_reduce(call: Call, input: Tensor, **given: Any) -> Result:
    """Sums, means and products; of extremes the element that was extreme."""
    return call.plain(), reduced(call, input, **given)


@aten_rule("index_reduce", kind="sum", equation="eq. 6, 9, App. D.2")
def index_reduce(
    call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor, **how: Any
) -> Result:
    """The same for whole slices."""
    ndim = max(input.dim(), 1)
    line = [-1 if d == dim % ndim else 1 for d in range(ndim)]
    where = index.reshape(line).expand(torch.atleast_1d(source).shape)
    return call.plain(), reduced(call, input, dim, where, source, **how)


def reduced(
    call: Call,
    x: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    reduce: str,
    include_self: bool = True,
) -> Any:
    """The map of ``torch.scatter_reduce``."""
    if reduce in ("sum", "mean"):
        return jointly_linear(
            call,
            lambda h, s: torch.scatter_reduce(h, dim, index, s, reduce, include_self=include_self),
            (x, src),
        )
    index, shape = torch.atleast_1d(index), x.shape
    numbers = torch.arange(x.numel(), device=x.device).reshape(torch.atleast_1d(x).shape)
    within = [slice(0, n) for n in index.shape]
    reachable = [slice(None) if d == dim % index.dim() else s for d, s in enumerate(within)]
    places = numbers[tuple(reachable)].gather(dim, index).flatten()

    def flat(h: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return h.flatten(), torch.atleast_1d(s)[tuple(within)].flatten()

    if reduce == "prod":
        return call.compose(lambda: _multiplied(*flat(x, src), places, include_self).reshape(shape))
    chosen = _extreme(*flat(x, src), places, reduce, include_self)
    return jointly_linear(call, lambda h, s: torch.cat(flat(h, s))[chosen].reshape(shape), (x, src))


def _first(places: Tensor, order: Tensor, count: int) -> Tensor:
    """For each element of a result, the smallest ``order`` of what goes there; the source's length
    where nothing does."""
    none = torch.full((count,), len(places), device=places.device)
    return none.scatter_reduce(0, places, order, "amin")


def _multiplied(x: Tensor, src: Tensor, places: Tensor, include_self: bool) -> Tensor:
    """Products of what is there and all that goes to one place, one factor after the other."""
    count = len(places)
    order = torch.arange(count, device=places.device)
    while bool((order < count).any()):
        first = _first(places, order, len(x))
        none = first == count
        factor = src[first.masked_fill(none, 0)]
        x = torch.where(none, x, x * factor if include_self else factor)
        order, include_self = order.masked_fill(order == first[places], count), True
    return x


def _extreme(x: Tensor, src: Tensor, places: Tensor, reduce: str, include_self: bool) -> Tensor:
    """Where the total was extreme, in the tensor and the source behind it: the tensor's own
    element first, then the source's in their order."""
    count = len(places)
    total = torch.scatter_reduce(x, 0, places, src, reduce, include_self=include_self)
    order = torch.arange(count, device=places.device)
    first = _first(places, order.masked_fill(total[places] != src, count), len(x))
    own = (first == count) | ((x == total) & include_self)
    return torch.where(own, torch.arange(len(x), device=x.device), len(x) + first)


#: Reductions of segments by their names in ``torch.scatter_reduce``, and of nothing at all.
SEGMENTS = {"max": ("amax", -math.inf), "min": ("amin", math.inf), "prod": ("prod", 1.0)}


@aten_rule("segment_reduce", kind="linear", equation="eq. 9, 13, App. D.2")
def segment_reduce(
    call: Call, data: Tensor, reduce: str, axis: int = 0, initial: Any = None, **given: Any
) -> Result:
    """Sums, means and products of segments; of extremes the first element that was extreme."""
    total = call.plain()
    if reduce not in SEGMENTS:
        added = call.run(data=torch.zeros_like(data))
        run = function_of(call, "data", "initial")  # empty segments: 0
        return total, Affine(each(lambda h: run(data=h, initial=0.0)), (data,), added)
    how, nothing = SEGMENTS[reduce]
    shape = [n + (d == axis) for d, n in enumerate(total.shape)]  # one for what is in no segment
    start = total.new_full(shape, nothing if initial is None else initial)
    bounds = given.get("offsets")
    bounds = F.pad(given["lengths"].cumsum(-1), (1, 0)) if bounds is None else bounds
    steps = torch.arange(data.shape[axis], device=data.device, dtype=bounds.dtype)
    steps = steps.expand(*bounds.shape[:-1], -1).contiguous()
    index = (torch.searchsorted(bounds.contiguous(), steps, right=True) - 1) % bounds.shape[-1]
    index = index.reshape(*index.shape, *(1,) * (data.dim() - index.dim())).expand(data.shape)

    def segments() -> Tensor:
        own = initial is not None
        made = torch.scatter_reduce(start, axis, index, data, how, include_self=own)
        return made.narrow(axis, 0, total.shape[axis])

    return total, call.compose(segments)
