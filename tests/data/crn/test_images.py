"""CRN's images and matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import transform_matrix
from PIL import Image
from pyquaternion import Quaternion

from lmd_cli.data import KeyframeSamples
from lmd_cli.data.crn.images import Window, normalise, read_window
from lmd_cli.data.crn.matrices import PERSPECTIVE_CAMERAS, global_T_mean_ego
from lmd_cli.errors import DataError
from tests.support.crn_preprocessing import camera
from tests.support.tiny_nuscenes import VERSION


@pytest.mark.parametrize(
    ("source", "shape", "scale", "size", "left", "top"),
    [
        ((900, 1600), (256, 704), 0.44, (396, 704), 0, 140),
        ((900, 1600), (128, 352), 0.22, (198, 352), 0, 70),
        ((450, 800), (256, 704), 0.88, (396, 704), 0, 140),
        ((112, 200), (128, 352), 1.76, (197, 352), 0, 69),  # of 197.12 rows
        ((300, 1000), (256, 704), 256 / 300, (256, 853), 74, 0),  # of 149 columns too many
        ((49, 80), (27, 40), 27 / 49, (27, 44), 2, 0),  # 49 * (27 / 49) is below 27 in float64
    ],
)
def test_window(
    source: tuple[int, int],
    shape: tuple[int, int],
    scale: float,
    size: tuple[int, int],
    left: int,
    top: int,
) -> None:
    """What is kept of an image: its scale, its scaled size, and where it begins."""
    window = Window.covering(camera(size=source), shape)
    assert window == Window(pytest.approx(scale), size, left, top, shape)
    expected = [[scale, 0, 0, -left], [0, scale, 0, -top], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(window.matrix(), expected, rtol=1e-7)
    pixels = np.zeros((*window.size, 3), np.uint8)
    assert window.cut(pixels).shape == (*shape, 3)


@pytest.mark.parametrize(
    ("source", "shape"), [((90, 160), (64, 88)), ((90, 160), (30, 100)), ((64, 114), (64, 176))]
)
def test_the_matrix_says_where_pixels_went(
    tmp_path: Path, source: tuple[int, int], shape: tuple[int, int]
) -> None:
    """Red grows with the column, green with the row; away from the edges resizing keeps that."""
    ramp = np.zeros((*source, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(source[1]), np.arange(source[0])[:, None]
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    window = Window.covering(camera(size=source), shape)
    kept = read_window(tmp_path / "ramp.png", window)[8:-8, 8:-8].astype(float)
    v, u = np.mgrid[8 : shape[0] - 8, 8 : shape[1] - 8]
    points = np.stack([u + 0.5, v + 0.5, 0 * u, 0 * u + 1], axis=-1)
    # Sizes are cut to whole pixels, which the matrix neglects: up to one pixel at the far edge;
    # half a value by rounding.
    where = points @ np.linalg.inv(window.matrix().astype(float)).T - 0.5
    atol = 1 / window.scale + 0.5
    np.testing.assert_allclose(kept[..., 0], where[..., 0], rtol=0, atol=atol)
    np.testing.assert_allclose(kept[..., 1], where[..., 1], rtol=0, atol=atol)


def test_channels_are_reversed_but_their_statistics_are_not() -> None:
    red = np.zeros((2, 1, 2, 3), np.uint8)
    red[1, ..., 0] = 255
    black, planes = normalise(red)[:, :, 0, 0]
    np.testing.assert_allclose(black, [-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375])
    np.testing.assert_allclose(planes[:2], black[:2])
    assert planes[2].item() == pytest.approx((255 - 103.53) / 57.375)


def test_grey_and_transparent_images(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (90, 160), dtype=np.uint8)
    window = Window.covering(camera(size=(90, 160)), (32, 88))
    kept = []
    for name, mode in (("L.png", "L"), ("RGB.png", "RGB"), ("P.png", "P")):
        Image.fromarray(grey).convert(mode).save(tmp_path / name)
        kept.append(read_window(tmp_path / name, window))
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[0][..., 0], kept[0][..., 2])
    assert kept[2].shape == (32, 88, 3)


def test_size_that_the_calibration_is_for(tmp_path: Path) -> None:
    """A smaller copy of an image still lands where the recorded size says."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 3)).repeat(10, 0).repeat(10, 1)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.save(tmp_path / "full.png")
    image.resize((80, 45)).save(tmp_path / "half.png")
    window = Window.covering(camera(size=(90, 160)), (32, 88))
    full, half = (read_window(tmp_path / f"{name}.png", window) for name in ("full", "half"))
    assert full.shape == half.shape
    assert np.abs(full.astype(float) - half).mean() < 10
    assert np.abs(full[1:].astype(float) - half[:-1]).mean() > 15


