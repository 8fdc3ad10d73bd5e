"""What is known of each vehicle and of each detection without one, by parts and by removal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.choice import Weather
from lmd_cli.data.nuscenes.database import DETECTION_CLASSES
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.evaluation.ground.decisive import MISSED, middle, unannotated, verdict
from lmd_cli.evaluation.ground.detection import Criterion, criterion_of, sought_class
from lmd_cli.evaluation.ground.plane import Array, Plane
from lmd_cli.evaluation.ground.removal import Removed, removal_fields, removal_values

#: Columns of ``objects.csv`` that answer neither question.
FACT_FIELDS = (
    *("sample_token", "scene", "rain", "night", "token", "instance", "annotated", "category"),
    *("right", "forward", "distance", "visibility", "num_lidar_pts", "num_radar_pts", "speed"),
    *("cells", "inside", "sought"),
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
    """The header of ``objects.csv``: facts, who contributed (parts), what a removal changes."""
    by_parts = ("total", *map(part_field, parts), "enough_by_parts")
    return (*FACT_FIELDS, *by_parts, *removal_fields(sensors_of(parts)))


def part_field(part: str) -> str:
    """The column of a part's mean logit."""
    return f"part_{part}"


@dataclass(frozen=True, eq=False)
class SampleMaps:
    """One sample's prediction as :func:`object_rows` reads it.

    Attributes:
        plane: where the maps lie.
        total: the prediction, logits (rows, columns).
        parts: by name, the same shape.
        without: the prediction with sensors removed, as far as it is known.
        output: which output it is.
        detection: the config's.
        instances: by an annotation's token that of the vehicle, which others are of too.
    """

    plane: Plane
    total: Array
    parts: Mapping[str, Array]
    without: Mapping[Removed, Array | None] = field(default_factory=dict)
    output: str = "segmentation"
    detection: float | Literal["auto"] = "auto"
    instances: Mapping[str, str] = field(default_factory=dict)

    @property
    def criterion(self) -> Criterion:
        """When cells count as detected."""
        return criterion_of(self.output, self.detection)


def object_rows(
    sample: tuple[str, str], weather: Weather, boxes: Sequence[Box3D], maps: SampleMaps
) -> list[tuple[Any, ...]]:
    """One row of :func:`object_fields` for each vehicle, in the annotations' order, and then one
    for each detection without an annotation (``annotated`` 0, see :func:`~.decisive.unannotated`).

    A vehicle of whose footprint the map covers no cell is listed with ``inside`` 0 and no means.
    ``sought`` is 1 if the output looks for its class; ``enough_by_parts`` is the verdict of
    :func:`~.decisive.verdict`, empty for a vehicle that is not detected.

    Args:
        sample: token and scene.
        weather: of the scene.
        boxes: the sample's vehicles.
    """
    wanted, plane = sought_class(maps.output), maps.plane
    masks = [plane.mask(outline(box)) for box in boxes]
    begin = (*sample, int(weather.rain), int(weather.night))
    rows: list[tuple[Any, ...]] = []
    for box, mask in zip(boxes, masks, strict=True):
        sought = int(wanted is None or DETECTION_CLASSES.get(box.category) == wanted)
        place = (float(box.center[0]), float(box.center[2]), distance(box))
        counts = (box.visibility, box.num_lidar_pts, box.num_radar_pts, box.speed)
        named = (box.token, maps.instances.get(box.token, ""), 1, box.category)
        known: tuple[Any, ...] = (*named, *place, *counts)
        rows.append((*begin, *known, *_size(mask), sought, *_answers(maps, mask)))
    false = unannotated(maps.total, [mask for mask in masks if mask.any()], maps.criterion)
    for number, mask in enumerate(false):
        right, forward = middle(mask, plane)
        place = (right, forward, math.hypot(right, forward))
        known = (f"detection {number + 1}", "", 0, "", *place, *[None] * 4)
        rows.append((*begin, *known, *_size(mask), 1, *_answers(maps, mask)))
    return rows


def _size(mask: NDArray[np.bool_]) -> tuple[int, int]:
    return int(mask.sum()), int(mask.any())


def _answers(maps: SampleMaps, mask: NDArray[np.bool_]) -> tuple[Any, ...]:
    """What parts and removal say of some cells, all but the facts of :func:`object_fields`."""
    sensors, criterion = sensors_of(maps.parts), maps.criterion
    each = (maps.total, *maps.parts.values())
    means = [float(m[mask].mean(dtype=np.float64)) if mask.any() else None for m in each]
    enough = verdict(maps.parts, sensors, mask, criterion) if mask.any() else MISSED
    return (*means, enough, *removal_values(maps.total, maps.without, sensors, mask, criterion))


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
