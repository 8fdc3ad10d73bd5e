"""Grid sampling out of operations that torch can differentiate forwards (its own kernel cannot)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WrittenOutSampling(TorchFunctionMode):
    """Runs ``grid_sample`` as :func:`bilinear_sample` where it is that (2-d, zeros outside)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.grid_sample and _is_bilinear(*args, **kwargs):
            return bilinear_sample(*args, **kwargs)
        return func(*args, **kwargs)


def _is_bilinear(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> bool:
    return input.dim() == 4 and mode == "bilinear" and padding_mode == "zeros"


def bilinear_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """What ``torch.nn.functional.grid_sample`` gives, to rounding.

    Args:
        input: (N, C, H, W).
        grid: (N, h, w, 2), x and y from -1 to 1.
        mode, padding_mode: only bilinear and zeros.
        align_corners: whether -1 and 1 are the centres of the border's pixels, or its edges.

    Returns:
        (N, C, h, w).
    """
    height, width = input.shape[-2:]
    x = _pixel(grid[..., 0], width, bool(align_corners))  # (N, h, w)
    y = _pixel(grid[..., 1], height, bool(align_corners))
    flat = input.flatten(2)  # (N, C, H * W)
    corners = (
        _picked(flat, height, width, row, column) * (wy * wx).unsqueeze(1)
        for (row, wy), (column, wx) in product(_neighbours(y), _neighbours(x))
    )
    return torch.stack(list(corners)).sum(0)


def _pixel(place: Tensor, size: int, align_corners: bool) -> Tensor:
    return (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2


def _neighbours(place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The two pixels beside a place, each with its weight."""
    below = place.detach().floor()
    yield below.long(), below + 1 - place
    yield below.long() + 1, place - below


def _picked(flat: Tensor, height: int, width: int, row: Tensor, column: Tensor) -> Tensor:
    """Pixels (N, C, h, w), zero outside."""
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)  # (N, h, w)
    index = at.flatten(1).unsqueeze(1).expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).unflatten(2, at.shape[1:]) * inside.unsqueeze(1)
