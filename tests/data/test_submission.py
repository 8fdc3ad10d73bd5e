"""Boxes of the ego frame in nuScenes' format, against pyquaternion and the recorded annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyquaternion import Quaternion

from lmd_cli.data.crn import KeyframeSamples
from lmd_cli.data.nuscenes.submission import DETECTION_NAMES, attribute, submission_boxes


def random_pose(rng: np.random.Generator) -> tuple[np.ndarray, Quaternion]:
    turn = Quaternion(rng.standard_normal(4)).normalised
    pose = turn.transformation_matrix
    pose[:3, 3] = rng.standard_normal(3) * 500
    return pose, turn


def test_boxes_go_to_the_global_frame_as_quaternions_say():
    rng = np.random.default_rng(0)
    pose, turn = random_pose(rng)
    boxes = rng.standard_normal((20, 9)) * 5
    scores = rng.permutation(20) / 20.0
    rows = submission_boxes("t", boxes, scores, ["car"] * 20, pose)
    assert [row["detection_score"] for row in rows] == sorted(scores, reverse=True)
    for row, box in zip(rows, boxes[np.argsort(-scores)], strict=True):
        assert row["translation"] == pytest.approx(turn.rotate(box[:3]) + pose[:3, 3], abs=1e-4)
        assert row["size"] == pytest.approx(box[[4, 3, 5]], abs=1e-4)
        wanted = turn * Quaternion(axis=[0, 0, 1], radians=box[6])
        assert Quaternion.absolute_distance(Quaternion(row["rotation"]), wanted) < 1e-5
        velocity = turn.rotate(np.array([*box[7:], 0.0]))[:2]
        assert row["velocity"] == pytest.approx(velocity, abs=1e-4)


def test_annotations_come_back_as_they_are_in_the_tables(tiny_root: Path):
    """Through the mean of the cameras' poses, into the ego frame and back."""
    samples = KeyframeSamples(tiny_root, "v1.0-mini", "mini_val", image_size=(32, 64))
    boxes = samples.boxes(1)
    values = np.array([[*b.center, *b.size, b.yaw, *b.velocity] for b in boxes])
    pose = samples.global_T_ego(1)
    rows = submission_boxes("t", values, np.zeros(len(boxes)), ["car"] * len(boxes), pose)
    tables = {a.token: a for a in samples._records[1].vehicles}
    assert len(rows) > 3
    for row, box in zip(rows, boxes, strict=True):
        annotation = tables[box.token]
        assert row["translation"] == pytest.approx(annotation.translation, abs=1e-4)
        assert row["size"] == pytest.approx(annotation.size, abs=1e-4)
        apart = Quaternion.absolute_distance(
            Quaternion(row["rotation"]), Quaternion(annotation.rotation)
        )
        assert apart < 1e-3


def test_at_most_500_boxes_and_ties_keep_their_order():
    boxes = np.zeros((600, 9))
    boxes[:, 0] = np.arange(600)
    rows = submission_boxes("t", boxes, np.full(600, 0.5), ["car"] * 600, np.eye(4))
    assert [row["translation"][0] for row in rows] == list(range(500))
    assert submission_boxes("t", boxes[:0], np.zeros(0), [], np.eye(4)) == []


@pytest.mark.parametrize(
    ("name", "resting", "moving"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("barrier", "", ""),
        ("tram", "", ""),
    ],
)
def test_attributes_go_by_speed(name: str, resting: str, moving: str):
    assert (attribute(name, 0.2), attribute(name, 0.21)) == (resting, moving)


def test_the_classes_are_the_devkits():
    constants = pytest.importorskip("nuscenes.eval.detection.constants")
    assert sorted(DETECTION_NAMES) == sorted(constants.DETECTION_NAMES)
