"""Vehicle boxes and their maps."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion

from lmd_cli.data import Box3D, NuScenesSamples
from lmd_cli.data.nuscenes.database import Annotation, SampleRecord, SensorFrame
from lmd_cli.data.simplebev.truth import camera_boxes, footprint, vehicle_truth
from lmd_cli.geometry import Grid
from tests.support.tiny_nuscenes import OBJECTS

GRID = Grid((200, 8, 200))
# Ego axes (forward, left, up) to camera axes (right, down, forward), without a displacement.
LEVEL = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float32)


def boxes_of(*annotations: Annotation, cam0_T_ego: np.ndarray = LEVEL) -> list[Box3D]:
    here = ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])
    frame = SensorFrame("", 0, *here, *here, [], 0, 0)
    record = SampleRecord("sample", "scene", (), {}, {"LIDAR_TOP": (frame,)}, annotations)
    return camera_boxes(record, cam0_T_ego)


def car(
    forward: float, left: float, yaw: float = 0.0, visibility: int = 4, length: float = 4.0
) -> Annotation:
    rotation = list(Quaternion(axis=[0, 0, 1], radians=yaw))
    place, size = [forward, left, 0.8], [2.0, length, 1.6]
    return Annotation("box", "vehicle.car", visibility, place, rotation, size, 5, 6)


def test_box_in_camera_axes() -> None:
    (box,) = boxes_of(car(20.0, -10.0, yaw=math.radians(30)))
    np.testing.assert_allclose(box.center, [10.0, -0.8, 20.0], atol=1e-6)
    assert box.size == (4.0, 2.0, 1.6)
    # 30 degrees to the left of forward is 120 degrees from right towards forward.
    assert box.yaw == pytest.approx(math.radians(120), abs=1e-6)
    front = box.corners[:4].mean(axis=0) - box.center
    heading = [math.cos(box.yaw), math.sin(box.yaw)]
    np.testing.assert_allclose(front[[0, 2]], 2 * np.array(heading), atol=1e-5)
    np.testing.assert_allclose(box.corners[::2, 1], -1.6, atol=1e-6)  # tops; y points down
    np.testing.assert_allclose(box.corners[1::2, 1], 0.0, atol=1e-6)
    assert (box.num_lidar_pts, box.num_radar_pts) == (5, 6)


def test_boxes_of_a_sample_are_its_vehicles(devkit: NuScenes, samples: NuScenesSamples) -> None:
    boxes = samples.boxes(1)
    vehicles = [row for row in OBJECTS if "vehicle" in row[0]]
    assert [(box.category, box.visibility) for box in boxes] == [row[:2] for row in vehicles]
    camera = samples._records[1].cameras[0].ego_T_sensor()
    for box, (category, _, ahead, left, _, size) in zip(boxes, vehicles, strict=True):
        row = devkit.get("sample_annotation", box.token)
        assert row["sample_token"] == samples.tokens[1]
        assert row["category_name"] == category
        width, length, height = size
        assert box.size == (length, width, height)
        expected = np.linalg.inv(camera) @ [ahead, left, height / 2, 1]
        np.testing.assert_allclose(box.center, expected[:3], atol=1e-4)
        corners = devkit.get_box(box.token).corners()  # the devkit's order and frame differ
        spread = np.linalg.norm(corners - corners.mean(axis=1, keepdims=True), axis=0)
        ours = np.linalg.norm(box.corners - box.center, axis=1)
        np.testing.assert_allclose(np.sort(ours), np.sort(spread), rtol=1e-5)


def test_maps_of_one_car_by_hand() -> None:
    """x from 9 to 11 m is cell 117.5 to 121.5, z from 18 to 22 m is 135.5 to 143.5."""
    truth = vehicle_truth(boxes_of(car(20.1, -10.1)), GRID)
    expected = torch.zeros(1, 200, 200)
    expected[0, 135:144, 117:122] = 1
    assert torch.equal(truth["segmentation"], expected)
    assert truth["valid"].eq(1).all()
    z, x = 140, 120  # rounded from 139.7 and 119.7
    assert truth["center"][0, z, x] == 1
    assert truth["center"][0, z, x + 3] == pytest.approx(math.exp(-0.5))
    assert truth["center"][0, z - 3, x + 4] == pytest.approx(math.exp(-25 / 18))
    assert truth["center"][0, z, x + 12] == 0  # exp(-8) is under the floor
    assert truth["offset"][:, 136, 121].tolist() == [2.0, -8.0]
    assert truth["offset"][:, expected[0] == 0].eq(0).all()


def test_dim_vehicles_are_invalid_but_segmented() -> None:
    boxes = boxes_of(car(20.0, 0.0, visibility=1), car(-20.0, 0.0, visibility=2))
    truth = vehicle_truth(boxes, GRID)
    front, back = truth["segmentation"][0, 100:], truth["segmentation"][0, :100]
    assert torch.equal(truth["valid"][0, 100:], 1 - front)
    assert front.sum() > 0
    assert back.sum() > 0
    assert truth["valid"][0, :100].eq(1).all()


def test_the_later_of_overlapping_vehicles_owns_the_offset() -> None:
    first, second = boxes_of(car(10.1, 0.1), car(11.1, 0.1))
    both = vehicle_truth([first, second], GRID)
    alone = vehicle_truth([second], GRID)
    own = alone["segmentation"][0] > 0
    assert torch.equal(both["offset"][:, own], alone["offset"][:, own])
    assert both["segmentation"].sum() > alone["segmentation"].sum()


def test_no_vehicles() -> None:
    truth = vehicle_truth([], GRID)
    assert {name: tuple(value.shape) for name, value in truth.items()} == {
        "segmentation": (1, 200, 200),
        "valid": (1, 200, 200),
        "center": (1, 200, 200),
        "offset": (2, 200, 200),
    }
    assert truth["valid"].eq(1).all()
    assert all(truth[name].eq(0).all() for name in ("segmentation", "center", "offset"))


@settings(max_examples=60, deadline=None)
@given(yaw=st.floats(-math.pi, math.pi), left=st.floats(-30, 30), forward=st.floats(-30, 30))
def test_outline_is_convex_for_level_corners(yaw: float, left: float, forward: float) -> None:
    (box,) = boxes_of(car(forward, left, yaw=yaw, length=9.0))
    covered = vehicle_truth([box], GRID)["segmentation"].sum().item()
    cells = 9.0 * 2.0 / 0.25
    # Truncation moves corners by less than a cell, and drawing includes the outline.
    assert cells - 22 <= covered <= cells + 40


@settings(max_examples=60, deadline=None)
@given(
    yaw=st.floats(-math.pi, math.pi),
    left=st.floats(-60, 60),
    tilt=st.floats(0.2, 3.0),
    around=st.floats(0.1, math.pi / 2 - 0.1),
)
def test_outline_is_simple_bevs_where_heights_differ(
    yaw: float, left: float, tilt: float, around: float
) -> None:
    """The corners in the order of their heights, the last two swapped."""
    axis = [math.cos(around), math.sin(around), 0]
    tilted = Quaternion(axis=axis, degrees=tilt).transformation_matrix.astype(np.float32)
    (box,) = boxes_of(car(12.0, left, yaw=yaw), cam0_T_ego=LEVEL @ tilted)
    heights = np.sort(box.corners[:, 1])[:4]
    if np.diff(heights).min() < 1e-5:
        return
    order = np.argsort(box.corners[:, 1])[[0, 1, 3, 2]]
    mem = GRID.to_mem(torch.from_numpy(box.corners[order])).numpy()[:, [0, 2]]
    expected, drawn = np.zeros((2, 200, 200), np.uint8)
    cv2.fillPoly(expected, [mem.astype(np.int32)], (1,))
    cv2.fillPoly(drawn, [footprint(box, GRID)], (1,))
    np.testing.assert_array_equal(drawn, expected)
