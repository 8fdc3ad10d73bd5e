"""Operators that are made of others: the plain call for the total, its single operations for the
parts.

Variances and norms are decomposed like anything else, so that a network may use them as features;
where they divide, they are constants (:mod:`.quotients`). Products of several factors are taken one
after the other (appendix D.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.rules.common import composed, tensor_like

Dims = int | list[int] | tuple[int, ...] | None


@composed("var.correction", equation="eq. 9 (square)")
def variance(
    input: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """The mean square deviation from the mean."""
    centre = input.mean(dim, keepdim=True)
    count = input.numel() // max(centre.numel(), 1)
    freedom = max(count - (1.0 if correction is None else correction), 0.0)
    return torch.square(input - centre).sum(dim, keepdim=keepdim) / freedom


@composed("linalg_vector_norm", equation="eq. 9 (power, root)")
def vector_norm(
    input: Tensor, ord: Any = 2, dim: Dims = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """(sum |x|^p)^(1/p), the largest or smallest |x| for infinite p."""
    x, order = (input if dtype is None else input.to(dtype)), float(ord)
    x = torch.abs(x) if x.is_complex() else x
    if math.isinf(order):
        over = () if dim is None else dim
        return (torch.amax if order > 0 else torch.amin)(torch.abs(x), over, keepdim)
    if order == 1:
        return torch.abs(x).sum(dim, keepdim)
    if order == 2:
        return torch.sqrt(torch.square(x).sum(dim, keepdim))
    if order <= 0:
        raise NotImplementedError(f"the norm of order {ord!r}")
    return torch.pow(torch.pow(torch.abs(x), order).sum(dim, keepdim), 1.0 / order)


@composed("_pdist_forward", equation="eq. 9")
def own_distances(input: Tensor, p: float = 2.0) -> Tensor:
    """Norms of the differences of all pairs of rows."""
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return vector_norm(input[first] - input[second], p, -1)


@composed("prod", equation="App. D.2")
def product(
    input: Tensor, dim: int | None = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The product of the elements, one factor after the other."""
    x = input if dtype is None else input.to(dtype)
    if not x.dim():
        return x * 1.0
    x, dim = (x.flatten(), 0) if dim is None else (x, dim)
    if not x.shape[dim]:
        return x.sum(dim, keepdim=keepdim) + 1.0
    value = reduce(torch.mul, x.unbind(dim))
    return value.unsqueeze(dim) if keepdim else value


