"""The affine map that a rule gives for an operation at the operating point.

Everything else is made from these maps here and in :mod:`.linearised`: the parts of a clean
sample and of what rides along, where constants go, what another sample's features give, the bias
alone, and the network that is linear in part only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lmd_cli.decomposition.bias_splitting import ratio_shares, sum_shares
from lmd_cli.decomposition.coalition_slopes import Curve, coalition_slopes
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.memory import Rows, expanded, is_writable
from lmd_cli.decomposition.variant import Variant

#: Whose constants are shared out by the ``uniform`` rules: BatchNorm's, or the other norms'.
Origin = Literal["batch_norm", "norm"]
#: A stack of parts ``(len(rows), *shape)`` and their rows.
Stack: TypeAlias = tuple[Tensor, Rows]


@dataclass(eq=False, slots=True)  # freezing it takes five times as long, for every operation
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
        curve: an elementwise function, where the variant gives each modality a slope.
        slopes: these, the interaction's last, none where there is no part; ``constant`` is all of
            the bias.
        channels: ``run`` for a stack of some of the channels, from one on.
        starts: of a concatenation along channels, the first one of each operand.
        factor: where ``run`` multiplies by this (with ``centred`` after taking off the mean).
        secant: what the operation is between two values of its arguments, where it is not linear
            (for :mod:`.coalitions`).
        edges: between coalitions, by (m, S) from S to S with m; ``constant`` is all of the bias.
    """

    run: Callable[..., Tensor] | None
    operands: tuple[Tensor, ...] = ()
    constant: Tensor | None = None
    origin: Origin | None = None
    splits: bool = False
    shares: Tensor | None = None
    curve: Curve | None = None
    slopes: tuple[Tensor | None, ...] | None = None
    channels: Callable[[Tensor, int], Tensor] | None = None
    starts: tuple[int, ...] = ()
    factor: Tensor | None = None
    centred: bool = False
    secant: Secant | None = None
    edges: Mapping[tuple[int, int], Affine] | None = None

    def factor_alone(self, weight: float = 1.0) -> Tensor | None:
        """What every part is multiplied by, where ``run`` and ``weight`` times the constant are
        nothing else."""
        adds = self.centred or self.shares is not None or (self.constant is not None and weight)
        return None if adds else self.factor


@dataclass(frozen=True, eq=False)
class Secant:
    """An operation between any two values u, v of its arguments.

    Attributes:
        operands: these arguments.
        between: takes u and v of each to an affine map L with f(u) + L (v - u) = f(v).
    """

    operands: tuple[Tensor, ...]
    between: Callable[[Sequence[Tensor], Sequence[Tensor]], Affine]


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
    if linear_map.slopes is not None:
        return _with_own_slopes(linear_map, stacks[0], layout)
    rows = stacks[0][1] if len(stacks) == 1 else _union(*(own for _, own in stacks))
    if linear_map.run is None or not rows:
        parts, rows = total.new_empty((0, *total.shape)), ()
    elif linear_map.shares is not None:
        parts, rows = _handed_out(stacks[0], linear_map.shares, layout)
        parts = linear_map.run(parts)
    else:
        parts = linear_map.run(*[expanded(stack, own, rows) for stack, own in stacks])
    if parts.shape[1:] != total.shape or parts.dtype != total.dtype:
        parts = _like_total(parts, total)
    if linear_map.constant is None:
        return parts, rows
    own = [stack for stack, _ in stacks]
    return with_constant(linear_map, parts, rows, layout, variant, own)


def _like_total(parts: Tensor, total: Tensor) -> Tensor:
    """A stack in the total's type and, where it can be broadcast, shape."""
    parts, shape = parts.to(total.dtype), parts.shape[1:]
    fits = len(shape) == total.dim() and all(
        n in (1, m) for n, m in zip(shape, total.shape, strict=True)
    )
    return parts.expand(-1, *total.shape) if fits else parts


def with_constant(
    linear_map: Affine,
    parts: Tensor,
    rows: Rows,
    layout: Layout,
    variant: Variant,
    operands: Sequence[Tensor] = (),
) -> Stack:
    """The parts of a result with the map's constant: added in place, except to the operands' own
    memory."""
    uniform, value = shared_out(linear_map.origin, variant), linear_map.constant
    assert value is not None
    wide = rows if layout.bias in rows else _union(rows, (layout.bias,))
    if uniform:
        wide = layout.all_with(rows)
    if wide != rows:
        parts = expanded(parts, rows, wide)
    elif not _is_apart(parts, operands):
        parts = parts.clone()
    if uniform:
        parts[: layout.bias + 1].add_(layout.uniform_share * value)
    else:
        parts[wide.index(layout.bias)].add_(value)
    return parts, wide


def _union(*rows: Rows) -> Rows:
    """All rows of several stacks."""
    if len(set(rows)) == 1:  # the most
        return rows[0]
    return tuple(sorted({row for own in rows for row in own}))


