"""What a rule says: the affine map that an operation is at the operating point.

Everything else is made from these maps here and in :mod:`.linearised`: the parts of a clean
sample and of what rides along, where constants go, what another sample's features give, the bias
alone, and the network that is linear in part only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lmd_cli.decomposition.bias_splitting import bias_shares
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.memory import Rows, expanded, inserted
from lmd_cli.decomposition.variant import Variant

#: Whose constants are shared out by the ``uniform`` rules: BatchNorm's, or the other norms'.
Origin = Literal["batch_norm", "norm"]
#: A stack of parts ``(len(rows), *shape)`` and their rows.
Stack: TypeAlias = tuple[Tensor, Rows]


@dataclass(frozen=True, eq=False)
class Affine:
    """``run(parts) + constant``.

    Attributes:
        run: takes a stack ``(rows, *shape)`` of each operand to one of the result, linearly and row
            by row; ``None`` where the result is nothing but the constant.
        operands: the arguments whose parts ``run`` takes, in order.
        constant: what is added once, broadcastable to the result.
        origin: for a norm's constant (eq. 10), whose it is; ``uniform`` variants share it out.
        splits: the variant may hand the operand's bias part out first (Appendix C).
        shares: which part of the bias each modality gets, ``(M, *shape)``.
        channels: ``run`` for a stack of some of the channels, from one on.
        starts: of a concatenation along channels, the first one of each operand.
        factor: where ``run`` multiplies by this (with ``centred`` after taking off the mean).
    """

    run: Callable[..., Tensor] | None
    operands: tuple[Tensor, ...] = ()
    constant: Tensor | None = None
    origin: Origin | None = None
    splits: bool = False
    shares: Tensor | None = None
    channels: Callable[[Tensor, int], Tensor] | None = None
    starts: tuple[int, ...] = ()
    factor: Tensor | None = None
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Bilinear:
    """A product of two factors that carry parts (appendix D.2).

    Attributes:
        product: takes stacks of both factors, of equally many rows or of one, to the products of
            their rows.
        operands: the factors.
    """

    product: Callable[[Tensor, Tensor], Tensor]
    operands: tuple[Tensor, Tensor]


Map: TypeAlias = Affine | Bilinear


def linear(run: Callable[..., Tensor], *operands: Tensor) -> Affine:
    """A linear map of some arguments, of the only one that carries parts if none is named."""
    return Affine(run, operands)


def slope(
    factor: Tensor, *operands: Tensor, remainder: Tensor | None = None, splits: bool = True
) -> Affine:
    """Eq. 9: every part times the slope at the total; what it misses of the output is bias."""
    return Affine(lambda h: h * factor, operands, remainder, splits=splits, factor=factor)


def constant(total: Tensor) -> Affine:
    """A result that is bias and nothing else."""
    return Affine(None, (), total)


def same(h: Tensor) -> Tensor:
    """The identity: the map of what was made of other operations."""
    return h


def each(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of tensors applied to the rows of stacks one by one."""
    return lambda *stacks: torch.stack([function(*row) for row in zip(*stacks, strict=True)])


# -- the parts of a sample ------------------------------------------------------------------------


def affine_parts(
    linear_map: Affine, stacks: Sequence[Stack], total: Tensor, layout: Layout, variant: Variant
) -> Stack:
    """Eq. 13: every part through the map, the constant to whom the variant gives it.

    Args:
        linear_map: with shares, where the bias is handed out.
        stacks: of its operands.
        total: the result, for its shape and type.
    """
    rows = stacks[0][1] if len(stacks) == 1 else _rows_of(stacks)
    if linear_map.run is None or not rows:
        parts, rows = total.new_empty((0, *total.shape)), ()
    elif linear_map.shares is not None:
        parts, rows = _handed_out(stacks[0], linear_map.shares, layout)
        parts = linear_map.run(parts)
    else:
        parts = linear_map.run(*(expanded(stack, own, rows) for stack, own in stacks))
    if parts.shape[1:] != total.shape or parts.dtype != total.dtype:
        parts = _like_total(parts, total)
    if linear_map.constant is None:
        return parts, rows
    return _with_constant(linear_map, parts, rows, total, layout, variant)


def _like_total(parts: Tensor, total: Tensor) -> Tensor:
    """A stack in the total's type and, where it can be broadcast, shape."""
    parts, shape = parts.to(total.dtype), parts.shape[1:]
    fits = len(shape) == total.dim() and all(
        n in (1, m) for n, m in zip(shape, total.shape, strict=True)
    )
    return parts.expand(-1, *total.shape) if fits else parts


def _rows_of(stacks: Sequence[Stack]) -> Rows:
    """The rows of any of them."""
    return tuple(sorted({row for _, own in stacks for row in own}))


