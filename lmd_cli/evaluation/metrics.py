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
    return float(pcc_tensor(a, b))


def pcc_tensor(a: Tensor, b: Tensor) -> Tensor:
    """:func:`pcc` as a tensor ``()``, which a GPU need not wait for."""
    x, y = a.double().flatten(), b.double().flatten()
    if x.numel() == 0:
        return x.new_tensor(math.nan)
    constant = (x.min() == x.max()) | (y.min() == y.max())
    x, y = x - x.mean(), y - y.mean()
    # Norms first: a product of tiny variances would underflow.
    value = torch.dot(x / torch.linalg.vector_norm(x), y / torch.linalg.vector_norm(y))
    return value.clamp(-1.0, 1.0).masked_fill(constant, math.nan)


def mse(a: Tensor, b: Tensor) -> float:
    """Mean squared error over all cells, eq. 17."""
    return float(mse_tensor(a, b))


def mse_tensor(a: Tensor, b: Tensor) -> Tensor:
    """:func:`mse` as a tensor ``()``."""
    return (a.double() - b.double()).square().mean()


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
