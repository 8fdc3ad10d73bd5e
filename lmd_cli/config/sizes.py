"""The sizes of the built-in networks, from which their layers and the YAML's keys are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field as DataclassField
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import Field, ValidationError, create_model

from lmd_cli.config.base import Positive, Section, expected_of, option
from lmd_cli.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)
Cells = Annotated[int, Field(ge=8, le=2000)]
Three = tuple[Positive, Positive, Positive]
Four = tuple[Positive, Positive, Positive, Positive]
Encoder = Literal["res50", "res101", "effb0", "effb4"]
Depth = Literal[18, 50]
Task = Annotated[tuple[str, ...], Field(strict=False)]

#: Residual blocks in the stages of SimpleBEV's ResNet encoders (He et al. 2016, table 1).
ENCODER_BLOCKS: dict[str, tuple[int, int, int]] = {"res50": (3, 4, 6), "res101": (3, 4, 23)}
#: Residual blocks in the four stages of CRN's image backbones.
RESNET_BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
#: CRN's image features are this many pixels apart; radar pillars half of it.
STRIDE = 16
#: Detection classes of each of CRN's published task heads, in order.
PUBLISHED_TASKS: tuple[Task, ...] = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)


def one(description: str) -> Any:
    """A size that is one positive integer."""
    return option(description, "a positive integer")


def three(description: str) -> Any:
    """A size of each of three stages."""
    return option(description, "three positive integers", strict=False)


def keys_of(sizes: type, *, optional: bool = False) -> dict[str, Any]:
    """The documented fields of a dataclass as pydantic takes them.

    Args:
        sizes: the dataclass.
        optional: every key may be left out, whatever the dataclass's default: it is then ``None``.
    """
    hints = get_type_hints(sizes, include_extras=True)

    def key(field: DataclassField[Any]) -> tuple[Any, Any]:
        hint = hints[field.name]
        if not optional:
            return hint, field.default
        parts = (hint.__origin__ | None, *hint.__metadata__)
        return Annotated[parts], None  # type: ignore[return-value]

    documented = (f for f in fields(sizes) if any(_is_option(n) for n in get_args(hints[f.name])))
    return {field.name: key(field) for field in documented}


def _is_option(note: Any) -> bool:
    return getattr(note, "description", None) is not None


def section_of(
    sizes: type, *, optional: bool = False
) -> Callable[[type[AnySection]], type[AnySection]]:
    """Decorator: gives a section the keys of a dataclass; see :func:`keys_of`."""

    def made(section: type[AnySection]) -> type[AnySection]:
        keys = keys_of(sizes, optional=optional)
        whole = create_model(
            section.__name__, __base__=section, __module__=section.__module__, **keys
        )
        whole.__doc__ = section.__doc__
        return whole

    return made


@dataclass(frozen=True)
class SimpleBEVSizes:
    """Channels and block counts of SimpleBEV, the published ones by default.

    Every layer type stays, whatever the numbers. The stages of a ResNet encoder end at 4, 8 and 16
    times the stem's channels; the decoder's second and third stage have
    2 and 4 times those of its first.
    """

    latent: Annotated[Positive, one("channels of camera features and heads")] = 128
    stem: Annotated[Positive, one("channels of a ResNet encoder's first convolution")] = 64
    encoder_blocks: Annotated[
        Three | None,
        three("residual blocks in a ResNet encoder's three stages; none for the encoder's own"),
    ] = None
    upsampling: Annotated[Positive, one("channels of a ResNet encoder's upsampling block")] = 512
    decoder: Annotated[Positive, one("channels of the decoder's first stage")] = 64
    decoder_blocks: Annotated[Three, three("residual blocks in the decoder's three stages")] = (
        2,
        2,
        2,
    )

    def __post_init__(self) -> None:
        """Take lists for tuples (YAML has no tuples) and refuse what cannot be built."""
        schema = _simplebev_schema()
        try:
            checked = schema(**vars(self))
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            expected, value = expected_of(schema.model_fields[name]), getattr(self, name)
            raise ConfigError(f"widths.{name} must be {expected}, not {value!r}") from None
        for name, value in checked:
            object.__setattr__(self, name, value)

    def blocks_of(self, encoder: Encoder) -> tuple[int, int, int]:
        """Residual blocks in the three stages of ``encoder``."""
        return self.encoder_blocks or ENCODER_BLOCKS[encoder]


@cache
def _simplebev_schema() -> type[Section]:
    return create_model("SimpleBEVSizes", __base__=Section, **keys_of(SimpleBEVSizes))


@dataclass(frozen=True)
class CRNSizes:
    """Every size of CRN, the published R50 by default.

    Attributes:
        image_size: (H, W) of the images, pixels, multiples of 32.
        key_frames: frames that are fused, the current one first.
        backbone: 18 (basic blocks) or 50 (bottlenecks).
    """

    image_size: tuple[int, int] = (256, 704)
    key_frames: int = 4
    backbone: Depth = 50
    depth: Annotated[
        tuple[float, float, float],
        option(
            "depth bins: first, end of the last, step, metres",
            "[first, end, step] in metres",
            strict=False,
        ),
    ] = (2.0, 58.0, 0.8)
    extent: Annotated[
        float,
        option("the bird's-eye view reaches this far, metres", "a positive number", gt=0, le=1000),
    ] = 51.2
    cells: Annotated[
        Cells,
        option("rows and columns of the bird's-eye view", "a multiple of 8, from 8 to 2000"),
    ] = 128
    radar_slots: Annotated[Positive, one("radar points of a view")] = 1536
    backbone_blocks: Annotated[
        Four | None,
        option(
            "residual blocks in the image backbone's stages", "four positive integers", strict=False
        ),
    ] = None
    backbone_width: Annotated[Positive, one("channels of the image backbone's first stage")] = 64
    image_neck: Annotated[Positive, one("channels of each branch of the image neck")] = 128
    depth_net: Annotated[Positive, one("channels of the depth net")] = 256
    context: Annotated[Positive, one("channels of each sensor's half of the bird's-eye view")] = 80
    pillar: Annotated[
        tuple[Positive, Positive],
        option(
            "channels of the pillar layers", "two positive integers, the first even", strict=False
        ),
    ] = (32, 64)
    pillar_points: Annotated[Positive, one("points of a pillar")] = 8
    max_pillars: Annotated[Positive, one("pillars of a view")] = 1024
    radar_widths: Annotated[Three, three("channels of the radar backbone's stages")] = (
        64,
        128,
        256,
    )
    radar_layers: Annotated[Three, three("convolutions behind the first in each of them")] = (
        3,
        5,
        5,
    )
    radar_neck: Annotated[Positive, one("channels of each branch of the radar neck")] = 128
    embed: Annotated[
        Positive, option("channels of the fuser", "a positive even integer, a multiple of heads")
    ] = 128
    layers: Annotated[Positive, one("layers of the fuser")] = 6
    heads: Annotated[Positive, one("attention heads")] = 4
    points: Annotated[Positive, one("sampling points of each head and sensor")] = 4
    trunk: Annotated[Positive, one("channels of the head's first stage")] = 160
    trunk_blocks: Annotated[Three, three("residual blocks in the head's stages")] = (2, 2, 2)
    head_neck: Annotated[Positive, one("channels of each branch of the head's neck")] = 64
    head: Annotated[Positive, one("channels of the task heads")] = 64
    tasks: Annotated[
        tuple[Task, ...],
        option("detection classes of each task head", "a list of lists of names", strict=False),
    ] = PUBLISHED_TASKS

    def __post_init__(self) -> None:
        """Refuse what cannot be built, naming the key."""
        first, last, step = self.depth
        bins = (last - first) / step if step > 0 else 0.0
        checks = {
            "image_size": (not any(n % 32 for n in self.image_size), "multiples of 32"),
            "depth": (
                first >= 0 and bins >= 1 and abs(bins - round(bins)) < 1e-6,
                "[first, end, step] with a whole number of steps from first to end",
            ),
            "cells": (self.cells % 8 == 0, "a multiple of 8"),
            "pillar": (self.pillar[0] % 2 == 0, "two integers, the first even"),
            "embed": (
                self.embed % 2 == 0 and self.embed % self.heads == 0,
                f"even and a multiple of heads ({self.heads})",
            ),
            "tasks": (self._known_tasks(), "lists of distinct class names, at least one in each"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise ConfigError(f"CRN's {name} is {getattr(self, name)!r}: expected {expected}")

    def _known_tasks(self) -> bool:
        names = [name for task in self.tasks for name in task]
        return bool(self.tasks) and all(self.tasks) and len(set(names)) == len(names)

    @classmethod
    def published(cls, backbone: Depth) -> CRNSizes:
        """The published detection network of that backbone."""
        if backbone == 50:
            return cls()
        return cls(backbone=18, image_neck=64, radar_layers=(2, 3, 3), radar_neck=64, trunk=128)

    @property
    def depth_bins(self) -> int:
        """Number D of depth bins."""
        first, last, step = self.depth
        return round((last - first) / step)

    @property
    def feature_size(self) -> tuple[int, int]:
        """(h, w) of the image features."""
        return self.image_size[0] // STRIDE, self.image_size[1] // STRIDE

    @property
    def voxel(self) -> float:
        """Edge length of a cell of the bird's-eye view, metres."""
        return 2 * self.extent / self.cells

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        """Residual blocks in the image backbone's four stages."""
        return self.backbone_blocks or RESNET_BLOCKS[self.backbone]
