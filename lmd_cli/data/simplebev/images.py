"""Camera images and calibrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmd_cli.data.nuscenes.database import SensorFrame
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid
from lmd_cli.data.nuscenes.images import load_image


def pix_T_cam(frame: SensorFrame, size: tuple[int, int]) -> Matrix:
    """Intrinsics (4, 4) float32 for the image resized to ``size`` (H, W).

    Scaled from the size that the tables record, which the calibration is for.
    """
    scale = np.array([[size[1] / frame.width], [size[0] / frame.height], [1.0]], dtype=np.float32)
    scaled = np.asarray(frame.intrinsic, dtype=np.float32) * scale  # (3, 3)
    scaled[0, 1] = 0.0  # no skew, as in SimpleBEV
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = scaled
    return matrix


def cam0_T_ego(cameras: Sequence[SensorFrame]) -> Matrix:
    """From the ego frame to the reference camera, (4, 4) float32."""
    return invert_rigid(cameras[0].ego_T_sensor().astype(np.float32))


def camera_tensors(
    root: Path, cameras: Sequence[SensorFrame], size: tuple[int, int], token: str
) -> dict[str, Tensor]:
    """``images``, ``pix_T_cams`` and ``cam0_T_camXs`` of a sample's cameras, reference first.

    The vehicle's motion between the cameras' exposures is neglected, as in SimpleBEV.

    Raises:
        DataError: an image is missing or damaged; names it and the sample.
    """
    reference_T_ego = cam0_T_ego(cameras)
    to_cam0 = [reference_T_ego @ camera.ego_T_sensor().astype(np.float32) for camera in cameras]
    images = [
        load_image(
            data_file(root, c.filename, token), size, token=token, recorded=(c.width, c.height)
        )
        for c in cameras
    ]
    return {
        "images": torch.stack(images),  # (S, 3, H, W)
        "pix_T_cams": torch.from_numpy(np.stack([pix_T_cam(c, size) for c in cameras])),
        "cam0_T_camXs": torch.from_numpy(np.stack(to_cam0)),
    }
