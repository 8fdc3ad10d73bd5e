"""Maxima, orders and medians (eq. 9): every part is read where the total was selected, slope 0
or 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition import secants
from lmd_cli.decomposition.maps import Affine
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import behind_rows, jointly_linear, spread
from lmd_cli.decomposition.rules.linear import read_along
from lmd_cli.decomposition.tracing.calls import Call, Result

# -- pooling --------------------------------------------------------------------------------------


@aten_rule("max_pool2d_with_indices", "adaptive_max_pool2d", kind="selection", equation="eq. 9")
@aten_rule("max_pool3d_with_indices", "adaptive_max_pool3d", kind="selection", equation="eq. 9")
def pooled(call: Call, input: Tensor, **given: Any) -> Result:
    """Max-pooling: a part's value at the position of the total's maximum in each window."""
    total, indices = call.plain()
    spatial = 3 if "3d" in str(call.function) else 2
    where = call.kept(indices)

    def read(h: Tensor, at: Tensor) -> Tensor:
        places = at.flatten(-spatial).expand(len(h), *(-1,) * (at.dim() - spatial + 1))
        made = h.flatten(-spatial).gather(-1, places)  # (rows, ..., H * W)
        return made.unflatten(-1, at.shape[-spatial:])

    secant = secants.extreme(input, lambda v: call.run(input=v)[1], read)
    return (total, indices), [Affine(lambda h: read(h, where), (input,), secant=secant), None]


# -- along one dimension --------------------------------------------------------------------------

#: Largest or smallest elements; the order of the others is held at the operating point.
EXTREMES = frozenset(("max", "min", "cummax", "cummin"))


@aten_rule("max.dim", "min.dim", kind="selection", equation="eq. 9")
@aten_rule("median.dim", "nanmedian.dim", "kthvalue", "mode", kind="selection", equation="eq. 9")
@aten_rule("sort", "topk", "cummax", "cummin", kind="selection", equation="eq. 9")
def ordered(call: Call, input: Tensor, **given: Any) -> Result:
    """Values along one dimension, and where they were."""
    result = call.plain()
    values, indices = result
    defaults = {a.name: a.default_value for a in call.function._schema.arguments}  # type: ignore[attr-defined]
    dim, ndim, where = given.get("dim", defaults["dim"]), input.dim(), call.kept(indices)
    reduced = values.dim() < ndim

    def read(h: Tensor, at: Tensor) -> Tensor:
        made = read_along(dim, at.unsqueeze(dim) if reduced else at, ndim)(h)
        return made.squeeze(behind_rows(dim, ndim)) if reduced else made

    secant = None
    if call.operator is not None and call.operator.name in EXTREMES:
        secant = secants.extreme(input, lambda v: call.run(input=v)[1], read)
    return result, [Affine(lambda h: read(h, where), (input,), secant=secant), None]


# -- over several dimensions ----------------------------------------------------------------------


def _extreme(best: Any, x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """The largest or smallest over some dimensions, all if none are named."""
    over = sorted({d % max(x.dim(), 1) for d in dims if x.dim()}) or [*range(x.dim())]
    lines = x.movedim(over, [*range(-len(over), 0)]).flatten(-len(over))  # (*kept, n)
    values: Tensor = best(lines, -1)[0]
    return reduce(torch.unsqueeze, over if keepdim else (), values)


@aten_rule("amax", "amin", "max.default", "min.default", kind="selection", equation="eq. 9")
def extremum(call: Call, input: Tensor, dim: Any = (), keepdim: bool = False) -> Result:
    """Largest or smallest element over some dimensions, all if none are named."""
    best = torch.max if "max" in call.operator.name else torch.min  # type: ignore[union-attr]
    return call.plain(), call.compose(_extreme, best, input, dim, keepdim)


@aten_rule("aminmax", "_aminmax", kind="selection", equation="eq. 9")
def extrema(call: Call, input: Tensor, dim: int | None = None, keepdim: bool = False) -> Result:
    """Smallest and largest element."""
    dims = () if dim is None else (dim,)
    made = [call.compose(_extreme, best, input, dims, keepdim) for best in (torch.min, torch.max)]
    return call.plain(), made


@aten_rule("median.default", "nanmedian.default", kind="selection", equation="eq. 9")
def median(call: Call, input: Tensor) -> Result:
    """The lower median of all elements."""
    total, flat = call.plain(), input.flatten()
    where = ((flat == total) | (flat.isnan() & total.isnan())).to(torch.uint8).argmax()
    return total, Affine(lambda h: h.reshape(len(h), -1)[:, where], (input,))


# -- of two tensors -------------------------------------------------------------------------------

#: Whether an element comes from the first tensor; it does where both are equal.
FROM_FIRST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "maximum": torch.ge,
    "minimum": torch.le,
    "fmax": lambda a, b: (a >= b) | torch.isnan(b),
    "fmin": lambda a, b: (a <= b) | torch.isnan(b),
}


@aten_rule(*FROM_FIRST, kind="selection", equation="eq. 9")
def larger_or_smaller(call: Call, input: Tensor, other: Tensor) -> Result:
    """Each element from the tensor that has the larger, or the smaller, one."""
    name, total = call.operator.name, call.plain()  # type: ignore[union-attr]
    first = FROM_FIRST[name](input, other)
    ndim, own, others = total.dim(), input.dim(), other.dim()

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        if a.dim() > own or b.dim() > others:  # stacks
            a, b = spread(a, ndim), spread(b, ndim)
        return torch.where(first, a, b)

    made = jointly_linear(call, chosen, (input, other), stacked=True)
    secant = secants.larger_or_smaller(
        call.operands(input, other), input, other, "max" in name, partial(spread, ndim=ndim)
    )
    return total, replace(made, secant=secant)
