"""Products: by constants each part (eq. 13), with a layer's own bias to the bias part (eq. 3); of
two factors that carry parts as in appendix D.2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, each
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import folded, pairwise, product, spread
from lmd_cli.decomposition.tracing.calls import Call, Result


@aten_rule("mul", kind="product", equation="eq. 13, App. D.2")
def multiply(call: Call, input: Tensor, other: Any) -> Result:
    """Element by element."""
    total = call.plain()
    if total.layout is not torch.strided:
        raise call.refused("its result is sparse, and carries no parts; make it .to_dense() first")
    ndim = total.dim()
    if not isinstance(other, Tensor):
        return total, Affine(lambda h: h * other, (input,))
    return total, product(call, input, other, lambda a, b: spread(a, ndim) * spread(b, ndim))


@aten_rule("mm", "bmm", "mv", kind="product", equation="eq. 13, App. D.2")
def matrix_product(call: Call, input: Tensor, mat2: Any = None, vec: Any = None) -> Result:
    """Of matrices, batches of matrices, or a matrix and a vector."""
    other = mat2 if vec is None else vec
    return call.plain(), matmul(call, input, other)


def matmul(call: Call, a: Tensor, b: Tensor, constant: Tensor | None = None) -> Any:
    """The map of ``a @ b + constant``."""
    if a.layout is not torch.strided:  # sparse, a constant
        times = torch.mv if b.dim() == 1 else torch.bmm if b.dim() == 3 else torch.mm
        return Affine(each(lambda h: times(a, h)), (b,), constant)
    if b.layout is not torch.strided:
        return Affine(each(lambda h: torch.mm(h, b)), (a,), constant)
    if not call.carries(b):
        return Affine(lambda h: torch.matmul(h, b), (a,), constant)
    if not call.carries(a):
        if b.dim() == 1:
            return Affine(lambda h: torch.matmul(a, h.unsqueeze(-1)).squeeze(-1), (b,), constant)
        return Affine(lambda h: torch.matmul(a, h), (b,), constant)
    rows = pairwise(torch.matmul) if b.dim() == 1 else torch.matmul
    return product(call, a, b, rows)


@aten_rule("addmm", "baddbmm", "addmv", "_sparse_addmm", kind="linear", equation="eq. 3, 13")
def affine_layer(
    call: Call, input: Tensor, *, beta: Any = 1, alpha: Any = 1, **factors: Any
) -> Result:
    """beta input + alpha a @ b: a fully connected layer, whose bias is ``input``."""
    a, b = (value for value in factors.values() if isinstance(value, Tensor))
    total = call.plain()
    if call.carries(input) or (call.carries(a) and call.carries(b)):
        return total, call.compose(lambda: input * beta + torch.matmul(a, b) * alpha)
    input = input.resolve_conj()  # arithmetic here would overlook it
    added = None if beta == 0 else input if beta == 1 else input * beta
    made = matmul(call, a, b, added)
    if alpha == 1:
        return total, made
    run = made.run
    return total, Affine(lambda h: run(h) * alpha, made.operands, made.constant)


@aten_rule("_sparse_mm_reduce_impl", kind="linear", equation="eq. 13")
def sparse_reduction(call: Call, input: Tensor, other: Tensor, reduce: str) -> tuple[Any, Any]:
    """Sums and means of a sparse matrix's products with the rows of a dense one."""
    if reduce not in ("sum", "mean"):
        raise call.refused(f"reduce={reduce!r} has no rule; use torch.scatter_reduce")
    function = call.function
    return call.plain(), [Affine(each(lambda h: function(input, h, reduce)[0]), (other,)), None]


@aten_rule("convolution", "_convolution", kind="linear", equation="eq. 3, 13")
def convolution(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, **named: Any
) -> Result:
    """Convolution, also transposed: the parts are one batch."""
    total, options = call.plain(), tuple(named.values())[:6]  # traced modules give more
    added = None if bias is None else bias.reshape(-1, *(1,) * (total.dim() - 2))  # (C, 1, ...)

    def convolved(x: Tensor, w: Tensor) -> Tensor:
        return torch.convolution(x, w, None, *options)

    if added is not None and (call.carries(bias) or len(call.operands(input, weight)) == 2):
        return total, call.compose(lambda: convolved(input, weight) + added)
    if call.carries(weight):
        return total, product(call, input, weight, pairwise(convolved), added)
    transposed, groups = options[3], options[5]

    def channels(h: Tensor, start: int) -> Tensor:
        return folded(lambda x: convolved(x, weight[:, start : start + h.shape[2]]))(h)

    run, some = folded(lambda x: convolved(x, weight)), not transposed and groups == 1
    return total, Affine(run, (input,), added, channels=channels if some else None)
