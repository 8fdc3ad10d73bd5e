"""Upsampling blocks and heads of SimpleBEV, with the published parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def upsample() -> nn.Upsample:
    """Bilinear enlargement by two, pixel edges aligned."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def crop_to(x: Tensor, like: Tensor) -> Tensor:
    """Cut ``x`` (B, C, H', W') to the height and width of ``like``, at the far edges.

    A stride of two rounds odd sizes up, so that doubling gives one row or column too many. The
    published sizes are even everywhere, and then nothing is cut.
    """
    height, width = like.shape[-2:]
    if x.shape[-2] == height and x.shape[-1] == width:
        return x
    return x[..., :height, :width]


class UpsamplingConcat(nn.Module):
    """Enlarge the deep map, put the shallow one before it, and mix both."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.upsample = upsample()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """``deep`` (B, C1, H/2, W/2) and ``shallow`` (B, C2, H, W) to (B, out, H, W)."""
        enlarged = crop_to(self.upsample(deep), shallow)  # (B, C1, H, W)
        return self.conv(torch.cat([shallow, enlarged], dim=1))  # (B, C2 + C1, H, W) -> out


class UpsamplingAdd(nn.Module):
    """Enlarge the deep map, project it, and add the shallow one."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.upsample_layer = nn.Sequential(
            upsample(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.InstanceNorm2d(out_channels),
        )

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """``deep`` (B, in, H/2, W/2) and ``shallow`` (B, out, H, W) to (B, out, H, W)."""
        return crop_to(self.upsample_layer(deep), shallow) + shallow


def head(channels: int, out_channels: int, *last: nn.Module) -> nn.Sequential:
    """3x3 convolution, InstanceNorm, ReLU, 1x1 convolution with bias, then ``last``."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.InstanceNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, out_channels, 1),
        *last,
    )
