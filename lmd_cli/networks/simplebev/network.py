"""SimpleBEV: cameras and one or two point sensors, fused in the bird's-eye view.

Source: Harley et al., "Simple-BEV: What Really Matters for Multi-Sensor BEV Perception?", 2023.
Parameters are named, shaped and ordered as in the published checkpoints, and what looks odd in
the published computation is kept, because the weights were trained with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lmd_cli.config.models import MODALITIES
from lmd_cli.config.sizes import Encoder, SimpleBEVSizes
from lmd_cli.errors import ConfigError
from lmd_cli.geometry import Grid
from lmd_cli.networks.simplebev.decoder import HEADS, Decoder
from lmd_cli.networks.simplebev.encoder import image_encoder
from lmd_cli.networks.simplebev.unprojection import unproject
from lmd_cli.networks.simplebev.voxels import occupancy, point_features
from lmd_cli.runtime.cuda_graphs import Graph

Batch = Mapping[str, Tensor | list[Tensor]]
Radar = Literal["metaradar", "occupancy"]

#: Everything that the network can be asked for.
OUTPUTS = (*HEADS, "raw_feat", "bev")
#: Feature channels of a radar point: the devkit's fields without the position, then the time lag.
RADAR_FEATURES = 16
#: ImageNet's statistics, which the encoder's inputs are normalised with.
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SimpleBEV(nn.Module):
    """``forward(batch) = fuse(encode(batch))``, with sensors apart until the fusion layer.

    Args:
        modalities: one of :data:`MODALITIES`.
        grid: the voxels, in the reference camera's axes.
        encoder: image backbone.
        radar: what a radar voxel holds: ``metaradar``, the 16 features of its point, or
            ``occupancy``, one bit for each column of voxels.
        widths: channels and block counts.

    Raises:
        ConfigError: a choice that does not exist.
    """

    def __init__(
        self,
        modalities: Iterable[str] = ("camera", "radar"),
        *,
        grid: Grid,
        encoder: Encoder = "res101",
        radar: Radar = "metaradar",
        widths: SimpleBEVSizes | None = None,
    ):
        super().__init__()
        self.modalities, self.grid = tuple(modalities), grid
        self.radar, self.widths = radar, widths or SimpleBEVSizes()
        check_choice("modalities", self.modalities, MODALITIES)
        check_choice("encoder", encoder, get_args(Encoder))
        check_choice("radar", radar, ("metaradar", "occupancy"))
        latent = self.widths.latent
        # The losses' learnt weights are part of the published state, unused in a prediction.
        self.ce_weight = nn.Parameter(torch.tensor(0.0))
        self.center_weight = nn.Parameter(torch.tensor(0.0))
        self.offset_weight = nn.Parameter(torch.tensor(0.0))
        self.encoder = image_encoder(encoder, self.widths)
        self.bev_compressor = nn.Sequential(
            nn.Conv2d(sum(self.channels().values()), latent, 3, padding=1, bias=False),
            nn.InstanceNorm2d(latent),
            nn.GELU(),
        )
        self.decoder = Decoder(self.widths)
        for name, values in (("image_mean", IMAGE_MEAN), ("image_std", IMAGE_STD)):
            statistic = torch.tensor(values).reshape(1, 3, 1, 1)
            self.register_buffer(name, statistic, persistent=False)

        self._graph: Graph | None = None

    image_mean: Tensor
    image_std: Tensor

    def record_graphs(self) -> None:
        """Replays the camera's branch on a GPU as a CUDA graph."""
        lift = weakref.WeakMethod(self._lift_camera)  # no circle: memory goes with the network

        def lift_camera(given: tuple[Tensor, ...]) -> Tensor:
            method = lift()
            assert method is not None
            return method(given)

        self._graph = Graph(lift_camera, "the camera's encoder")

    def channels(self) -> dict[str, int]:
        """Channels of each modality at the fusion layer."""
        height = self.grid.size[1]
        radar = RADAR_FEATURES * height if self.radar == "metaradar" else 1
        every = {"camera": self.widths.latent * height, "radar": radar, "lidar": height}
        return {name: every[name] for name in self.modalities}

    def forward(
        self, batch: Batch, outputs: Sequence[str] = ("segmentation",)
    ) -> dict[str, Tensor]:
        """Predict ``outputs`` from a collated batch; see :meth:`encode` and :meth:`tail`."""
        return self.fuse(self.encode(batch), outputs)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features of each sensor by itself.

        Args:
            batch: ``images`` (B, S, 3, H, W) in [-0.5, 0.5], ``pix_T_cams`` and ``cam0_T_camXs``
                (B, S, 4, 4); for radar lists of B tensors ``radar_xyz`` (n, 3), metres, and
                ``radar_features`` (n, 16); for LiDAR ``lidar_xyz`` (n, 3).

        Returns:
            ``(B, channels, Z, X)`` for each modality, channels as in :meth:`channels`.
        """
        return {n: x for name in self.modalities for n, x in self.encode_from(batch, name).items()}

    def encode_from(self, batch: Batch, modality: str) -> dict[str, Tensor]:
        """The features that depend on one sensor's data: its own; see :meth:`encode`."""
        encoders = {
            "camera": self.encode_camera,
            "radar": self.encode_radar,
            "lidar": self.encode_lidar,
        }
        return {modality: encoders[modality](batch)}

    def encoders(self) -> list[nn.Module]:
        """The modules that run on one sensor alone."""
        return [self.encoder]

    def constants(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing: calibration is used up in :meth:`encode`."""
        return {}

    def encode_camera(self, batch: Batch) -> Tensor:
        """Camera features lifted into the grid: (B, latent * Y, Z, X)."""
        names = ("images", "pix_T_cams", "cam0_T_camXs")
        given = tuple(one_tensor(batch, name) for name in names)
        if self._graph is None:
            return self._lift_camera(given)
        return self._graph(given).clone()  # type: ignore[no-any-return]  # before the next one's

    def _lift_camera(self, given: tuple[Tensor, ...]) -> Tensor:
        images, pix_T_cams, cam0_T_cams = given
        height, width = images.shape[-2:]
        features = self.image_features(images).to(images.dtype)
        with torch.autocast(images.device.type, enabled=False):  # projections are float32
            return unproject(features, pix_T_cams, cam0_T_cams, self.grid, (height, width))

    def image_features(self, images: Tensor) -> Tensor:
        """(B, S, 3, H, W) in [-0.5, 0.5] to (B, S, latent, H / 8, W / 8)."""
        pixels = (images.flatten(0, 1) + 0.5 - self.image_mean) / self.image_std
        return self.encoder(pixels).unflatten(0, images.shape[:2])

    def encode_radar(self, batch: Batch) -> Tensor:
        """Radar voxels: (B, 16 * Y, Z, X), or (B, 1, Z, X) as occupancy of columns."""
        points = batch["radar_xyz"]
        if self.radar == "occupancy":
            columns = [occupancy(xyz, self.grid).sum(0, keepdim=True).clamp(0, 1) for xyz in points]
            return torch.stack(columns)
        pairs = zip(points, batch["radar_features"], strict=True)
        voxels = [point_features(xyz, features, self.grid) for xyz, features in pairs]
        return torch.stack(voxels).flatten(1, 2)  # (B, 16, Y, Z, X) -> (B, 16 * Y, Z, X)

    def encode_lidar(self, batch: Batch) -> Tensor:
        """LiDAR occupancy: (B, Y, Z, X)."""
        return torch.stack([occupancy(xyz, self.grid) for xyz in batch["lidar_xyz"]])

    def fuse(
        self,
        features: Mapping[str, Tensor],
        outputs: Sequence[str] = ("segmentation",),
        **constants: Tensor,
    ) -> dict[str, Tensor]:
        """Predictions from the sensors' features: :meth:`tail` after :meth:`fusion_layer`."""
        return self.tail(self.fusion_layer(features), outputs)

    def forward_up(self, values: Tensor) -> Tensor:
        """Maps (..., Z, X) as they are: rows run forward, columns to the right."""
        return values

    def fusion_layer(self, features: Mapping[str, Tensor]) -> Tensor:
        """Concatenate the sensors and convolve: linear, no bias, to (B, latent, Z, X)."""
        together = torch.cat([features[name] for name in self.modalities], dim=1)
        return self.bev_compressor[0](together)

    def tail(self, fused: Tensor, outputs: Sequence[str] = ("segmentation",)) -> dict[str, Tensor]:
        """Everything after the fusion layer, running only the heads asked for.

        Args:
            fused: (B, latent, Z, X) from :meth:`fusion_layer`.
            outputs: names out of :data:`OUTPUTS`.

        Returns:
            by name, ``(B, channels, Z, X)``: ``segmentation`` (1 channel, logits),
            ``instance_center`` (1, after the sigmoid), ``instance_offset`` (2, voxels), ``feat``,
            ``raw_feat`` (before the heads) and ``bev`` (after the compressor), latent channels.

        Raises:
            ConfigError: an output that the network does not have.
        """
        for name in outputs:
            check_choice("output", name, OUTPUTS)
        for layer in list(self.bev_compressor)[1:]:
            fused = layer(fused)
        return self.decoder(fused, outputs)


def check_choice(what: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not among the choices, naming them."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ConfigError(f"SimpleBEV has no {what} {value!r}: choose one of {listed}")


def one_tensor(batch: Batch, name: str) -> Tensor:
    """The entry ``name`` of a batch, which must be stacked already."""
    value = batch[name]
    if not isinstance(value, Tensor):
        raise TypeError(f"batch[{name!r}] must be one tensor, not {type(value).__name__}")
    return value
