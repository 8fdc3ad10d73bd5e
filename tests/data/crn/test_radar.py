"""CRN's radar points, against nuscenes-devkit's own transforms."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import RadarPointCloud
from nuscenes.utils.geometry_utils import transform_matrix, view_points
from pyquaternion import Quaternion

from lmd_cli.data import KeyframeSamples
from lmd_cli.data.crn.images import Window
from lmd_cli.data.crn.radar import (
    PERSPECTIVE_FILTERS,
    RadarView,
    camera_rows,
    keyframe_points,
    network_rows,
)
from lmd_cli.data.nuscenes.database import SampleRecord
from lmd_cli.data.nuscenes.radar_files import read_radar
from tests.support.crn_preprocessing import camera
from tests.support.tiny_nuscenes import VERSION, radar_table, write_radar

WINDOW = Window.covering(camera(), (256, 704))
RADARS = [f"RADAR_{place}" for place in ("FRONT", "FRONT_LEFT", "FRONT_RIGHT")]
RADARS += ["RADAR_BACK_LEFT", "RADAR_BACK_RIGHT"]
VALID = [0, 4, 8, 9, 10, 11, 12, 15, 16, 17]


def open_tiny(root: Path) -> KeyframeSamples:
    return KeyframeSamples(root, VERSION, "mini_val", image_size=(32, 56), radar_slots=64)


@pytest.fixture(scope="module")
def samples(tiny_root: Path) -> KeyframeSamples:
    return open_tiny(tiny_root)


def points_of(samples: KeyframeSamples, record: SampleRecord) -> NDArray[np.float32]:
    return keyframe_points(
        record, lambda name: read_radar(samples.dataroot / name, PERSPECTIVE_FILTERS)
    )


def devkit_points(devkit: NuScenes, token: str) -> NDArray[np.float64]:
    """CRN's points of a key frame in the LiDAR's frame, step by step with the devkit, (n, 7)."""
    row = devkit.get("sample", token)
    lidar = devkit.get("sample_data", row["data"]["LIDAR_TOP"])
    mount = devkit.get("calibrated_sensor", lidar["calibrated_sensor_token"])
    pose = devkit.get("ego_pose", lidar["ego_pose_token"])
    clouds = []
    for channel in RADARS:
        radar, sweep = devkit.get("sample_data", row["data"][channel]), 0
        while sweep < 6:
            cloud = RadarPointCloud.from_file(
                str(Path(devkit.dataroot) / radar["filename"]), VALID, list(range(8)), [3]
            )
            own_mount = devkit.get("calibrated_sensor", radar["calibrated_sensor_token"])
            own_pose = devkit.get("ego_pose", radar["ego_pose_token"])
            velocities = [
                Quaternion(mount["rotation"]).inverse.rotate(
                    Quaternion(own_mount["rotation"]).rotate([vx, vy, 0.0])
                )
                for vx, vy in cloud.points[8:10].T
            ]
            for step in (own_mount, own_pose):
                cloud.transform(transform_matrix(step["translation"], Quaternion(step["rotation"])))
            for step in (pose, mount):
                rotation = Quaternion(step["rotation"])
                cloud.transform(transform_matrix(step["translation"], rotation, inverse=True))
            lag = 1e-6 * (lidar["timestamp"] - radar["timestamp"])
            for point, v in zip(cloud.points.T, velocities, strict=True):
                x, y = point[0] + v[0] * lag, point[1] + v[1] * lag
                clouds.append([x, y, point[2], point[5], v[0], v[1], sweep])
            if not radar["prev"]:
                break
            radar, sweep = devkit.get("sample_data", radar["prev"]), sweep + 1
    points = np.array(clouds)
    distance = np.linalg.norm(points[:, :2], axis=1)
    return points[(distance > 0.1) & (distance < 100)]


def test_points_equal_the_devkits(devkit: NuScenes, samples: KeyframeSamples) -> None:
    for record in samples._records:
        ours, expected = points_of(samples, record), devkit_points(devkit, record.token)
        assert ours.shape == expected.shape
        assert len(ours) > 50
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-5)
        assert len(np.unique(ours[:, 6])) == len(record.radars["RADAR_FRONT"]) > 1


def devkit_rows(devkit: NuScenes, points: NDArray, token: str, name: str) -> NDArray[np.float64]:
    """What a camera sees of points in the LiDAR's frame, step by step with the devkit, (k, 7)."""
    row = devkit.get("sample", token)
    cloud = RadarPointCloud(np.zeros((18, len(points))))
    cloud.points[:3] = points[:, :3].T
    for channel, inverse in (("LIDAR_TOP", False), (name, True)):
        frame = devkit.get("sample_data", row["data"][channel])
        mount = devkit.get("calibrated_sensor", frame["calibrated_sensor_token"])
        pose = devkit.get("ego_pose", frame["ego_pose_token"])
        for step in (pose, mount) if inverse else (mount, pose):
            rotation = Quaternion(step["rotation"])
            cloud.transform(transform_matrix(step["translation"], rotation, inverse))
    depth = cloud.points[2].copy()
    pixels = view_points(cloud.points[:3], np.array(mount["camera_intrinsic"]), normalize=True)
    rows = np.column_stack([pixels[:2].T, depth, points[:, 3:]])
    u, v = pixels[:2]
    inside = (u > 1) & (u < frame["width"] - 1) & (v > 1) & (v < frame["height"] - 1)
    return rows[(depth > 0.1) & (depth < 100) & inside]


