"""SimpleBEV's decoder: ResNet-18 stages down, skip connections up, and one head per output."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lmd_cli.config.sizes import SimpleBEVSizes
from lmd_cli.networks.resnet import BasicBlock, initialise, stage
from lmd_cli.networks.simplebev.blocks import UpsamplingAdd, head

#: Which module computes which output; ``raw_feat`` is what all of them read.
HEADS = {
    "feat": "feat_head",
    "segmentation": "segmentation_head",
    "instance_offset": "instance_offset_head",
    "instance_center": "instance_center_head",
}


class Decoder(nn.Module):
    """From the fused bird's-eye view to the outputs that are asked for."""

    def __init__(self, widths: SimpleBEVSizes):
        super().__init__()
        latent, width, blocks = widths.latent, widths.decoder, widths.decoder_blocks
        self.first_conv = nn.Conv2d(latent, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(BasicBlock, width, width, blocks[0])
        self.layer2 = stage(BasicBlock, width, 2 * width, blocks[1], stride=2)
        self.layer3 = stage(BasicBlock, 2 * width, 4 * width, blocks[2], stride=2)
        self.up3_skip = UpsamplingAdd(4 * width, 2 * width)
        self.up2_skip = UpsamplingAdd(2 * width, width)
        self.up1_skip = UpsamplingAdd(width, latent)
        self.feat_head = head(latent, latent)
        self.segmentation_head = head(latent, 1)
        self.instance_offset_head = head(latent, 2)
        self.instance_center_head = head(latent, 1, nn.Sigmoid())
        for trunk in (self.layer1, self.layer2, self.layer3):
            initialise(trunk, zero_residual=True)

    def forward(self, bev: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Decode ``bev`` (B, latent, Z, X), running only the heads in ``outputs``.

        Args:
            bev: the compressor's output.
            outputs: names out of :data:`HEADS`, ``raw_feat`` and ``bev``.

        Returns:
            the outputs by name, in the order asked for, each ``(B, channels, Z, X)``.
        """
        raw = self.trunk(bev) if set(outputs) - {"bev"} else bev
        given = {"bev": bev, "raw_feat": raw}
        return {
            name: given[name] if name in given else getattr(self, HEADS[name])(raw)
            for name in outputs
        }

    def trunk(self, bev: Tensor) -> Tensor:
        """Everything before the heads: (B, latent, Z, X) to the same shape."""
        half = self.layer1(self.relu(self.bn1(self.first_conv(bev))))  # (B, width, Z/2, X/2)
        quarter = self.layer2(half)  # (B, 2 * width, Z/4, X/4)
        eighth = self.layer3(quarter)  # (B, 4 * width, Z/8, X/8)
        up = self.up3_skip(eighth, quarter)  # (B, 2 * width, Z/4, X/4)
        up = self.up2_skip(up, half)  # (B, width, Z/2, X/2)
        return self.up1_skip(up, bev)  # (B, latent, Z, X)
