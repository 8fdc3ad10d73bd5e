"""A BEVFusion-style detector's dense half: convolutional fuser, SECOND backbone, FPN neck, heads.

Written for these tests after the papers' descriptions (Liu et al. 2023; Yan et al. 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU in place."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        nn.ReLU(inplace=True),
    )


class SecondBackbone(nn.Module):
    """Stages of stacked convolutions, each at half the size of the one before."""

    def __init__(self, inputs: int, widths: tuple[int, ...]):
        super().__init__()
        pairs = zip((inputs, *widths[:-1]), widths, strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(block(a, b, 1 if i == 0 else 2), block(b, b))
            for i, (a, b) in enumerate(pairs)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class SecondNeck(nn.Module):
    """Every stage upsampled to the first one's size and concatenated."""

    def __init__(self, widths: tuple[int, ...], out: int):
        super().__init__()
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(width, out, 2**i, 2**i, bias=False),
                nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
                nn.ReLU(inplace=True),
            )
            for i, width in enumerate(widths)
        )

    def forward(self, stages: list[Tensor]) -> Tensor:
        return torch.cat([up(x) for up, x in zip(self.ups, stages, strict=True)], 1)


class SecondFuser(nn.Module):
    """Camera (B, C, H, W) and LiDAR (B, L, H, W) BEV maps to heat maps and box regressions."""

    def __init__(self, camera: int, lidar: int, widths: tuple[int, ...] = (8, 12)):
        super().__init__()
        self.fuser = block(camera + lidar, widths[0])
        self.backbone = SecondBackbone(widths[0], widths)
        self.neck = SecondNeck(widths, 6)
        joint = 6 * len(widths)
        self.shared = block(joint, joint)
        sizes = {"heatmap": 3, "reg": 2, "height": 1}
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(block(joint, joint), nn.Conv2d(joint, size, 3, 1, 1))
             for name, size in sizes.items()}
        )  # fmt: skip

    def forward(self, camera: Tensor, lidar: Tensor) -> dict[str, Tensor]:
        x = self.shared(self.neck(self.backbone(self.fuser(torch.cat([camera, lidar], 1)))))
        return {name: head(x) for name, head in self.heads.items()}
