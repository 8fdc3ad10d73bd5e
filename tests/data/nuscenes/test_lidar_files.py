"""LiDAR files and sweeps, against nuscenes-devkit's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from lmd_cli.data import NuScenesSamples
from lmd_cli.data.nuscenes.lidar_files import read_lidar
from lmd_cli.data.nuscenes.sweeps import remove_close
from lmd_cli.data.simplebev.lidar import lidar_for_network, lidar_points
from lmd_cli.errors import DataError


def test_sweeps_equal_the_devkits(devkit: NuScenes, samples: NuScenesSamples) -> None:
    for record in samples._records:
        row = devkit.get("sample", record.token)
        frame = devkit.get("sample_data", row["data"]["LIDAR_TOP"])
        mount = devkit.get("calibrated_sensor", frame["calibrated_sensor_token"])
        cloud, lags = LidarPointCloud.from_file_multisweep(
            devkit, row, "LIDAR_TOP", "LIDAR_TOP", nsweeps=3, min_distance=2.2
        )
        cloud.transform(transform_matrix(mount["translation"], Quaternion(mount["rotation"])))
        ours = lidar_points(samples.dataroot, record)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours[:3], cloud.points[:3], rtol=0, atol=2e-5)
        np.testing.assert_array_equal(ours[3], cloud.points[3])
        np.testing.assert_allclose(ours[5], lags[0], rtol=0, atol=1e-7)


def test_remove_close_needs_both_x_and_y_close() -> None:
    points = np.array([[2.19, 2.19, 2.2, 2.3, np.nan], [-2.19, 2.2, 0.0, -9.0, 0.0], [0] * 5])
    kept = remove_close(points)
    np.testing.assert_array_equal(kept[0], [2.19, 2.2, 2.3, np.nan])


def test_points_at_the_ego_origin_are_dropped() -> None:
    points = np.zeros((6, 3), dtype=np.float32)
    points[0] = [0.5, 1.0, 1.5]
    identity = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(lidar_for_network(points, identity), [[1.5, 0, 0]])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "truncated: the file is empty"),
        (39, "truncated, or of another width: 39 bytes are not whole points"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, size: int, message: str) -> None:
    path = tmp_path / "lidar.pcd.bin"
    path.write_bytes(b"\1" * size)
    with pytest.raises(DataError) as caught:
        read_lidar(path, token="the-sample")
    assert f"{path}: {message}" in str(caught.value)
    assert str(caught.value).endswith("(needed by sample the-sample)")


def damaged(tmp_path: Path, zeros: slice) -> Path:
    cloud = np.random.default_rng(0).normal(0, 9, (1000, 5)).astype("<f4")
    cloud[:, 4] = np.arange(1000) % 32
    cloud[zeros] = 0
    path = tmp_path / "lidar.pcd.bin"
    path.write_bytes(cloud.tobytes())
    return path


@pytest.mark.parametrize(
    ("zeros", "said"),
    [
        (slice(940, None), "60 of its 1000 points are zeros alone, all after point 939"),
        (slice(100, 600), "500 of its 1000 points are zeros alone (needed"),
        (slice(0, None, 10), "100 of its 1000 points are zeros alone (needed"),
    ],
)
def test_a_cloud_that_is_partly_zeros_is_named(tmp_path: Path, zeros: slice, said: str) -> None:
    path = damaged(tmp_path, zeros)
    with pytest.raises(DataError) as caught:
        read_lidar(path, token="the-sample")
    assert str(caught.value).startswith(f"{path}: truncated or not fully written: {said}")


def test_a_few_points_of_zeros_are_a_sensors(tmp_path: Path) -> None:
    assert read_lidar(damaged(tmp_path, slice(960, None))).shape == (5, 1000)
    # Beams that do not return, in the only ring whose number is 0.
    assert read_lidar(damaged(tmp_path, slice(0, None, 32))).shape == (5, 1000)
