"""The composition root: from a config to its samples, its network and its device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch

from lmd_cli.config import RANDOM, SYNTHETIC, RunConfig
from lmd_cli.data import NuScenesSamples
from lmd_cli.data.synthetic import cached_root
from lmd_cli.data.synthetic.root import DEMO_SAMPLES, cache_folder
from lmd_cli.errors import CheckpointError, ConfigError
from lmd_cli.geometry import PUBLISHED_BOUNDS, Grid
from lmd_cli.networks import SimpleBEV, SimpleBEVWidths, load_checkpoint, random_weights
from lmd_cli.progress import Progress, Silent, counter
from lmd_cli.resources import first_file, listing, shipped


@dataclass(frozen=True)
class BuiltNetwork:
    """A network with its weights, in evaluation mode.

    Attributes:
        network: on the device asked for.
        checkpoint: where its weights come from, in words.
        sha256: the weight file's digest; none for random weights.
        random: the weights are random: what it predicts means nothing.
    """

    network: SimpleBEV
    checkpoint: str
    sha256: str | None
    random: bool


def build_grid(config: RunConfig) -> Grid:
    """The config's voxels."""
    return Grid(config.model.grid, config.model.bounds or PUBLISHED_BOUNDS)


def build_dataset(config: RunConfig, progress: Progress | None = None) -> NuScenesSamples:
    """The config's samples; makes the synthetic root if it is asked for and not there.

    Raises:
        ConfigError: the synthetic root has no such split.
        DataError: data root, version or split not found.
    """
    return NuScenesSamples(
        data_root(config, progress or Silent()),
        config.data.version,
        config.data.split,
        modalities=config.model.modalities,
        nsweeps=config.data.nsweeps,
        image_size=config.model.image_size,
        grid=build_grid(config),
    )


def data_root(config: RunConfig, progress: Progress) -> Path:
    """The folder that ``data.dataroot`` means.

    Raises:
        ConfigError: the synthetic root has no such split.
    """
    if config.data.dataroot != SYNTHETIC:
        return Path(config.data.dataroot).expanduser()
    split = config.data.split
    if split not in ("mini_val", "mini_train"):
        raise ConfigError(
            f"data.split is {split!r}: the synthetic root has the splits mini_val and mini_train"
        )
    report = counter(progress, f"making synthetic nuScenes in {cache_folder()}")
    known_split = cast(Literal["mini_val", "mini_train"], split)
    try:
        return cached_root(known_split, DEMO_SAMPLES, progress=report)
    finally:
        progress.close()


def build_network(config: RunConfig, device: torch.device) -> BuiltNetwork:
    """The config's network with its weights.

    Raises:
        CheckpointError: the weights are missing, damaged or of another architecture.
    """
    model = config.model
    network = SimpleBEV(
        model.modalities,
        grid=build_grid(config),
        encoder=model.encoder,
        radar=model.radar,
        widths=SimpleBEVWidths(**model.widths.model_dump()),
    )
    if model.checkpoint == RANDOM:
        random_weights(network, config.seed)
        origin, sha256 = f"random weights (seed {config.seed})", None
    else:
        path = find_checkpoint(model.checkpoint, config.source)
        origin, sha256 = str(path), load_checkpoint(path, network)
    network.eval().requires_grad_(False).to(device)
    return BuiltNetwork(network, origin, sha256, random=sha256 is None)


def find_checkpoint(name: str, config_file: Path | None = None) -> Path:
    """The file that ``model.checkpoint`` means.

    A relative path is looked for from the working directory, from the config's folder and the
    folder above it, and among the models shipped.

    Raises:
        CheckpointError: it is in none of these; says which models there are.
    """
    given = Path(name).expanduser()
    models = shipped("models")
    beside = [] if config_file is None else [config_file.parent, config_file.parent.parent]
    inside = given.relative_to("models") if given.is_relative_to("models") else given
    found = first_file([given, *(folder / given for folder in beside), models / inside])
    if found is not None:
        return found
    known = [path.name for path in models.glob("*") if path.suffix in (".safetensors", ".pth")]
    raise CheckpointError(
        f"checkpoint {name} does not exist (looked from {Path.cwd()}, from the config's folder and "
        f"in {models}). Give a .safetensors or .pth file with --checkpoint, or {RANDOM!r} for a "
        f"smoke test. Models shipped: {listing(known, given.name)}"
    )


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device that is there.

    Raises:
        ConfigError: it is not; says what is.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        why = "" if torch.version.cuda else " (this torch is built without CUDA)"
        raise ConfigError(f"device {name} is not there{why}; there are: {there}")
    return torch.device("cuda", index)
