"""Recordings of other sensors than nuScenes': which channels are read, and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lmd_cli.config.data import RADAR_FIELDS
from lmd_cli.data import Channels, KeyframeSamples, NuScenesSamples
from lmd_cli.data.nuscenes.database import CAMERAS, RADARS, Rig
from lmd_cli.data.nuscenes.lidar_files import read_lidar
from lmd_cli.data.nuscenes.radar_files import read_radar
from lmd_cli.data.nuscenes.rig import NUSCENES, resolve_rig
from lmd_cli.errors import DataError
from tests.support.tiny_nuscenes import VERSION, open_samples, radar_table, write_radar

NAMES = {"CAM_FRONT": "left", "CAM_BACK": "right", "RADAR_FRONT": "long_range"}
CUSTOM = Channels(("right", "left"), ("long_range",))


@pytest.fixture
def own_root(tiny_root: Path, tmp_path: Path) -> Path:
    """Two cameras and a radar with names of their own, no LiDAR."""
    root = Path(shutil.copytree(tiny_root, tmp_path / "root"))
    tables = {name: _rows(root, name) for name in ("sensor", "calibrated_sensor", "sample_data")}
    sensors = [{**r, "channel": NAMES[r["token"]]} for r in tables["sensor"] if r["token"] in NAMES]
    mounts = [row for row in tables["calibrated_sensor"] if row["sensor_token"] in NAMES]
    kept = {row["token"] for row in mounts}
    files = [row for row in tables["sample_data"] if row["calibrated_sensor_token"] in kept]
    for name, rows in (("sensor", sensors), ("calibrated_sensor", mounts), ("sample_data", files)):
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows))
    return root


def _rows(root: Path, table: str) -> list[dict]:
    return json.loads((root / VERSION / f"{table}.json").read_text())


def test_a_rig_of_ones_own_is_nuscenes_less(own_root: Path, samples: NuScenesSamples) -> None:
    own = open_samples(own_root, modalities=("camera", "radar"), channels=CUSTOM)
    assert own.rig == Rig(("right", "left"), ("long_range",), ())
    assert list(own.missing_files()) == ["right", "left", "long_range"]
    tensors, usual = own[1].tensors, samples[1].tensors
    for ours, theirs in ((0, CAMERAS.index("CAM_BACK")), (1, CAMERAS.index("CAM_FRONT"))):
        assert torch.equal(tensors["images"][ours], usual["images"][theirs])
        assert torch.equal(tensors["pix_T_cams"][ours], usual["pix_T_cams"][theirs])
    assert torch.equal(tensors["cam0_T_camXs"][0].round(decimals=5), torch.eye(4))
    assert 1 < len(tensors["radar_xyz"]) < len(usual["radar_xyz"])
    assert list(own.pictures(own[1])) == ["right", "left"]
    assert [box.token for box in own.boxes(1)] == [box.token for box in samples.boxes(1)]


def test_everything_that_lacks_is_named_with_what_to_do(own_root: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_samples(own_root)
    said = str(caught.value)
    assert f"no camera {', '.join(CAMERAS)} and no radar {', '.join(RADARS)} and no lidar" in said
    assert "left (camera), long_range (radar), right (camera)" in said
    assert "--set 'data.cameras=[left,right]' --set 'data.radars=[long_range]'" in said
    assert "A network without lidar is needed" in said


def test_crn_says_how_many_cameras_it_needs(own_root: Path) -> None:
    with pytest.raises(DataError, match=r"CRN's weights need 6 cameras.*there are 2 \(right, left"):
        KeyframeSamples(own_root, VERSION, "mini_val", channels=CUSTOM)
    cameras = Channels(("right", "left") * 3, ("long_range",))
    with pytest.raises(DataError, match=r"have no LIDAR_TOP: name one with data\.lidar"):
        KeyframeSamples(own_root, VERSION, "mini_val", channels=cameras)


EVERY = {**dict.fromkeys(CAMERAS, "camera"), **dict.fromkeys(RADARS, "radar"), "LIDAR_TOP": "lidar"}


@pytest.mark.parametrize(
    ("absent", "asked", "modalities", "said"),
    [
        ("CAM_BACK", Channels(), ("camera",), None),
        ("CAM_BACK", Channels(cameras=CAMERAS), ("camera",), "no camera CAM_BACK;"),
        ("CAM_FRONT", Channels(), ("camera",), "no camera CAM_FRONT;"),
        ("CAM_FRONT", Channels(cameras=CAMERAS[1:]), ("camera",), None),
        ("LIDAR_TOP", Channels(), ("camera", "radar"), None),
        ("LIDAR_TOP", Channels(), ("camera", "lidar"), "no lidar LIDAR_TOP"),
        ("RADAR_FRONT", Channels(), ("camera", "radar"), None),
        ("", Channels(radars=("CAM_BACK",)), ("camera", "radar"), "no radar CAM_BACK"),
    ],
)
def test_what_may_be_missing(absent, asked, modalities, said) -> None:
    there = {name: modality for name, modality in EVERY.items() if name != absent}
    if said is None:
        rig = resolve_rig(there, asked, NUSCENES, modalities)
        assert absent not in (*rig.cameras, *rig.radars, *rig.lidars)
        return
    with pytest.raises(DataError) as caught:
        resolve_rig(there, asked, NUSCENES, modalities)
    assert said in str(caught.value)


# -- files of other sensors -----------------------------------------------------------------


def test_fields_of_another_radar_are_mapped(tmp_path: Path) -> None:
    path, table = tmp_path / "radar.pcd", radar_table(np.random.default_rng(0), 9)
    write_radar(path, table)
    usual = dict(zip(RADAR_FIELDS, read_radar(path), strict=True))
    content = path.read_bytes().replace(b" vx vy ", b" vr vt ").replace(b" rcs ", b" dBm ")
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"no field rcs, vx, vy; it has x, y, z.*data\.radar_fields"
    ):
        read_radar(path)
    named = {"vx": "vr", "rcs": "dBm", "dyn_prop": 3}
    actual = dict(zip(RADAR_FIELDS, read_radar(path, fields=named), strict=True))
    for name in RADAR_FIELDS:
        expected = {"vy": 0.0, "dyn_prop": 3.0}.get(name, usual[name])
        np.testing.assert_array_equal(actual[name], np.broadcast_to(expected, 9), name)
    with pytest.raises(DataError, match="no field vanished"):
        read_radar(path, fields={"vx": "vanished"})


HEADER = b"""VERSION 0.7
FIELDS x y z intensity
SIZE 4 4 4 4
TYPE F F F F
COUNT 1 1 1 1
WIDTH 3
HEIGHT 1
POINTS 3
DATA binary
"""


def test_a_lidars_pcd_needs_positions_only(tmp_path: Path) -> None:
    cloud = np.arange(1, 13, dtype="<f4").reshape(3, 4)
    path = tmp_path / "cloud.pcd"
    path.write_bytes(HEADER + cloud.tobytes())
    points = read_lidar(path)
    np.testing.assert_array_equal(points[:4], cloud.T)
    np.testing.assert_array_equal(points[4], 0)
    path.write_bytes(HEADER.replace(b" z ", b" h ") + cloud.tobytes())
    with pytest.raises(DataError, match="it has no field z; it has x, y, h, intensity"):
        read_lidar(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.random.default_rng(0).normal(0, 9, (400, 4)), "which is no ring number"),
        (np.random.default_rng(0).normal(0, 9, (401, 4)), "are not whole points of 20 bytes"),
        (np.full((9, 5), np.nan), "point 0 of 9 is no measurement: x is nan (and 8 more"),
        (np.full((9, 5), 1500.0), "x is 1500, beyond 1000 m"),
        (np.full((9, 5), -1.0), "point 0 is of ring -1"),
        (np.zeros((9, 5)), "it holds nothing but zeros"),
    ],
)
def test_what_is_no_cloud_of_five_values_is_named(tmp_path: Path, content, said: str) -> None:
    path = tmp_path / "cloud.pcd.bin"
    path.write_bytes(content.astype("<f4").tobytes())
    with pytest.raises(DataError) as caught:
        read_lidar(path, token="the-sample")
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER + bytes(48), "it is a .pcd file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(90), "it is an image"),
    ],
)
def test_files_of_another_kind_are_told_as_what_they_are(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "cloud.pcd.bin"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_lidar(path)
    assert said in str(caught.value)
