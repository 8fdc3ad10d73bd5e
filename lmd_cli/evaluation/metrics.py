"""Pearson correlation and mean squared error between prediction maps (Appendix D.4), float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pcc(a: Tensor, b: Tensor) -> float:
    """Pearson correlation coefficient, eq. 16.

    Args:
        a, b: maps of the same shape.

    Returns:
        A value in [-1, 1]; NaN where a map is constant (the coefficient does not exist).
    """
    x, y = a.double().flatten(), b.double().flatten()
    if x.numel() == 0 or x.min() == x.max() or y.min() == y.max():
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    # Norms first: a product of tiny variances would underflow.
    value = float(torch.dot(x / torch.linalg.vector_norm(x), y / torch.linalg.vector_norm(y)))
    return max(-1.0, min(1.0, value))


def mse(a: Tensor, b: Tensor) -> float:
    """Mean squared error over all cells, eq. 17."""
    return float((a.double() - b.double()).square().mean())


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
