"""Where one sensor alone is decisive: the markers of the paper's figures, with a definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lmd_cli.report.plane import Array, Plane

DEFINITION = (
    "decisive: the mean logit over a vehicle (or a detection without one) is above zero, and with "
    "one sensor's part alone beside the bias it still is, with any other's it is not"
)
#: Smallest detection without a vehicle that is marked, cells.
SMALLEST = 4


@dataclass(frozen=True)
class Decisive:
    """A place that one sensor decides.

    Attributes:
        sensor: which.
        right, forward: its middle, metres.
        correct: whether a vehicle is annotated there.
    """

    sensor: str
    right: float
    forward: float
    correct: bool


def sufficient(means: Mapping[str, float], sensors: Sequence[str]) -> list[str]:
    """Sensors whose part alone, with what belongs to no sensor, stays above zero.

    Args:
        means: each part's mean logit over some cells.
        sensors: the parts that are sensors'; the others are added to each.
    """
    rest = sum(value for name, value in means.items() if name not in sensors)
    return [name for name in sensors if means[name] + rest > 0]


def decisive_places(
    parts: Mapping[str, Array],
    sensors: Sequence[str],
    plane: Plane,
    outlines: Sequence[Array],
) -> list[Decisive]:
    """Vehicles and false detections that one sensor decides (see :data:`DEFINITION`).

    A false detection is a group of touching cells with a positive prediction, of which none
    belongs to an annotated vehicle.

    Args:
        parts: by name, (rows, columns); they sum to the prediction.
        sensors: which of them are sensors'.
        plane: where the maps lie.
        outlines: vehicles from above, (4, 2) metres (right, forward) each.
    """
    vehicles = [plane.mask(outline) for outline in outlines]
    masks = [(mask, True) for mask in vehicles if mask.any()]
    masks += [(mask, False) for mask in _false(sum(parts.values()), vehicles)]  # type: ignore[arg-type]
    found = [_decided(mask, correct, parts, sensors, plane) for mask, correct in masks]
    return [place for place in found if place is not None]


def _false(total: Array, vehicles: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Groups of positive cells that touch no vehicle's cells."""
    count, labels = cv2.connectedComponents((total > 0).astype(np.uint8), connectivity=8)
    taken = {label for mask in vehicles for label in np.unique(labels[mask])}
    groups = [labels == label for label in range(1, count) if label not in taken]
    return [group for group in groups if group.sum() >= SMALLEST]


def _decided(
    mask: NDArray[np.bool_],
    correct: bool,
    parts: Mapping[str, Array],
    sensors: Sequence[str],
    plane: Plane,
) -> Decisive | None:
    means = {name: float(part[mask].mean(dtype=np.float64)) for name, part in parts.items()}
    able = sufficient(means, sensors)
    if sum(means.values()) <= 0 or len(able) != 1:
        return None
    row, column = (float(np.mean(where)) for where in np.nonzero(mask))
    width, depth = plane.cell
    right, forward = plane.left + (column + 0.5) * width, plane.back + (row + 0.5) * depth
    return Decisive(able[0], right, forward, correct)
