"""The network and samples of a config, opened once, and the decomposition of one sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.assembly.build import BuiltNetwork, Samples, build_dataset, build_network
from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.assembly.forward import encode_batch, forward_up, fuse_function
from lmd_cli.attribution.interface import run
from lmd_cli.config.compute import Precision
from lmd_cli.config.schema import CustomModelConfig, RunConfig
from lmd_cli.data import KeyframeSamples, Sample, collate, to_device
from lmd_cli.decomposition import Decomposition, Variant, decompose
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.errors import ContractError
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition, truth_name
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.progress import Progress
from lmd_cli.runtime.stopwatch import Stopwatch

log = logging.getLogger(__name__)


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
            total=_shown(network, config, result.total),
            parts={name: _shown(network, config, part) for name, part in named.items()},
            ground_truth=self._truth(sample, result.total),
            pictures=self.dataset.pictures(sample),
            boxes=self.dataset.boxes_on_map(index),
            description=self.dataset.descriptions[index],
            without=partial(self._without, features, constants),
            radar_in_images=_radar_in_images(self.dataset, index),
        )

    def _without(
        self,
        features: Mapping[str, Any],
        constants: Mapping[str, Any],
        removed: frozenset[str],
    ) -> Tensor | None:
        """The output of the unchanged network with the features of some modalities zeroed."""
        network, config = self.built.network, self.config
        fuse = fuse_function(network, config.model.output, constants)
        try:
            output = run(fuse, features, removed)
        except ContractError as error:  # 0 / 0, say, in a network of the user's own
            log.warning("without %s: %s", " and ".join(sorted(removed)), error)
            return None
        return _shown(network, config, output)

    def _truth(self, sample: Sample, total: Tensor) -> Tensor | None:
        """The truth, unless nobody knows it."""
        if not getattr(self.dataset, "annotated", True):
            return None
        return _truth(self.built.network, self.config, sample, total)


def make_ready(
    config: RunConfig, variant: str | None = None, progress: Progress | None = None
) -> Ready:
    """Opens data and network; see :func:`decompose_sample` for arguments and errors."""
    device = start(config)
    dataset = build_dataset(config, progress)
    built = build_network(config, device)
    return Ready(config, variant or config.explain, dataset, built, device)


def _radar_in_images(
    dataset: Samples, index: int
) -> Callable[[], Mapping[str, NDArray[np.float32]]]:
    """Read only when a figure wants it."""
    if isinstance(dataset, KeyframeSamples):
        return partial(dataset.radar_in_images, index)
    return dict


def _shown(network: FusionNetwork, config: RunConfig, maps: Tensor) -> Tensor:
    """The first channel of (1, n, rows, columns), forward up, on the CPU."""
    if isinstance(config.model, CustomModelConfig):
        return shown(maps, config.model.channel, config.model.output).contiguous().cpu()
    return forward_up(network, maps[0, 0]).contiguous().cpu()


def _truth(
    network: FusionNetwork, config: RunConfig, sample: Sample, total: Tensor
) -> Tensor | None:
    """The sample's map of what the output looks for, turned and picked as the output is."""
    name = truth_name(config)
    truth = sample.tensors.get(name)
    if isinstance(config.model, CustomModelConfig):
        if isinstance(truth, Tensor) and not sample.batched:
            truth = truth[None]
        if not isinstance(truth, Tensor) or truth.shape != total.shape:
            return None
        return _shown(network, config, truth)
    if truth is None:
        held = ", ".join(sample.tensors)
        raise ContractError(f"sample {sample.token} has no tensor {name}; it has {held}")
    return _shown(network, config, truth if sample.batched else truth[None])


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
    return encode_batch(network, batch, samples[0].token, precision)


def split(
    built: BuiltNetwork,
    features: Mapping[str, Any],
    constants: Mapping[str, Any],
    config: RunConfig,
    variant: str | Variant,
    *,
    keep_maps: bool = False,
) -> Decomposition:
    """The audited decomposition of the config's output at ``features``."""
    return decompose(
        fuse_function(built.network, config.model.output, constants),
        features,
        variant,
        root=built.network,
        audit=True,
        keep_maps=keep_maps,
        bilinear=config.bilinear,
    )


def shown(output: Tensor, channel: int, name: str) -> Tensor:
    """One sample's output, or a part of it, as it is drawn.

    Args:
        output: (1, C, H, W), (1, C, D, H, W), (1, C), (1, N, C), or (1,).
        channel: which of the C; a vector (1, C) is shown whole.
        name: of the output, for messages.

    Returns:
        a map (H, W), of a volume its middle slice; or numbers (C,) or (N,). Parts that sum to the
        output before do so afterwards, for it only selects.

    Raises:
        ContractError: no such channel, a batch of several, or another shape.
    """
    shape = tuple(output.shape)
    if output.ndim == 0 or output.ndim > 5 or shape[0] != 1:
        raise ContractError(
            f"output {name} has the shape {shape}; expected (1, C), (1, N, C), (1, C, H, W) or "
            "(1, C, D, H, W), with a batch of 1 first"
        )
    one = output[0]
    if one.ndim < 2:
        return one.reshape(-1)
    axis = 1 if one.ndim == 2 else 0
    if channel >= one.shape[axis]:
        raise ContractError(
            f"model.channel is {channel}; output {name} of shape {shape} has the channels 0 to "
            f"{one.shape[axis] - 1}"
        )
    picked = one.select(axis, channel)  # (N,), (H, W) or (D, H, W)
    return picked[picked.shape[0] // 2] if picked.ndim == 3 else picked
