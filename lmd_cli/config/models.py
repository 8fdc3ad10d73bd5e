"""The ``model`` section of the YAML, one schema for each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from lmd_cli.config.base import Pixels, Section, option
from lmd_cli.config.custom import CUSTOM, CustomModelConfig, ema_option, is_custom
from lmd_cli.config.sizes import Cells, CRNSizes, Encoder, SimpleBEVSizes, section_of

#: ``model.checkpoint`` for seeded random weights.
RANDOM = "random"

Levels = Annotated[int, Field(ge=1, le=100)]
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


@section_of(SimpleBEVSizes)
class SimpleBEVSizesConfig(Section):
    """Channels and block counts of SimpleBEV; the published ones by default."""


class SimpleBEVConfig(Section):
    """SimpleBEV: which sensors, at which sizes, with which weights."""

    name: Literal["simplebev"] = option("network", NETWORKS, "simplebev")
    modalities: tuple[str, ...] = option(
        "sensors, in the order in which the network joins them",
        "a list such as [camera, radar]",
        ("camera", "radar"),
        strict=False,
    )
    encoder: Encoder = option("image encoder", "res50, res101, effb0 or effb4", "res101")
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
    widths: SimpleBEVSizesConfig = option(
        "channels and block counts", "a mapping", default_factory=SimpleBEVSizesConfig
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


@section_of(CRNSizes, optional=True)
class CRNSizesConfig(Section):
    """Sizes of CRN that differ from the published network's; a key left out keeps its value."""


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
    CUSTOM: CustomModelConfig,
}
#: The network of a section that does not name a known one; its ``name`` is then refused.
DEFAULT = "simplebev"


def network_of(section: Any) -> str:
    """Which of :data:`MODELS` a ``model`` section, parsed or not, belongs to."""
    if is_custom(section):
        return CUSTOM
    name = section.get("name") if isinstance(section, Mapping) else getattr(section, "name", None)
    return name if isinstance(name, str) and name in MODELS and name != CUSTOM else DEFAULT


ModelConfig = Annotated[
    Annotated[SimpleBEVConfig, Tag("simplebev")]
    | Annotated[CRNConfig, Tag("crn")]
    | Annotated[CustomModelConfig, Tag(CUSTOM)],
    Discriminator(network_of),
]
