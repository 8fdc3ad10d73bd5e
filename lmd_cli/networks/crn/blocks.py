"""Building blocks of CRN's encoders and head, with the published parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

#: Epsilon of every BatchNorm in a neck and in the radar backbone; 1e-5 elsewhere.
NECK_EPS = 1e-3


def conv_norm_relu(
    in_channels: int,
    channels: int,
    *,
    stride: int = 1,
    bias: bool = False,
    reflect: bool = False,
    eps: float = 1e-5,
) -> list[nn.Module]:
    """A 3x3 convolution, BatchNorm and ReLU, as entries of a ``nn.Sequential``."""
    mode: Literal["zeros", "reflect"] = "reflect" if reflect else "zeros"
    return [
        nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=bias, padding_mode=mode),
        nn.BatchNorm2d(channels, eps=eps),
        nn.ReLU(inplace=True),
    ]


class Neck(nn.Module):
    """Maps of several strides brought to one stride and concatenated.

    Args:
        in_channels: of each map.
        channels: of each branch.
        scales: how much larger each map becomes (below 1: smaller).
        transposed: use a transposed convolution also where the size stays, as upstream's image
            and head necks do.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        scales: Sequence[float],
        *,
        transposed: bool = True,
    ):
        super().__init__()
        branches = [
            nn.Sequential(
                self._resize(n, channels, scale, transposed),
                nn.BatchNorm2d(channels, eps=NECK_EPS),
                nn.ReLU(inplace=True),
            )
            for n, scale in zip(in_channels, scales, strict=True)
        ]
        self.deblocks = nn.ModuleList(branches)

    @staticmethod
    def _resize(in_channels: int, channels: int, scale: float, transposed: bool) -> nn.Module:
        if scale > 1 or (scale == 1 and transposed):
            size = round(scale)
            return nn.ConvTranspose2d(in_channels, channels, size, size, bias=False)
        size = round(1 / scale)
        return nn.Conv2d(in_channels, channels, size, size, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(N, in, H_i, W_i)`` to ``(N, branches * channels, H, W)``."""
        branches = zip(self.deblocks, maps, strict=True)
        return torch.cat([branch(x) for branch, x in branches], dim=1)
