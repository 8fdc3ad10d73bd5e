"""CRN's detection head: a ResNet trunk over the fused map, a neck, and heads for each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmd_cli.config.sizes import CRNSizes
from lmd_cli.networks.crn.blocks import Neck
from lmd_cli.networks.resnet import BasicBlock, initialise, stage

#: What the branches of a task head say of a box (offsets in cells, z of its middle in metres, the
#: logarithms of metres, m/s), but for the heat map: one for each class.
BOX_VALUES = {
    "reg": ("offset_x", "offset_y"),
    "height": ("z",),
    "dim": ("log_length", "log_width", "log_height"),
    "rot": ("sin_yaw", "cos_yaw"),
    "vel": ("vx", "vy"),
}
BRANCHES = {name: len(values) for name, values in BOX_VALUES.items()}
HEATMAP = "heatmap"
#: Bias of an untrained heat map: probability 0.1 everywhere (focal loss).
PRIOR = -2.19


class Trunk(nn.Module):
    """ResNet-18 stages without the max-pooling: maps of a half, a quarter and an eighth."""

    def __init__(self, in_channels: int, width: int, blocks: Sequence[int]):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(BasicBlock, width, width, blocks[0])
        self.layer2 = stage(BasicBlock, width, 2 * width, blocks[1], stride=2)
        self.layer3 = stage(BasicBlock, 2 * width, 4 * width, blocks[2], stride=2)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, E, ny, nx)`` to three maps."""
        half = self.layer1(self.relu(self.bn1(self.conv1(x))))  # (B, width, ny/2, nx/2)
        quarter = self.layer2(half)  # (B, 2 width, ny/4, nx/4)
        return [half, quarter, self.layer3(quarter)]


class ConvNorm(nn.Module):
    """3x3 convolution, BatchNorm, ReLU, with the published names."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, ny, nx)`` to ``(B, channels, ny, nx)``."""
        return torch.relu(self.bn(self.conv(x)))


def task_head(width: int, classes: int) -> nn.ModuleDict:
    """One branch for each property of a box, and one for the classes' heat maps."""
    channels = {**BRANCHES, HEATMAP: classes}
    branches = {
        name: nn.Sequential(ConvNorm(width, width), nn.Conv2d(width, n, 3, padding=1))
        for name, n in channels.items()
    }
    nn.init.constant_(branches[HEATMAP][1].bias, PRIOR)  # type: ignore[arg-type]
    return nn.ModuleDict(branches)


class DetectionHead(nn.Module):
    """``head`` of the published state; runs only the branches that are asked for."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        width = sizes.trunk
        self.shared_conv = ConvNorm(4 * sizes.head_neck, sizes.head)
        self.task_heads = nn.ModuleList(task_head(sizes.head, len(task)) for task in sizes.tasks)
        self.trunk = Trunk(sizes.embed, width, sizes.trunk_blocks)
        channels = (sizes.embed, width, 2 * width, 4 * width)
        self.neck = Neck(channels, sizes.head_neck, (1, 2, 4, 8))

    def shared(self, fused: Tensor) -> Tensor:
        """The fused map ``(B, E, ny, nx)`` to what all task heads read, (B, head, ny, nx)."""
        return self.shared_conv(self.neck([fused, *self.trunk(fused)]))

    def forward(self, fused: Tensor, branches: Sequence[tuple[int, str]]) -> list[Tensor]:
        """Outputs of (task, branch) pairs, each (B, n, ny, nx); heat maps are logits."""
        shared = self.shared(fused)
        return [self.task_heads[task][name](shared) for task, name in branches]  # type: ignore[index]
