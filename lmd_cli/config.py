"""What a run is: the YAML's schema, every key documented where it is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from pydantic_core import PydanticUndefined

#: ``data.dataroot`` for the synthetic root in the user's cache folder, made on first use.
SYNTHETIC = "synthetic"
#: ``model.checkpoint`` for seeded random weights.
RANDOM = "random"

Positive = Annotated[int, Field(ge=1, le=100_000)]
Pixels = Annotated[int, Field(ge=32, le=4096)]
Cells = Annotated[int, Field(ge=8, le=2000)]
Levels = Annotated[int, Field(ge=1, le=100)]
Blocks = tuple[Positive, Positive, Positive]
Bounds = tuple[float, float, float, float, float, float]


def option(
    description: str, expected: str, default: Any = PydanticUndefined, **constraints: Any
) -> Any:
    """A key of the YAML: what it means, what it may hold, and its default (none: required)."""
    extra: dict[str, Any] = {"expected": expected}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Section(BaseModel):
    """A mapping in the YAML: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which samples."""

    dataroot: str = option(
        "nuScenes root: holds samples/, sweeps/ and the version's tables; 'synthetic' for the "
        "demo's, made in the user's cache folder on first use",
        "a folder, or synthetic",
        min_length=1,
    )
    version: str = option("nuScenes version", "a name such as v1.0-trainval", min_length=1)
    split: str = option("split of the version", "a name such as val or mini_val", min_length=1)
    nsweeps: int = option(
        "sweeps of each radar (and LiDAR), the keyframe's included",
        "an integer from 1 to 100",
        5,
        ge=1,
        le=100,
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


class ModelConfig(Section):
    """Which network, at which sizes, with which weights."""

    name: Literal["simplebev"] = option("network", "simplebev", "simplebev")
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
    image_size: tuple[Pixels, Pixels] = option(
        "images are resized to this [height, width], pixels",
        "[height, width], integers from 32 to 4096",
        (224, 400),
        strict=False,
    )
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
    checkpoint: str = option(
        "weights (.pth or .safetensors), looked for from the working directory, beside the config, "
        "and among the models shipped; 'random' for seeded random weights (smoke tests)",
        "a path, or random",
        min_length=1,
    )
    output: Literal["segmentation"] = option(
        "the output that is split: vehicle logits", "segmentation", "segmentation"
    )

    @field_validator("modalities")
    @classmethod
    def _known_modalities(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from lmd_cli.networks import MODALITIES

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


class PerturbationConfig(Section):
    """Which samples a sensor is replaced from: sample (k + stride * m) mod N, m = 1 to count."""

    stride: int | Literal["auto"] = option(
        "distance in samples (500 in the paper); 'auto' for the largest that visits all samples",
        "a positive integer, or auto",
        "auto",
    )
    count: Positive = option("replacements for each sample", "a positive integer", 12)

    @field_validator("stride")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected a positive integer, or auto")
        return value


class RunConfig(Section):
    """A run: data, network, variants, protocol."""

    data: DataConfig = option("which samples", "a mapping")
    model: ModelConfig = option("which network", "a mapping")
    variants: tuple[str, ...] = option(
        "rules BN-NORM[-ACT] of the decomposition, evaluated side by side",
        "a list of names such as [identity-ratio]",
        ("identity-ratio",),
        min_length=1,
        strict=False,
    )
    perturbation: PerturbationConfig = option(
        "the protocol of Appendix D.4", "a mapping", default_factory=PerturbationConfig
    )
    device: str = option(
        "where to compute; auto takes a GPU if there is one",
        "auto, cpu, cuda or cuda:N",
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$",
    )
    seed: int = option(
        "seed of random weights", "an integer from 0 to 2**31 - 1", 0, ge=0, lt=2**31
    )
    threads: Positive | None = option(
        "CPU threads; none for as many as there are cores", "a positive integer", None
    )

    _name: str = PrivateAttr("run")
    _source: Path | None = PrivateAttr(None)

    @property
    def name(self) -> str:
        """The config file's stem."""
        return self._name

    @property
    def source(self) -> Path | None:
        """The config file."""
        return self._source

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from lmd_cli.decomposition import Variant

        names = tuple(Variant.parse(name).name for name in value)
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise ValueError(f"{twice[0]} is listed twice")
        return names

    def with_origin(self, source: Path) -> RunConfig:
        """This config, knowing the file it came from."""
        self._name, self._source = source.stem, source
        return self
