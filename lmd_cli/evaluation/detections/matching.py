"""Which predicted box is which annotation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lmd_cli.evaluation.detections.candidates import Candidate

HIT, FALSE_ALARM, DUPLICATE, MISS = "hit", "false alarm", "duplicate", "miss"
NOT_COUNTED = "not counted"
OUTCOMES = (HIT, FALSE_ALARM, DUPLICATE, MISS, NOT_COUNTED)
#: nuScenes matches centres nearer than this, metres.
NEAR = 2.0
#: Instances match above this intersection over union, of which there can be one only.
OVERLAP = 0.5


@dataclass(frozen=True)
class Match:
    """What became of a candidate.

    Attributes:
        outcome: one of :data:`OUTCOMES`.
        other: index of the box or annotation that it is matched with, or of the annotation that a
            duplicate repeats; none without.
        closeness: to that one: metres between centres, or intersection over union; NaN without.
    """

    outcome: str
    other: int | None = None
    closeness: float = math.nan


Matches = tuple[list[Match], list[Match]]


def match_centres(boxes: Sequence[Candidate], annotations: Sequence[Candidate]) -> Matches:
    """nuScenes' rule: by falling score, each box takes the nearest free annotation of its class,
    if their centres are nearer than :data:`NEAR` on the ground.

    A box that near to an annotation that is taken is a duplicate. One that near to an annotation
    that does not count (without a LiDAR or radar point, say) does not count here either: something
    is there. nuScenes' average precision takes it for a false alarm.

    Args:
        boxes: by falling score.

    Returns:
        for each box, and for each annotation, its match.
    """
    takers: dict[int, tuple[int, float]] = {}
    outcomes = []
    for number, box in enumerate(boxes):
        ranked = sorted(
            (_apart(box, a), i)
            for i, a in enumerate(annotations)
            if a.counted and a.name == box.name
        )
        free = next(((d, i) for d, i in ranked if i not in takers), (math.inf, -1))
        if not box.counted:
            outcomes.append(Match(NOT_COUNTED))
        elif free[0] < NEAR:
            takers[free[1]] = (number, free[0])
            outcomes.append(Match(HIT, free[1], free[0]))
        elif ranked and ranked[0][0] < NEAR:
            outcomes.append(Match(DUPLICATE, ranked[0][1], ranked[0][0]))
        else:
            there = any(a.name == box.name and _apart(box, a) < NEAR for a in annotations)
            outcomes.append(Match(NOT_COUNTED if there else FALSE_ALARM))
    return outcomes, _annotations(annotations, takers)


def _apart(box: Candidate, annotation: Candidate) -> float:
    return math.hypot(box.box[0] - annotation.box[0], box.box[1] - annotation.box[1])


def _annotations(
    annotations: Sequence[Candidate], takers: dict[int, tuple[int, float]]
) -> list[Match]:
    matches = []
    for number, annotation in enumerate(annotations):
        if number in takers:
            matches.append(Match(HIT, *takers[number]))
        else:
            matches.append(Match(MISS if annotation.counted else NOT_COUNTED))
    return matches


def match_overlaps(boxes: Sequence[Candidate], annotations: Sequence[Candidate]) -> Matches:
    """An instance is the annotation with which its intersection over union is above
    :data:`OVERLAP` (Kirillov et al., "Panoptic Segmentation", 2019).

    One that is an annotation that does not count, or that has most of its cells on such, does not
    count either; a false alarm with most of its cells on a matched annotation is a duplicate.
    """
    masks = [_cells(a) for a in annotations]
    takers: dict[int, tuple[int, float]] = {}
    outcomes: list[Match | None] = []
    for number, box in enumerate(boxes):
        own = _cells(box)
        overlaps = [len(own & mask) / max(len(own | mask), 1) for mask in masks]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] <= OVERLAP:
            outcomes.append(None)
        elif not annotations[best].counted:
            outcomes.append(Match(NOT_COUNTED))
        else:
            takers[best] = (number, overlaps[best])
            outcomes.append(Match(HIT, best, overlaps[best]))
    matches = [
        match or _unmatched(_cells(box), masks, annotations, takers)
        for match, box in zip(outcomes, boxes, strict=True)
    ]
    return matches, _annotations(annotations, takers)


def _unmatched(
    own: set[tuple[int, int]],
    masks: Sequence[set[tuple[int, int]]],
    annotations: Sequence[Candidate],
    takers: dict[int, tuple[int, float]],
) -> Match:
    """What an instance is that is no annotation."""
    most = len(own) / 2
    for number, mask in enumerate(masks):
        if len(own & mask) > most and number in takers:
            return Match(DUPLICATE, number, len(own & mask) / len(own | mask))
    unseen = [m for m, a in zip(masks, annotations, strict=True) if not a.counted]
    return Match(NOT_COUNTED if len(own & set().union(*unseen)) > most else FALSE_ALARM)


def _cells(candidate: Candidate) -> set[tuple[int, int]]:
    place = candidate.place
    if place is None:
        return set()
    return set(zip(place.rows.tolist(), place.columns.tolist(), strict=True))


#: How boxes are matched with annotations.
Rule = Callable[[Sequence[Candidate], Sequence[Candidate]], Matches]
