"""One sample decomposed, with all that is needed to show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.build import BuiltNetwork, Samples, build_dataset, build_network, resolve_device
from lmd_cli.compute import encode_features, set_switches
from lmd_cli.config import RunConfig, SimpleBEVConfig
from lmd_cli.config_compute import Precision
from lmd_cli.contract import FusionNetwork, fuse_function
from lmd_cli.data import Sample, collate, to_device
from lmd_cli.data.truth import Box3D
from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.stopwatch import Stopwatch
from lmd_cli.progress import Progress


@dataclass(frozen=True, eq=False)
class SampleDecomposition:
    """One sample's prediction and its parts.

    Attributes:
        config: what was run.
        variant: the rules' name.
        built: the network and where its weights come from.
        sample: the sample.
        result: the decomposition of the output, audited.
        total: the output, rows forward and columns right (Z, X), and
        parts: for each modality and ``bias`` (and ``interaction``) its part (Z, X), on the CPU.
        ground_truth: where the vehicles (of the output's class) are, (Z, X), 0 or 1.
        pictures: the images by camera, (H, W, 3) in [0, 1].
        boxes: the sample's annotated vehicles, axes x right, y down, z forward, in metres from
            the origin of the maps.
        description: its scene's, in the dataset's words.
    """

    config: RunConfig
    variant: str
    built: BuiltNetwork
    sample: Sample
    result: Decomposition
    total: Tensor
    parts: Mapping[str, Tensor]
    ground_truth: Tensor
    pictures: Mapping[str, NDArray[np.float32]]
    boxes: Sequence[Box3D] = ()
    description: str = ""

    @property
    def residual(self) -> float:
        """max |total - sum of parts| / max |total| of the output."""
        return self.result.residual


def decompose_sample(
    config: RunConfig,
    token: str | None = None,
    *,
    variant: str | None = None,
    progress: Progress | None = None,
) -> SampleDecomposition:
    """Decomposes one sample's prediction.

    Args:
        config: data, network, device.
        token: sample token; the split's first sample if none.
        variant: rules; the config's first if none.
        progress: shows the making of the synthetic root.

    Raises:
        LmdError: what :mod:`lmd_cli.build` raises, an unknown token, or damaged files.
    """
    ready = make_ready(config, variant, progress)
    return ready.decompose(0 if token is None else ready.dataset.index_of(token))


@dataclass(frozen=True, eq=False)
class Ready:
    """A config's data and network, opened once to decompose any number of samples.

    ``stopwatch`` counts the time spent reading samples.
    """

    config: RunConfig
    variant: str
    dataset: Samples
    built: BuiltNetwork
    device: torch.device
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def decompose(self, index: int) -> SampleDecomposition:
        """One sample's prediction and its parts.

        Raises:
            DataError: a file is missing or damaged.
        """
        config, network = self.config, self.built.network
        with self.stopwatch.reading():
            sample = self.dataset[index]
        features, constants = encode(network, [sample], self.device, self.config.compute.precision)
        result = split(self.built, features, constants, config, self.variant)
        named = {**result.parts, BIAS: result.bias}
        if config.bilinear == INTERACTION:
            named[INTERACTION] = result.interaction
        return SampleDecomposition(
            config,
            self.variant,
            self.built,
            sample,
            result,
            total=_shown(network, result.total),
            parts={name: _shown(network, part) for name, part in named.items()},
            ground_truth=_shown(network, sample.tensors[truth_name(config)][None]),
            pictures=self.dataset.pictures(sample),
            boxes=self.dataset.boxes_on_map(index),
            description=self.dataset.descriptions[index],
        )


def decompose_several(
    config: RunConfig, wanted: Sequence[str], *, progress: Progress | None = None
) -> list[SampleDecomposition]:
    """Decomposes several samples with one network.

    Args:
        wanted: tokens; or one number, for the first samples of the split.

    Raises:
        LmdError: as :func:`decompose_sample`; or a number that the split does not have.
    """
    ready = make_ready(config, None, progress)
    tokens, dataset = [token.strip() for token in wanted], ready.dataset
    if len(tokens) == 1 and tokens[0].isdigit() and tokens[0] not in dataset.tokens:
        count = int(tokens[0])
        if not 1 <= count <= len(dataset):
            raise ConfigError(f"{count} samples asked for; the split has {len(dataset)}")
        return [ready.decompose(index) for index in range(count)]
    return [ready.decompose(index) for index in map(dataset.index_of, tokens)]


def make_ready(
    config: RunConfig, variant: str | None = None, progress: Progress | None = None
) -> Ready:
    """Opens data and network; see :func:`decompose_sample` for arguments and errors."""
    device = start(config)
    dataset = build_dataset(config, progress)
    built = build_network(config, device)
    return Ready(config, variant or config.variants[0], dataset, built, device)


def _shown(network: FusionNetwork, maps: Tensor) -> Tensor:
    """The first channel of (1, n, rows, columns), forward up, on the CPU."""
    return network.forward_up(maps[0, 0]).contiguous().cpu()


def truth_name(config: RunConfig) -> str:
    """Which of a sample's maps shows what the output looks for."""
    if isinstance(config.model, SimpleBEVConfig):
        return "segmentation"
    return "cars" if config.model.output.endswith(".car") else "vehicles"


def start(config: RunConfig) -> torch.device:
    """Sets the number of threads and returns the device.

    Raises:
        ConfigError: the device is not there.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    set_switches(config.compute.tf32)
    return resolve_device(config.device)


def encode(
    network: FusionNetwork,
    samples: Sequence[Sample],
    device: torch.device,
    precision: Precision = "float32",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each sensor's features of a batch of samples, and what ``fuse`` needs besides."""
    batch = to_device(collate(samples), device)
    with torch.no_grad():
        return encode_features(network, batch, precision), network.constants(batch)


def split(
    built: BuiltNetwork,
    features: Mapping[str, Any],
    constants: Mapping[str, Any],
    config: RunConfig,
    variant: str,
    *,
    keep_frozen: bool = False,
) -> Decomposition:
    """The audited decomposition of the config's output at ``features``."""
    return decompose(
        fuse_function(built.network, config.model.output, constants),
        features,
        variant,
        root=built.network,
        audit=True,
        keep_frozen=keep_frozen,
        bilinear=config.bilinear,
    )
