"""The composition root: from a config to its samples, its network and its device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the base class of all, in no public module

from lmd_cli.assembly.contract import require_network
from lmd_cli.assembly.targets import make_target, user_code
from lmd_cli.config.schema import (
    RANDOM,
    SYNTHETIC,
    CRNConfig,
    CustomDataConfig,
    CustomModelConfig,
    DataConfig,
    RunConfig,
    SimpleBEVConfig,
)
from lmd_cli.config.shipped import first_file, from_home, listing, shipped
from lmd_cli.data import Channels, KeyframeSamples, NuScenesSamples, RadarFilters
from lmd_cli.data.choice import chosen_rows
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.index.splits import split_name
from lmd_cli.data.nuscenes.radar_files import DEVKIT_FILTERS
from lmd_cli.data.synthetic import cached_root
from lmd_cli.data.synthetic.root import DEMO_SAMPLES, cache_folder
from lmd_cli.decomposition import InputError, set_module_rules, set_plain_modules
from lmd_cli.errors import CheckpointError, ConfigError
from lmd_cli.geometry import PUBLISHED_BOUNDS, Grid
from lmd_cli.networks import CRNSizes, load_checkpoint, random_weights
from lmd_cli.runtime.progress import Progress, Silent, counter

#: What a config's samples can be.
Samples = NuScenesSamples | KeyframeSamples | CustomSamples
ModelSection = SimpleBEVConfig | CRNConfig | CustomModelConfig


@dataclass(frozen=True)
class BuiltNetwork:
    """A network with its weights, in evaluation mode.

    Attributes:
        network: on the device asked for; follows :mod:`lmd_cli.assembly.contract`.
        checkpoint: where its weights come from, in words.
        sha256: the digest of the weight file, or of the weights that a target gave; none for
            random weights.
        random: the weights are random: what it predicts means nothing.
    """

    network: Any
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
    sizes = build_crn_sizes(model)
    reach = (-sizes.extent, sizes.extent)
    return Grid((sizes.cells, 1, sizes.cells), (*reach, -1.0, 1.0, *reach), (0.0, 0.0, 0.0))


def build_crn_sizes(model: CRNConfig) -> CRNSizes:
    """CRN's sizes: the published ones of its backbone, and what the config says instead.

    Raises:
        ConfigError: sizes that cannot be built.
    """
    published = CRNSizes.published(18 if model.backbone == "r18" else 50)
    changed = model.sizes.model_dump(exclude_none=True)
    return replace(published, image_size=model.image_size, key_frames=model.key_frames, **changed)


def build_dataset(
    config: RunConfig, progress: Progress | None = None, *, tolerant: bool = False
) -> Samples:
    """The config's samples; makes the synthetic root if it is asked for and not there.

    Args:
        config: data and network.
        progress: where to show progress.
        tolerant: also if the tables hold records that cannot be used; loading a sample that needs
            one raises then.

    Raises:
        ConfigError: the synthetic root has no such split, or no sample is chosen.
        ContractError: a target that cannot be imported or is no data set.
        DataError: data root, version, split or channel not found, or a record of the tables that
            cannot be used.
    """
    samples = _samples(config, progress)
    if config.samples.chooses:
        every = (samples.tokens, samples.scenes, samples.descriptions)
        samples.choose(chosen_rows(config.samples, *every))
    if not tolerant and not isinstance(samples, CustomSamples):
        samples.require_records()
    return samples


def _samples(config: RunConfig, progress: Progress | None) -> Samples:
    data, model = config.data, config.model
    if isinstance(data, CustomDataConfig):
        return _custom_samples(config, data)
    if isinstance(model, CustomModelConfig):
        raise ConfigError(
            "data.dataroot stands for the samples of simplebev or crn; with model.target give "
            "data: {target: nuscenes, options: {dataroot: ..., version: ..., split: ...}}, or a "
            "target of your own"
        )
    return nuscenes_samples(data, model, progress)


def _custom_samples(config: RunConfig, data: CustomDataConfig) -> Samples:
    with _seeded(config):
        made = make_target("data", data.target, data.options, config.source)
    if isinstance(made, NuScenesSamples | KeyframeSamples):
        return made
    return CustomSamples(made, f"data.target {data.target!r}", user_code)


def nuscenes_samples(
    data: DataConfig, model: SimpleBEVConfig | CRNConfig, progress: Progress | None = None
) -> Samples:
    """nuScenes as a built-in network takes it; see :func:`build_dataset`."""
    shown = progress or Silent()
    root = data_root(data, shown)
    indexing = counter(shown, f"indexing {data.version} {split_name(data.split)}, once")
    try:
        return _opened(root, data, model, indexing)
    finally:
        shown.close()


def _opened(
    root: Path,
    data: DataConfig,
    model: SimpleBEVConfig | CRNConfig,
    indexing: Callable[[int, int], None],
) -> Samples:
    where = (root, data.version, data.split)
    lidars = (data.lidar,) if isinstance(data.lidar, str) else data.lidar
    channels = Channels(data.cameras, data.radars, lidars)
    sensors: dict[str, Any] = {
        "channels": channels,
        "radar_fields": data.radar_fields,
        **_filters(data),
    }
    if isinstance(model, CRNConfig):
        sizes = build_crn_sizes(model)
        return KeyframeSamples(
            *where,
            **sensors,
            progress=indexing,
            modalities=model.modalities,
            nsweeps=data.nsweeps,
            image_size=sizes.image_size,
            key_frames=sizes.key_frames,
            depth_bound=sizes.depth[1],
            radar_slots=sizes.radar_slots,
            extent=sizes.extent,
            cells=sizes.cells,
        )
    return NuScenesSamples(
        *where,
        **sensors,
        progress=indexing,
        modalities=model.modalities,
        nsweeps=data.nsweeps,
        image_size=model.image_size,
        grid=build_grid(model),
    )


def _filters(data: DataConfig) -> dict[str, RadarFilters]:
    """The radar filters that the config asks for, if any."""
    if data.radar_filters is None:
        return {}
    if data.radar_filters == "devkit":
        return {"radar_filters": DEVKIT_FILTERS}
    return {"radar_filters": RadarFilters(**data.radar_filters)}


def data_root(data: DataConfig, progress: Progress) -> Path:
    """The folder that ``data.dataroot`` means.

    Raises:
        ConfigError: the synthetic root has no such split.
    """
    if data.dataroot != SYNTHETIC:
        return from_home(data.dataroot)
    split = data.split
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
        ConfigError: sizes that cannot be built, an output that the network does not have, or
            ``rules`` or ``plain_modules`` for no module.
        ContractError: a target that cannot be imported, or a network that does not follow the
            contract.
        CheckpointError: the weights are missing, damaged or of another architecture.
    """
    network = untrained(config)
    checkpoint = config.model.checkpoint
    if checkpoint == RANDOM:
        _randomise(network, config)
        origin, sha256 = f"random weights (seed {config.seed})", None
    elif checkpoint is None:
        origin, sha256 = "the weights that the target gives", _digest(network)
    else:
        path = find_checkpoint(checkpoint, config.source)
        origin, sha256 = str(path), load_checkpoint(path, network, ema=config.model.ema)
    network.eval().requires_grad_(False).to(device)
    try:
        set_module_rules(network, config.rules)
        set_plain_modules(network, config.plain_modules)
    except InputError as error:
        raise ConfigError(str(error)) from None
    return BuiltNetwork(network, origin, sha256, random=sha256 is None)


