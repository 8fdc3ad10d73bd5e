"""Images as CRN takes them: resized to cover, cut at the bottom, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lmd_cli.data.nuscenes.database import SensorFrame
from lmd_cli.data.nuscenes.images import ImageEdit, read_resized

#: Means and standard deviations of the red, green and blue channels of ImageNet, pixel values.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Window:
    """How an image becomes the network's input: scaled to ``size``, then cut to ``shape``.

    Attributes:
        scale: network pixels per pixel of the camera.
        size: (height, width) after scaling.
        left: first column that is kept; as many are cut on the right.
        top: first row that is kept; nothing is cut at the bottom.
        shape: (H, W) of the network's input.
    """

    scale: float
    size: tuple[int, int]
    left: int
    top: int
    shape: tuple[int, int]

    @classmethod
    def covering(cls, frame: SensorFrame, shape: tuple[int, int]) -> Window:
        """The window for a camera of the recorded size, at the least scale that covers ``shape``.

        Sizes are cut to whole pixels as in CRN; where rounding would then leave less than
        ``shape``, it is ``shape``.
        """
        scale = max(shape[0] / frame.height, shape[1] / frame.width)
        height = max(int(frame.height * scale), shape[0])
        width = max(int(frame.width * scale), shape[1])
        return cls(scale, (height, width), (width - shape[1]) // 2, height - shape[0], shape)

    def matrix(self) -> NDArray[np.float32]:
        """CRN's ``ida_mats``: (u, v, depth, 1) of the camera to that of the network, (4, 4)."""
        matrix = np.diag([self.scale, self.scale, 1.0, 1.0]).astype(np.float32)
        matrix[:2, 3] = -self.left, -self.top
        return matrix

    def cut(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(height, width, 3) to (H, W, 3)."""
        height, width = self.shape
        return pixels[self.top : self.top + height, self.left : self.left + width]


def read_window(
    path: Path,
    window: Window,
    *,
    token: str | None = None,
    recorded: tuple[int, int] | None = None,
    edit: ImageEdit | None = None,
) -> NDArray[np.uint8]:
    """An RGB image, changed by ``edit``, resized by Pillow's bicubic filter and cut to the window,
    (H, W, 3).

    Raises:
        DataError: see :func:`~lmd_cli.data.nuscenes.images.read_resized`.
    """
    bicubic = Image.Resampling.BICUBIC
    size = window.size
    return window.cut(read_resized(path, size, bicubic, token=token, recorded=recorded, edit=edit))


def normalise(rgb: NDArray[np.uint8]) -> Tensor:
    """Images (..., H, W, 3) as CRN's network takes them, (..., 3, H, W) float32.

    Channels become blue, green, red, but take the means and standard deviations of red, green,
    blue: CRN hands its normaliser RGB images and declares them BGR. The published weights
    were trained so.
    """
    *leading, height, width, channels = rgb.shape
    images = rgb.reshape(-1, height, width, channels)
    out = np.empty((len(images), channels, height, width), dtype=np.float32)
    for image, planes in zip(images, out, strict=True):  # one by one: what is read stays cached
        for i, plane in enumerate(planes):
            np.take(_NORMALISED[i], image[..., channels - 1 - i], out=plane, mode="clip")
    return torch.from_numpy(out.reshape(*leading, channels, height, width))


def _normalised() -> NDArray[np.float32]:
    """Every pixel value of each channel, normalised, (3, 256)."""
    values = np.arange(256, dtype=np.float64)
    mean, std = np.array(MEAN)[:, None], np.array(STD)[:, None]
    return ((values - mean) / std).astype(np.float32)


_NORMALISED = _normalised()


def as_rgb(images: Tensor) -> Tensor:
    """Undoes :func:`normalise`: (..., 3, H, W) to (..., H, W, 3) in [0, 1]."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = (images * std + mean) / 255.0
    return pixels.flip(-3).movedim(-3, -1).clamp(0.0, 1.0)
