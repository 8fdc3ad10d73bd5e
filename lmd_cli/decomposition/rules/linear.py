"""Operators that are linear in one argument (eq. 13), h_m' = A h_m: what moves, copies, sums,
averages or resamples elements, Fourier transforms, and solutions of linear equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.maps import Affine, constant, each
from lmd_cli.decomposition.memory import extent_of, is_continuous
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import behind_rows, folded, function_of, pairwise, product
from lmd_cli.decomposition.rules.refusals import MATRIX
from lmd_cli.decomposition.tracing.calls import Call, Result

Run = Callable[[Tensor], Tensor]
#: ``apply(tensor, **others)``, the tensor's number of dimensions, and the other arguments; gives
#: the function of a stack.
Batching = Callable[[Callable[..., Tensor], int, dict[str, Any]], Run]


# -- how the parts of a stack go through an operator at once --------------------------------------


def leading(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """It takes any dimensions in front of those that it works on."""
    return lambda h: apply(h, **others)


def row_by_row(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """One part after the other."""
    return each(leading(apply, ndim, others))


def along(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """It works along dimensions, which lie one further in a stack."""
    dims = {name: dim for name, dim in others.items() if name in ("dim", "dims")}
    if ndim == 0 or not dims or None in dims.values() or [] in dims.values():
        return row_by_row(apply, ndim, others)
    for name, dim in dims.items():
        several = not isinstance(dim, int)
        dims[name] = [behind_rows(d, ndim) for d in dim] if several else behind_rows(dim, ndim)
    return leading(apply, ndim, {**others, **dims})


def batches(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """It takes a batch, or one image, and does the same to every channel."""
    return folded(leading(apply, ndim, others))


def linear_operators(names: str, batching: Batching, kind: str) -> None:
    """Registers operators that are linear in their first argument, the only one with parts.

    Args:
        names: of operators, by spaces.
        batching: how a stack goes through them.
        kind: of the rule.
    """

    def rule(call: Call, **given: Any) -> Result:
        schema = call.function._schema.arguments  # type: ignore[attr-defined]
        first = "input" if schema[0].name == "self" else schema[0].name
        x, others = given[first], {k: v for k, v in given.items() if k != first}
        if call.operands(*others.values()):
            raise NotImplementedError("an argument with parts beside the first")
        dims = {a.name: a.default_value for a in schema if a.name in ("dim", "dims")}
        total = call.plain()
        if not is_continuous(total):
            return total, None
        return total, Affine(batching(call.function, x.dim(), {**dims, **others}), (x,))

    aten_rule(*names.split(), kind=kind, equation="eq. 13")(rule)


#: Operators by kind and by how a stack goes through them.
LINEAR: list[tuple[str, Batching, str]] = [
    ("structure", leading, "neg deg2rad rad2deg tril triu pixel_shuffle pixel_unshuffle"),
    ("structure", along, "cumsum flip roll rot90 index_select sum mean nansum nanmean"),
    ("structure", batches, "channel_shuffle native_channel_shuffle"),
    ("structure", row_by_row, "repeat trace diag_embed unfold_backward select_backward"),
    ("structure", row_by_row, "slice_backward diagonal_backward"),
    ("linear", batches, "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d"),
    ("linear", batches, "replication_pad2d replication_pad3d avg_pool1d avg_pool2d avg_pool3d"),
    ("linear", batches, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d im2col"),
    ("linear", batches, "_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d col2im"),
    ("linear", batches, "upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d"),
    ("linear", batches, "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d"),
    ("linear", batches, "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d"),
    ("linear", batches, "_upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa"),
    ("linear", row_by_row, "max_unpool2d max_unpool3d affine_grid_generator"),
    ("linear", along, "_fft_r2c _fft_c2r _fft_c2c"),
    ("linear", leading, "conj_physical _conj_physical"),
]
for _kind, _batching, _names in LINEAR:
    linear_operators(_names, _batching, _kind)


@aten_rule(
    *("_linalg_solve_ex", "linalg_solve_triangular", "cholesky_solve", "triangular_solve"),
    "linalg_lu_solve",
    kind="linear",
    equation="eq. 13",
)
def solve(call: Call, **given: Any) -> Result:
    """Solutions of linear equations with a constant matrix, for a right side that carries parts.

    Raises:
        NoRuleError: the matrix carries parts.
    """
    side = "B" if "B" in given else "input"
    if any(call.carries(v) for name, v in given.items() if name != side):
        raise call.refused(MATRIX)
    total, solution = call.plain(), function_of(call, side)
    if isinstance(total, Tensor):
        return total, Affine(each(lambda b: solution(**{side: b})), (given[side],))
    return total, [Affine(each(lambda b: solution(**{side: b})[0]), (given[side],))]


# -- copies ---------------------------------------------------------------------------------------


@aten_rule("clone", "_to_copy", kind="structure", equation="eq. 13")
def copied(call: Call, input: Tensor, **options: Any) -> Result:
    """A copy, also of another type, laid out as the total is; integers carry no parts."""
    total = call.plain()
    if not is_continuous(total):
        return total, None
    shape, stride = total.shape, total.stride()
    extent, like = extent_of(shape, stride), total.new_empty(0)

    def run(h: Tensor) -> Tensor:
        made = like.new_empty_strided((len(h), *shape), (extent, *stride))
        return made.copy_(h)

    return total, Affine(run, (input,))


_VIEWS = """
    alias expand permute transpose select slice squeeze unsqueeze t diagonal as_strided
    unfold view view_as_real view_as_complex split split_with_sizes unbind narrow
