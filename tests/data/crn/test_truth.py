"""Vehicle boxes in CRN's ego frame, and their maps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion
from shapely.geometry import Point, Polygon

from lmd_cli.data import EgoBox, KeyframeSamples
from lmd_cli.data.crn import covered
from lmd_cli.data.crn.truth import ego_boxes, map_truth
from tests.support.tiny_nuscenes import OBJECTS, VERSION


def box(x: float, y: float, yaw: float = 0.0, name: str | None = "car", **size: float) -> EgoBox:
    extent = (size.get("length", 4.6), size.get("width", 1.9), 1.6)
    return EgoBox("box", "vehicle.car", name, 4, (x, y, 0.8), extent, yaw, (0.0, 0.0), 5, 6)


def test_boxes_equal_the_devkits(drive: KeyframeSamples, drive_devkit: NuScenes) -> None:
    """Moved to the mean of the cameras' poses by the devkit's own box."""
    known = 0
    for index in (0, 5, 7):
        row = drive_devkit.get("sample", drive.tokens[index])
        frames = [
            drive_devkit.get("sample_data", row["data"][c]) for c in row["data"] if "CAM" in c
        ]
        poses = [drive_devkit.get("ego_pose", frame["ego_pose_token"]) for frame in frames]
        assert len(poses) == 6
        vehicles = [drive_devkit.get_box(token) for token in row["anns"]]
        vehicles = [vehicle for vehicle in vehicles if "vehicle" in vehicle.name]
        ours = drive.boxes(index)
        assert [b.token for b in ours] == [vehicle.token for vehicle in vehicles]
        for mine, theirs in zip(ours, vehicles, strict=True):
            theirs.velocity = drive_devkit.box_velocity(theirs.token)
            theirs.translate(-np.mean([pose["translation"] for pose in poses], axis=0))
            theirs.rotate(Quaternion(np.mean([pose["rotation"] for pose in poses], axis=0)).inverse)
            np.testing.assert_allclose(mine.center, theirs.center, rtol=0, atol=1e-9)
            np.testing.assert_allclose(mine.velocity, theirs.velocity[:2], rtol=0, atol=1e-9)
            forward = theirs.orientation.rotate([1.0, 0.0, 0.0])
            assert mine.yaw == pytest.approx(math.atan2(forward[1], forward[0]), abs=1e-9)
            known += not math.isnan(mine.velocity[0])
    assert known > 5


def test_boxes_are_seen_from_the_mean_of_the_cameras_poses(drive: KeyframeSamples) -> None:
    """Cameras 0 to 5 m further along the map's x: 2.5 m in the mean."""
    record = drive._records[3]
    moved = []
    for i, camera in enumerate(record.cameras):
        x, y, z = camera.ego_translation
        moved.append(replace(camera, ego_translation=[x + i, y, z]))
    ego_T_global = record.cameras[0].global_T_ego()[:3, :3].T
    shift = ego_T_global @ [-2.5, 0.0, 0.0]
    before, after = drive.boxes(3), ego_boxes(replace(record, cameras=tuple(moved)))
    assert len(before) > 3
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(np.subtract(new.center, old.center), shift, atol=1e-9)
        assert new.yaw == old.yaw


def test_boxes_hold_what_was_annotated(tiny_root: Path) -> None:
    samples = KeyframeSamples(tiny_root, VERSION, "mini_val", image_size=(32, 56))
    boxes = samples.boxes(1)
    rows = [(i, row) for i, row in enumerate(OBJECTS) if "vehicle" in row[0]]
    for mine, (i, row) in zip(boxes, rows, strict=True):
        category, visibility, ahead, left, yaw, (width, length, height) = row
        assert (mine.category, mine.visibility) == (category, visibility)
        assert mine.token == f"{samples.tokens[1]}-box{i}"
        assert mine.name == category_to_detection_name(category)
        assert mine.size == (length, width, height)
        assert (mine.num_lidar_pts, mine.num_radar_pts) == (10 + i, i)
        # Placed around the vehicle at the LiDAR's time; the cameras saw it 9 ms later.
        np.testing.assert_allclose(mine.center[:2], [ahead, left], atol=0.5)
        assert math.remainder(mine.yaw - math.radians(yaw), math.tau) == pytest.approx(0, abs=0.01)
        assert all(math.isnan(v) for v in mine.velocity)  # annotated once: the devkit has none
    assert [mine.name for mine in boxes] == ["car", "truck", "bicycle", "bus"]
    assert samples[1].tensors["cars"].sum() < samples[1].tensors["vehicles"].sum()


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-60, 60),
    y=st.floats(-60, 60),
    yaw=st.floats(-math.pi, math.pi),
    length=st.floats(0.4, 15),
    width=st.floats(0.3, 4),
)
def test_covered_cells_equal_the_polygons(
    x: float, y: float, yaw: float, length: float, width: float
) -> None:
    step = 3.2
    for value in (x, y):  # not on an edge between cells, where rounding decides
        assume(abs(math.remainder(value + 51.2, step)) > 1e-9)
    mask = covered(box(x, y, yaw, length=length, width=width), 51.2, 32)
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2 * [length, width]
    outline = Polygon(corners @ turn.T + [x, y])
    for row in range(32):
        for column in range(32):
            left, bottom = column * step - 51.2, row * step - 51.2
            middle = Point(left + step / 2, bottom + step / 2)
            if outline.exterior.distance(middle) < 1e-9:
                continue
            holds = left <= x < left + step and bottom <= y < bottom + step
            assert mask[row, column] == (holds or outline.contains(middle))


def test_rows_are_left_and_columns_forward() -> None:
    mask = covered(box(20.0, -10.0), 51.2, 128)
    rows, columns = np.nonzero(mask)
    np.testing.assert_allclose((columns.mean() + 0.5) * 0.8 - 51.2, 20.0, atol=0.4)
    np.testing.assert_allclose((rows.mean() + 0.5) * 0.8 - 51.2, -10.0, atol=0.4)
    assert np.ptp(columns) > np.ptp(rows)


def test_narrow_and_far_vehicles() -> None:
    assert covered(box(10.0, 10.0, 0.3, length=0.2, width=0.1), 51.2, 128).sum() == 1
    assert covered(box(-51.2, 51.199, length=0.2, width=0.1), 51.2, 128)[127, 0]
    for x, y in ((51.2, 0.0), (-51.3, 0.0), (0.0, 60.0)):
        assert not covered(box(x, y, length=0.05, width=0.1), 51.2, 128).any()
    assert covered(box(52.0, 0.0), 51.2, 128).any()  # its rear reaches into the map


def test_maps_of_cars_and_of_vehicles() -> None:
    boxes = [box(5.0, 5.0), box(-20.0, 0.0, 1.0, name="truck"), box(0.0, 30.0, name=None)]
    maps = map_truth(boxes, 51.2, 128)
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "cars": (1, 128, 128),
        "vehicles": (1, 128, 128),
    }
    each = [torch.from_numpy(covered(b, 51.2, 128)).float() for b in boxes]
    assert torch.equal(maps["cars"][0], each[0])
    assert torch.equal(maps["vehicles"][0], sum(each))
    assert not map_truth([], 51.2, 128)["vehicles"].any()


def test_maps_of_a_sample(drive: KeyframeSamples) -> None:
    for name, value in map_truth(drive.boxes(7), 51.2, 128).items():
        assert torch.equal(drive[7].tensors[name], value)
    assert drive[7].tensors["cars"].any()
