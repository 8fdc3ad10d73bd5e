"""CRN's multi-modal fuser: each cell of the bird's-eye view samples both sensors' maps at
predicted places (Zhu et al., Deformable DETR, 2021), weighted by one softmax over both."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.config.sizes import CRNSizes

#: Sensors whose maps are sampled.
SENSORS = 2


class PositionCode(nn.Module):
    """A learnt vector for each cell: its column's, then its row's."""

    def __init__(self, cells: int, channels: int):
        super().__init__()
        self.row_embed = nn.Embedding(cells, channels // 2)
        self.col_embed = nn.Embedding(cells, channels // 2)

    def forward(self) -> Tensor:
        """(cells * cells, channels), index ``y * cells + x``."""
        columns, rows = self.col_embed.weight, self.row_embed.weight
        n = len(rows)
        both = [columns[None].expand(n, -1, -1), rows[:, None].expand(-1, n, -1)]
        return torch.cat(both, dim=-1).flatten(0, 1)


class DeformableAttention(nn.Module):
    """Samples of both maps around each cell, weighted and summed; no output projection."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        self.heads, self.points, self.cells = sizes.heads, sizes.points, sizes.cells
        samples = sizes.heads * SENSORS * sizes.points
        self.sampling_offsets = nn.Linear(sizes.embed, 2 * samples)
        self.attention_weights = nn.Linear(sizes.embed, samples)
        self.value_proj_img = nn.Linear(sizes.context, sizes.embed)
        self.value_proj_pts = nn.Linear(sizes.context, sizes.embed)

    def forward(self, query: Tensor, image: Tensor, radar: Tensor, reference: Tensor) -> Tensor:
        """Attend.

        Args:
            query: (N, Q, E), with the position code. image, radar: (N, Q, C) normalised maps.
            reference: (1, Q, 1, 1, 2) the cells' centres (x, y), in shares of the map.

        Returns:
            (N, Q, E).
        """
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1))
        weights = torch.softmax(weights, dim=-1)  # (N, Q, heads, sensors * points), jointly
        grid = self._places(query, reference)  # (N * heads, sensors * points, ny, nx, 2)
        weights = self._maps(weights)  # (N * heads, sensors * points, ny, nx)
        values = [self.value_proj_img(image), self.value_proj_pts(radar)]
        # One sample at a time: all of them together would be 8 times as large as their sum.
        terms = (
            weights[:, i * self.points + p, None]
            * F.grid_sample(heads, grid[:, i * self.points + p], align_corners=False)
            for i, value in enumerate(values)
            for heads in [self._maps(value.unflatten(-1, (self.heads, -1)))]
            for p in range(self.points)
        )
        mixed = reduce(add, terms)  # (N * heads, E / heads, ny, nx)
        mixed = mixed.unflatten(0, (-1, self.heads)).flatten(3)  # (N, heads, E / heads, Q)
        return mixed.flatten(1, 2).transpose(1, 2)

    def _places(self, query: Tensor, reference: Tensor) -> Tensor:
        """Sampling places as ``grid_sample`` wants them, -1 to 1 from border to border."""
        offsets = self.sampling_offsets(query)
        offsets = offsets.unflatten(-1, (self.heads, SENSORS * self.points, 2))
        places = 2 * (reference + offsets / self.cells) - 1  # (N, Q, heads, samples, 2)
        places = places.permute(0, 2, 3, 1, 4).flatten(0, 1)  # (N * heads, samples, Q, 2)
        return places.unflatten(2, (self.cells, self.cells))

    def _maps(self, x: Tensor) -> Tensor:
        """(N, Q, heads, channels) to maps (N * heads, channels, ny, nx)."""
        x = x.permute(0, 2, 3, 1).flatten(0, 1)
        return x.unflatten(2, (self.cells, self.cells))


class FeedForward(nn.Module):
    """Two linear layers and a residual; the nesting is that of the published names."""

    def __init__(self, channels: int):
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, 2 * channels), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(first, nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., E)`` to the same shape."""
        return x + self.layers(x)


class Fuser(nn.Module):
    """Image half and radar half of every frame's map to one fused map."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        self.cells, embed = sizes.cells, sizes.embed
        self.register_buffer("ref_2d", cell_centres(sizes.cells))
        self.norm_img = nn.LayerNorm(sizes.context)
        self.norm_pts = nn.LayerNorm(sizes.context)
        self.input_proj = nn.Linear(2 * sizes.context, embed)
        self.positional_encoding = PositionCode(sizes.cells, embed)
        count = range(sizes.layers)
        self.ffn_layers = nn.ModuleList(FeedForward(embed) for _ in count)
        self.norm_layers1 = nn.ModuleList(nn.LayerNorm(embed) for _ in count)
        self.norm_layers2 = nn.ModuleList(nn.LayerNorm(embed) for _ in count)
        self.attn_layers = nn.ModuleList(DeformableAttention(sizes) for _ in count)
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(sizes.key_frames * embed, embed, 3, padding=1, bias=False),
            nn.BatchNorm2d(embed),
            nn.ReLU(inplace=True),
        )

    ref_2d: Tensor

    def forward(self, image: Tensor, radar: Tensor) -> Tensor:
        """Fuse.

        Args:
            image, radar: (B, S, Q, C), frames from the current one back.

        Returns:
            (B, E, ny, nx). With one frame the last convolution is left out, as upstream.
        """
        frames = [self.frame(image[:, s], radar[:, s]) for s in range(image.shape[1])]
        if len(frames) == 1:
            return frames[0]
        return self.reduce_conv(torch.cat(frames, dim=1))

    def frame(self, image: Tensor, radar: Tensor) -> Tensor:
        """One frame: (B, Q, C) each to (B, E, ny, nx)."""
        image, radar = self.norm_img(image), self.norm_pts(radar)
        query = self.input_proj(torch.cat([image, radar], dim=-1))  # (B, Q, E)
        position = self.positional_encoding()
        layers = (self.attn_layers, self.norm_layers1, self.ffn_layers, self.norm_layers2)
        for attend, norm1, feed_forward, norm2 in zip(*layers, strict=True):
            # The position decides where to look, and is not part of what is passed on.
            attended = attend(query + position, image, radar, self.ref_2d)
            query = norm2(feed_forward(norm1(query + attended)))
        return query.transpose(1, 2).unflatten(2, (self.cells, self.cells))


def cell_centres(cells: int) -> Tensor:
    """Centres (x, y) of the cells in shares of the map, (1, cells * cells, 1, 1, 2)."""
    axis = (torch.arange(cells, dtype=torch.float32) + 0.5) / cells
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(1, -1, 1, 1, 2)
