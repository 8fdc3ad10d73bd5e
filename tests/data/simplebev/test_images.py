"""Images and calibrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.geometry_utils import transform_matrix
from PIL import Image
from pyquaternion import Quaternion

from lmd_cli.data import NuScenesSamples
from lmd_cli.data.nuscenes.database import CAMERAS
from lmd_cli.data.nuscenes.images import load_image
from lmd_cli.data.simplebev.images import pix_T_cam
from lmd_cli.errors import DataError


def test_nearest_neighbour_from_the_files_size(tmp_path: Path) -> None:
    """Every target pixel is the source pixel at its centre."""
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (91, 161, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    rows = np.floor((np.arange(32) + 0.5) * 91 / 32).astype(int)
    columns = np.floor((np.arange(56) + 0.5) * 161 / 56).astype(int)
    expected = torch.from_numpy(pixels[rows][:, columns]).permute(2, 0, 1).float() / 255 - 0.5
    image = load_image(path, (32, 56))
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    torch.testing.assert_close(image, expected, rtol=0, atol=0)


def test_intrinsics_scale_from_the_recorded_size(samples: NuScenesSamples) -> None:
    frame = samples._records[0].cameras[0]
    expected = [[126.6 * 56 / 160, 0, 81.6 * 56 / 160, 0], [0, 126.6 * 32 / 90, 49.2 * 32 / 90, 0]]
    expected += [[0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(pix_T_cam(frame, (32, 56)), expected, rtol=1e-6)
    wider = replace(frame, width=320)
    np.testing.assert_allclose(pix_T_cam(wider, (32, 56))[0], np.array(expected[0]) / 2, rtol=1e-6)


def test_cameras_in_order_and_relative_to_the_first(
    devkit: NuScenes, samples: NuScenesSamples
) -> None:
    assert CAMERAS[0] == "CAM_FRONT"
    tensors = samples[1].tensors
    row = devkit.get("sample", samples.tokens[1])
    frames = [devkit.get("sample_data", row["data"][camera]) for camera in CAMERAS]
    mounts = [devkit.get("calibrated_sensor", f["calibrated_sensor_token"]) for f in frames]
    to_ego = [transform_matrix(m["translation"], Quaternion(m["rotation"])) for m in mounts]
    for i, frame in enumerate(frames):
        image = load_image(samples.dataroot / frame["filename"], (32, 56))
        torch.testing.assert_close(tensors["images"][i], image, rtol=0, atol=0)
        expected = np.linalg.inv(to_ego[0]) @ to_ego[i]
        np.testing.assert_allclose(tensors["cam0_T_camXs"][i].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("keep", [0, 20, 2500])
def test_truncated_image_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    assert len(content) > 5000
    path.write_bytes(content[:keep])
    with pytest.raises(DataError) as caught:
        load_image(path, (32, 56), token="the-sample")
    said = "truncated or not an image" if keep else "truncated: the file is empty"
    assert f"{path}: {said}" in str(caught.value)
    assert "the-sample" in str(caught.value)