def _with_constant(
    linear_map: Affine, parts: Tensor, rows: Rows, total: Tensor, layout: Layout, variant: Variant
) -> Stack:
    value = linear_map.constant
    assert value is not None
    if shared_out(linear_map.origin, variant):
        wide = layout.all_with(rows)
        parts = expanded(parts, rows, wide)
        return _added(parts, slice(0, layout.bias + 1), layout.uniform_share * value), wide
    if layout.bias in rows:
        at = rows.index(layout.bias)
        return _added(parts, slice(at, at + 1), value), rows
    return inserted(parts, rows, layout.bias, value.to(total.dtype).expand(total.shape))


def _added(parts: Tensor, where: slice, value: Tensor) -> Tensor:
    """The stack with a value added to some rows, in memory of its own."""
    parts = parts.clone()
    parts[where] += value
    return parts


def shared_out(origin: Origin | None, variant: Variant) -> bool:
    """Whether a norm's constant goes to all in equal shares."""
    if origin is None:
        return False
    return (variant.batch_norm if origin == "batch_norm" else variant.norm) == "uniform"


def with_shares(linear_map: Affine, stack: Stack, layout: Layout, variant: Variant) -> Affine:
    """The map with Appendix C's shares for the clean parts of its operand, if any."""
    parts, rows = stack
    if not linear_map.splits or variant.activation not in ("sum", "ratio"):
        return linear_map
    if layout.bias not in rows:
        return linear_map
    count = len(layout.modalities)
    wide = expanded(parts, rows, layout.all_with(rows))
    shares = bias_shares(variant.activation, wide[:count], wide[layout.bias])
    return replace(linear_map, shares=shares)


def _handed_out(stack: Stack, shares: Tensor, layout: Layout) -> Stack:
    """Appendix C: parts with their share of the bias; an extra takes its modality's."""
    parts, rows = stack
    wide = layout.all_with(rows)
    parts = expanded(parts, rows, wide)
    bias = parts[layout.bias]
    owners = torch.stack([shares[owner] for owner in layout.owners])
    given = [parts[: layout.bias] + owners * bias, (bias * (1.0 - shares.sum(0))).unsqueeze(0)]
    return torch.cat([*given, parts[layout.bias + 1 :]]), wide


def bilinear_parts(
    product_map: Bilinear, a: Stack, b: Stack, total: Tensor, layout: Layout
) -> Stack:
    """Appendix D.2: for a modality's part e, A_e B_e + A_e B_b + A_b B_e with the bias parts b;
    the bias is A_b B_b, and the interaction what the total has beyond these."""
    product = product_map.product
    for (factor, own), (other, rows), first in ((a, b, True), (b, a, False)):
        if own == (layout.bias,) and rows:  # linear in the other factor
            made = product(factor, other) if first else product(other, factor)
            return made.to(total.dtype), rows
    found = _own_terms(product, a, b, layout)
    if _interact(a[1], b[1], layout):
        clean = [v for row, v in found.items() if row in layout.clean]
        found[layout.interaction] = total - sum(clean, torch.zeros_like(total))
    if not found:  # rows that never meet
        found[layout.bias] = torch.zeros_like(total)
    rows = tuple(sorted(found))
    return torch.stack([found[row].to(total.dtype).expand(total.shape) for row in rows]), rows


def _own_terms(
    product: Callable[[Tensor, Tensor], Tensor], a: Stack, b: Stack, layout: Layout
) -> dict[int, Tensor]:
    """The modalities' rows and the bias."""
    rows = tuple(sorted({row for row in (*a[1], *b[1]) if row < layout.bias}))
    found: dict[int, Tensor] = {}
    own = [_some(stack, rows) for stack in (a, b)]
    bias = [_one(stack, layout.bias) for stack in (a, b)]
    if rows:
        made = own_terms(product, own[0], own[1], bias[0], bias[1])
        found = dict(zip(rows, made, strict=True)) if made is not None else {}
    if bias[0] is not None and bias[1] is not None:
        found[layout.bias] = product(bias[0], bias[1])[0]
    return found


def own_terms(
    product: Callable[[Tensor, Tensor], Tensor],
    a: Tensor | None,
    b: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
) -> Tensor | None:
    """A_e (B_e + B_b) + A_b B_e for stacks; an absent factor (``None``) is zero."""
    partner = _sum(b, bias_b)
    left = None if a is None or partner is None else product(a, partner)
    right = None if bias_a is None or b is None else product(bias_a, b)
    return _sum(left, right)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _some(stack: Stack, rows: Rows) -> Tensor | None:
    """The rows below the bias, spread out to ``rows``."""
    parts, own = stack
    kept = [i for i, row in enumerate(own) if row in rows]
    if not kept:
        return None
    return expanded(parts[: len(kept)], own[: len(kept)], rows)


def _one(stack: Stack, row: int) -> Tensor | None:
    parts, rows = stack
    return parts[rows.index(row)].unsqueeze(0) if row in rows else None


def _interact(a: Rows, b: Rows, layout: Layout) -> bool:
    """Whether different modalities meet, or an interaction meets anything."""
    count = len(layout.modalities)
    left, right = ([row for row in rows if row < count] for rows in (a, b))
    if any(m != n for m in left for n in right):
        return True
    return (layout.interaction in a and bool(b)) or (layout.interaction in b and bool(a))