def test_camera_rows_equal_the_devkits(devkit: NuScenes, samples: KeyframeSamples) -> None:
    seen = 0
    for record in samples._records:
        points = points_of(samples, record)
        for name, frame in zip(samples.rig.cameras, record.cameras, strict=True):
            ours = camera_rows(points, record.reference, frame)
            expected = devkit_rows(devkit, points, record.token, name)
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
            seen += len(ours)
    assert seen > 100


def write_still_points(root: Path) -> None:
    """Every key frame's radar files anew: near points that stand still, all of them valid."""
    for i, path in enumerate(sorted(root.glob("samples/RADAR_*/*.pcd"))):
        table = radar_table(np.random.default_rng(i), 60)
        table["x"], table["y"] = np.abs(table["x"]).clip(2, 60), table["y"].clip(-60, 60)
        table["dyn_prop"] %= 7
        for field, value in (("vx_comp", 0), ("vy_comp", 0), ("invalid_state", 0)):
            table[field] = value
        table["ambig_state"] = 3
        write_radar(path, table)


def test_still_points_land_where_the_devkit_draws_them(tiny_root: Path, tmp_path: Path) -> None:
    """The devkit's own projection of a radar file, which knows nothing of a LiDAR frame."""
    root = Path(shutil.copytree(tiny_root, tmp_path / "root"))
    write_still_points(root)
    samples, devkit = open_tiny(root), NuScenes(VERSION, str(root), verbose=False)
    drawn = 0
    for record in samples._records:
        data = devkit.get("sample", record.token)["data"]
        points = points_of(samples, record)
        current = points[points[:, 6] == 0]
        for name, frame in zip(samples.rig.cameras, record.cameras, strict=True):
            theirs = [
                devkit.explorer.map_pointcloud_to_image(data[radar], data[name], min_dist=0.1)
                for radar in RADARS
            ]
            expected = np.concatenate([np.column_stack([p[:2].T, d]) for p, d, _ in theirs])
            ours = camera_rows(current, record.reference, frame)[:, :3]
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
            drawn += len(ours)
    assert drawn > 200


def test_a_moving_point_is_brought_forward(samples: KeyframeSamples) -> None:
    """An oncoming point of the front radar, 0.231 s old: it came nearer by that times its speed."""
    record = samples._records[1]
    sweep, lidar = record.radars["RADAR_FRONT"][3], record.reference
    lag = 1e-6 * (lidar.timestamp - sweep.timestamp)
    assert lag == pytest.approx(0.234)

    def read(vx: float) -> NDArray[np.float32]:
        point = np.zeros((18, 1))
        point[[0, 8]] = [[40.0], [vx]]
        return keyframe_points(record, lambda n: point if n == sweep.filename else point[:, :0])

    (still,), (moving,) = read(0.0), read(-10.0)
    lidar_T_radar = lidar.ego_T_sensor()[:3, :3].T @ sweep.ego_T_sensor()[:3, :3]
    np.testing.assert_allclose(moving[4:6], (lidar_T_radar @ [-10.0, 0, 0])[:2], atol=1e-6)
    np.testing.assert_allclose(moving[:2] - still[:2], moving[4:6] * lag, atol=1e-5)
    assert moving[2] == still[2]
    assert np.linalg.norm(moving[:2]) < np.linalg.norm(still[:2]) - 2
    assert (still[6], moving[6]) == (3, 3)


