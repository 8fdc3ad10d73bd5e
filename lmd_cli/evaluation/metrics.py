"""Pearson correlation and mean squared error of maps (Appendix D.4), and shares of parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lmd_cli.decomposition.layout import BIAS

#: A bias share above this is pointed out: a third of the magnitudes belongs to no sensor.
LARGE_BIAS = 1 / 3


def bias_share(parts: Mapping[str, float]) -> float | None:
    """|bias| / sum of |part| over all parts, the bias among them; ``None`` where all are zero."""
    total = sum(map(abs, parts.values()))
    return abs(parts[BIAS]) / total if total else None


def evidence_shares(logits: Sequence[float]) -> list[float] | None:
    """Positive values over their sum; ``None`` if there are none."""
    positive = [max(value, 0.0) for value in logits]
    total = math.fsum(positive)
    return [value / total for value in positive] if total > 0 else None


def pcc(a: Tensor, b: Tensor) -> float:
    """Pearson correlation coefficient, eq. 16.

    Args:
        a, b: maps of the same shape.

    Returns:
        A value in [-1, 1]; NaN where a map is constant (the coefficient does not exist).
    """
    return float(pcc_rows(a[None], b))


def pcc_rows(a: Tensor, b: Tensor) -> Tensor:
    """:func:`pcc` of n maps ``(n, *shape)`` with one of ``shape``: ``(n,)``, which stays where the
    maps are."""
    x, y = a.double().flatten(1), b.double().reshape(1, -1)
    if y.numel() == 0:
        return x.new_full((len(x),), math.nan)
    constant = (x.amin(1) == x.amax(1)) | (y.min() == y.max())
    x, y = x - x.mean(1, keepdim=True), y - y.mean()
    # Norms first: a product of tiny variances would underflow.
    x, y = (z / torch.linalg.vector_norm(z, dim=1, keepdim=True) for z in (x, y))
    return (x * y).sum(1).clamp(-1.0, 1.0).masked_fill(constant, math.nan)


def mse(a: Tensor, b: Tensor) -> float:
    """Mean squared error over all cells, eq. 17."""
    return float(mse_rows(a[None], b))


def mse_rows(a: Tensor, b: Tensor) -> Tensor:
    """:func:`mse` of n maps ``(n, *shape)`` with one of ``shape``: ``(n,)``."""
    return (a.double() - b.double()).flatten(1).square().mean(1)


def vehicle_counts(logits: Tensor, truth: Tensor, valid: Tensor) -> tuple[int, int]:
    """Intersection and union of predicted and true vehicle cells.

    Args:
        logits, truth, valid: maps of the same shape; a cell is predicted at probability > 0.5 and
            counts where ``valid`` is set.

    Returns:
        Numbers of cells (intersection, union).
    """
    seen = valid > 0.5
    predicted, actual = (logits > 0) & seen, (truth > 0.5) & seen
    return int((predicted & actual).sum()), int((predicted | actual).sum())
