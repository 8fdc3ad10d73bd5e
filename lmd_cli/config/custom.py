"""The schema of ``model`` and ``data`` sections that name a user's network or data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from lmd_cli.config.base import Section, option

#: Tag of these schemas among those that a section can have.
CUSTOM = "custom"
#: Names of parts and of their sum, which no modality may have.
RESERVED = ("bias", "interaction", "total", "prediction")
TARGET = (
    "what makes it: 'package.module:name' (its code is run; the module is also looked for beside "
    "this file), or the name of a registered one"
)
EXPECTED_TARGET = "'package.module:name', or a registered name"


def target_option() -> Any:
    """``target``, the same for both sections."""
    return option(TARGET, EXPECTED_TARGET, min_length=1)


def options_option() -> Any:
    """``options``, the same for both sections."""
    return option(
        "keyword arguments of the target", "a mapping of names to values", default_factory=dict
    )


def ema_option() -> Any:
    """``model.ema``, the same for every network."""
    return option(
        "take the running means of the weights (EMA) that the checkpoint holds beside them",
        "true or false",
        False,
    )


class CustomModelConfig(Section):
    """A network of one's own: see docs/extending.md."""

    target: str = target_option()
    options: dict[str, Any] = options_option()
    modalities: tuple[str, ...] = option(
        "names of the modalities, in order: those that encode returns",
        "a list of different names such as [camera, radar]",
        strict=False,
        min_length=1,
    )
    output: str = option("the output that is split: a key of what fuse returns", "a name")
    checkpoint: str | None = option(
        "weights (.pth, .ckpt or .safetensors), looked for from the working directory and beside "
        "the config; 'random' for seeded random weights; none for those that the target gives",
        "a path, random, or none",
        None,
        min_length=1,
    )
    ema: bool = ema_option()
    channel: Annotated[int, Field(ge=0)] = option(
        "the output's channel that pictures show", "an integer from 0", 0
    )

    @field_validator("modalities")
    @classmethod
    def _different_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for i, name in enumerate(value):
            if name in value[:i]:
                raise ValueError(f"{name} is listed twice")
            if name in RESERVED or not name.isidentifier():
                raise ValueError(
                    f"{name!r} cannot be a modality's name: expected letters, digits and _, and "
                    f"none of {', '.join(RESERVED)}"
                )
        return value


class CustomDataConfig(Section):
    """A data set of one's own: see docs/extending.md."""

    target: str = target_option()
    options: dict[str, Any] = options_option()


def is_custom(section: Any) -> bool:
    """Whether a ``model`` or ``data`` section, parsed or not, names a target."""
    if isinstance(section, Mapping):
        return "target" in section
    return isinstance(section, CustomModelConfig | CustomDataConfig)
