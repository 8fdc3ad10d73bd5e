"""Removal: what the unchanged network still detects without the features of some sensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmd_cli.evaluation.ground.decisive import MISSED, SEVERAL, TOGETHER, unannotated_groups
from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.plane import Array

#: Names of the removed sensors, in the network's order.
Removed: TypeAlias = tuple[str, ...]
#: What takes the place of the features: zeros, or those of another sample.
Removal: TypeAlias = Literal["zeroed", "replaced"]
#: Of more sensors, only single ones, all but one, and all are removed.
MOST_SENSORS = 6
#: Of a sample's output, what is counted; see :func:`count_fields`.
COUNTS = ("false", "intersection", "union")


def removals(sensors: Sequence[str]) -> list[Removed]:
    """Every non-empty subset, 2^M - 1 of M sensors, by size."""
    count = len(sensors)
    sizes: Iterable[int] = range(1, count + 1)
    if count > MOST_SENSORS:
        sizes = (1, count - 1, count)
    return [subset for size in sizes for subset in combinations(sensors, size)]


def suffix(removed: Removed) -> str:
    """How columns name a removal: ``without_camera``, ``without_camera+radar``."""
    return f"without_{'+'.join(removed)}"


def others(sensor: str, sensors: Sequence[str]) -> Removed:
    """The removal that leaves one sensor."""
    return tuple(name for name in sensors if name != sensor)


def removal_fields(sensors: Sequence[str]) -> tuple[str, ...]:
    """Columns of ``objects.csv`` about removal.

    ``detected``: 1 if the network detects it; ``score``: what the criterion compares with its
    threshold (the mean logit, or of a head that marks peaks the highest); ``enough_by_removal``:
    the verdict of :func:`removal_verdict`; then the first two with sensors removed.
    """
    names = [suffix(removed) for removed in removals(sensors)]
    detected, scores = ([f"{kind}_{name}" for name in names] for kind in ("detected", "score"))
    return ("detected", "score", "enough_by_removal", *detected, *scores)


def removal_values(
    total: Array,
    without: Mapping[Removed, Array | None],
    sensors: Sequence[str],
    mask: NDArray[np.bool_],
    criterion: Criterion,
) -> tuple[Any, ...]:
    """One vehicle's values of :func:`removal_fields`; ``None`` where they are not known.

    Args:
        total: the prediction (rows, columns).
        without: the same with sensors removed.
        sensors: of the network.
        mask: the vehicle's cells, none of a vehicle outside the maps.
        criterion: when they count as detected.
    """
    keys: list[Removed] = [(), *removals(sensors)]
    if not mask.any():
        return (0, None, MISSED, *[None] * (2 * len(keys) - 2))
    maps = {**without, (): total}
    scores = [_score(maps.get(key), mask, criterion) for key in keys]
    detected = [None if score is None else int(score > criterion.threshold) for score in scores]
    verdict = removal_verdict(dict(zip(keys, detected, strict=True)), sensors)
    return (detected[0], scores[0], verdict, *detected[1:], *scores[1:])


def _score(values: Array | None, mask: NDArray[np.bool_], criterion: Criterion) -> float | None:
    return None if values is None else criterion.score(values[mask])


def removal_verdict(detected: Mapping[Removed, int | None], sensors: Sequence[str]) -> str:
    """Which sensor alone keeps the detection, the others removed.

    The verdicts of :func:`~.decisive.verdict`, from the network rather than from parts.
    """
    alone = {name: detected[others(name, sensors)] for name in sensors}
    if not detected[()] or None in alone.values():
        return MISSED
    able = [name for name, enough in alone.items() if enough]
    return able[0] if len(able) == 1 else SEVERAL if able else TOGETHER


def lost_without(vehicle: Mapping[str, Any], sensors: Sequence[str]) -> list[str]:
    """Sensors of which each alone, when removed, loses a detected vehicle; none of a missed one.

    Args:
        vehicle: the columns of ``objects.csv`` by name.
    """
    if not vehicle["detected"]:
        return []
    return [name for name in sensors if vehicle[f"detected_{suffix((name,))}"] == 0]


def count_fields(sensors: Sequence[str]) -> tuple[str, ...]:
    """Columns of the survey's ``samples.csv`` with what is counted in a sample.

    ``false``: detections without an annotation; ``intersection``, ``union``: cells, for the IoU;
    then, of each removal, the same and ``new_false``, see :func:`false_counts`.
    """
    removed = [
        f"{kind}_{suffix(key)}" for key in removals(sensors) for kind in ("new_false", *COUNTS)
    ]
    return (*COUNTS, *removed)


def false_counts(
    total: Array, without: Array, vehicles: Sequence[NDArray[np.bool_]], criterion: Criterion
) -> tuple[int, int]:
    """Detections without an annotation when sensors are removed: new ones, and all.

    New is one that shares no cell with any that the network makes with all sensors.

    Args:
        total, without: the prediction (rows, columns) with all sensors, and with some removed.
        vehicles: cells of each annotated vehicle.
        criterion: when cells count as detected.
    """
    before = unannotated_groups(total, vehicles, criterion)
    after = unannotated_groups(without, vehicles, criterion)
    every = set(np.unique(after[after > 0]).tolist())
    return len(every - set(np.unique(after[before > 0]).tolist())), len(every)


def relative_change(total: Array, without: Array | None) -> float | None:
    """L2 norm of what a removal changes, over that of the output; ``None`` of a zero output."""
    norm = float(np.linalg.norm(total.astype(np.float64)))
    if without is None or norm == 0:
        return None
    return float(np.linalg.norm(np.subtract(without, total, dtype=np.float64))) / norm
