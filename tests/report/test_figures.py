"""The picture of a decomposition: what is where, and that it is the same bytes every time."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lmd_cli.geometry import Grid
from lmd_cli.report.figures import ROWS, Scene, decomposition_png, positive_normalised

GRID = Grid((40, 4, 40))
#: The darkest camera blue, 0.45 times #0072b2.
PEAK = np.array([0, 51, 80])


def scene(part: np.ndarray) -> Scene:
    grey = {camera: np.full((16, 28, 3), 0.5) for row in ROWS for camera in row}
    parts = {"camera": part, "radar": np.zeros_like(part), "bias": -np.ones_like(part)}
    truth = np.zeros_like(part)
    return Scene(grey, truth, sum(parts.values()), parts, GRID, "a title")


def pixels(shown: Scene) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(decomposition_png(shown))).convert("RGB")).astype(int)


def peak(z: slice, x: slice) -> tuple[float, float]:
    """Row and column, in pixels, of a block drawn at these cells."""
    part = np.zeros((40, 40))
    part[z, x] = 2.0
    rows, columns = np.nonzero(np.abs(pixels(scene(part)) - PEAK).max(axis=-1) <= 2)
    assert len(rows) > 100
    return rows.mean(), columns.mean()


def test_forward_is_up_and_right_is_right():
    ahead, behind = peak(slice(34, 38), slice(18, 22)), peak(slice(2, 6), slice(18, 22))
    left, right = peak(slice(18, 22), slice(2, 6)), peak(slice(18, 22), slice(34, 38))
    assert ahead[0] < left[0] < behind[0]
    assert left[1] < ahead[1] < right[1]
    assert ahead[1] == pytest.approx(behind[1], abs=1)
    assert left[0] == pytest.approx(right[0], abs=1)


def test_the_same_scene_gives_the_same_bytes_whatever_the_users_settings():
    import matplotlib

    part = np.random.default_rng(0).standard_normal((40, 40))
    first = decomposition_png(scene(part))
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert decomposition_png(scene(part)) == first
    assert b"Software" not in first
    assert b"Creation" not in first


def test_only_positive_values_are_shown_each_map_by_its_own_maximum():
    values, top = positive_normalised(np.array([[-3.0, 1.0], [4.0, 0.0]]))
    np.testing.assert_array_equal(values, [[0.0, 0.25], [1.0, 0.0]])
    assert top == 4.0
    values, top = positive_normalised(np.array([[-3.0, -1.0]]))
    np.testing.assert_array_equal(values, [[0.0, 0.0]])
    assert top == 0.0
    part = np.random.default_rng(0).standard_normal((40, 40))
    cut = scene(np.maximum(part, 0.0))
    np.testing.assert_array_equal(  # the total aside, negative values change nothing
        pixels(replace(scene(part), total=cut.total)), pixels(cut)
    )


def test_a_warning_is_red():
    calm = scene(np.zeros((40, 40)))

    def red(shown: Scene) -> int:
        return int((np.abs(pixels(shown) - [0xC0, 0, 0]).max(axis=-1) <= 2).sum())

    assert red(calm) == 0
    assert red(replace(calm, warning="random weights")) > 20


def test_any_number_of_parts_and_any_shape_of_grid():
    part = np.zeros((20, 40))
    wide = Grid((20, 4, 40), bounds=(-50.0, 50.0, -5.0, 5.0, -25.0, 25.0))
    names = ("camera", "radar", "lidar", "bias")
    many = replace(
        scene(part), parts=dict.fromkeys(names, part), grid=wide, ground_truth=part + 1.0
    )
    few = replace(scene(part), parts=dict.fromkeys(("camera", "bias"), part), grid=wide)
    assert pixels(many).shape[1] == pixels(few).shape[1]
    assert pixels(many).shape[0] < pixels(few).shape[0]  # more panels, each smaller
