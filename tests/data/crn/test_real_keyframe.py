"""CRN's inputs from one real keyframe; see ``simplebev/test_real_keyframe.py``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import BoxVisibility

from lmd_cli.data import KeyframeSamples, Sample

SCALE = 0.44
CAMERAS = [f"CAM_{place}" for place in ("FRONT_LEFT", "FRONT", "FRONT_RIGHT")]
CAMERAS += ["CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"]


@pytest.fixture(scope="module")
def root() -> Path:
    if "LMD_REAL_KEYFRAME" not in os.environ:
        pytest.skip("LMD_REAL_KEYFRAME is not set: no real nuScenes keyframe to test on")
    return Path(os.environ["LMD_REAL_KEYFRAME"])


@pytest.fixture(scope="module")
def samples(root: Path) -> KeyframeSamples:
    return KeyframeSamples(root, "v1.0-mini", "mini_train")


@pytest.fixture(scope="module")
def sample(samples: KeyframeSamples) -> Sample:
    return samples[0]


@pytest.fixture(scope="module")
def devkit(root: Path) -> NuScenes:
    return NuScenes("v1.0-mini", str(root), verbose=False)


def test_shapes_and_repeated_frames(samples: KeyframeSamples, sample: Sample) -> None:
    assert samples.padded == {samples.tokens[0]: 3}
    assert set(samples.missing_files().values()) == {0}
    tensors = sample.tensors
    assert tensors["imgs"].shape == (4, 6, 3, 256, 704)
    assert tensors["pts_pv"].shape == (4, 6, 1536, 5)
    for name in ("imgs", "pts_pv", "sensor2ego_mats", "intrin_mats", "ida_mats"):
        assert torch.equal(tensors[name], tensors[name][:1].expand_as(tensors[name])), name


def test_images_are_photographs(sample: Sample) -> None:
    """Roughly normalised, and the road below is smoother than what stands on it."""
    images = sample.tensors["imgs"][0]
    assert images.mean().abs() < 1
    assert 0.5 < images.std() < 2
    assert (images[..., 1:] - images[..., :-1]).abs().mean() < 0.3


def test_each_camera_at_its_mounting(sample: Sample, devkit: NuScenes) -> None:
    """All sensors share one pose there, so the matrices are the calibration itself."""
    data = devkit.sample[0]["data"]
    for i, name in enumerate(CAMERAS):
        frame = devkit.get("sample_data", data[name])
        mount = devkit.get("calibrated_sensor", frame["calibrated_sensor_token"])
        ours = sample.tensors["sensor2ego_mats"][0, i, :3, 3]
        np.testing.assert_allclose(ours, mount["translation"], atol=1e-6)
        intrinsic = sample.tensors["intrin_mats"][0, i, :3, :3]
        np.testing.assert_allclose(intrinsic, mount["camera_intrinsic"], rtol=1e-6)


def outline(box: Box, intrinsic: np.ndarray) -> tuple[float, float, float, float]:
    """Columns (min, max) of the network's image and depths (min, max) of a box in a camera."""
    corners = box.corners()  # (3, 8)
    u = SCALE * (intrinsic @ corners)[0] / corners[2].clip(0.5)
    return u.min(), u.max(), corners[2].min(), corners[2].max()


def test_radar_points_are_at_the_annotated_boxes(sample: Sample, devkit: NuScenes) -> None:
    """The root's radar points are noisy hits of its boxes: each is near one its camera sees."""
    data, points = devkit.sample[0]["data"], 0
    for i, name in enumerate(CAMERAS):
        _, boxes, intrinsic = devkit.get_sample_data(data[name], BoxVisibility.NONE)
        hit = [box for box in boxes if devkit.get("sample_annotation", box.token)["num_radar_pts"]]
        outlines = np.array([outline(box, intrinsic) for box in hit])
        rows = sample.tensors["pts_pv"][0, i].numpy()
        for u, depth, *_ in rows[(rows[:, 0] != -999) & (rows[:, 2] == 1)]:
            left, right, near, far = outlines.T
            inside = (left - 10 <= u) & (u <= right + 10) & (near - 1 <= depth) & (depth <= far + 1)
            assert inside.any(), (name, u, depth)
            points += 1
    assert points > 50


def test_cars_in_the_map(samples: KeyframeSamples, sample: Sample) -> None:
    boxes = [box for box in samples.boxes(0) if max(map(abs, box.center[:2])) < 51]
    assert len(boxes) > 3
    for box in boxes:
        column, row = ((np.array(box.center[:2]) + 51.2) / 0.8).astype(int)
        assert sample.tensors["vehicles"][0, row, column] == 1
        if box.name == "car":
            assert sample.tensors["cars"][0, row, column] == 1
