"""The ``model`` section of the YAML, one schema for each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from lmd_cli.config.base import Pixels, Positive, Section, option
from lmd_cli.config.custom import OWN, OwnModelConfig, ema_option, is_own

#: ``model.checkpoint`` for seeded random weights.
RANDOM = "random"

Cells = Annotated[int, Field(ge=8, le=2000)]
Levels = Annotated[int, Field(ge=1, le=100)]
Blocks = tuple[Positive, Positive, Positive]
Bounds = tuple[float, float, float, float, float, float]
NETWORKS = "simplebev or crn"
#: Sensor sets that SimpleBEV can fuse; channels are concatenated in this order.
MODALITIES = (
    ("camera",),
    ("camera", "radar"),
    ("camera", "lidar"),
    ("camera", "radar", "lidar"),
)


def checkpoint_option() -> Any:
    """``model.checkpoint``, the same for every network."""
    return option(
        "weights (.pth, .ckpt or .safetensors), looked for from the working directory, beside the "
        "config, and among the models shipped; 'random' for seeded random weights (smoke tests)",
        "a path, or random",
        min_length=1,
    )


def image_size_option(height: int, width: int) -> Any:
    """``model.image_size``, with the published size as default."""
    return option(
        "images are resized to this [height, width], pixels",
        "[height, width], integers from 32 to 4096",
        (height, width),
        strict=False,
    )


class WidthsConfig(Section):
    """Channels and block counts of SimpleBEV; the published ones by default."""

    latent: Positive = option("channels of camera features and heads", "a positive integer", 128)
    stem: Positive = option("channels of the encoder's first convolution", "a positive integer", 64)
    encoder_blocks: Blocks | None = option(
        "residual blocks in the encoder's three stages; none for the encoder's own",
        "three positive integers",
        None,
        strict=False,
    )
    upsampling: Positive = option(
        "channels of the encoder's upsampling block", "a positive integer", 512
    )
    decoder: Positive = option("channels of the decoder's first stage", "a positive integer", 64)
    decoder_blocks: Blocks = option(
        "residual blocks in the decoder's three stages",
        "three positive integers",
        (2, 2, 2),
        strict=False,
    )


class SimpleBEVConfig(Section):
    """SimpleBEV: which sensors, at which sizes, with which weights."""

    name: Literal["simplebev"] = option("network", NETWORKS, "simplebev")
    modalities: tuple[str, ...] = option(
        "sensors, in the order in which the network joins them",
        "a list such as [camera, radar]",
        ("camera", "radar"),
        strict=False,
    )
    encoder: Literal["res50", "res101"] = option("image encoder", "res50 or res101", "res101")
    radar: Literal["metaradar", "occupancy"] = option(
        "what a radar voxel holds: 16 features of its point, or one bit",
        "metaradar or occupancy",
        "metaradar",
    )
    image_size: tuple[Pixels, Pixels] = image_size_option(224, 400)
    grid: tuple[Cells, Levels, Cells] = option(
        "voxels [Z forward, Y down, X right]",
        "[Z, Y, X], integers; Z and X from 8 to 2000, Y from 1 to 100",
        (200, 8, 200),
        strict=False,
    )
    bounds: Bounds | None = option(
        "extent [xmin, xmax, ymin, ymax, zmin, zmax] of the grid in metres; none for the published",
        "[xmin, xmax, ymin, ymax, zmin, zmax] in metres, each minimum below its maximum",
        None,
        strict=False,
    )
    widths: WidthsConfig = option(
        "channels and block counts", "a mapping", default_factory=WidthsConfig
    )
    checkpoint: str = checkpoint_option()
    ema: bool = ema_option()
    output: Literal["segmentation"] = option(
        "the output that is split: vehicle logits", "segmentation", "segmentation"
    )

    @field_validator("modalities")
    @classmethod
    def _known_modalities(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value not in MODALITIES:
            choices = " or ".join(f"[{', '.join(names)}]" for names in MODALITIES)
            raise ValueError(f"expected {choices}")
        return value

    @field_validator("bounds")
    @classmethod
    def _ordered_bounds(cls, value: Bounds | None) -> Bounds | None:
        if value is not None and any(value[i] >= value[i + 1] for i in (0, 2, 4)):
            raise ValueError(
                "expected [xmin, xmax, ymin, ymax, zmin, zmax], each minimum below its maximum"
            )
        return value


Channels = Positive
Three = tuple[Positive, Positive, Positive]
Four = tuple[Positive, Positive, Positive, Positive]
THREE, FOUR = "three positive integers", "four positive integers"


class CRNSizesConfig(Section):
    """Sizes of CRN that differ from the published network's; a key left out keeps its value."""

    depth: tuple[float, float, float] | None = option(
        "depth bins: first, end of the last, step, metres",
        "[first, end, step] in metres",
        None,
        strict=False,
    )
    extent: float | None = option(
        "the bird's-eye view reaches this far, metres", "a positive number", None, gt=0, le=1000
    )
    cells: Cells | None = option(
        "rows and columns of the bird's-eye view", "a multiple of 8, from 8 to 2000", None
    )
    radar_slots: Positive | None = option("radar points of a view", "a positive integer", None)
    backbone_blocks: Four | None = option(
        "residual blocks in the image backbone's stages", FOUR, None, strict=False
    )
    backbone_width: Channels | None = option(
        "channels of the image backbone's first stage", "a positive integer", None
    )
    image_neck: Channels | None = option(
        "channels of each branch of the image neck", "a positive integer", None
    )
    depth_net: Channels | None = option("channels of the depth net", "a positive integer", None)
    context: Channels | None = option(
        "channels of each sensor's half of the bird's-eye view", "a positive integer", None
    )
    pillar: tuple[Positive, Positive] | None = option(
        "channels of the pillar layers", "two positive integers, the first even", None, strict=False
    )
    pillar_points: Positive | None = option("points of a pillar", "a positive integer", None)
    max_pillars: Positive | None = option("pillars of a view", "a positive integer", None)
    radar_widths: Three | None = option(
        "channels of the radar backbone's stages", THREE, None, strict=False
    )
    radar_layers: Three | None = option(
        "convolutions behind the first in each of them", THREE, None, strict=False
    )
    radar_neck: Channels | None = option(
        "channels of each branch of the radar neck", "a positive integer", None
    )
    embed: Channels | None = option(
        "channels of the fuser", "a positive even integer, a multiple of heads", None
    )
    layers: Positive | None = option("layers of the fuser", "a positive integer", None)
    heads: Positive | None = option("attention heads", "a positive integer", None)
    points: Positive | None = option(
        "sampling points of each head and sensor", "a positive integer", None
    )
    trunk: Channels | None = option(
        "channels of the head's first stage", "a positive integer", None
    )
    trunk_blocks: Three | None = option(
        "residual blocks in the head's stages", THREE, None, strict=False
    )
    head_neck: Channels | None = option(
        "channels of each branch of the head's neck", "a positive integer", None
    )
    head: Channels | None = option("channels of the task heads", "a positive integer", None)
    tasks: tuple[list[str], ...] | None = option(
        "detection classes of each task head", "a list of lists of names", None, strict=False
    )


