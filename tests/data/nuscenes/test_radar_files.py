"""The radar reader and the sweeps of the five radars, against nuscenes-devkit's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import RadarPointCloud
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from lmd_cli.config.data import RADAR_FIELDS
from lmd_cli.data import NuScenesSamples, RadarFilters
from lmd_cli.data.nuscenes.database import RADARS
from lmd_cli.data.nuscenes.radar_files import read_radar
from lmd_cli.data.simplebev.radar import radar_for_network, radar_points
from lmd_cli.errors import DataError
from tests.support.tiny_nuscenes import NAN_RADAR, open_samples, radar_table, write_radar

DEVKIT_DEFAULT = RadarFilters((0,), range(7), (3,))


@pytest.fixture
def unfiltered_devkit() -> Iterator[None]:
    RadarPointCloud.disable_filters()
    yield
    RadarPointCloud.default_filters()


def all_radar_files(root: Path) -> list[Path]:
    return sorted(root.glob("s*/RADAR_*/*.pcd"))


def test_all_fields_equal_the_devkits_without_filters(
    tiny_root: Path, unfiltered_devkit: None
) -> None:
    files = all_radar_files(tiny_root)
    assert len(files) == 3 * 5 * 5
    for path in files:
        expected = RadarPointCloud.from_file(str(path)).points
        ours = read_radar(path)
        np.testing.assert_array_equal(ours, expected, strict=True)
        assert (ours.shape[1] == 0) == (NAN_RADAR in path.name)


def test_all_fields_equal_the_devkits_default_filters(tiny_root: Path) -> None:
    kept = 0
    for path in all_radar_files(tiny_root):
        ours = read_radar(path, DEVKIT_DEFAULT)
        np.testing.assert_array_equal(ours, RadarPointCloud.from_file(str(path)).points)
        kept += ours.shape[1]
    assert 0 < kept < sum(read_radar(path).shape[1] for path in all_radar_files(tiny_root))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 30),
    invalid=st.none() | st.sets(st.integers(0, 17)),
    dynprop=st.none() | st.sets(st.integers(0, 7)),
    ambig=st.none() | st.sets(st.integers(0, 4)),
)
def test_any_filters_equal_the_devkits(
    tmp_path: Path,
    seed: int,
    width: int,
    invalid: set[int] | None,
    dynprop: set[int] | None,
    ambig: set[int] | None,
) -> None:
    path = tmp_path / "radar.pcd"
    write_radar(path, radar_table(np.random.default_rng(seed), width))
    everything = list(range(-128, 128))
    expected = RadarPointCloud.from_file(
        str(path),
        everything if invalid is None else list(invalid),
        everything if dynprop is None else list(dynprop),
        everything if ambig is None else list(ambig),
    )
    ours = read_radar(path, RadarFilters(invalid, dynprop, ambig))
    np.testing.assert_array_equal(ours, expected.points)


def test_only_a_first_point_without_a_position_means_empty(tmp_path: Path) -> None:
    path = tmp_path / "radar.pcd"
    table = radar_table(np.random.default_rng(0), 9)
    for name in ("x", "y", "z"):
        table[name][0] = np.nan
    write_radar(path, table)
    assert read_radar(path).shape == (18, 0)


@pytest.mark.parametrize(
    ("name", "point", "value", "said"),
    [
        ("rcs", 4, np.nan, "point 4 of 9 is no measurement: rcs is nan"),
        ("vx", 0, np.nan, "point 0 of 9 is no measurement: vx is nan"),
        ("vy_comp", 8, np.inf, "vy_comp is inf"),
        ("y", 2, -1000.5, "y is -1000.5, beyond 1000 m"),
    ],
)
def test_points_that_no_radar_measures_are_named(
    tmp_path: Path, name: str, point: int, value: float, said: str
) -> None:
    path = tmp_path / "radar.pcd"
    table = radar_table(np.random.default_rng(0), 9)
    table[name][point] = value
    write_radar(path, table)
    with pytest.raises(DataError) as caught:
        read_radar(path, token="the-sample")
    assert f"{path}: " in str(caught.value)
    assert said in str(caught.value)


def test_a_radar_file_that_is_partly_zeros_is_named(tmp_path: Path) -> None:
    path = tmp_path / "radar.pcd"
    table = radar_table(np.random.default_rng(0), 9)
    table[6:] = 0
    write_radar(path, table)
    with pytest.raises(DataError, match="3 of its 9 points are zeros alone, all after point 5"):
        read_radar(path)
    assert read_radar(path, fields={}).shape == (18, 9)  # lists that are filled up


def test_the_devkits_global_filters_are_left_alone(samples: NuScenesSamples) -> None:
    before = (
        RadarPointCloud.invalid_states,
        RadarPointCloud.dynprop_states,
        RadarPointCloud.ambig_states,
    )
    assert samples[0].tensors["radar_xyz"].shape[0] > 0
    after = (
        RadarPointCloud.invalid_states,
        RadarPointCloud.dynprop_states,
        RadarPointCloud.ambig_states,
    )
    assert after == before == ([0], range(7), [3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "truncated: the file is empty"),
        (lambda content: content[:60], "truncated, or not a .pcd file: no DATA line"),
        (lambda content: bytes(len(content)), "it holds nothing but zeros"),
        (lambda content: b"<!DOCTYPE html><title>404</title>\n" * 99, "it is a web page"),
        (lambda content: content[:-60], "truncated: 7 of 9 points"),
        (lambda content: content.replace(b"DATA binary", b"DATA packed"), "DATA is 'packed'"),
        (
            lambda content: content.replace(b"x y z dyn", b"a y z dyn"),
            "it has no field x; it has a",
        ),
        (lambda content: content.replace(b"SIZE 4 4", b"SIZE 4 5"), "field y is of TYPE F, SIZE 5"),
        (lambda content: content.replace(b"WIDTH 9", b"WIDTH x"), "WIDTH is 'x'"),
        (lambda content: content.replace(b"WIDTH 9", b"WIDTH -1"), "WIDTH is '-1'"),
        (lambda content: content.replace(b"TYPE F F", b"TYPE F Q"), "field y is of TYPE Q"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage, message: str) -> None:
    path = tmp_path / "radar.pcd"
    write_radar(path, radar_table(np.random.default_rng(0), 9))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        read_radar(path, token="the-sample")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "(needed by sample the-sample)" in str(caught.value)
    assert (caught.value.path, caught.value.token) == (str(path), "the-sample")


def test_the_byte_after_the_points_is_not_needed(tmp_path: Path) -> None:
    """The devkit asserts that there is one; nothing is lost without it."""
    path = tmp_path / "radar.pcd"
    write_radar(path, radar_table(np.random.default_rng(0), 9))
    whole = read_radar(path)
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(read_radar(path), whole)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="truncated: 8 of 9 points"):
        read_radar(path)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_radar(tmp_path)


@pytest.mark.parametrize("nsweeps", [1, 3])
def test_sweeps_equal_the_devkits(
    tiny_root: Path, devkit: NuScenes, unfiltered_devkit: None, nsweeps: int
) -> None:
    """The devkit accumulates in a sensor's frame; its mounting takes the points to the ego's."""
    samples = open_samples(tiny_root, nsweeps=nsweeps)
    for record in samples._records:
        row = devkit.get("sample", record.token)
        reference = devkit.get("sample_data", row["data"]["RADAR_FRONT"])
        mount = devkit.get("calibrated_sensor", reference["calibrated_sensor_token"])
        ego_T_front = transform_matrix(mount["translation"], Quaternion(mount["rotation"]))
        clouds, lags = [], []
        for channel in RADARS:
            cloud, lag = RadarPointCloud.from_file_multisweep(
                devkit, row, channel, "RADAR_FRONT", nsweeps, min_distance=2.2
            )
            cloud.transform(ego_T_front)
            clouds.append(cloud.points)
            lags.append(lag)
        expected = np.vstack([np.hstack(clouds), np.hstack(lags)])
        ours = radar_points(tiny_root, record)
        assert ours.shape == expected.shape == (19, ours.shape[1])
        np.testing.assert_allclose(ours[:3], expected[:3], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(ours[3:], expected[3:])


def test_fewer_sweeps_at_the_start_of_a_scene(samples: NuScenesSamples) -> None:
    first, second = samples._records[:2]
    assert {len(sweeps) for sweeps in first.radars.values()} == {2}
    assert {len(sweeps) for sweeps in second.radars.values()} == {3}
    lags = np.unique(radar_points(samples.dataroot, second)[-1])
    np.testing.assert_allclose(lags, [0.0, 0.077, 0.154], atol=1e-9)


def test_filters_reach_the_samples(tiny_root: Path, samples: NuScenesSamples) -> None:
    filtered = open_samples(tiny_root, radar_filters=DEVKIT_DEFAULT)[0].tensors["radar_features"]
    states = filtered[:-1, RADAR_FIELDS.index("invalid_state") - 3]
    assert states.eq(0).all()
    assert 1 < len(filtered) < len(samples[0].tensors["radar_features"])


def test_padding_point_is_the_ego_origin() -> None:
    cam0_T_ego = np.array(
        [[0, -1, 0, 0.1], [0, 0, -1, 1.5], [1, 0, 0, -1.7], [0, 0, 0, 1]], dtype=np.float32
    )
    points = np.arange(19 * 2, dtype=np.float64).reshape(19, 2)
    xyz, features = radar_for_network(points, cam0_T_ego)
    assert (xyz.dtype, features.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(xyz, [[-1.9, -2.5, -1.7], [-2.9, -3.5, -0.7], [0.1, 1.5, -1.7]])
    np.testing.assert_array_equal(features[:2], points[3:].T)
    np.testing.assert_array_equal(features[2], np.zeros(16))


@pytest.mark.parametrize("name", ["x", "y", "z"])
def test_a_single_point_that_lacks_a_coordinate_means_empty(tmp_path: Path, name: str) -> None:
    """As nuScenes and the synthetic world write a radar without returns."""
    path = tmp_path / "radar.pcd"
    table = radar_table(np.random.default_rng(0), 1)
    table[name][0] = np.nan
    write_radar(path, table)
    assert read_radar(path).shape == (18, 0)
