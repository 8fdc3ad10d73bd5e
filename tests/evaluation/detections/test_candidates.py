"""Which predicted boxes and annotations count, against nuscenes-devkit's filters."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lmd_cli.data import Box3D
from lmd_cli.data.crn.truth import EgoBox, turned
from lmd_cli.data.nuscenes.database import BICYCLE_RACK, DETECTION_CLASSES
from lmd_cli.evaluation.detections.candidates import (
    CLASS_RANGE,
    annotated,
    outside_racks,
    predicted,
)
from lmd_cli.evaluation.detections.matching import HIT, MISS, NOT_COUNTED, match_centres
from lmd_cli.networks.detections import Detections

needs_devkit = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="nuscenes-devkit needs numpy below 2"
)
CRN = SimpleNamespace(detection_classes=("car", "bicycle", "pedestrian"))


def box(
    category: str,
    center: tuple[float, float, float],
    size: tuple[float, float, float] = (1.8, 0.6, 1.4),
    yaw: float = 0.0,
    points: int = 5,
) -> Box3D:
    name = DETECTION_CLASSES.get(category)
    return turned(
        EgoBox("token", category, name, 4, center, size, yaw, (math.nan, math.nan), points, 0)
    )


def test_only_classes_that_the_network_has_can_be_missed():
    annotations = [
        box("human.pedestrian.child", (10, 0, 0)),
        box("movable_object.barrier", (10, 5, 0)),
        box("vehicle.emergency.police", (10, -5, 0)),
        box("human.pedestrian.adult", (20, 0, 0), points=0),
        box("human.pedestrian.adult", (41, 0, 0)),
        box(BICYCLE_RACK, (15, 0, 0)),
    ]
    truth = annotated(CRN, annotations)
    assert [one.name for one in truth] == ["pedestrian", "barrier", "", "pedestrian", "pedestrian"]
    assert [one.counted for one in truth] == [True, False, False, False, False]
    boxes = torch.tensor([[10.5, 0.5, 0, 0.6, 0.6, 1.7, 0, 0, 0]])
    walker = predicted(Detections(boxes, torch.tensor([0.8]), ("pedestrian",)), 0.3)
    of_boxes, of_truth = match_centres(walker, truth)
    assert of_boxes[0].outcome == HIT
    assert [match.outcome for match in of_truth] == [HIT] + 4 * [NOT_COUNTED]
    assert match_centres([], truth)[1][0].outcome == MISS


@needs_devkit
def test_bicycles_in_a_rack_are_left_out_as_by_nuscenes():
    from nuscenes.utils.data_classes import Box
    from nuscenes.utils.geometry_utils import points_in_box
    from pyquaternion import Quaternion

    rng = np.random.default_rng(0)
    center, size, yaw = (8.0, -3.0, 0.5), (6.0, 2.0, 1.5), 0.7
    rack = box(BICYCLE_RACK, center, size, yaw)
    turn = Quaternion(axis=[0, 0, 1], radians=yaw)
    theirs = Box(list(center), [size[1], size[0], size[2]], turn)
    places = rng.uniform(np.array(center) - 3, np.array(center) + 3, (200, 3))
    truth = annotated(CRN, [box("vehicle.bicycle", tuple(map(float, xyz))) for xyz in places])
    counted = [one.counted for one in outside_racks(truth, [rack])]
    assert counted == (~points_in_box(theirs, places.T)).tolist()
    assert 10 < counted.count(False) < 190
    cars = annotated(CRN, [box("vehicle.car", tuple(map(float, xyz))) for xyz in places])
    assert outside_racks(cars, [rack]) == cars
    made = Detections(torch.zeros(1, 9), torch.ones(1), ("motorcycle",))
    at_origin = predicted(made, 0.3)
    (inside,) = outside_racks(at_origin, [box(BICYCLE_RACK, (0, 0, 0), (1, 1, 1))])
    assert at_origin[0].counted
    assert not inside.counted


@needs_devkit
def test_the_ranges_of_classes_are_nuscenes():
    from nuscenes.eval.common.config import config_factory

    assert config_factory("detection_cvpr_2019").class_range == CLASS_RANGE
