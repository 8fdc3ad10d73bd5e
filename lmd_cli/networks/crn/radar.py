"""CRN's radar branch: points in the perspective view, gathered in pillars of (column, depth)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmd_cli.config.sizes import STRIDE, CRNSizes
from lmd_cli.networks.crn.blocks import NECK_EPS, Neck, conv_norm_relu

#: Values of a point: image column (pixels), depth (m), height (always 1), rcs, speed.
POINT_VALUES = 5
#: Height of the single layer of pillars.
HEIGHT = 2.0


@dataclass(frozen=True)
class Pillars:
    """Pillars of N views, the views one after the other, in the order of their first points.

    Attributes:
        points: (M, P, 5), free slots zero.
        count: (M,) points kept.
        view, row, column: (M,) indices; rows are depths.
    """

    points: Tensor
    count: Tensor
    view: Tensor
    row: Tensor
    column: Tensor


class PillarGrid:
    """The cells that points are gathered in: half an image feature wide, half a depth bin deep."""

    def __init__(self, sizes: CRNSizes):
        first, last, step = sizes.depth
        self.size = (STRIDE / 2, step / 2, HEIGHT)
        self.lower = (0.0, first, 0.0)
        columns, rows = sizes.image_size[1] * 2 // STRIDE, round((last - first) / (step / 2))
        self.counts = (columns, rows, 1)
        self.max_points, self.max_pillars = sizes.pillar_points, sizes.max_pillars

    @property
    def rows_columns(self) -> tuple[int, int]:
        """Rows (depth) and columns of the map that pillars are scattered into."""
        return self.counts[1], self.counts[0]

    def gather(self, points: Tensor) -> Pillars:
        """Pillars of points ``(N, P, 5)``, first come first served.

        A point outside the grid is dropped, and so are the points of a pillar that would be one
        too many in its view, and those beyond ``max_points`` in a pillar.
        """
        views = points.shape[0]
        columns, rows, _ = self.counts
        cell = (
            (points[..., :3] - points.new_tensor(self.lower)) / points.new_tensor(self.size)
        ).floor()
        inside = ((cell >= 0) & (cell < cell.new_tensor(self.counts))).all(-1)  # (N, P)
        view, slot = inside.nonzero(as_tuple=True)  # in order of view, then of input
        column, row = (cell[view, slot, axis].long() for axis in (0, 1))
        key = (view * rows + row) * columns + column
        pillar, place, first = _ranks(key)
        opened = pillar - _opened_before(view[first], views)[view]  # rank within the view
        kept = (opened < self.max_pillars) & (place < self.max_points)
        used, pillar = torch.unique(pillar[kept], return_inverse=True)
        content = points.new_zeros(len(used), self.max_points, points.shape[-1])
        content[pillar, place[kept]] = points[view[kept], slot[kept]]
        heads = first[used]
        count = torch.bincount(pillar, minlength=len(used))
        return Pillars(content, count, view[heads], row[heads], column[heads])


def _ranks(key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each entry: the rank of its key by first appearance, and its place among equal keys;
    and of each rank: where its key appears first."""
    order = torch.argsort(key, stable=True)
    _, group, sizes = torch.unique_consecutive(key[order], return_inverse=True, return_counts=True)
    starts = sizes.cumsum(0) - sizes
    place = torch.empty_like(order)
    place[order] = torch.arange(len(key), device=key.device) - starts[group]
    first = order[starts]
    rank = torch.empty_like(first)
    by_appearance = torch.argsort(first)
    rank[by_appearance] = torch.arange(len(first), device=key.device)
    pillar = torch.empty_like(order)
    pillar[order] = rank[group]
    return pillar, place, first[by_appearance]


def _opened_before(views_of_pillars: Tensor, views: int) -> Tensor:
    """How many pillars the earlier views opened, (views,)."""
    counts = torch.bincount(views_of_pillars, minlength=views)
    return counts.cumsum(0) - counts


class PillarLayer(nn.Module):
    """Linear, BatchNorm, ReLU on every slot, and the maximum over the slots."""

    def __init__(self, in_channels: int, channels: int, *, last: bool):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=NECK_EPS)
        self.linear = nn.Linear(in_channels, channels, bias=False)
        self.last = last

    def forward(self, slots: Tensor) -> Tensor:
        """``(M, P, in)`` to ``(M, P, 2 * channels)``, or to ``(M, channels)`` in the last layer.

        Free slots take part in the maximum, as upstream.
        """
        x = self.linear(slots).transpose(1, 2)  # (M, channels, P)
        x = torch.relu(self.norm(x)).transpose(1, 2)  # (M, P, channels)
        largest = x.amax(dim=1, keepdim=True)  # (M, 1, channels)
        if self.last:
            return largest.squeeze(1)
        return torch.cat([x, largest.expand_as(x)], dim=2)


