"""CRN's image branch: ResNet, neck, depth net, and the net that aggregates a view's columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmd_cli.config.sizes import CRNSizes
from lmd_cli.networks.crn.blocks import Neck, conv_norm_relu
from lmd_cli.networks.crn.geometry import frustum, voxel_buffers
from lmd_cli.networks.resnet import BasicBlock, Bottleneck, initialise, stage


class ResNet(nn.Module):
    """Four stages at strides 4, 8, 16 and 32; all of them are outputs."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        block = BasicBlock if sizes.backbone == 18 else Bottleneck
        width, blocks = sizes.backbone_width, sizes.blocks
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = width
        for i, count in enumerate(blocks):
            planes = width * 2**i
            made = stage(block, channels, planes, count, stride=1 if i == 0 else 2)
            self.add_module(f"layer{i + 1}", made)
            channels = planes * block.expansion
        self.channels = [width * 2**i * block.expansion for i in range(4)]
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` to four maps ``(N, channels[i], H / 2**(i+2), W / 2**(i+2))``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (N, width, H/4, W/4)
        maps = []
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
            maps.append(x)
        return maps


class DepthNet(nn.Module):
    """Context features and depth logits of every image feature; no calibration enters."""

    def __init__(self, in_channels: int, mid: int, context: int, bins: int):
        super().__init__()
        self.reduce_conv = nn.Sequential(*conv_norm_relu(in_channels, mid, bias=True))
        self.context_conv = nn.Sequential(
            *conv_norm_relu(mid, mid, bias=True), nn.Conv2d(mid, context, 1)
        )
        self.depth_conv = nn.Sequential(
            *(BasicBlock(mid, mid) for _ in range(3)), nn.Conv2d(mid, bins, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, in, h, w)`` to context ``(N, C, h, w)`` and depth logits ``(N, D, h, w)``."""
        x = self.reduce_conv(x)
        return self.context_conv(x), self.depth_conv(x)


class ViewAggregation(nn.Module):
    """Convolutions over a view's columns and depths: (V, 2 C, w, D) to (V, C, w, D)."""

    def __init__(self, context: int):
        super().__init__()
        both = 2 * context
        self.reduce_conv = nn.Sequential(*conv_norm_relu(both, both))
        self.conv = nn.Sequential(*conv_norm_relu(both, both), *conv_norm_relu(both, both))
        self.out_conv = nn.Sequential(nn.Conv2d(both, context, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Lifted features, rows = image columns, columns = depths."""
        return self.out_conv(self.conv(self.reduce_conv(x)))


class ImageBranch(nn.Module):
    """``backbone_img`` of the published state: everything that images pass before the fuser."""

    def __init__(self, sizes: CRNSizes):
        super().__init__()
        for name, value in voxel_buffers(sizes).items():
            self.register_buffer(name, value)
        self.register_buffer("frustum", frustum(sizes))  # (D, h, w, 4)
        self.img_backbone = ResNet(sizes)
        neck = sizes.image_neck
        self.img_neck = Neck(self.img_backbone.channels, neck, (0.25, 0.5, 1, 2))
        self.depth_net = DepthNet(4 * neck, sizes.depth_net, sizes.context, sizes.depth_bins)
        self.view_aggregation_net = ViewAggregation(sizes.context)

    frustum: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, 3, H, W)`` to context ``(N, C, h, w)`` and depth probabilities ``(N, D, h, w)``."""
        context, logits = self.depth_net(self.img_neck(self.img_backbone(images)))
        return context, torch.softmax(logits, dim=1)
