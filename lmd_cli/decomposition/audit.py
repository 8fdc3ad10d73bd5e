"""Conservation at every operation: total = sum of parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmd_cli.decomposition.layout import BIAS, INTERACTION, Layout
from lmd_cli.decomposition.tensor import DecomposedTensor, take_rows


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


#: Largest difference, relative to the summed |parts|, that is rounding.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}
HALF_ROUNDING = 0.1


def rounding(total: Tensor) -> float:
    """The tolerance of a tensor's type."""
    return ROUNDING.get(total.dtype.to_real(), HALF_ROUNDING)


def is_broken(total: Tensor, parts: Tensor, tolerance: float) -> bool:
    """Whether total and parts differ by more than rounding (or are not numbers).

    Args:
        total: any shape.
        parts: ``(P, *total.shape)``, the clean parts and the bias.
        tolerance: of the coarsest type that the run went through.
    """
    return not parts_residual(total, parts) <= tolerance


def residual(total: Tensor, parts: Tensor) -> float:
    """max |total - sum of parts| / max |total| (absolute where the total is zero).

    Infinite elements (masked logits) count where the parts' sum is not the same infinity.

    Args:
        total: any shape.
        parts: ``(P, *total.shape)``, the clean parts and the bias.
    """
    return float(residual_tensor(total, parts))


def residual_tensor(total: Tensor, parts: Tensor) -> Tensor:
    """:func:`residual` as a tensor, which a GPU need not wait for."""
    return _relative(total, parts, total)


def parts_residual(total: Tensor, parts: Tensor) -> float:
    """max |total - sum of parts| / max sum of |parts| (absolute where the parts are zero)."""
    return float(_relative(total, parts, parts.abs().sum(0)))


def _relative(total: Tensor, parts: Tensor, measure: Tensor) -> Tensor:
    if total.numel() == 0:
        return torch.zeros(())
    found, finite = parts.sum(0), torch.isfinite(measure)
    difference = torch.where(total == found, 0.0, (total - found).abs()).max()
    scale = torch.where(finite, measure, 0.0).abs().max()
    return torch.where(scale > 0, difference / scale, difference)


def part_shares(x: DecomposedTensor, layout: Layout) -> dict[str, float]:
    """L2 norm of each clean part over the sum of the norms (zeros if all parts are zero).

    ``interaction`` is listed only behind a product of different modalities.
    """
    names = (*layout.modalities, BIAS, INTERACTION)
    present = {row: x.parts[i] for i, row in enumerate(x.rows)}
    norms = [
        float(torch.linalg.vector_norm(present[row].double())) if row in present else 0.0
        for row in layout.clean
    ]
    scale = sum(norms) or 1.0
    shares = {name: norm / scale for name, norm in zip(names, norms, strict=True)}
    if layout.interaction not in present:
        del shares[INTERACTION]  # nothing was multiplied so far
    return shares


def clean_stack(x: DecomposedTensor, layout: Layout) -> Tensor:
    """The present rows whose sum is the total, ``(P, *shape)``."""
    return take_rows(x.parts, [i for i, row in enumerate(x.rows) if row in layout.clean])
