"""Figures of instances that are matched by overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import fsum
from typing import Any

from lmd_cli.evaluation.detections.matching import DUPLICATE, FALSE_ALARM, HIT, MISS


def instance_metrics(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Recall, precision, mean intersection over union of the hits, and panoptic quality.

    Panoptic quality is the sum of the hits' intersections over unions, over hits + half of the
    false alarms, duplicates and misses (Kirillov et al., "Panoptic Segmentation", 2019).

    Args:
        entries: the finished samples.
    """
    counts: Counter[str] = Counter()
    overlaps: list[float] = []
    samples = 0
    for entry in entries:
        samples += 1
        for one in entry["detections"]:
            if one["kind"] == "box" or one["outcome"] == MISS:
                counts[one["outcome"]] += 1
            if one["kind"] == "box" and one["outcome"] == HIT:
                overlaps.append(one["closeness"])
    hits, misses = counts[HIT], counts[MISS]
    false = counts[FALSE_ALARM] + counts[DUPLICATE]
    return {
        "samples": samples,
        "annotations": hits + misses,
        "instances": hits + false,
        "hits": hits,
        "false_alarms": counts[FALSE_ALARM],
        "duplicates": counts[DUPLICATE],
        "misses": misses,
        "recall": _share(hits, hits + misses),
        "precision": _share(hits, hits + false),
        "mean_iou": _share(fsum(overlaps), hits),
        "panoptic_quality": _share(fsum(overlaps), hits + (false + misses) / 2),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
