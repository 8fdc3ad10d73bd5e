"""SimpleBEV's image encoder: ResNet features at an eighth of the image's size."""

from __future__ import annotations

from torch import Tensor, nn

from lmd_cli.config.sizes import Encoder, SimpleBEVSizes
from lmd_cli.networks.resnet import Bottleneck, initialise, stage
from lmd_cli.networks.simplebev.blocks import UpsamplingConcat


class ImageEncoder(nn.Module):
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
