"""Convolution, linear layers, interpolation, average pooling, padding.

Each part goes through the operation without its bias; the bias goes to the bias part (eq. 3 with
the reference point at zero, and every later linear layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenConstant
from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.rules.bilinear import bilinear_rule
from lmd_cli.decomposition.rules.common import (
    add_to_bias,
    insert_row,
    only_decomposed,
    per_part,
    replacing,
    require_plain,
    two_factors,
)
from lmd_cli.decomposition.rules.composite import composite
from lmd_cli.decomposition.rules.contraction import several_factors
from lmd_cli.decomposition.tensor import DecomposedTensor, Piece, take_rows

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_SPATIAL = {
    torch.conv1d: 1,
    torch.conv2d: 2,
    torch.conv3d: 3,
    torch.conv_transpose1d: 1,
    torch.conv_transpose2d: 2,
    torch.conv_transpose3d: 3,
}


def as_batch(x: DecomposedTensor, spatial: int) -> Tensor:
    """Parts as one batch ``(rows * B, C, ...)``, or ``(rows, C, ...)`` of an unbatched input."""
    batched = x.total.dim() == spatial + 2
    return x.parts.flatten(0, 1) if batched else x.parts


def with_bias(
    session: Session, total: Tensor, parts: Tensor, rows: tuple[int, ...], bias: Tensor | None
) -> DecomposedTensor:
    """Joins, after adding an operation's own bias (broadcastable to total) to the bias part."""
    if bias is None:
        return session.make(total, parts, rows)
    layout = session.layout
    if layout.bias not in rows:
        row = bias.to(parts.dtype).expand_as(total)
        return session.make(total, *insert_row(parts, rows, layout.bias, row))
    add_to_bias(parts, rows, layout, bias)
    return session.make(total, parts, rows)


