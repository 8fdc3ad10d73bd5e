"""Operators that are made of others: the plain call for the total, its single operations for the
parts.

Variances and norms are decomposed like anything else, so that a network may use them as features;
where they divide, they are constants (:mod:`.quotients`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call

Dims = int | Sequence[int] | None
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def composed(*names: str, equation: str) -> Decorator:
    """Registers what operators are made of: a function of the same arguments."""

    def decorate(made_of: Callable[..., Any]) -> Callable[..., Any]:
        def rule(call: Call, **arguments: Any) -> tuple[Any, Any]:
            total, made = call.plain(), call.compose(made_of, **arguments)
            return total, list(made) if isinstance(made, tuple) else made

        rule.__doc__ = made_of.__doc__
        aten_rule(*names, kind="composite", equation=equation)(rule)
        return made_of

    return decorate


def _dims(x: Tensor, dim: Dims) -> tuple[int, ...]:
    """The reduced dimensions, all if none are named."""
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(x.dim()))
    return (dim,) if isinstance(dim, int) else tuple(dim)


def _sum(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return x.sum(dims, keepdim=keepdim) if x.dim() else x


@composed("var.correction", equation="eq. 9 (square)")
def variance(
    input: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """The mean square deviation from the mean."""
    dims, less = _dims(input, dim), 1.0 if correction is None else correction
    count = math.prod(input.shape[d] for d in dims) if input.dim() else 1
    centre = _sum(input, dims, True) / count
    return _sum(torch.square(input - centre), dims, keepdim) / max(count - less, 0.0)


@composed("std.correction", equation="eq. 9 (square, root)")
def deviation(input: Tensor, **options: Any) -> Tensor:
    """The root of the variance."""
    return torch.sqrt(variance(input, **options))


def _mean(input: Tensor, dim: Dims = None, keepdim: bool = False, **options: Any) -> Tensor:
    dims = _dims(input, dim)
    return input.mean(dims, keepdim=keepdim) if input.dim() else input.clone()


@composed("var_mean.correction", equation="eq. 9 (square)")
def variance_and_mean(input: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Both at once."""
    return variance(input, **options), _mean(input, **options)