def _is_apart(parts: Tensor, operands: Sequence[Tensor]) -> bool:
    """Whether a stack that was just made can be written to, and lies in memory of its own."""
    storage = parts.untyped_storage()
    return is_writable(parts) and all(t.untyped_storage() is not storage for t in operands)


def shared_out(origin: Origin | None, variant: Variant) -> bool:
    """Whether a norm's constant goes to all in equal shares."""
    if origin is None:
        return False
    return (variant.batch_norm if origin == "batch_norm" else variant.norm) == "uniform"


def with_slopes(
    linear_map: Affine, stack: Stack, total: Tensor, layout: Layout, rule: str
) -> Affine:
    """The map with a slope for each modality, made from the clean parts of its operand."""
    curve, (parts, rows), x = linear_map.curve, stack, linear_map.operands[0]
    assert curve is not None
    players = [row for row in layout.clean if row in rows and row != layout.bias]
    own = [parts[rows.index(row)] for row in players]
    bias = parts[rows.index(layout.bias)] if layout.bias in rows else torch.zeros_like(x)
    with torch.no_grad():
        made, rest = coalition_slopes(rule, curve, bias, own, x, total)
    slopes: list[Tensor | None] = [None] * (len(layout.modalities) + 1)
    for row, factor in zip(players, made, strict=True):
        slopes[min(row, len(layout.modalities))] = factor
    return replace(linear_map, slopes=tuple(slopes), constant=rest)


def _with_own_slopes(linear_map: Affine, stack: Stack, layout: Layout) -> Stack:
    """Every part times its modality's slope; the bias is the constant."""
    (parts, own), slopes, constant = stack, linear_map.slopes, linear_map.constant
    assert slopes is not None
    assert constant is not None
    owners, rows = (*layout.owners, -1, len(layout.modalities)), _union(own, (layout.bias,))
    made = parts.new_empty((len(rows), *constant.shape), dtype=constant.dtype)
    for i, row in enumerate(rows):
        factor = slopes[owners[row]]
        if row == layout.bias or factor is None:
            made[i] = constant if row == layout.bias else 0.0
        elif torch.is_grad_enabled():
            made[i] = parts[own.index(row)] * factor
        else:
            torch.mul(parts[own.index(row)], factor, out=made[i])
    return made, rows


def with_shares(linear_map: Affine, stack: Stack, layout: Layout, variant: Variant) -> Affine:
    """The map with Appendix C's shares for the clean parts of its operand, if it has a bias."""
    parts, rows = stack
    if layout.bias not in rows:
        return linear_map
    wide = expanded(parts, rows, layout.all_with(rows))
    split = sum_shares if variant.activation == "sum" else ratio_shares
    shares = split(wide[: len(layout.modalities)], wide[layout.bias])
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
    for own, other in ((a[1], b[1]), (b[1], a[1])):
        if own == (layout.bias,) and other:  # linear in the other factor
            return product(a[0], b[0]).to(total.dtype), other
    rows = tuple(row for row in _union(a[1], b[1]) if row < layout.bias)
    (own_a, bias_a), (own_b, bias_b) = (_divided(stack, rows, layout) for stack in (a, b))
    made = own_terms(product, own_a, own_b, bias_a, bias_b)
    parts = {} if made is None else dict(zip(rows, made, strict=True))
    if bias_a is not None and bias_b is not None:
        parts[layout.bias] = product(bias_a, bias_b)[0]
    if _interact(a[1], b[1], layout):
        clean = [part for row, part in parts.items() if row in layout.clean]
        parts[layout.interaction] = total - sum(clean, torch.zeros_like(total))
    if not parts:  # rows that never meet
        parts[layout.bias] = torch.zeros_like(total)
    rows = tuple(sorted(parts))
    return torch.stack([parts[row].to(total.dtype).expand(total.shape) for row in rows]), rows


def _divided(stack: Stack, rows: Rows, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """The modalities' rows, spread out to ``rows``, and the bias; ``None`` where absent."""
    parts, own = stack
    count = sum(row < layout.bias for row in own)
    bias = parts[count : count + 1] if layout.bias in own else None
    return expanded(parts[:count], own[:count], rows) if count else None, bias


def own_terms(
    product: Callable[[Tensor, Tensor], Tensor],
    a: Tensor | None,
    b: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
) -> Tensor | None:
    """A_e (B_e + B_b) + A_b B_e for stacks; an absent factor (``None``) is zero."""
    partner = summed(b, bias_b)
    left = None if a is None or partner is None else product(a, partner)
    right = None if bias_a is None or b is None else product(bias_a, b)
    return summed(left, right)


def summed(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b, where ``None`` is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _interact(a: Rows, b: Rows, layout: Layout) -> bool:
    """Whether different modalities meet, or an interaction meets anything."""
    count = len(layout.modalities)
    left, right = ([row for row in rows if row < count] for rows in (a, b))
    if any(m != n for m in left for n in right):
        return True
    return (layout.interaction in a and bool(b)) or (layout.interaction in b and bool(a))
