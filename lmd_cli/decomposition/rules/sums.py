"""Sums (eq. 6) and concatenations (eq. 5): every part of every term; a term that is a constant goes
to the bias part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, constant
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import jointly_linear, spread
from lmd_cli.decomposition.tracing.calls import Call, Result


def weighted_sum(call: Call, total: Tensor, terms: Sequence[tuple[Any, Any]]) -> Affine:
    """The map of a sum of coefficient times term."""
    operands = call.operands(*(x for _, x in terms))
    carried = set(map(id, operands))
    coefficients = [c for c, x in terms if id(x) in carried]
    fixed = [_times(c, _dense(x)) for c, x in terms if id(x) not in carried]
    call.may_mask(*fixed)
    ndim = total.dim()

    def run(*stacks: Tensor) -> Tensor:
        made = [_times(c, spread(h, ndim)) for c, h in zip(coefficients, stacks, strict=True)]
        return made[0] if len(made) == 1 else made[0] + made[1]

    added = torch.as_tensor(fixed[0], dtype=total.dtype, device=total.device) if fixed else None
    return Affine(run, operands, added)


def _dense(value: Any) -> Any:
    sparse = isinstance(value, Tensor) and value.layout is not torch.strided
    return value.to_dense() if sparse else value


def _times(coefficient: Any, value: Any) -> Any:
    plain = isinstance(coefficient, (int, float)) and coefficient == 1
    return value if plain else value * coefficient


@aten_rule("add", "sub", "rsub", kind="sum", equation="eq. 6")
def add(call: Call, input: Tensor, other: Any, alpha: Any = 1) -> Result:
    """input + alpha other; input - alpha other; other - alpha input."""
    name, total = call.operator.name, call.plain()  # type: ignore[union-attr]
    first = -alpha if name == "rsub" else 1
    second = {"add": alpha, "sub": -alpha, "rsub": 1}[name]
    return total, weighted_sum(call, total, [(first, input), (second, other)])


@aten_rule("cat", kind="concatenation", equation="eq. 5")
def concatenate(call: Call, tensors: Sequence[Tensor], dim: int = 0) -> Result:
    """Concatenation. Along channels, parts that meet in no row stay apart until they are read, so
    that a convolution multiplies each sensor's own channels only."""
    total = call.plain()
    used = [t for t in tensors if t.dim() == total.dim()]  # torch skips empty vectors
    at = dim % max(total.dim(), 1)
    if not call.operands(*used):
        return total, constant(total)
    made = jointly_linear(call, lambda *h: _cat(h, at, total.dim()), used, stacked=True)
    starts = [0]
    for t in used:
        starts.append(starts[-1] + t.shape[at])
    apart = at == 1 and total.dim() > 2 and len(made.operands) == len(used)
    alike = {t.dtype for t in used} == {total.dtype}
    if not (apart and alike):
        return total, made
    return total, Affine(made.run, made.operands, starts=tuple(starts[:-1]))


def _cat(tensors: Sequence[Tensor], at: int, ndim: int) -> Tensor:
    """Tensors, or stacks of which some have one row for all."""
    if tensors[0].dim() == ndim:
        return torch.cat(list(tensors), at)
    rows = max(len(t) for t in tensors)
    return torch.cat([t.expand(rows, *t.shape[1:]) for t in tensors], at + 1)


#: Operators by name and equation; of their arguments, what may carry parts, and the function of it.
JOINTLY_LINEAR: dict[tuple[str, str], Callable[..., tuple[Sequence[Any], Any]]] = {
    ("stack", "eq. 5"): lambda tensors, dim=0: (tensors, lambda *h: torch.stack(h, dim)),
    ("block_diag", "eq. 5"): lambda tensors: (tensors, lambda *h: torch.block_diag(*h)),
    ("complex", "eq. 6"): lambda real, imag: ((real, imag), torch.complex),
    # The mask is a constant of the operating point.
    ("where.self where.ScalarSelf where.ScalarOther", "eq. 6"): lambda condition, input, other: (
        (input, other),
        partial(torch.where, condition),
    ),
    ("masked_fill", "eq. 6"): lambda input, mask, value: (
        (value, input),
        partial(torch.where, mask),
    ),
}


def _jointly_linear(names: str, equation: str, made_of: Callable[..., Any]) -> None:
    def rule(call: Call, **given: Any) -> Result:
        operands, function = made_of(**given)
        return call.plain(), jointly_linear(call, function, operands)

    kind = "concatenation" if equation == "eq. 5" else "sum"
    aten_rule(*names.split(), kind=kind, equation=equation)(rule)


for (_names, _equation), _made_of in JOINTLY_LINEAR.items():
    _jointly_linear(_names, _equation, _made_of)


@aten_rule("copy", kind="sum", equation="eq. 6")
def copy(call: Call, input: Tensor, src: Tensor, non_blocking: bool = False) -> Result:
    """The source in the place of what was there."""
    return _everywhere(call, src.to(input.dtype).expand(input.shape), src)


@aten_rule("fill", "zero", kind="sum", equation="eq. 6")
def fill(call: Call, input: Tensor, value: Any = 0.0) -> Result:
    """One value everywhere."""
    return _everywhere(call, (torch.zeros_like(input) + value).to(input.dtype), value)


def _everywhere(call: Call, total: Tensor, source: Any) -> Result:
    """What a source makes that is broadcast to the total's shape."""
    call.may_mask(source)
    if not call.carries(source):
        return total, constant(total)
    shape = total.shape
    return total, Affine(lambda h: spread(h, len(shape)).expand(-1, *shape), (source,))
