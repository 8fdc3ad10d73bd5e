"""Matching: against nuScenes' own, and against cases that are known."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from lmd_cli.evaluation.detections.candidates import Candidate
from lmd_cli.evaluation.detections.matching import (
    DUPLICATE,
    FALSE_ALARM,
    HIT,
    MISS,
    NOT_COUNTED,
    match_centres,
    match_overlaps,
)
from lmd_cli.networks.detections import Place


def at(x: float, y: float, *, name: str = "car", score: float = math.nan, counted: bool = True):
    return Candidate(name, (x, y, 0, 4, 2, 1.6, 0, 0, 0), None, score, counted=counted)


def outcomes(matches):
    return [match.outcome for match in matches]


def test_hits_false_alarms_duplicates_and_misses():
    boxes = [
        at(0, 0.5, score=0.9),  # nearest to the first annotation
        at(0, 1.4, score=0.8),  # the first is taken, the second is nearer than 2 m
        at(0, 0.1, score=0.7),  # both are taken
        at(20, 0, score=0.6),
        at(40, 0, score=0.5, name="truck"),  # a car is there
        at(60, 0, score=0.4, counted=False),
    ]
    annotations = [at(0, 0), at(0, 3), at(40, 0), at(0, 0, counted=False)]
    of_boxes, of_annotations = match_centres(boxes, annotations)
    assert outcomes(of_boxes) == [HIT, HIT, DUPLICATE, FALSE_ALARM, FALSE_ALARM, NOT_COUNTED]
    assert [match.other for match in of_boxes] == [0, 1, 0, None, None, None]
    assert of_boxes[0].closeness == pytest.approx(0.5)
    assert outcomes(of_annotations) == [HIT, HIT, MISS, NOT_COUNTED]
    assert [match.other for match in of_annotations] == [0, 1, None, None]


def test_a_box_at_an_annotation_that_does_not_count_is_no_false_alarm():
    boxes = [at(0, 1, score=0.9), at(10, 1, score=0.8)]
    annotations = [at(0, 0, counted=False), at(10, 0, counted=False, name="truck")]
    of_boxes, _ = match_centres(boxes, annotations)
    assert outcomes(of_boxes) == [NOT_COUNTED, FALSE_ALARM]


def test_exactly_two_metres_are_too_far():
    (one,), _ = match_centres([at(0, 2, score=0.9)], [at(0, 0)])
    assert one.outcome == FALSE_ALARM


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="nuscenes-devkit needs numpy below 2")
@pytest.mark.parametrize("seed", range(5))
def test_as_many_hits_as_nuscenes_counts(seed: int):
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.algo import accumulate
    from nuscenes.eval.detection.data_classes import DetectionBox

    rng = np.random.default_rng(seed)
    places, guesses = rng.uniform(-8, 8, (20, 2)), rng.uniform(-8, 8, (30, 2))
    scores = np.sort(rng.uniform(0.1, 1, 30))[::-1]
    boxes = [at(*xy, score=s) for xy, s in zip(guesses, scores, strict=True)]
    of_boxes, of_annotations = match_centres(boxes, [at(*xy) for xy in places])
    hits = outcomes(of_boxes).count(HIT)
    assert hits == outcomes(of_annotations).count(HIT)

    def box(x: float, y: float, score: float = -1.0) -> DetectionBox:
        sized = {"size": (2.0, 4.0, 1.6), "rotation": (1.0, 0.0, 0.0, 0.0)}
        return DetectionBox("a", (x, y, 0.0), **sized, detection_score=float(score))

    truth, made = EvalBoxes(), EvalBoxes()
    truth.add_boxes("a", [box(*xy) for xy in places])
    made.add_boxes("a", [box(*xy, s) for xy, s in zip(guesses, scores, strict=True)])
    data = accumulate(truth, made, "car", center_distance, 2.0)
    # nuScenes gives precision and recall at the scores; the recall of the last is all hits'.
    assert data.max_recall == pytest.approx(math.floor(100 * hits / 20) / 100)
    assert 0 < hits < 20


def cells(rows: range, columns: range, **values):
    grid = np.array([(r, c) for r in rows for c in columns])
    place = Place("segmentation", 0, grid[:, 0], grid[:, 1])
    return Candidate("vehicle", (0.0,) * 9, place, **values)


def test_instances_match_by_overlap():
    annotations = [
        cells(range(4), range(4)),
        cells(range(10, 14), range(4)),
        cells(range(20, 24), range(4), counted=False),
        Candidate("vehicle", (0.0,) * 9, None, counted=False),
    ]
    boxes = [
        cells(range(4), range(3), score=0.9),  # 12 of 16
        cells(range(2), range(2, 4), score=0.8),  # inside the first
        cells(range(10, 12), range(4), score=0.7),  # exactly a half
        cells(range(20, 24), range(4), score=0.6),
        cells(range(20, 22), range(2), score=0.5),
        cells(range(30, 34), range(4), score=0.4),
    ]
    of_boxes, of_annotations = match_overlaps(boxes, annotations)
    expected = [HIT, DUPLICATE, FALSE_ALARM, NOT_COUNTED, NOT_COUNTED, FALSE_ALARM]
    assert outcomes(of_boxes) == expected
    assert of_boxes[0].closeness == pytest.approx(12 / 16)
    assert of_boxes[1].other == 0
    assert outcomes(of_annotations) == [HIT, MISS, NOT_COUNTED, NOT_COUNTED]


def test_nothing_matches_nothing():
    for rule in (match_centres, match_overlaps):
        assert rule([], []) == ([], [])
