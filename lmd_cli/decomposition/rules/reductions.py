"""Reductions and products that are made of sums, squares, roots and matrix products.

Variances and norms are decomposed like anything else, so that a network may use them as features;
where they divide, they are constants (:mod:`.quotient`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, inplace_aliases
from lmd_cli.decomposition.rules.composite import composed

Dims = int | Sequence[int] | None


def _dims(x: Tensor, dim: Dims) -> tuple[int, ...]:
    """The reduced dimensions, all if none are named."""
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(x.dim()))
    return (dim,) if isinstance(dim, int) else tuple(dim)


@composed(*aliases("var"), equation="eq. 9 (square)")
def variance(
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The mean square deviation from the mean; ``x.var(False)`` sets ``unbiased``."""
    dim, unbiased = (None, dim) if isinstance(dim, bool) else (dim, unbiased)
    dims = _dims(input, dim)
    less = float(bool(unbiased)) if correction is None else correction
    count = math.prod(input.shape[d] for d in dims)
    squares = torch.square(input - input.mean(dims, keepdim=True))
    return squares.sum(dims, keepdim=keepdim) / (count - less)


@composed(*aliases("std"), equation="eq. 9 (square, root)")
def deviation(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The root of the variance."""
    return torch.sqrt(variance(input, *args, **kwargs))


def _mean(input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    dims = _dims(input, None if isinstance(dim, bool) else dim)
    keep = kwargs.get("keepdim", args[1] if len(args) > 1 else False)
    return input.mean(dims, keepdim=keep)


@composed(torch.var_mean, equation="eq. 9 (square)")
def variance_and_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Both at once."""
    return variance(input, *args, **kwargs), _mean(input, *args, **kwargs)


@composed(torch.std_mean, equation="eq. 9 (square, root)")
def deviation_and_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Both at once."""
    return deviation(input, *args, **kwargs), _mean(input, *args, **kwargs)


@composed(torch.linalg.vector_norm, equation="eq. 9 (power, root)")
def vector_norm(
    x: Tensor, ord: Any = 2, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """(sum |x|^p)^(1/p), the largest or smallest |x| for infinite p."""
    if ord == "nuc":
        raise NotImplementedError("the nuclear norm")
    x, order = (x if dtype is None else x.to(dtype)), float(ord)
    dims = _dims(x, dim)
    if math.isinf(order):
        return (torch.amax if order > 0 else torch.amin)(torch.abs(x), dims, keepdim)
    if order == 1:
        return torch.abs(x).sum(dims, keepdim=keepdim)
    if order == 2:
        return torch.sqrt(torch.square(x).sum(dims, keepdim=keepdim))
    if order <= 0:
        raise NotImplementedError(f"the norm of order {ord!r}")
    powers = torch.pow(torch.abs(x), order).sum(dims, keepdim=keepdim)
    return torch.pow(powers, 1.0 / order)


@composed(*(f for f in aliases("norm") if f is not torch.linalg.norm), equation="eq. 9")
def norm(
    input: Tensor,
    p: Any = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    out: None = None,
    dtype: Any = None,
) -> Tensor:
    """A vector norm over all or some dimensions; "fro" is the Euclidean one."""
    order = 2.0 if p in ("fro", None) else p
    return vector_norm(input, order, dim, keepdim, dtype=dtype)


@composed(torch.linalg.norm, equation="eq. 9")
def linalg_norm(
    A: Tensor, ord: Any = None, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """A vector norm; of a matrix the Frobenius norm only (torch's others need singular values)."""
    matrix = not isinstance(dim, int) and (A.dim() if dim is None else len(dim)) == 2
    if matrix and ord not in (None, "fro"):
        raise NotImplementedError(f"the matrix norm {ord!r}")
    return vector_norm(A, 2.0 if ord in (None, "fro") else ord, dim, keepdim, dtype=dtype)


@composed(*aliases("dist"), equation="eq. 9")
def distance(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The norm of the difference."""
    return vector_norm(input - other, p)


@composed(F.pairwise_distance, equation="eq. 9")
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The norm of x1 - x2 + eps over the last dimension."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


@composed(F.cosine_similarity, equation="App. D.2; divisor as in eq. 11")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The product of the two over their norms, which are constants."""
    first = torch.linalg.vector_norm(x1, 2, dim, keepdim=True).clamp(min=eps)
    second = torch.linalg.vector_norm(x2, 2, dim, keepdim=True).clamp(min=eps)
    return ((x1 / first) * (x2 / second)).sum(dim)


@composed(*aliases("prod"), equation="App. D.2")
def product(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The product of the elements, one factor after the other."""
    x = input if dtype is None else input.to(dtype)
    x, dim = (x.flatten(), 0) if dim is None else (x, dim)
    value = reduce(torch.mul, x.unbind(dim))
    return value.unsqueeze(dim) if keepdim else value


def _add(input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    return (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * mat1 @ mat2, for matrices, vectors or batches of matrices."""
    return _add(input, torch.matmul(mat1, mat2), beta, alpha)


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """The same with the products of the batch summed."""
    return _add(input, torch.bmm(batch1, batch2).sum(0), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """The same with an outer product."""
    return _add(input, torch.outer(vec1, vec2), beta, alpha)


_SUMS = {"addmm": addmm, "baddbmm": addmm, "addmv": addmm, "addbmm": addbmm, "addr": addr}
for _name, _made_of in _SUMS.items():
    composed(*aliases(_name), equation="eq. 6, App. D.2")(_made_of)
    composed(*inplace_aliases(_name), equation="eq. 6, App. D.2", inplace=True)(_made_of)


@composed(torch.linalg.multi_dot, equation="App. D.2")
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """Matrix products from left to right."""
    return reduce(torch.matmul, tensors)


@composed(torch.chain_matmul, equation="App. D.2")
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The same, as separate arguments."""
    return reduce(torch.matmul, matrices)


@composed(F.bilinear, equation="App. D.2")
def bilinear_layer(
    input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """x1 W x2 + b for (..., in1), (..., in2) and (out, in1, in2)."""
    out = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return out if bias is None else out + bias