def _randomise(network: nn.Module, config: RunConfig) -> None:
    """Random weights; of a custom network, no buffers but BatchNorm's: others hold
    indices, masks and the like."""
    if not isinstance(config.model, CustomModelConfig):
        random_weights(network, config.seed)
        return
    kept = {name: value.clone() for name, value in network.named_buffers()}
    random_weights(network, config.seed)
    norms = [n for n, m in network.named_modules() if isinstance(m, _BatchNorm)]
    for name, value in network.named_buffers():
        if name.rpartition(".")[0] not in norms:
            value.copy_(kept[name])


def _digest(network: nn.Module) -> str:
    """SHA-256 of all weights with their names."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(data.numpy().tobytes())
    return digest.hexdigest()


def untrained(config: RunConfig) -> Any:
    """The config's network, before the config's weights are in.

    Every network comes through :func:`~lmd_cli.assembly.targets.make_target`, a built-in one by its
    name. Torch's random numbers start from the config's seed meanwhile.

    Raises:
        ConfigError, ContractError: see :func:`build_network`.
    """
    model = config.model
    target, options = _target_of(model)
    with _seeded(config):
        network = make_target("model", target, options, config.source)
    if isinstance(model, CustomModelConfig):
        require_network(network, f"model.target {target!r}", model.modalities)
    return network


@contextmanager
def _seeded(config: RunConfig) -> Iterator[None]:
    """Torch's random numbers from the config's seed; those of the caller are left alone."""
    # Without `devices` torch saves the state of every GPU as well, which starts CUDA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        yield


def _target_of(section: ModelSection) -> tuple[str, dict[str, Any]]:
    """Target and options of a ``model`` section; built-in networks are targets as well."""
    if isinstance(section, CustomModelConfig):
        return section.target, section.options
    return section.name, {"section": section}


def find_checkpoint(name: str, config_file: Path | None = None) -> Path:
    """The file that ``model.checkpoint`` means.

    A relative path is looked for from the working directory, from the config's folder and the
    folder above it, and among the models shipped.

    Raises:
        CheckpointError: it is in none of these; says which models there are.
    """
    given = from_home(name)
    models = shipped("models")
    beside = [] if config_file is None else [config_file.parent, config_file.parent.parent]
    inside = given.relative_to("models") if given.is_relative_to("models") else given
    file = first_file([given, *(folder / given for folder in beside), models / inside])
    if file is not None:
        return file
    if given.exists():
        return given  # no file: told when it is opened
    known = [path.name for path in models.glob("*") if path.suffix in (".safetensors", ".pth")]
    raise CheckpointError(
        f"checkpoint {name} does not exist (looked from {Path.cwd()}, from the config's folder and "
        f"in {models}). Give a .safetensors or .pth file with --checkpoint, or {RANDOM!r} for a "
        f"smoke test. Models shipped: {listing(known, given.name)}"
    )