@register_rule(*_SPATIAL, kind="linear", equation="eq. 3, 13")
def convolution(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Convolution, also transposed: the parts are one batch."""
    require_plain(session, func, weight=weight, bias=bias)
    spatial = _SPATIAL[func]
    total = func(input.total, weight, bias, *args, **kwargs)
    if _by_pieces(func, input, args, kwargs) and input.total.dim() == spatial + 2:
        parts = _convolve_pieces(func, input, weight, args, kwargs)
    else:
        parts = func(as_batch(input, spatial), weight, None, *args, **kwargs)
    parts = parts.reshape(len(input.rows), *total.shape)
    column = None if bias is None else bias.reshape(-1, *(1,) * spatial)
    return with_bias(session, total, parts, input.rows, column)


def _by_pieces(func: Any, x: DecomposedTensor, args: Any, kwargs: Any) -> bool:
    """Whether parts that fill some channels only can meet just those channels' weights."""
    ungrouped = kwargs.get("groups", args[3] if len(args) > 3 else 1) == 1
    return bool(x.pieces) and ungrouped and func in (torch.conv1d, torch.conv2d, torch.conv3d)


def _convolve_pieces(
    func: Any, x: DecomposedTensor, weight: Tensor, args: Any, kwargs: Any
) -> Tensor:
    def run(piece: Piece) -> Tensor:
        kernel = weight[:, piece.start : piece.start + piece.size]
        out = func(piece.parts.flatten(0, 1), kernel, None, *args, **kwargs)
        return out.unflatten(0, piece.parts.shape[:2])

    rows = [row for piece in x.pieces for row in piece.rows]
    stacks = torch.cat([run(piece) for piece in x.pieces])
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return take_rows(stacks, order)


@register_rule(F.linear, kind="linear", equation="eq. 3, 13")
def linear(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Any:
    """Fully connected layer over the last dimension."""
    require_plain(session, func, input=None, weight=weight, bias=bias)
    total = func(input.total, weight, bias)
    return with_bias(session, total, func(input.parts, weight), input.rows, bias)


_POOLS = {
    F.avg_pool1d: 1,
    F.avg_pool2d: 2,
    F.avg_pool3d: 3,
    F.adaptive_avg_pool1d: 1,
    F.adaptive_avg_pool2d: 2,
    F.adaptive_avg_pool3d: 3,
}


@register_rule(*_POOLS, kind="linear", equation="eq. 13")
def average_pool(
    session: Session, func: Any, input: DecomposedTensor, *args: Any, **kwargs: Any
) -> Any:
    """Average pooling, fixed or adaptive."""
    total = func(input.total, *args, **kwargs)
    parts = func(as_batch(input, _POOLS[func]), *args, **kwargs)
    return session.make(total, parts.reshape(len(input.rows), *total.shape), input.rows)


@register_rule(F.interpolate, F.upsample, kind="linear", equation="eq. 13")
def interpolate(
    session: Session, func: Any, input: DecomposedTensor, *args: Any, **kwargs: Any
) -> Any:
    """Resampling on a fixed grid (nearest, bilinear, bicubic, area, ...)."""
    total = func(input.total, *args, **kwargs)
    parts = func(input.parts.flatten(0, 1), *args, **kwargs)
    return session.make(total, parts.reshape(len(input.rows), *total.shape), input.rows)


@register_rule(*aliases("pad"), kind="linear", equation="eq. 13")
def pad(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Any:
    """Padding; a constant other than zero is bias."""
    total = func(input.total, pad, mode, value)
    if mode == "constant":
        parts = func(input.parts, pad, mode, 0.0)
    else:
        parts = func(input.parts.flatten(0, 1), pad, mode).reshape(len(input.rows), *total.shape)
    frame = func(torch.zeros_like(input.total), pad, mode, value) if value else None
    return with_bias(session, total, parts, input.rows, frame)


@register_rule(F.grid_sample, kind="linear", equation="eq. 13")
def grid_sample(
    session: Session, func: Any, input: Any, grid: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Sampling; the parts ride as channels. Locations that depend on the inputs (deformable
    attention) are constants of the operating point."""
    if isinstance(grid, DecomposedTensor):
        grid = grid.total
        session.freeze(FrozenConstant.of(grid))
        session.hold_constant(func, "sampling locations")
    if not isinstance(input, DecomposedTensor):
        total = func(input, grid, *args, **kwargs)
        return session.make(total, total.clone().unsqueeze(0), (session.layout.bias,))
    total = func(input.total, grid, *args, **kwargs)
    channels = input.parts.transpose(0, 1).flatten(1, 2)  # (B, rows * C, ...)
    sampled = func(channels, grid, *args, **kwargs).unflatten(1, (len(input.rows), total.shape[1]))
    return session.make(total, sampled.transpose(0, 1), input.rows)


@register_rule(
    *aliases("matmul", "mm", "bmm", "mv", "dot", "inner", "outer", "tensordot", "kron"),
    *aliases("ger", "cross", "vecdot", "vdot"),
    torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__,
    kind="product",
    equation="eq. 13",
)
def matrix_product(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """A matrix product, part by part; of two decomposed factors see :mod:`.bilinear`."""
    slots = two_factors(args)
    if slots:
        product = replacing(func, args, slots, kwargs)
        total = product(args[slots[0]].total, args[slots[1]].total)
        return bilinear_rule(session, total, args[slots[0]], args[slots[1]], product)
    x, run = only_decomposed(session, func, args, kwargs)
    return per_part(session, x, run)


@register_rule(torch.einsum, kind="product", equation="eq. 13")
def einsum(session: Session, func: Any, equation: Any, *operands: Any) -> Any:
    """Einstein summation with one or two decomposed operands; more are taken pair by pair."""
    if several_factors((equation, *operands), {}):
        return composite(session, func, equation, *operands)
    flat = (
        operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    )
    slots = two_factors((equation, *flat))
    if slots:
        a, b = flat[slots[0] - 1], flat[slots[1] - 1]
        product = replacing(func, (equation, *flat), slots, {})
        return bilinear_rule(session, product(a.total, b.total), a, b, product)
    x, run = only_decomposed(session, func, (equation, *flat), {})
    return per_part(session, x, run)
