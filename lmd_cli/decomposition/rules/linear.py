"""Operators that are linear in one argument and have no constant (eq. 13): what moves, copies,
sums, averages or resamples elements does the same to every part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, constant, each
from lmd_cli.decomposition.memory import extent_of
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import behind_rows, folded, product, spread
from lmd_cli.decomposition.tracing.calls import Call

Result = tuple[Any, Any]
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
    return each(lambda h: apply(h, **others))


def along(*names: str) -> Batching:
    """Arguments of these names are dimensions, which lie one further in a stack."""

    def batching(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
        dims = {name: others[name] for name in names if name in others}
        if ndim == 0 or any(dim is None or dim == [] for dim in dims.values()):
            return row_by_row(apply, ndim, others)
        shifted = {**others, **{name: _shifted(dim, ndim) for name, dim in dims.items()}}
        return lambda h: apply(h, **shifted)

    return batching


def _shifted(dim: int | Sequence[int], ndim: int) -> Any:
    return behind_rows(dim, ndim) if isinstance(dim, int) else [behind_rows(d, ndim) for d in dim]


def images(spatial: int) -> Batching:
    """It takes batches of ``(C, *spatial)``, or a single one, for which the rows are the batch."""

    def batching(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
        run = leading(apply, ndim, others)
        return folded(run) if ndim == spatial + 2 else run

    return batching


def batches(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """It takes batches only."""
    return folded(leading(apply, ndim, others))


def repeated(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """New dimensions may come in front of the tensor's own."""
    repeats = others["repeats"]
    return lambda h: apply(spread(h, len(repeats)), repeats=[1, *repeats])


def over_dimensions(apply: Callable[..., Tensor], ndim: int, others: dict[str, Any]) -> Run:
    """It reduces some dimensions, all if none are named."""
    if ndim == 0:
        return each(lambda h: apply(h, **others))
    dims = others.get("dim")
    others = {name: value for name, value in others.items() if name != "dim"}
    dims = [dims] if isinstance(dims, int) else dims
    over = [behind_rows(d, ndim) for d in dims] if dims else [*range(1, ndim + 1)]
    reduce = getattr(torch, apply.__name__.partition(".")[0])
    return lambda h: reduce(h, over, **others)


def linear_operators(names: str, batching: Batching, kind: str = "linear") -> None:
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

    rule.__doc__ = "The same for every part."
    aten_rule(*names.split(), kind=kind, equation="eq. 13")(rule)


def is_continuous(x: Tensor) -> bool:
    """Whether a tensor can carry parts."""
    return x.is_floating_point() or x.is_complex()


#: Operators by how a stack goes through them.
STRUCTURE: list[tuple[str, Batching]] = [
    ("neg deg2rad rad2deg tril triu pixel_shuffle pixel_unshuffle", leading),
    ("cumsum flip roll rot90 index_select", along("dim", "dims")),
    ("sum mean nansum nanmean", over_dimensions),
    ("repeat", repeated),
    ("channel_shuffle native_channel_shuffle", batches),
    ("trace unfold_backward select_backward slice_backward diagonal_backward", row_by_row),
]
LINEAR: list[tuple[str, Batching]] = [
    ("reflection_pad1d replication_pad1d avg_pool1d adaptive_avg_pool1d col2im", images(1)),
    ("reflection_pad2d replication_pad2d avg_pool2d", images(2)),
    ("adaptive_avg_pool2d _adaptive_avg_pool2d im2col", images(2)),
    ("reflection_pad3d replication_pad3d avg_pool3d", images(3)),
    ("adaptive_avg_pool3d _adaptive_avg_pool3d", images(3)),
    ("upsample_nearest1d upsample_nearest2d upsample_nearest3d", batches),
    ("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d", batches),
    ("upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d", batches),
    ("_upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa", batches),
    ("max_unpool2d max_unpool3d affine_grid_generator", row_by_row),
]
for _names, _batching in STRUCTURE:
    linear_operators(_names, _batching, "structure")
for _names, _batching in LINEAR:
    linear_operators(_names, _batching)


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


