"""Images of a nuScenes root, read and resized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lmd_cli.data.nuscenes.files import IMAGE, SCARCE, file_error, read_head, wrong_format
from lmd_cli.data.nuscenes.pictures import FORMATS, PictureError, open_picture, without_warnings

#: What is done to an image (H, W, 3) of the file's size before it is resized.
ImageEdit = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def load_image(
    path: Path | str,
    size: tuple[int, int],
    *,
    token: str | None = None,
    recorded: tuple[int, int] | None = None,
    edit: ImageEdit | None = None,
) -> Tensor:
    """An image resized to ``size`` (H, W): (3, H, W) float32, pixels in [0, 1] minus 0.5.

    Resized by nearest neighbour straight from the file's size, as SimpleBEV does.

    Raises:
        DataError: see :func:`read_resized`.
    """
    nearest = Image.Resampling.NEAREST
    pixels = read_resized(path, size, nearest, token=token, recorded=recorded, edit=edit)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    return planes.contiguous().float().div(255).sub(0.5)


def read_resized(
    path: Path | str,
    size: tuple[int, int],
    resampling: Image.Resampling,
    *,
    token: str | None = None,
    recorded: tuple[int, int] | None = None,
    edit: ImageEdit | None = None,
) -> NDArray[np.uint8]:
    """An RGB image resized to ``size`` (H, W) by Pillow, (H, W, 3).

    Args:
        path: the file.
        size: (H, W).
        resampling: Pillow's filter.
        token: the sample that needs the file, for the error message.
        recorded: (width, height) that the tables give it.
        edit: changes the image before it is resized.

    Raises:
        DataError: the file is missing, truncated or not an image; or it is too large, of more
            than 8 bits a channel, turned by its EXIF data, or of another shape than recorded.
    """
    path = Path(path)
    try:
        with without_warnings(), open_picture(path, recorded) as image:
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            if edit is not None:
                rgb = Image.fromarray(edit(np.array(rgb)))
            return np.array(rgb.resize(size[::-1], resampling))
    except FileNotFoundError:
        raise file_error(path, "file not found", token) from None
    except PictureError as error:
        raise file_error(path, str(error), token) from None
    except Exception as error:  # Pillow reports broken streams under many kinds
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in SCARCE:
            raise  # says nothing of the file
        raise file_error(path, _problem(path, error), token) from error


def _problem(path: Path, error: Exception) -> str:
    """Why an image cannot be read."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    if kind := wrong_format(read_head(path), IMAGE):
        return kind
    if isinstance(error, UnidentifiedImageError):
        return f"truncated or not an image of a format that is read ({', '.join(FORMATS)})"
    return f"truncated or not an image: {error}"
