"""The sensor that alone decides at a place: the markers of the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.plane import Array, Plane

#: Smallest detection without a vehicle that is marked, cells; of a head that marks peaks, one.
SMALLEST = 4
#: Of a sample, at most so many detections without a vehicle, the largest.
MOST = 100
#: Verdicts beside a sensor's name.
SEVERAL, TOGETHER, MISSED = "any of several", "only together", ""


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


def sufficient(
    values: Mapping[str, float], sensors: Sequence[str], threshold: float = 0.0
) -> list[str]:
    """Sensors whose part alone, with what belongs to no sensor, stays above the threshold.

    Args:
        values: each part's, over the cells that count.
        sensors: the parts that are sensors'; the others are added to each.
        threshold: see :class:`Criterion`.
    """
    rest = sum(value for name, value in values.items() if name not in sensors)
    return [name for name in sensors if values[name] + rest > threshold]


def verdict(
    parts: Mapping[str, Array],
    sensors: Sequence[str],
    mask: NDArray[np.bool_],
    criterion: Criterion,
) -> str:
    """Who alone would do: a sensor, :data:`SEVERAL`, :data:`TOGETHER`, or :data:`MISSED`.

    Args:
        parts: by name, (rows, columns); they sum to the prediction.
        sensors: which of them are sensors'.
        mask: cells (rows, columns) that are asked about, at least one.
        criterion: when they count as detected.
    """
    total: Array = sum(parts.values())  # type: ignore[assignment]
    cells = criterion.cells(mask, total)
    values = {name: float(part[cells].mean(dtype=np.float64)) for name, part in parts.items()}
    if sum(values.values()) <= criterion.threshold:
        return MISSED
    able = sufficient(values, sensors, criterion.threshold)
    return able[0] if len(able) == 1 else SEVERAL if able else TOGETHER


def decisive_places(
    parts: Mapping[str, Array],
    sensors: Sequence[str],
    plane: Plane,
    outlines: Sequence[Array],
    criterion: Criterion | None = None,
) -> list[Decisive]:
    """Vehicles and false detections that one sensor decides (see :class:`Criterion`).

    A false detection is a group of touching cells above the threshold, of which none belongs to
    an annotated vehicle.

    Args:
        parts: by name, (rows, columns); they sum to the prediction.
        sensors: which of them are sensors'.
        plane: where the maps lie.
        outlines: vehicles from above, (4, 2) metres (right, forward) each.
        criterion: when cells count as detected.
    """
    criterion = criterion or Criterion()
    vehicles = [plane.mask(outline) for outline in outlines]
    masks = [(mask, True) for mask in vehicles if mask.any()]
    total: Array = sum(parts.values())  # type: ignore[assignment]
    masks += [(mask, False) for mask in unannotated(total, vehicles, criterion)]
    places = []
    for mask, correct in masks:
        sensor = verdict(parts, sensors, mask, criterion)
        if sensor in sensors:
            places.append(Decisive(sensor, *middle(mask, plane), correct))
    return places


def unannotated(
    total: Array, vehicles: Sequence[NDArray[np.bool_]], criterion: Criterion
) -> list[NDArray[np.bool_]]:
    """Detections without an annotation: at most :data:`MOST`, as they lie from the rear forwards.

    The groups of :func:`unannotated_groups`, the largest.
    """
    groups = unannotated_groups(total, vehicles, criterion)
    sizes = np.bincount(groups.ravel())
    largest = sorted(np.flatnonzero(sizes[1:]) + 1, key=lambda n: -sizes[n])[:MOST]
    return [groups == group for group in sorted(largest)]


def unannotated_groups(
    total: Array, vehicles: Sequence[NDArray[np.bool_]], criterion: Criterion
) -> NDArray[np.int32]:
    """Groups of touching cells above the threshold that hold no vehicle's cell.

    Args:
        total: the prediction (rows, columns).
        vehicles: cells of each annotated vehicle.
        criterion: when cells count as detected.

    Returns:
        (rows, columns): each cell's group, 0 of none.
    """
    above = (total > criterion.threshold).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    free = stats[:, cv2.CC_STAT_AREA] >= (1 if criterion.peak else SMALLEST)
    free[0] = False
    for mask in vehicles:
        free[labels[mask]] = False
    groups: NDArray[np.int32] = np.where(free[labels], labels, 0)
    return groups


def middle(mask: NDArray[np.bool_], plane: Plane) -> tuple[float, float]:
    """Metres to the right and forward."""
    row, column = (float(np.mean(where)) for where in np.nonzero(mask))
    width, depth = plane.cell
    return plane.left + (column + 0.5) * width, plane.back + (row + 0.5) * depth
