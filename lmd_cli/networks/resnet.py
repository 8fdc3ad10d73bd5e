"""Residual stages with torchvision's parameter names, so that published weights fit.

Source: He et al., "Deep Residual Learning for Image Recognition", 2016, in the form that
torchvision ships (the stride of a bottleneck sits on its 3x3 convolution).
"""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18)."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, planes, ceil(H / stride), ceil(W / stride))``."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and ResNet-101)."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, 4 * planes, ceil(H / stride), ceil(W / stride))``."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A projection where the shape changes, nothing (``None``) where it does not."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    planes: int,
    blocks: int,
    stride: int = 1,
) -> nn.Sequential:
    """``blocks`` residual blocks, the first of which takes the stride.

    Returns:
        a module from ``in_channels`` to ``planes * block.expansion`` channels.
    """
    first = block(in_channels, planes, stride)
    rest = [block(planes * block.expansion, planes) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def initialise(module: nn.Module, *, zero_residual: bool = False) -> None:
    """Initialise for training as torchvision does: He's normal (fan out), BatchNorm 1 and 0.

    Args:
        module: anything that holds residual stages; changed in place.
        zero_residual: let the residual branch of every basic block start at zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if zero_residual and isinstance(layer, BasicBlock):
            nn.init.zeros_(layer.bn2.weight)