@pytest.mark.parametrize("keep", [0, 20, 2500])
def test_truncated_image_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError) as caught:
        read_window(path, Window.covering(camera(size=(90, 160)), (32, 88)), token="the-sample")
    said = "truncated or not an image" if keep else "truncated: the file is empty"
    assert f"{path}: {said}" in str(caught.value)
    assert "the-sample" in str(caught.value)


@pytest.fixture(scope="module")
def samples(tiny_root: Path) -> KeyframeSamples:
    return KeyframeSamples(tiny_root, VERSION, "mini_val", image_size=(32, 56), radar_slots=64)


def frames_of(devkit: NuScenes, token: str) -> list[dict]:
    """The devkit's records of the six cameras in CRN's order."""
    row = devkit.get("sample", token)
    return [devkit.get("sample_data", row["data"][name]) for name in PERSPECTIVE_CAMERAS]


def pose(devkit: NuScenes, table: str, frame: dict, inverse: bool = False) -> np.ndarray:
    row = devkit.get(table, frame[f"{table}_token"])
    return transform_matrix(row["translation"], Quaternion(row["rotation"]), inverse)


def test_cameras_in_crns_order(devkit: NuScenes, samples: KeyframeSamples) -> None:
    assert [name.removeprefix("CAM_") for name in PERSPECTIVE_CAMERAS] == [
        *("FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_LEFT", "BACK", "BACK_RIGHT")
    ]
    frames = frames_of(devkit, samples.tokens[1])
    for i, frame in enumerate(frames):
        resized = Image.open(samples.dataroot / frame["filename"]).resize((56, 32))
        expected = normalise(np.asarray(resized))
        np.testing.assert_array_equal(samples[1].tensors["imgs"][0, i], expected)


def test_matrices_equal_the_devkits(devkit: NuScenes, samples: KeyframeSamples) -> None:
    """Sample 1's second frame is the scene's first: half a second before, on a curve."""
    tensors = samples[1].tensors
    current, past = (frames_of(devkit, samples.tokens[i]) for i in (1, 0))
    for s, frames in enumerate((current, past)):
        for i, frame in enumerate(frames):
            here = pose(devkit, "ego_pose", current[i], inverse=True)
            there = pose(devkit, "ego_pose", frame) @ pose(devkit, "calibrated_sensor", frame)
            ours = tensors["sensor2ego_mats"][s, i].numpy()
            np.testing.assert_allclose(ours, here @ there, rtol=0, atol=1e-6)
    moved = tensors["sensor2ego_mats"][1, :, :3, 3] - tensors["sensor2ego_mats"][0, :, :3, 3]
    assert moved.norm(dim=1).min() > 1.0
    sensor = devkit.get("calibrated_sensor", current[0]["calibrated_sensor_token"])
    for intrinsics in tensors["intrin_mats"].flatten(0, 1):
        np.testing.assert_allclose(intrinsics[:3, :3], sensor["camera_intrinsic"], rtol=1e-7)
        np.testing.assert_array_equal(intrinsics[3], [0, 0, 0, 1])


def test_mean_pose() -> None:
    """Halfway between two turns; the sign of a quaternion means nothing."""
    turns = [Quaternion(axis=[0, 0, 1], degrees=degrees) for degrees in (10, 30)]
    frames = [
        replace(camera(), ego_translation=[i, 2.0 * i, 0.0], ego_rotation=list(turn.elements))
        for i, turn in enumerate(turns)
    ]
    expected = Quaternion(axis=[0, 0, 1], degrees=20).transformation_matrix
    expected[:2, 3] = 0.5, 1.0
    np.testing.assert_allclose(global_T_mean_ego(frames), expected, atol=1e-12)
    opposite = replace(frames[1], ego_rotation=list(-turns[1].elements))
    np.testing.assert_allclose(global_T_mean_ego([frames[0], opposite]), expected, atol=1e-12)
