"""Options that commands share."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lmd_cli.config import RunConfig

Config = Annotated[
    str,
    typer.Option("--config", "-c", metavar="YAML", help="A file, or a name in configs/."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable."),
]
Dataroot = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Short for --set data.dataroot=DIR."),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Short for --set model.checkpoint=FILE (or random)."),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda[:N]", help="Short for --set device=..."),
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="float32|bf16|fp16", help="Short for --set compute.precision=..."),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="auto|SIZE", help="Short for --set compute.memory=..., 20GB say."),
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", file_okay=False, help="Where files go (default: results/...)."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Processes that read data (--set workers=N)."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method", metavar="NAME", help="A method of attribution; repeatable (default: all)."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start again over results that are there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


class Form(str, Enum):
    """Kinds of image files."""

    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


def again(
    config: str,
    settings: list[str] | None,
    dataroot: str | None = None,
    checkpoint: str | None = None,
    device: str | None = None,
) -> list[str]:
    """The same options as arguments, for a command to run next."""
    short = {"--dataroot": dataroot, "--checkpoint": checkpoint, "--device": device}
    given = [word for name, value in short.items() if value is not None for word in (name, value)]
    repeated = [word for setting in settings or [] for word in ("--set", setting)]
    return ["--config", config, *repeated, *given]


def vouching(run: RunConfig, config: str, settings: list[str] | None) -> list[str]:
    """What ``lmd report`` needs besides, if the run's code is the user's own."""
    from lmd_cli.config import is_own

    return again(config, settings) if is_own(run.model) or is_own(run.data) else []


def load(
    config: str,
    settings: list[str] | None,
    dataroot: str | None = None,
    checkpoint: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    memory: str | None = None,
    workers: int | None = None,
) -> RunConfig:
    """The config with the command line's values; the short options win over ``--set``."""
    from lmd_cli.config_file import load_config

    short = {
        "data.dataroot": dataroot,
        "model.checkpoint": checkpoint,
        "device": device,
        "compute.precision": precision,
        "compute.memory": memory,
        "workers": workers,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    return load_config(config, [*(settings or []), *given])
