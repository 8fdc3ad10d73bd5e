"""The composition root: from a config to its samples, its network and its device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch

from lmd_cli.config import RANDOM, SYNTHETIC, CRNConfig, RunConfig, SimpleBEVConfig
from lmd_cli.data import KeyframeSamples, NuScenesSamples
from lmd_cli.data.synthetic import cached_root
from lmd_cli.data.synthetic.root import DEMO_SAMPLES, cache_folder
from lmd_cli.errors import CheckpointError, ConfigError
from lmd_cli.geometry import PUBLISHED_BOUNDS, Grid
from lmd_cli.networks import (
    CRN,
    CRNShape,
    SimpleBEV,
    SimpleBEVWidths,
    load_checkpoint,
    random_weights,
)
from lmd_cli.progress import Progress, Silent, counter
from lmd_cli.resources import first_file, listing, shipped

#: What a config's samples can be.
Samples = NuScenesSamples | KeyframeSamples


@dataclass(frozen=True)
class BuiltNetwork:
    """A network with its weights, in evaluation mode.

    Attributes:
        network: on the device asked for.
        checkpoint: where its weights come from, in words.
        sha256: the weight file's digest; none for random weights.
        random: the weights are random: what it predicts means nothing.
    """

    network: SimpleBEV | CRN
    checkpoint: str
    sha256: str | None
    random: bool


def build_grid(model: SimpleBEVConfig) -> Grid:
    """SimpleBEV's voxels."""
    return Grid(model.grid, model.bounds or PUBLISHED_BOUNDS)


def ground_plane(model: SimpleBEVConfig | CRNConfig) -> Grid:
    """Where output maps lie once their rows run forward and their columns right: a grid whose
    z axis is forward and whose x axis is right (its height does not matter)."""
    if isinstance(model, SimpleBEVConfig):
        return build_grid(model)
    shape = build_shape(model)
    reach = (-shape.extent, shape.extent)
    return Grid((shape.cells, 1, shape.cells), (*reach, -1.0, 1.0, *reach), (0.0, 0.0, 0.0))


def build_shape(model: CRNConfig) -> CRNShape:
    """CRN's sizes: the published ones of its backbone, and what the config says instead.

    Raises:
        ConfigError: sizes that cannot be built.
    """
    published = CRNShape.published(18 if model.backbone == "r18" else 50)
    changed = model.sizes.model_dump(exclude_none=True)
    if "tasks" in changed:
        changed["tasks"] = tuple(map(tuple, changed["tasks"]))
    return replace(published, image_size=model.image_size, key_frames=model.key_frames, **changed)


def build_dataset(config: RunConfig, progress: Progress | None = None) -> Samples:
    """The config's samples; makes the synthetic root if it is asked for and not there.

    Raises:
        ConfigError: the synthetic root has no such split.
        DataError: data root, version or split not found.
    """
    data, model = config.data, config.model
    shape = build_shape(model) if isinstance(model, CRNConfig) else None
    shown = progress or Silent()
    where = (data_root(config, shown), data.version, data.split)
    indexing = counter(shown, f"indexing {data.version} {data.split}, once")
    if shape is not None:
        return KeyframeSamples(
            *where,
            progress=indexing,
            modalities=model.modalities,
            nsweeps=data.nsweeps,
            image_size=shape.image_size,
            key_frames=shape.key_frames,
            depth_bound=shape.depth[1],
            radar_slots=shape.radar_slots,
            extent=shape.extent,
            cells=shape.cells,
        )
    assert isinstance(model, SimpleBEVConfig)
    return NuScenesSamples(
        *where,
        progress=indexing,
        modalities=model.modalities,
        nsweeps=data.nsweeps,
        image_size=model.image_size,
        grid=build_grid(model),
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
        ConfigError: sizes that cannot be built, or an output that the network does not have.
        CheckpointError: the weights are missing, damaged or of another architecture.
    """
    network = untrained(config)
    checkpoint = config.model.checkpoint
    if checkpoint == RANDOM:
        random_weights(network, config.seed)
        origin, sha256 = f"random weights (seed {config.seed})", None
    else:
        path = find_checkpoint(checkpoint, config.source)
        origin, sha256 = str(path), load_checkpoint(path, network)
    network.eval().requires_grad_(False).to(device)
    return BuiltNetwork(network, origin, sha256, random=sha256 is None)


def untrained(config: RunConfig) -> SimpleBEV | CRN:
    """The config's network without weights.

    Raises:
        ConfigError: see :func:`build_network`.
    """
    model = config.model
    if isinstance(model, CRNConfig):
        network = CRN(build_shape(model), boundary=model.boundary)
        network.require_output(model.output)
        return network
    return SimpleBEV(
        model.modalities,
        grid=build_grid(model),
        encoder=model.encoder,
        radar=model.radar,
        widths=SimpleBEVWidths(**model.widths.model_dump()),
    )


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
