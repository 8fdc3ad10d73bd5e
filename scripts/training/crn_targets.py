"""What the small CRN learns: heat map and box targets of cars, and their losses.

Sources: Law and Deng, "CornerNet", 2018 (Gaussian radius, focal loss); Yin et al., "Center-based
3D Object Detection and Tracking", 2021 (the heads); Kim et al., "CRN", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.data.crn import EgoBox

#: Least overlap that a box displaced by the radius keeps with the true one; least radius, cells.
OVERLAP, MIN_RADIUS = 0.1, 2
#: Branches of the box head and their channels.
BRANCHES = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
BOX_WEIGHT = 0.25


def mirrored(car: EgoBox) -> EgoBox:
    """The car in a world whose left and right are swapped."""
    (x, y, z), (vx, vy) = car.center, car.velocity
    return replace(car, center=(x, -y, z), yaw=-car.yaw, velocity=(vx, -vy))


@dataclass(frozen=True)
class BevMap:
    """CRN's square map: rows are y (left), columns x (forward), from ``-extent``.

    Attributes:
        cells: along each side.
        extent: half its side, metres.
    """

    cells: int
    extent: float

    @property
    def cell(self) -> float:
        """Side of a cell, metres."""
        return 2 * self.extent / self.cells

    def position(self, car: EgoBox) -> tuple[float, float]:
        """Row and column of a car's centre, in cells; the integer part is the cell's index."""
        x, y, _ = car.center
        return (y + self.extent) / self.cell, (x + self.extent) / self.cell

    def holds(self, car: EgoBox) -> bool:
        """Whether a car's centre is on the map."""
        return all(0 <= value < self.cells for value in self.position(car))

    def centers(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Centres of cells (n,), (n, 2): x and y in metres."""
        return (torch.stack([columns, rows], dim=-1) + 0.5) * self.cell - self.extent


def gaussian_radius(length: float, width: float, overlap: float = OVERLAP) -> float:
    """How far, in cells, a box may lie from the true one (``length`` x ``width`` cells).

    The least of three cases, as CornerNet's code solves them: both corners move the same way, both
    inwards, both outwards, and the boxes' intersection over union is still ``overlap``. (That code
    halves the sum of b and the root; the quadratic formula would divide by 2 a. Trained detectors
    rely on its value, so it is kept.)
    """
    both, area = length + width, length * width
    same = (1.0, both, area * (1 - overlap) / (1 + overlap))
    inside = (4.0, 2 * both, (1 - overlap) * area)
    outside = (4 * overlap, -2 * overlap * both, (overlap - 1) * area)
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in (same, inside, outside))


def car_targets(cars: Sequence[EgoBox], bev: BevMap) -> dict[str, Tensor]:
    """Targets of one sample.

    Cars of visibility 1 (behind something else) are left out: neither learnt nor held against a
    prediction.

    Returns:
        ``heat`` and ``valid`` (ny, nx) float32; ``cells`` (n,) int64, flat indices of the cars'
        cells; ``boxes`` (n, 10): the branches of :data:`BRANCHES` side by side.
    """
    heat, hidden = torch.zeros(2, bev.cells, bev.cells)
    cells, boxes = [], []
    for car in cars:
        if not bev.holds(car):
            continue
        row, column = (int(value) for value in bev.position(car))
        length, width = car.size[0] / bev.cell, car.size[1] / bev.cell
        radius = max(MIN_RADIUS, int(gaussian_radius(length, width)))
        _draw(hidden if car.visibility == 1 else heat, row, column, radius)
        if car.visibility > 1:
            cells.append(row * bev.cells + column)
            boxes.append(_box(car, bev))
    return {
        "heat": heat,
        "valid": ((hidden == 0) | (heat > 0)).float(),
        "cells": torch.tensor(cells, dtype=torch.long),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, sum(BRANCHES.values())),
    }


def _draw(heat: Tensor, row: int, column: int, radius: int) -> None:
    """A Gaussian of height 1 and three standard deviations to its rim; bumps do not add up."""
    sigma = (2 * radius + 1) / 6
    rows, columns = (
        torch.arange(max(0, middle - radius), min(size, middle + radius + 1))
        for middle, size in zip((row, column), heat.shape, strict=True)
    )
    squared = (rows - row).square()[:, None] + (columns - column).square()
    bump = torch.exp(-squared / (2 * sigma**2))
    patch = heat[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    patch.copy_(torch.maximum(patch, bump))


def _box(car: EgoBox, bev: BevMap) -> list[float]:
    row, column = bev.position(car)
    return [
        *(column % 1, row % 1, car.center[2]),
        *(math.log(value) for value in car.size),
        *(math.sin(car.yaw), math.cos(car.yaw)),
        *(0.0 if math.isnan(value) else value for value in car.velocity),
    ]


def focal_loss(logits: Tensor, heat: Tensor, valid: Tensor) -> Tensor:
    """CornerNet's focal loss (alpha 2, beta 4) per car, of maps (B, ny, nx)."""
    probability = logits.sigmoid()
    on = (heat == 1).float()
    positive = -F.logsigmoid(logits) * (1 - probability).square() * on
    negative = -F.logsigmoid(-logits) * probability.square() * (1 - heat).pow(4) * (1 - on)
    return ((positive + negative) * valid).sum() / on.sum().clamp(min=1)


def box_loss(
    outputs: dict[str, Tensor], cells: Sequence[Tensor], boxes: Sequence[Tensor]
) -> Tensor:
    """Absolute errors at the cars' cells, summed over branches, mean over cars.

    Args:
        outputs: branch -> (B, channels, ny, nx).
        cells, boxes: of every sample, see :func:`car_targets`.
    """
    maps = torch.cat([outputs[name] for name in BRANCHES], dim=1).flatten(2)  # (B, 10, ny * nx)
    errors = [
        (values[:, index].T - box).abs().sum()
        for values, index, box in zip(maps, cells, boxes, strict=True)
    ]
    return torch.stack(errors).sum() / max(1, sum(map(len, cells)))