def seen(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    """Rows u, v, depth, rcs, vx, vy, sweep."""
    return np.array(rows, np.float32).reshape(-1, 7)


def taken(rows: NDArray[np.float32], slots: int = 8) -> NDArray[np.float32]:
    """The network's rows that are not free."""
    out = network_rows(rows, WINDOW, RadarView(slots, 58.0))
    free = (out == -999).all(axis=1)
    assert out.shape == (slots, 5)
    assert not free[: np.count_nonzero(~free)].any()
    return out[~free]


def test_one_row() -> None:
    """Speed sqrt(3^2 + 4^2); neither v nor the sweep remains."""
    (row,) = taken(seen((800, 600, 30, 12.359, 3, -4, 5)))
    np.testing.assert_allclose(row, [352, 30, 1, 1, (5 - 0.677) / 1.976], rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "inside"),
    [
        ((800, 600, 57.99, 0, 0, 0, 0), True),
        ((800, 600, 58.0, 0, 0, 0, 0), False),
        ((800, 600, 30, 0, 0, 0, 5), True),
        ((800, 600, 30, 0, 0, 0, 6), False),
        ((800, 316.0, 30, 0, 0, 0, 0), True),  # 0.96 pixels above the window: cut to row 0
        ((800, 315.8, 30, 0, 0, 0, 0), False),  # 1.05 above
        ((1.1, 600, 30, 0, 0, 0, 0), True),
        ((1598.9, 898.9, 30, 0, 0, 0, 0), True),
    ],
)
def test_which_rows_are_taken(row: tuple[float, ...], inside: bool) -> None:
    other = (100.0, 600.0, 10.0, 0, 0, 0, 0)
    assert len(taken(seen(other, row))) == 1 + inside
    made_up = np.array([[0.1, 57.0, 0.1, 0.0, 0.0]], np.float32)
    assert np.array_equal(taken(seen(row)), made_up) != inside


@pytest.mark.parametrize("bound", [50.0, 58.0])
def test_a_view_without_points_gets_one(bound: float) -> None:
    out = network_rows(seen(), WINDOW, RadarView(4, bound))
    np.testing.assert_array_equal(out[0], np.array([0.1, bound - 1, 0.1, 0, 0], np.float32))
    np.testing.assert_array_equal(out[1:], np.full((3, 5), -999.0))


@settings(max_examples=40, deadline=None)
@given(sweeps=st.lists(st.integers(0, 7), max_size=30), slots=st.integers(1, 20))
def test_order_and_choice(sweeps: list[int], slots: int) -> None:
    """Ascending sweeps, within one the order of the rows; the first ones where slots run out."""
    rows = seen(*((800.0, 600.0, 1.0 + i, 0.0, 0.0, 0.0, s) for i, s in enumerate(sweeps)))
    order = sorted((s, i) for i, s in enumerate(sweeps) if s < 6)
    expected = [1.0 + i for _, i in order][:slots] or [57.0]
    assert taken(rows, slots)[:, 1].tolist() == expected


def test_limits_follow_the_images_own_size() -> None:
    """A camera of half the resolution: the same points, at half the pixels."""
    front = camera()
    lidar = replace(front, sensor_rotation=[1.0, 0.0, 0.0, 0.0])
    intrinsic = np.array(front.intrinsic)
    intrinsic[:2] /= 2
    half = replace(front, width=800, height=450, intrinsic=intrinsic.tolist())
    points = np.zeros((400, 7), np.float32)
    points[:, :3] = np.random.default_rng(0).normal([30, 0, 0], [15, 15, 4], (400, 3))
    full_rows, half_rows = (camera_rows(points, lidar, frame) for frame in (front, half))
    margin = half_rows[:, :2] * 2
    assert len(full_rows) >= len(half_rows) > 100
    assert margin.max(axis=0)[0] < 1598
    assert margin.max(axis=0)[1] < 898
    kept = np.isin(full_rows[:, 2], half_rows[:, 2])
    np.testing.assert_allclose(full_rows[kept, :2], margin, rtol=1e-5)
    edge = full_rows[~kept, :2]
    assert ((edge <= 2) | (edge >= [1598, 898])).any(axis=1).all()