def _view_copies(name: str) -> None:
    view = getattr(torch.ops.aten, name)

    def rule(call: Call, input: Tensor, **given: Any) -> Result:
        def copies() -> Any:
            made = view(input, **given)
            return [t.clone() for t in made] if isinstance(made, (list, tuple)) else made.clone()

        return call.plain(), call.compose(copies)

    rule.__doc__ = "A copy of a view."
    aten_rule(f"{name}_copy", kind="structure", equation="eq. 13")(rule)


for _name in _VIEWS.split():
    _view_copies(_name)


# -- reading at constant positions ----------------------------------------------------------------


def positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with masks as the positions that they select."""
    found: list[Tensor | None] = []
    for index in indices:
        masked = index is not None and index.dtype in (torch.bool, torch.uint8)
        found += index.nonzero(as_tuple=True) if masked else [index]  # type: ignore[union-attr]
    return found


@aten_rule("index", "_unsafe_index", kind="structure", equation="eq. 13")
def indexed(call: Call, input: Tensor, indices: Sequence[Tensor | None]) -> Result:
    """Elements at positions that are constants of the operating point."""
    total, where = call.plain(), positions(indices)
    used = [i for i, index in enumerate(where) if index is not None]
    front = used[-1] - used[0] + 1 > len(used)  # then torch puts what they select first
    wide = max(index.dim() for index in where if index is not None)

    def run(h: Tensor) -> Tensor:
        found = torch.ops.aten.index(h, [None, *where])
        return found.movedim(wide, 0) if front else found

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
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    where = mask.expand(shape).flatten().nonzero().squeeze(1)
    ndim = len(shape)

    def run(h: Tensor) -> Tensor:
        return spread(h, ndim).expand(-1, *shape).reshape(len(h), -1)[:, where]

    return call.plain(), Affine(run, (input,))


@aten_rule("embedding", kind="structure", equation="eq. 13")
def embedding(call: Call, weight: Tensor, indices: Tensor, *_: Any, **__: Any) -> Result:
    """Rows of a table that carries parts."""
    return call.plain(), Affine(lambda h: h[:, indices], (weight,))


@aten_rule("_embedding_bag", "_embedding_bag_forward_only", kind="structure", equation="eq. 13")
def embedding_bag(
    call: Call,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    *others: Any,
    **named: Any,
) -> Result:
    """Sums and means of rows of a table, with weights that may carry parts too."""
    if mode == 2:
        raise call.refused("mode='max' has no rule; gather the rows and use torch.amax")
    function = call.function

    def bags(table: Tensor, weights: Tensor | None) -> Tensor:
        options = (scale_grad_by_freq, mode, sparse, weights, *others)
        return function(table, indices, offsets, *options, **named)[0]

    if per_sample_weights is None:
        return call.plain(), [Affine(each(lambda table: bags(table, None)), (weight,))]

    def rows(tables: Tensor, weights: Tensor) -> Tensor:
        count = max(len(tables), len(weights))
        pairs = ((tables[i % len(tables)], weights[i % len(weights)]) for i in range(count))
        return torch.stack([bags(t, w) for t, w in pairs])

    return call.plain(), [product(call, weight, per_sample_weights, rows)]


# -- others ---------------------------------------------------------------------------------------


@aten_rule("diag_embed", kind="structure", equation="eq. 13")
def diag_embed(
    call: Call, input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> Result:
    """Diagonals of matrices, which are zero elsewhere."""
    first, second = (behind_rows(d, input.dim() + 1) for d in (dim1, dim2))
    return call.plain(), Affine(lambda h: torch.diag_embed(h, offset, first, second), (input,))


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
def grid_sample(call: Call, input: Tensor, grid: Tensor, **options: Any) -> Result:
    """Sampling; the parts ride as channels. Locations that depend on the inputs (deformable
    attention) are constants of the operating point."""
    total = call.plain()
    if call.carries(grid):
        call.hold("sampling locations")
    if not call.carries(input):
        return total, constant(total)
    function, where, count = call.function, call.kept(grid), total.shape[1]

    def run(h: Tensor) -> Tensor:
        channels = h.transpose(0, 1).flatten(1, 2)  # (B, rows * C, ...)
        found = function(channels, where, **options)
        return found.unflatten(1, (len(h), count)).transpose(0, 1)

    return total, Affine(run, (input,))
