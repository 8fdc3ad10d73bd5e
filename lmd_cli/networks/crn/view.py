"""The radar-assisted view transform: image features lifted by depth and by radar occupancy, and
all columns of all views averaged into the cells of the bird's-eye view."""

from __future__ import annotations

import torch
from torch import Tensor


def lift_by_depth(context: Tensor, depth: Tensor, mask: Tensor) -> Tensor:
    """Sum over image rows of context x depth probability: camera with camera.

    Args:
        context: (V, C, h, w). depth: (V, D, h, w) probabilities. mask: (V, D, h, w) of 0 and 1.

    Returns:
        (V, C, w, D).
    """
    weights = (depth * mask).permute(0, 3, 2, 1)  # (V, w, h, D)
    lifted = context.permute(0, 3, 1, 2) @ weights  # (V, w, C, D)
    return lifted.transpose(1, 2)


def lift_by_radar(context: Tensor, occupancy: Tensor, mask: Tensor) -> Tensor:
    """Occupancy x context summed over image rows: where camera and radar first meet.

    Args:
        context: (V, C, h, w). occupancy: (V, 1, D, w). mask: (V, D, h, w).

    Returns:
        (V, C, w, D).
    """
    seen = mask.amax(dim=1, keepdim=True)  # (V, 1, h, w)
    collapsed = (context * seen).sum(dim=2)  # (V, C, w)
    return occupancy.transpose(2, 3) * collapsed.unsqueeze(-1)


def pool(columns: Tensor, cells: Tensor, count: int) -> Tensor:
    """Average of the columns that lie in each cell; zero where none does.

    Args:
        columns: (N, n, C). cells: (N, n), ``count`` for a column outside the map.
        count: number of cells.

    Returns:
        (N, count, C).
    """
    batch = columns.shape[0]
    start = torch.arange(batch, device=cells.device)[:, None] * (count + 1)
    index = (cells + start).flatten()  # (N * n,)
    sums = columns.new_zeros(batch * (count + 1), columns.shape[-1])
    sums = sums.index_add(0, index, columns.flatten(0, 1))
    sums = sums.unflatten(0, (batch, count + 1))[:, :count]
    hits = torch.bincount(index, minlength=batch * (count + 1))
    hits = hits.reshape(batch, count + 1)[:, :count].clamp(min=1)
    return sums / hits.unsqueeze(-1).to(columns.dtype)
