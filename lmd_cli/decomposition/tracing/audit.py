"""Conservation at every operation: total = sum of parts.

A total has any shape; its parts ``(P, *total.shape)`` are the clean parts and the bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lmd_cli.decomposition.layout import BIAS, INTERACTION, Layout


@dataclass(frozen=True)
class OperationRecord:
    """What one operation did to the parts.

    Attributes:
        order: position in the run, from 0.
        module: qualified name of the module it ran in.
        operation: the torch function.
        kind: kind of its rule; ``equation``: where the rule comes from.
        total_norm: L2 norm of the total.
        residual: max |total - sum of parts| / max |total|.
        parts_residual: the same difference over max of the summed |parts|; the measure where parts
            are many times the total (the secant slope of softmax), since rounding is theirs.
        shares: for each part, its L2 norm over the sum of the parts' L2 norms.
    """

    order: int
    module: str
    operation: str
    kind: str
    equation: str
    total_norm: float
    residual: float
    parts_residual: float
    shares: dict[str, float]


#: Largest difference, relative to the summed |parts| at an element, that is rounding.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}
#: Rounding of sums inside an operation, in units of the type's precision and of the largest value.
_INSIDE = 64


def is_broken(
    total: Tensor, parts: Tensor, brought: float = 0.0, through: Iterable[torch.dtype] = ()
) -> bool:
    """Whether total and parts differ at any element by more than the operation's own rounding
    (where the total is NaN, they cannot be compared).

    Args:
        total, parts: of its result.
        brought: the largest :func:`parts_residual_tensor` of what it was given.
        through: other types that it was rounded to.
    """
    if total.numel() == 0:
        return False
    magnitude = parts.abs().sum(0)
    finite = torch.isfinite(magnitude)
    most = float(torch.where(finite, magnitude, 0.0).max())
    precision = coarsest([total.dtype, *through])
    inside = _INSIDE * torch.finfo(precision).eps * most
    allowed = ROUNDING.get(precision, 0.1) * magnitude + inside + 16.0 * brought * most
    return not bool(((_difference(total, parts) <= allowed) | total.isnan()).all())


def coarsest(types: Iterable[torch.dtype]) -> torch.dtype:
    """The real type of the least precision; a complex one has that of its parts."""
    continuous = (t for t in types if t.is_floating_point or t.is_complex)
    return max((t.to_real() for t in continuous), key=lambda t: torch.finfo(t).eps)


def residual_tensor(total: Tensor, parts: Tensor) -> Tensor:
    """max |total - sum of parts| / max |total| (absolute where the total is zero; NaN if either
    holds NaN), as a tensor, which a GPU need not wait for.

    Infinite elements (masked logits) count where the parts' sum is not the same infinity.
    """
    return _relative(total, parts, total)


def parts_residual_tensor(total: Tensor, parts: Tensor) -> Tensor:
    """max |total - sum of parts| / max sum of |parts| (absolute where the parts are zero)."""
    return _relative(total, parts, parts.abs().sum(0))


def brought_along(total: Tensor, parts: Tensor) -> float:
    """:func:`parts_residual_tensor` without the elements whose total is NaN, which the network may
    replace (``nan_to_num`` behind a softmax of masked rows)."""
    nan = total.isnan()
    return float(parts_residual_tensor(total.masked_fill(nan, 0.0), parts.masked_fill(nan, 0.0)))


def _difference(total: Tensor, parts: Tensor) -> Tensor:
    summed = parts.sum(0)
    return torch.where(total == summed, 0.0, (total - summed).abs())


def _relative(total: Tensor, parts: Tensor, measure: Tensor) -> Tensor:
    if total.numel() == 0:
        return torch.zeros(())
    difference, finite = _difference(total, parts).max(), torch.isfinite(measure)
    scale = torch.where(finite, measure, 0.0).abs().max()
    return torch.where(scale > 0, difference / scale, difference)


def part_shares(stack: Tensor, rows: tuple[int, ...], layout: Layout) -> dict[str, float]:
    """L2 norm of each clean part over the sum of the norms (zeros if all parts are zero).

    ``interaction`` is listed only behind a product of different modalities.
    """
    names = (*layout.modalities, BIAS, INTERACTION)
    present = dict(zip(rows, stack, strict=True))
    norms = [norm(present[row]) if row in present else 0.0 for row in layout.clean]
    scale = sum(norms) or 1.0
    shares = {name: size / scale for name, size in zip(names, norms, strict=True)}
    if layout.interaction not in present:
        del shares[INTERACTION]  # nothing was multiplied so far
    return shares


def norm(x: Tensor) -> float:
    """L2, in double precision."""
    return float(torch.linalg.vector_norm(x.to(torch.complex128) if x.is_complex() else x.double()))


def clean_stack(stack: Tensor, rows: tuple[int, ...], layout: Layout) -> Tensor:
    """The present rows whose sum is the total, ``(P, *shape)``."""
    at = [i for i, row in enumerate(rows) if row in layout.clean]
    if at == list(range(len(rows))):
        return stack
    return torch.stack([stack[i] for i in at]) if at else stack[:0]
