"""The network and samples that everything is measured on."""

from __future__ import annotations

import torch
from torch import Tensor

from lmd_cli.assembly.forward import Fused
from lmd_cli.data import NuScenesSamples, collate
from lmd_cli.data.synthetic import demo_root
from lmd_cli.decomposition import Variant
from lmd_cli.evaluation.cost import Meter
from lmd_cli.evaluation.walk import Encoder, Encoding, Visit
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV, random_weights

OUTPUT = "segmentation"
VARIANT = Variant()
OFFSETS = 12


def build(grid: Grid) -> SimpleBEV:
    """SimpleBEV at its published widths."""
    return SimpleBEV(("camera", "radar"), grid=grid, encoder="res101")


class Bench:
    """A network of random weights, a clean sample and its partners."""

    def __init__(self, small: bool):
        self.grid = Grid((100, 8, 100) if small else (200, 8, 200))
        self.image_size = (128, 224) if small else (224, 400)
        self.network = build(self.grid)
        random_weights(self.network, seed=0)
        self.network.eval().requires_grad_(False)
        self.data = NuScenesSamples(
            demo_root(),
            "v1.0-mini",
            "mini_val",
            modalities=("camera", "radar"),
            nsweeps=5,
            image_size=self.image_size,
            grid=self.grid,
        )
        encode = Encoder(self.network, self.data, torch.device("cpu"))
        self.batch = collate([self.data[0]])
        self.partner = collate([self.data[1]])
        clean, other = encode(0, False), encode(1, False)
        assert isinstance(clean, Encoding)
        self.visit = Visit(0, clean, [other] * OFFSETS)

    @property
    def fused(self) -> Fused:
        """The clean sample behind the fusion layer."""
        assert isinstance(self.visit.sample, Encoding)
        assert self.visit.sample.fused is not None
        return self.visit.sample.fused

    def tail(self, fused: Tensor) -> Tensor:
        """The decoder down to the logits."""
        return self.network.tail(fused, [OUTPUT])[OUTPUT]

    def fuse(self, **features: Tensor) -> Tensor:
        """Features to logits."""
        return self.network.fuse(features, [OUTPUT])[OUTPUT]

    def fuse_joined(self, features: Tensor) -> Tensor:
        """The same from the concatenated features, for one pass through the whole of it."""
        return self.tail(self.network.bev_compressor[0](features))


class Flops:
    """What the stages cost, counted on tensors without values.

    Attributes:
        encoder, fusion, decoder: FLOPs of one sample, as torch counts them.
        head: those of the decoder's last 3x3 convolution.
        per_pixel: those of the head as one linear map of an input, kernel apart.
    """

    def __init__(self, grid: Grid, image_size: tuple[int, int]):
        with torch.device("meta"), torch.no_grad():
            network = build(grid).eval()
            z, _, x = grid.size
            joined = torch.empty(1, sum(network.channels().values()), z, x)
            with Meter() as encoder:
                network.image_features(torch.empty(1, 6, 3, *image_size))
            with Meter() as fusion:
                fused = network.bev_compressor[0](joined)
            with Meter() as decoder:
                network.tail(fused, [OUTPUT])
            with Meter() as head:
                network.decoder.segmentation_head[0](fused)
        self.head = head.flops
        self.per_pixel = head.flops // network.widths.latent
        self.encoder, self.fusion, self.decoder = encoder.flops, fusion.flops, decoder.flops

    @property
    def ours(self) -> int:
        """One encoding; the fusion layer on the total and on the parts, which fill some channels
        each; the decoder on the total, each modality and the bias. Partners go as far as the head,
        which is one map for a modality's (:mod:`~lmd_cli.decomposition.linearised.heads`).
        """
        partner = self.decoder - self.head + self.per_pixel
        clean = self.encoder + 2 * self.fusion + 4 * self.decoder
        return clean + 2 * OFFSETS * partner + 2 * self.head

    @property
    def straightforward(self) -> int:
        """13 encodings, the clean linearisation, and a pass for each part."""
        passes = 2 * (1 + OFFSETS) + 1
        linearising = 2 * self.fusion + 4 * self.decoder
        return (1 + OFFSETS) * self.encoder + linearising + passes * (self.fusion + self.decoder)