class CRNConfig(Section):
    """CRN: which backbone, at which sizes, with which weights, cut where."""

    name: Literal["crn"] = option("network", NETWORKS)
    modalities: tuple[Literal["camera"], Literal["radar"]] = option(
        "sensors; CRN has these two", "[camera, radar]", ("camera", "radar"), strict=False
    )
    backbone: Literal["r18", "r50"] = option(
        "the published network: its image backbone, and the sizes that go with it",
        "r18 or r50",
        "r50",
    )
    image_size: tuple[Pixels, Pixels] = image_size_option(256, 704)
    key_frames: Annotated[int, Field(ge=1, le=16)] = option(
        "key frames that are fused: the current one and those 2, 4, 6, ... before it",
        "an integer from 1 to 16",
        4,
    )
    boundary: Literal["product", "fuser"] = option(
        "where sensors' features end: before the product of radar occupancy and image features, or "
        "at the fuser, where the image half of the bird's-eye view counts as camera",
        "product or fuser",
        "product",
    )
    sizes: CRNSizesConfig = option(
        "sizes that differ from the published ones", "a mapping", default_factory=CRNSizesConfig
    )
    checkpoint: str = checkpoint_option()
    ema: bool = ema_option()
    output: str = option(
        "the output that is split: heatmap.CLASS (logits), probability.CLASS (behind the sigmoid), "
        "or taskK.BRANCH",
        "a name such as heatmap.car or probability.car",
        "heatmap.car",
        pattern=r"^(heatmap|probability|task\d+)\.[a-z_]+$",
    )


#: The schema of each network's section.
MODELS: dict[str, type[Section]] = {
    "simplebev": SimpleBEVConfig,
    "crn": CRNConfig,
    OWN: OwnModelConfig,
}
#: The network of a section that does not name a known one; its ``name`` is then refused.
DEFAULT = "simplebev"


def network_of(section: Any) -> str:
    """Which of :data:`MODELS` a ``model`` section, parsed or not, belongs to."""
    if is_own(section):
        return OWN
    name = section.get("name") if isinstance(section, Mapping) else getattr(section, "name", None)
    return name if isinstance(name, str) and name in MODELS and name != OWN else DEFAULT


ModelConfig = Annotated[
    Annotated[SimpleBEVConfig, Tag("simplebev")]
    | Annotated[CRNConfig, Tag("crn")]
    | Annotated[OwnModelConfig, Tag(OWN)],
    Discriminator(network_of),
]
