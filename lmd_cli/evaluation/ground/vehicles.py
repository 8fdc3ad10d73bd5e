"""What is known of each annotated vehicle, and what each part says of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.choice import Weather
from lmd_cli.data.crn.truth import DETECTION_CLASSES
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.evaluation.ground.decisive import MISSED, verdict
from lmd_cli.evaluation.ground.detection import criterion_of, sought_class
from lmd_cli.evaluation.ground.plane import Array, Plane
from lmd_cli.evaluation.ground.removal import Removed, removal_fields, removal_values

#: Columns of ``objects.csv`` before those of the parts (``total``, ``camera``, ..., ``bias``).
FACT_FIELDS = (
    *("sample_token", "scene", "rain", "night", "token", "category", "distance", "visibility"),
    *("num_lidar_pts", "num_radar_pts", "speed", "cells", "inside", "sought", "alone"),
)


def outline(box: Box3D) -> NDArray[np.float64]:
    """A box from above: (4, 2) metres (right, forward), in order around its middle.

    The four highest corners, as the ground truth is drawn from.
    """
    highest = np.argsort(box.corners[:, 1], kind="stable")[:4]
    points = box.corners[highest][:, [0, 2]].astype(np.float64)
    around = points - points.mean(axis=0)
    return points[np.argsort(np.arctan2(around[:, 1], around[:, 0]))]


def distance(box: Box3D) -> float:
    """From the reference camera to the box's centre on the ground, metres."""
    return math.hypot(float(box.center[0]), float(box.center[2]))


def sensors_of(parts: Iterable[str]) -> list[str]:
    """Those of the parts that are sensors'."""
    return [name for name in parts if name not in (BIAS, INTERACTION)]


def object_fields(parts: Sequence[str]) -> tuple[str, ...]:
    """The header of ``objects.csv``: facts, mean logits, and what removal changes."""
    return (*FACT_FIELDS, "total", *parts, *removal_fields(sensors_of(parts)))


def object_rows(
    sample: tuple[str, str],
    weather: Weather,
    boxes: Sequence[Box3D],
    plane: Plane,
    total: Array,
    parts: Mapping[str, Array],
    output: str = "segmentation",
    detection: float | Literal["auto"] = "auto",
    without: Mapping[Removed, Array | None] | None = None,
) -> list[tuple[Any, ...]]:
    """One row for each vehicle, in the annotations' order, of :func:`object_fields`.

    A vehicle of whose footprint the map covers no cell is listed with ``inside`` 0 and no means.
    ``sought`` is 1 if the output looks for its class; ``alone`` is the verdict of
    :func:`~.decisive.verdict`, empty for a vehicle that is not detected.

    Args:
        sample: token and scene.
        weather: of the scene.
        boxes: the sample's vehicles.
        plane: where the maps lie.
        total: the prediction, logits (rows, columns).
        parts: by name, the same shape.
        output: which output it is.
        detection: the config's.
        without: the prediction with sensors removed, as far as it is known.
    """
    sensors = sensors_of(parts)
    criterion, wanted = criterion_of(output, detection), sought_class(output)
    rows: list[tuple[Any, ...]] = []
    for box in boxes:
        mask = plane.mask(outline(box))
        maps = (total, *parts.values())
        means = [float(m[mask].mean(dtype=np.float64)) if mask.any() else None for m in maps]
        facts = (*sample, int(weather.rain), int(weather.night), box.token, box.category)
        counts = (box.visibility, box.num_lidar_pts, box.num_radar_pts)
        size = (int(mask.sum()), int(mask.any()))
        sought = int(wanted is None or DETECTION_CLASSES.get(box.category) == wanted)
        alone = verdict(parts, sensors, mask, criterion) if mask.any() else MISSED
        removed = removal_values(total, without or {}, sensors, mask, criterion)
        known = (*facts, distance(box), *counts, box.speed, *size, sought, alone)
        rows.append((*known, *means, *removed))
    return rows


def conflict(parts: Mapping[str, Array], relevant: NDArray[np.bool_]) -> float:
    """How much the sensors contradict each other, in logits.

    In each cell, the smaller of the strongest evidence for a vehicle that any sensor gives and the
    strongest against it; averaged over the cells that hold a vehicle, annotated or predicted.

    Args:
        parts: the sensors' parts, without the bias, (rows, columns) each.
        relevant: those cells.

    Returns:
        0 where no two sensors differ in sign, or where there is no such cell.
    """
    if not relevant.any():
        return 0.0
    stack = np.stack([part[relevant] for part in parts.values()]).astype(np.float64)  # (M, n)
    both = np.minimum(np.clip(stack.max(axis=0), 0, None), np.clip(-stack.min(axis=0), 0, None))
    return float(both.mean())
