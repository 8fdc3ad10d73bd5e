"""Camera images and calibrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lmd_cli.data.nuscenes.database import SensorFrame
from lmd_cli.data.nuscenes.files import IMAGE, SCARCE, data_file, file_error, read_head, told_kind
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid
from lmd_cli.data.nuscenes.pictures import PictureError, open_picture


def load_image(
    path: Path | str,
    size: tuple[int, int],
    *,
    token: str | None = None,
    recorded: tuple[int, int] | None = None,
) -> Tensor:
    """An image resized to ``size`` (H, W): (3, H, W) float32, pixels in [0, 1] minus 0.5.

    Resized by nearest neighbour straight from the file's size, as SimpleBEV does.

    Raises:
        DataError: see :func:`read_resized`.
    """
    nearest = Image.Resampling.NEAREST
    pixels = read_resized(path, size, nearest, token=token, recorded=recorded)  # (H, W, 3)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
    return planes.contiguous().float().div(255).sub(0.5)


def read_resized(
    path: Path | str,
    size: tuple[int, int],
    resampling: Image.Resampling,
    *,
    token: str | None = None,
    recorded: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """An RGB image resized to ``size`` (H, W) by Pillow, (H, W, 3).

    Args:
        path: the file.
        size: (H, W).
        resampling: Pillow's filter.
        token: the sample that needs the file, for the error message.
        recorded: (width, height) that the tables give it.

    Raises:
        DataError: the file is missing, truncated or not an image; or it is too large, of more
            than 8 bits a channel, turned by its EXIF data, or of another shape than recorded.
    """
    path = Path(path)
    try:
        with open_picture(path, recorded) as image:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            return np.array(rgb.resize(size[::-1], resampling))
    except FileNotFoundError:
        raise file_error(path, "file not found", token) from None
    except PictureError as error:
        raise file_error(path, str(error), token) from None
    except Exception as error:  # Pillow reports broken streams under many kinds
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in SCARCE:
            raise  # says nothing of the file
        kind = told_kind(read_head(path), IMAGE)
        problem = kind or f"truncated or not an image: {error}"
        raise file_error(path, problem, token) from error


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