@composed("cumprod", equation="App. D.2")
def running_product(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """Products of the first elements."""
    x = input if dtype is None else input.to(dtype)
    if not x.dim() or not x.numel():
        return x * 1.0
    return torch.stack(list(accumulate(x.unbind(dim), torch.mul)), dim)


@composed("linalg_cross", equation="App. D.2")
def cross(input: Tensor, other: Tensor, dim: int = -1) -> Tensor:
    """The vector product of triples."""
    a, b = torch.broadcast_tensors(input, other)
    x, y = a.unbind(dim), b.unbind(dim)
    pairs = ((1, 2), (2, 0), (0, 1))
    return torch.stack([x[i] * y[j] - x[j] * y[i] for i, j in pairs], dim)


@composed("_trilinear", equation="App. D.2")
def trilinear(i1: Tensor, i2: Tensor, i3: Tensor, sumdim: Sequence[int], **given: Any) -> Tensor:
    """A sum of products of three tensors, each with new dimensions: ``F.bilinear``."""
    new = [given[f"expand{i}"] for i in (1, 2, 3)]
    factors = [reduce(torch.unsqueeze, *pair) for pair in zip(new, (i1, i2, i3), strict=True)]
    made = reduce(torch.mul, factors)
    return made.sum(tuple(sumdim)) if sumdim else made


@composed("_weight_norm_interface", equation="eq. 13; divisor as in eq. 11")
def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """v times g over the norm of v."""
    dims = tuple(d for d in range(v.dim()) if d != dim % v.dim())
    return v * (g / vector_norm(v, 2, dims, True))


@composed("nan_to_num", equation="eq. 6")
def nan_to_num(input: Tensor, *constants: Any, **named: Any) -> Tensor:
    """Finite elements as they are, constants elsewhere."""
    finite = torch.isfinite(input)
    return torch.where(finite, input, torch.nan_to_num(input.detach(), *constants, **named))


@composed("glu", equation="eq. 9, App. D.2")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """A half of the channels times the sigmoid of the other."""
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


@composed("copysign", equation="eq. 9")
def copysign(input: Tensor, other: Any) -> Tensor:
    """|x| with the sign of y, a constant."""
    one = torch.ones((), dtype=input.dtype, device=input.device)
    sign = other.detach() if isinstance(other, Tensor) else other
    return torch.abs(input) * torch.copysign(one, sign)


@composed("logaddexp", equation="eq. 1, App. D.2")
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(x) + exp(y)), as any logarithm of a sum of exponentials."""
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other)), 0)


def _add(input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    return (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)


def _unless_zero(factor: Any, x: Any, value: float) -> Tensor:
    """x, or a constant where the factor is 0."""
    return torch.where(tensor_like(factor, x) == 0, value, tensor_like(x, factor))


#: Operators that are one formula, by name and by where the rules of its operations come from.
FORMULAS: dict[tuple[str, str], Callable[..., Any]] = {
    ("std.correction", "eq. 9 (square, root)"): lambda input, **options: torch.sqrt(
        variance(input, **options)
    ),
    ("var_mean.correction", "eq. 9 (square)"): lambda input, dim=None, keepdim=False, **options: (
        variance(input, dim, keepdim=keepdim, **options),
        input.mean(dim, keepdim),
    ),
    ("std_mean.correction", "eq. 9 (square, root)"): lambda input, dim=None, keepdim=False, **o: (
        torch.sqrt(variance(input, dim, keepdim=keepdim, **o)),
        input.mean(dim, keepdim),
    ),
    ("norm", "eq. 9"): lambda input, p=2, *options, **named: vector_norm(
        input, 2.0 if p is None else p, *options, **named
    ),
    ("dist", "eq. 9"): lambda input, other, p=2: vector_norm(input - other, p),
    ("_cdist_forward _euclidean_dist", "eq. 9"): (
        lambda x1, x2, p=2.0, compute_mode=None: vector_norm(
            x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1
        )
    ),
    ("hypot", "eq. 9"): lambda input, other: torch.sqrt(torch.square(input) + torch.square(other)),
    ("addbmm", "eq. 6, App. D.2"): (
        lambda input, batch1, batch2, beta=1, alpha=1: _add(
            input, torch.bmm(batch1, batch2).sum(0), beta, alpha
        )
    ),
    ("addr", "eq. 6, App. D.2"): (
        lambda input, vec1, vec2, beta=1, alpha=1: _add(
            input, vec1.unsqueeze(1) * vec2, beta, alpha
        )
    ),
    ("lerp", "eq. 6, App. D.2"): lambda input, end, weight: input + weight * (end - input),
    ("addcmul", "eq. 6, App. D.2"): (
        lambda input, tensor1, tensor2, value=1: input + (tensor1 * tensor2) * value
    ),
    ("addcdiv", "eq. 6; divisor as in eq. 11"): (
        lambda input, tensor1, tensor2, value=1: input + (tensor1 / tensor2) * value
    ),
    ("dot", "App. D.2"): lambda input, tensor: (input * tensor).sum(),
    ("vdot", "App. D.2"): lambda input, other: (input.conj() * other).sum(),
    ("ldexp", "eq. 9, App. D.2"): lambda input, other: input * torch.pow(2.0, other),
    ("xlogy", "eq. 9, App. D.2"): (
        lambda input, other: input * torch.log(_unless_zero(input, other, 1.0))
    ),
    ("special_xlog1py", "eq. 9, App. D.2"): (
        lambda input, other: input * torch.log1p(_unless_zero(input, other, 0.0))
    ),
    ("logaddexp2", "eq. 1, App. D.2"): (
        lambda input, other: logaddexp(input * math.log(2.0), other * math.log(2.0)) / math.log(2.0)
    ),
}
for (_names, _equation), _formula in FORMULAS.items():
    composed(*_names.split(), equation=_equation)(_formula)
