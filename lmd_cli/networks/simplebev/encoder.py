"""SimpleBEV's image encoders: features of a ResNet or an EfficientNet at an eighth of the image's
size."""

from __future__ import annotations

from torch import Tensor, nn

from lmd_cli.config.sizes import Encoder, SimpleBEVSizes
from lmd_cli.errors import ConfigError
from lmd_cli.networks.efficientnet import SCALINGS, EfficientNet
from lmd_cli.networks.resnet import Bottleneck, initialise, stage
from lmd_cli.networks.simplebev.blocks import UpsamplingConcat

#: Channels of the upsampling block behind an EfficientNet.
UPSAMPLING = 128


def image_encoder(encoder: Encoder, widths: SimpleBEVSizes) -> nn.Module:
    """The encoder of that name."""
    if encoder in SCALINGS:
        return EfficientNetEncoder(encoder, widths)
    return ResNetEncoder(encoder, widths)


class ResNetEncoder(nn.Module):
    """ResNet to a sixteenth, then one step back up to an eighth.

    ``backbone`` is numbered as the children of a ResNet are (stem 0 to 3, stages 4 and 5), which
    is how the published checkpoints name it.
    """

    def __init__(self, encoder: Encoder, widths: SimpleBEVSizes):
        super().__init__()
        stem, blocks = widths.stem, widths.blocks_of(encoder)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, stem, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            stage(Bottleneck, stem, stem, blocks[0]),
            stage(Bottleneck, 4 * stem, 2 * stem, blocks[1], stride=2),
        )
        self.layer3 = stage(Bottleneck, 8 * stem, 4 * stem, blocks[2], stride=2)
        self.depth_layer = nn.Conv2d(widths.upsampling, widths.latent, 1)
        self.upsampling_layer = UpsamplingConcat((16 + 8) * stem, widths.upsampling)
        for trunk in (self.backbone, self.layer3):
            initialise(trunk)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``(N, 3, H, W)`` to features ``(N, latent, H / 8, W / 8)``."""
        shallow = self.backbone(images)  # (N, 8 * stem, H/8, W/8)
        deep = self.layer3(shallow)  # (N, 16 * stem, H/16, W/16)
        return self.depth_layer(self.upsampling_layer(deep, shallow))


class EfficientNetEncoder(nn.Module):
    """EfficientNet to a sixteenth, then one step back up to an eighth.

    Raises:
        ConfigError: widths of a ResNet.
    """

    def __init__(self, encoder: Encoder, widths: SimpleBEVSizes):
        super().__init__()
        for name in ("stem", "encoder_blocks", "upsampling"):
            if getattr(widths, name) != getattr(SimpleBEVSizes, name):
                why = f"is a ResNet's; {encoder} has one size: leave it out"
                raise ConfigError(f"widths.{name} {why}")
        self.backbone = EfficientNet(SCALINGS[encoder])
        joined = self.backbone.deep + self.backbone.shallow
        self.upsampling_layer = UpsamplingConcat(joined, UPSAMPLING)
        self.depth_layer = nn.Conv2d(UPSAMPLING, widths.latent, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``(N, 3, H, W)`` to features ``(N, latent, H / 8, W / 8)``."""
        shallow, deep = self.backbone(images)
        return self.depth_layer(self.upsampling_layer(deep, shallow))
