"""EfficientNet's stages up to a sixteenth of the image's size, with the parameter names of the
PyTorch port that published checkpoints were trained with.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Kernel, stride, expansion, output channels and blocks of each stage of the smallest network.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
#: Channels of the smallest network's first convolution.
STEM = 32
#: The epsilon of every norm.
EPS = 1e-3


@dataclass(frozen=True)
class Scaling:
    """One size of the network.

    Attributes:
        width, depth: factors of channels and of blocks.
        image_size: edge of the images that it was designed for, pixels: padding is made for it.
    """

    width: float
    depth: float
    image_size: int

    def channels(self, count: int) -> int:
        """A number of channels, rounded to a multiple of 8 that is at most a tenth too small."""
        wanted = count * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8


SCALINGS = {"effb0": Scaling(1.0, 1.0, 224), "effb4": Scaling(1.4, 1.8, 380)}


class Convolution(nn.Conv2d):
    """A convolution without bias and padded as TensorFlow pads, for one size of its input.

    The output of the designed size is ceil(size / stride); what is odd of the padding lies at the
    far edges.
    """

    def __init__(self, n: int, out: int, kernel: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__(n, out, kernel, stride, groups=groups, bias=False)
        around = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        self._near, self._far = around // 2, around - around // 2

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``."""
        near, far = self._near, self._far
        return super().forward(F.pad(x, (near, far, near, far)) if far else x)


class MBConv(nn.Module):
    """Expansion, a convolution of each channel, squeeze and excitation, projection, shortcut."""

    def __init__(self, n: int, out: int, kernel: int, size: int, stride: int, expansion: int):
        super().__init__()
        wide, squeezed = n * expansion, max(1, n // 4)
        if expansion != 1:
            self._expand_conv = nn.Conv2d(n, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, EPS)
        self._depthwise_conv = Convolution(wide, wide, kernel, size, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, EPS)
        self._se_reduce = nn.Conv2d(wide, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, wide, 1)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, EPS)
        self._expands, self._adds = expansion != 1, stride == 1 and n == out

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``."""
        h = F.silu(self._bn0(self._expand_conv(x))) if self._expands else x
        h = F.silu(self._bn1(self._depthwise_conv(h)))
        squeezed = F.silu(self._se_reduce(h.mean((2, 3), keepdim=True)))  # (B, n / 4, 1, 1)
        h = torch.sigmoid(self._se_expand(squeezed)) * h
        h = self._bn2(self._project_conv(h))
        return h + x if self._adds else h


class EfficientNet(nn.Module):
    """The stages up to a sixteenth of the image's size.

    Args:
        scaling: the size of the network.

    Attributes:
        shallow, deep: channels of the two results of :meth:`forward`.
    """

    def __init__(self, scaling: Scaling):
        super().__init__()
        n, size = scaling.channels(STEM), scaling.image_size
        self._conv_stem = Convolution(3, n, 3, size, stride=2)
        self._bn0 = nn.BatchNorm2d(n, EPS)
        self._blocks = nn.ModuleList()
        size, widths = math.ceil(size / 2), [scaling.channels(stage[3]) for stage in STAGES]
        for (kernel, step, expansion, _, count), out in zip(STAGES, widths, strict=True):
            for index in range(math.ceil(count * scaling.depth)):
                stride = step if index == 0 else 1
                self._blocks.append(MBConv(n, out, kernel, size, stride, expansion))
                n, size = out, math.ceil(size / stride)
        self.shallow, self.deep = widths[2], widths[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(N, 3, H, W)`` to what the stages give at an eighth and at a sixteenth:
        ``(N, shallow, H / 8, W / 8)`` and ``(N, deep, H / 16, W / 16)``."""
        x = F.silu(self._bn0(self._conv_stem(images)))
        shallow = x
        for block in self._blocks:
            before, x = x, block(x)
            if x.shape[2] < before.shape[2]:
                shallow = before  # the last one is an eighth
        return shallow, x