@composed("std_mean.correction", equation="eq. 9 (square, root)")
def deviation_and_mean(input: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Both at once."""
    return deviation(input, **options), _mean(input, **options)


@composed("linalg_vector_norm", equation="eq. 9 (power, root)")
def vector_norm(
    input: Tensor, ord: Any = 2, dim: Dims = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """(sum |x|^p)^(1/p), the largest or smallest |x| for infinite p."""
    x, order = (input if dtype is None else input.to(dtype)), float(ord)
    dims = _dims(x, dim)
    if math.isinf(order):
        return (torch.amax if order > 0 else torch.amin)(torch.abs(x), dims, keepdim)
    if order == 1:
        return _sum(torch.abs(x), dims, keepdim)
    if order == 2:
        return torch.sqrt(_sum(torch.square(x), dims, keepdim))
    if order <= 0:
        raise NotImplementedError(f"the norm of order {ord!r}")
    return torch.pow(_sum(torch.pow(torch.abs(x), order), dims, keepdim), 1.0 / order)


@composed("norm", equation="eq. 9")
def norm(
    input: Tensor, p: Any = 2, dim: Dims = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """A vector norm over all or some dimensions."""
    return vector_norm(input, 2.0 if p is None else p, dim, keepdim, dtype)


@composed("dist", equation="eq. 9")
def distance(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The norm of the difference."""
    return vector_norm(input - other, p)


@composed("_cdist_forward", "_euclidean_dist", equation="eq. 9")
def distances(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    """Norms of all differences of (..., n, c) and (..., m, c): (..., n, m)."""
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


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
    made: list[Tensor] = []
    for factor in x.unbind(dim):
        made.append(made[-1] * factor if made else factor)
    return torch.stack(made, dim)


def _add(input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    return (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)


@composed("addbmm", equation="eq. 6, App. D.2")
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta input + alpha times the sum of a batch of matrix products."""
    return _add(input, torch.bmm(batch1, batch2).sum(0), beta, alpha)


@composed("addr", equation="eq. 6, App. D.2")
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta input + alpha times an outer product."""
    return _add(input, vec1.unsqueeze(1) * vec2, beta, alpha)


@composed("dot", "vdot", equation="App. D.2")
def dot(input: Tensor, tensor: Any = None, other: Any = None) -> Tensor:
    """The sum of products of two vectors; of ``vdot`` the first is conjugated."""
    if tensor is not None:
        return (input * tensor).sum()
    return (input.conj() * other).sum()


@composed("linalg_cross", equation="App. D.2")
def cross(input: Tensor, other: Tensor, dim: int = -1) -> Tensor:
    """The vector product of triples."""
    a, b = torch.broadcast_tensors(input, other)
    x, y = a.unbind(dim), b.unbind(dim)
    pairs = ((1, 2), (2, 0), (0, 1))
    return torch.stack([x[i] * y[j] - x[j] * y[i] for i, j in pairs], dim)


@composed("_trilinear", equation="App. D.2")
def trilinear(
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    """A sum of products of three tensors, each with new dimensions: ``F.bilinear``."""
    factors = []
    for x, places in ((i1, expand1), (i2, expand2), (i3, expand3)):
        for place in places:
            x = x.unsqueeze(place)
        factors.append(x)
    made = factors[0] * factors[1] * factors[2]
    return made.sum(tuple(sumdim)) if sumdim else made


@composed("_weight_norm_interface", equation="eq. 13; divisor as in eq. 11")
def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """v times g over the norm of v."""
    dims = tuple(d for d in range(v.dim()) if d != dim % v.dim())
    return v * (g / vector_norm(v, 2, dims, True))


@composed("nan_to_num", equation="eq. 6")
def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Finite elements as they are, constants elsewhere."""
    finite = torch.isfinite(input)
    return torch.where(finite, input, torch.nan_to_num(input.detach(), nan, posinf, neginf))


@composed("lerp", equation="eq. 6, App. D.2")
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight (end - input), each of which may carry parts."""
    return input + weight * (end - input)


@composed("addcmul", equation="eq. 6, App. D.2")
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any = 1) -> Tensor:
    """input + value tensor1 tensor2."""
    return input + (tensor1 * tensor2) * value


@composed("addcdiv", equation="eq. 6; divisor as in eq. 11")
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any = 1) -> Tensor:
    """input + value tensor1 / tensor2."""
    return input + (tensor1 / tensor2) * value


@composed("hypot", equation="eq. 9")
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(x^2 + y^2)."""
    return torch.sqrt(torch.square(input) + torch.square(other))


@composed("glu", equation="eq. 9, App. D.2")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """A half of the channels times the sigmoid of the other."""
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


@composed("ldexp", equation="eq. 9, App. D.2")
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """x 2^y."""
    return input * torch.pow(2.0, other)


@composed("copysign", equation="eq. 9")
def copysign(input: Tensor, other: Any) -> Tensor:
    """|x| with the sign of y, a constant."""
    one = torch.ones((), dtype=input.dtype, device=input.device)
    sign = other.detach() if isinstance(other, Tensor) else other
    return torch.abs(input) * torch.copysign(one, sign)


@composed("xlogy", equation="eq. 9, App. D.2")
def xlogy(input: Any, other: Any) -> Tensor:
    """x log(y), 0 where x is 0."""
    if not isinstance(other, Tensor):
        return input * math.log(other)
    return input * torch.log(_unless_zero(input, other, 1.0))


@composed("special_xlog1py", equation="eq. 9, App. D.2")
def xlog1py(input: Any, other: Any) -> Tensor:
    """x log(1 + y), 0 where x is 0."""
    if not isinstance(other, Tensor):
        return input * math.log1p(other)
    return input * torch.log1p(_unless_zero(input, other, 0.0))


def _unless_zero(factor: Any, x: Tensor, value: float) -> Tensor:
    """x, or a constant where the factor is 0."""
    zero = factor == 0
    return torch.where(zero, value, x) if isinstance(zero, Tensor) else x


@composed("logaddexp", equation="eq. 1, App. D.2")
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(x) + exp(y)), as any logarithm of a sum of exponentials."""
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other)), 0)


@composed("logaddexp2", equation="eq. 1, App. D.2")
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """The same to the base of 2."""
    return logaddexp(input * math.log(2.0), other * math.log(2.0)) / math.log(2.0)