class PillarEncoder(nn.Module):
    """Features of pillars: offsets from the pillar's centre (twice), rcs and speed."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        inner, outer = sizes.pillar
        # Upstream halves the first layer's width, because it returns slots and maximum together.
        half = inner // 2
        decorated = POINT_VALUES + 3
        self.pfn_layers = nn.ModuleList(
            [
                PillarLayer(decorated, half, last=False),
                PillarLayer(2 * half, outer, last=True),
            ]
        )
        self.grid = PillarGrid(sizes)

    def forward(self, pillars: Pillars) -> Tensor:
        """(M, channels)."""
        x = self.decorate(pillars)  # (M, P, 8)
        for layer in self.pfn_layers:
            x = layer(x)
        return x

    def decorate(self, pillars: Pillars) -> Tensor:
        """Offsets, rcs, speed, offsets again: the published code overwrites positions in place."""
        size = pillars.points.new_tensor(self.grid.size)
        lower = pillars.points.new_tensor(self.grid.lower)
        index = torch.stack([pillars.column, pillars.row, torch.zeros_like(pillars.row)], dim=1)
        centre = index * size + (size / 2 + lower)  # (M, 3)
        offset = pillars.points[..., :3] - centre[:, None]
        x = torch.cat([offset, pillars.points[..., 3:], offset], dim=-1)
        taken = torch.arange(x.shape[1], device=x.device) < pillars.count[:, None]
        return x * taken[..., None]


class RadarBackbone(nn.Module):
    """Three stages of 3x3 convolutions with bias and reflected borders, strides 1, 2, 4."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        channels = sizes.pillar[1]
        stages = []
        for i, (width, count) in enumerate(
            zip(sizes.radar_widths, sizes.radar_layers, strict=True)
        ):
            layers = _radar_conv(channels, width, stride=1 if i == 0 else 2)
            for _ in range(count):
                layers += _radar_conv(width, width)
            stages.append(nn.Sequential(*layers))
            channels = width
        self.blocks = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(N, channels, 2 D, 2 w)`` to three maps, the last a quarter of the size."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def _radar_conv(in_channels: int, channels: int, stride: int = 1) -> list[nn.Module]:
    return conv_norm_relu(
        in_channels, channels, stride=stride, bias=True, reflect=True, eps=NECK_EPS
    )


class RadarBranch(nn.Module):
    """``backbone_pts`` of the published state."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        self.pts_voxel_encoder = PillarEncoder(sizes)
        self.pts_backbone = RadarBackbone(sizes)
        self.pts_neck = Neck(sizes.radar_widths, sizes.radar_neck, (0.5, 1, 2), transposed=False)
        joined = 3 * sizes.radar_neck
        self.pred_context = _prediction(joined, sizes.context)
        self.pred_occupancy = _prediction(joined, 1)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``(N, P, 5)`` to context ``(N, C, D, w)`` and occupancy ``(N, 1, D, w)``."""
        grid = self.pts_voxel_encoder.grid
        pillars = grid.gather(points)
        x = self.pts_neck(self.pts_backbone(self.scatter(pillars, points.shape[0])))
        return self.pred_context(x), torch.sigmoid(self.pred_occupancy(x))

    def scatter(self, pillars: Pillars, views: int) -> Tensor:
        """The pillars' features in a map (N, channels, 2 D, 2 w), zero elsewhere."""
        features = self.pts_voxel_encoder(pillars)  # (M, channels)
        rows, columns = self.pts_voxel_encoder.grid.rows_columns
        canvas = features.new_zeros(views, rows, columns, features.shape[1])
        canvas = canvas.index_put((pillars.view, pillars.row, pillars.column), features)
        return canvas.permute(0, 3, 1, 2).contiguous()


def _prediction(in_channels: int, channels: int) -> nn.Sequential:
    mid = in_channels // 2
    return nn.Sequential(
        *conv_norm_relu(in_channels, mid, bias=True, reflect=True), nn.Conv2d(mid, channels, 1)
    )