"""


def _view_copy(name: str) -> None:
    view = getattr(torch.ops.aten, name)

    def rule(call: Call, input: Tensor, **given: Any) -> Result:
        return call.plain(), call.compose(
            lambda: pytree.tree_map(torch.clone, view(input, **given))
        )

    aten_rule(f"{name}_copy", kind="structure", equation="eq. 13")(rule)


for _name in _VIEWS.split():
    _view_copy(_name)


# -- reading at constant positions ----------------------------------------------------------------


@aten_rule("index", "_unsafe_index", kind="structure", equation="eq. 13")
def indexed(call: Call, input: Tensor, indices: Sequence[Tensor | None]) -> Result:
    """Elements at positions that are constants of the operating point."""
    total, where = call.plain(), list[Any]()
    for index in indices:  # masks as the positions that they select
        masked = index is not None and index.dtype in (torch.bool, torch.uint8)
        where += index.nonzero(as_tuple=True) if masked else [index]  # type: ignore[union-attr]
    used = [i for i, index in enumerate(where) if index is not None]
    front = used[-1] - used[0] + 1 > len(used)  # then torch puts what they select first
    wide = max(index.dim() for index in where if index is not None)

    def run(h: Tensor) -> Tensor:
        read: Tensor = torch.ops.aten.index(h, [None, *where])
        return read.movedim(wide, 0) if front else read

    return total, Affine(run, (input,))


@aten_rule("gather", kind="structure", equation="eq. 13")
def gathered(
    call: Call, input: Tensor, dim: int, index: Tensor, sparse_grad: bool = False
) -> Result:
    """Elements at constant positions along one dimension."""
    return call.plain(), Affine(read_along(dim, index, input.dim()), (input,))


def read_along(dim: int, where: Tensor, ndim: int) -> Run:
    """A stack's elements at the positions ``where`` along one dimension of its rows."""
    if ndim == 0:
        return each(lambda h: h.gather(0, where))
    at = behind_rows(dim, ndim)
    return lambda h: h.gather(at, where.expand(len(h), *where.shape))


@aten_rule("take", kind="structure", equation="eq. 13")
def taken(call: Call, input: Tensor, index: Tensor) -> Result:
    """Elements at constant positions of the flattened tensor."""
    return call.plain(), Affine(lambda h: h.reshape(len(h), -1)[:, index], (input,))


@aten_rule("masked_select", kind="structure", equation="eq. 13")
def masked_select(call: Call, input: Tensor, mask: Tensor) -> Result:
    """The elements where a mask is set, after broadcasting."""

    def made() -> Any:
        x, where = torch.broadcast_tensors(torch.atleast_1d(input), mask)
        return torch.ops.aten.index(x, [where])

    return call.plain(), call.compose(made)


@aten_rule("embedding", kind="structure", equation="eq. 13")
def embedding(call: Call, weight: Tensor, indices: Tensor, *_: Any, **__: Any) -> Result:
    """Rows of a table that carries parts."""
    return call.plain(), Affine(lambda h: h[:, indices], (weight,))


@aten_rule("_embedding_bag", "_embedding_bag_forward_only", kind="structure", equation="eq. 13")
def embedding_bag(
    call: Call, weight: Tensor, mode: int = 0, per_sample_weights: Tensor | None = None, **_: Any
) -> Result:
    """Sums and means of rows of a table, with weights that may carry parts too."""
    if mode == 2:
        raise call.refused("mode='max' has no rule; gather the rows and use torch.amax")
    apply = function_of(call, "weight", "per_sample_weights")

    def bags(table: Tensor, weights: Tensor | None = None) -> Any:
        return apply(weight=table, per_sample_weights=weights)[0]

    if per_sample_weights is None:
        return call.plain(), [Affine(each(bags), (weight,))]
    return call.plain(), [product(call, weight, per_sample_weights, pairwise(bags))]


# -- others ---------------------------------------------------------------------------------------


@aten_rule("constant_pad_nd", kind="linear", equation="eq. 13")
def pad(call: Call, input: Tensor, pad: Sequence[int], value: Any = 0) -> Result:
    """Padding by zeros; by another number, the frame is bias."""
    total = call.plain()
    call.may_mask(value)
    frame = torch.constant_pad_nd(torch.zeros_like(input), pad, value) if value else None
    return total, Affine(lambda h: torch.constant_pad_nd(h, pad), (input,), frame)


@aten_rule(
    *("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler", "_grid_sampler_2d_cpu_fallback"),
    kind="linear",
    equation="eq. 13",
)
def grid_sample(call: Call, input: Tensor, grid: Tensor, **_: Any) -> Result:
    """Sampling; the parts ride as channels. Locations that depend on the inputs (deformable
    attention) are constants of the operating point."""
    total = call.plain()
    if call.carries(grid):
        call.hold("sampling locations")
    if not call.carries(input):
        return total, constant(total)
    sample, where, count = function_of(call, "input", "grid"), call.kept(grid), total.shape[1]

    def run(h: Tensor) -> Tensor:
        channels = h.transpose(0, 1).flatten(1, 2)  # (B, rows * C, ...)
        made: Tensor = sample(input=channels, grid=where)
        return made.unflatten(1, (len(h), count)).transpose(0, 1)

    return total, Affine(run, (input,))
