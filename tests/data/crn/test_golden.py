"""CRN's inputs against what the public code makes of the same raw data."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.npyio import NpzFile
from PIL import Image

from lmd_cli.data.crn.images import Window, normalise, read_window
from lmd_cli.data.crn.matrices import sensor2ego
from lmd_cli.data.crn.radar import RadarView, network_rows
from tests.support.crn_preprocessing import POSES, camera, image, radar_rows

GOLDEN = Path(__file__).parents[2] / "goldens" / "crn" / "preprocess.npz"
PUBLISHED = (256, 704)


@pytest.fixture(scope="module")
def golden() -> NpzFile:
    return np.load(GOLDEN)


@pytest.fixture(scope="module")
def window() -> Window:
    return Window.covering(camera(), PUBLISHED)


@pytest.mark.parametrize("case", ["normal", "empty"])
def test_radar(golden: NpzFile, window: Window, case: str) -> None:
    """Rows of radar points as the public code makes them of the same raw points."""
    rows = radar_rows(case)
    np.testing.assert_array_equal(rows, golden[f"radar.{case}.raw"])
    ours, expected = network_rows(rows, window, RadarView(1536, 58.0)), golden[f"radar.{case}.out"]
    np.testing.assert_array_equal(ours[:, 1:4], expected[:, 1:4])
    # CRN also takes half the image's width off u and adds it again: half a float32 spacing.
    np.testing.assert_allclose(ours[:, 0], expected[:, 0], rtol=0, atol=2**-15)
    np.testing.assert_allclose(ours[:, 4], expected[:, 4], rtol=0, atol=2**-22)


def test_image(golden: NpzFile, window: Window, tmp_path: Path) -> None:
    """Pixels that are cut and scaled as the public code does it."""
    pixels = image()
    assert zlib.crc32(pixels.tobytes()) == golden["image.raw_crc32"]
    Image.fromarray(pixels).save(tmp_path / "image.png")
    kept = read_window(tmp_path / "image.png", window)
    assert kept.shape == (*PUBLISHED, 3)
    np.testing.assert_array_equal(kept[::7, ::7], golden["image.u8"])
    ours = normalise(kept)
    np.testing.assert_allclose(ours[:, ::7, ::7], golden["image.out"], rtol=0, atol=2**-22)
    exact = ours.numpy().astype(np.float64)
    stats = [exact.sum(), np.abs(exact).sum(), np.sqrt((exact**2).sum())]
    np.testing.assert_allclose(stats, golden["image.stats"], rtol=3e-8)


def test_image_matrix(golden: NpzFile, window: Window) -> None:
    np.testing.assert_array_equal(window.matrix(), golden["ida_mat"])


@pytest.mark.parametrize("frame", [0, 1])
def test_camera_to_ego(golden: NpzFile, frame: int) -> None:
    ours, expected = sensor2ego(camera(POSES[frame]), camera(POSES[0])), golden["sensor2ego"][frame]
    np.testing.assert_allclose(ours[:, :3], expected[0, :, :3], rtol=0, atol=2**-23)
    # CRN multiplies in float32, with positions on the map of up to 1181 m.
    np.testing.assert_allclose(ours[:, 3], expected[0, :, 3], atol=np.spacing(np.float32(1181)))
