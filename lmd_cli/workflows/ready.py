"""The network and samples of a config, opened once, and the decomposition of one sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.assembly.build import BuiltNetwork, Samples, build_dataset, build_network
from lmd_cli.assembly.contract import FusionNetwork, LinearFusion
from lmd_cli.assembly.forward import encode_batch, forward_up, fuse_function, fused_parts
from lmd_cli.attribution.interface import run
from lmd_cli.config.compute import Precision
from lmd_cli.config.schema import CustomModelConfig, RunConfig
from lmd_cli.data import KeyframeSamples, Sample, collate, to_device
from lmd_cli.data.nuscenes.split import SplitSamples
from lmd_cli.decomposition import Decomposition, Variant, decompose
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.errors import ContractError
from lmd_cli.evaluation.comparisons import measured_comparisons
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition, shown, truth_name
from lmd_cli.evaluation.measure import VERIFIED, Task, measure
from lmd_cli.evaluation.walk import Encoding, Visit
from lmd_cli.report.figures.projection import object_frames
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.progress import Progress
from lmd_cli.runtime.stopwatch import Stopwatch

#: A sample, each sensor's features, and what ``fuse`` needs besides.
Encoded: TypeAlias = tuple[Sample, dict[str, Any], dict[str, Any]]

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
    _partner: dict[int, Any] = field(default_factory=dict, repr=False)

    def decompose(
        self, index: int, partner: int | None = None, compared: int | None = None
    ) -> SampleDecomposition:
        """One sample's prediction and its parts.

        Args:
            index: of the sample.
            partner: of the sample whose features replace those that are removed; zeros if none.
            compared: of the sample with whose sensors the parts are compared; nothing if none.

        Raises:
            DataError: a file is missing or damaged.
        """
        config, network = self.config, self.built.network
        sample, features, constants = encoded = self._encoded(index)
        other = None if partner is None else self._replacement(partner)
        result = split(self.built, features, constants, config, self.variant)
        named = {**result.parts, BIAS: result.bias}
        if config.bilinear == INTERACTION:
            named[INTERACTION] = result.interaction
        pictures, boxes = self.dataset.pictures(sample), self.dataset.boxes_on_map(index)
        tensors = {name: value.numpy() for name, value in sample.tensors.items()}
        split_samples = self.dataset if isinstance(self.dataset, SplitSamples) else None
        return SampleDecomposition(
            config,
            self.variant,
            self.built,
            sample,
            result,
            total=_shown(network, config, result.total),
            parts={name: _shown(network, config, part) for name, part in named.items()},
            ground_truth=self._truth(sample, result.total),
            segmentation=self._segmentation(sample, result.total),
            pictures=pictures,
            boxes=boxes,
            instances={} if split_samples is None else split_samples.instances(index),
            description=self.dataset.descriptions[index],
            moment="" if split_samples is None else split_samples.moment(index),
            without=partial(self._without, features, constants, other),
            compared=list if compared is None else partial(self._compared, encoded, compared),
            frames=partial(object_frames, boxes, tensors, list(pictures)),
            radar_in_images=_radar_in_images(self.dataset, index),
        )

    def _encoded(self, index: int) -> Encoded:
        """A sample, each sensor's features, and what ``fuse`` needs besides."""
        if index in self._partner:
            return self._partner.pop(index)
        with self.stopwatch.reading():
            sample = self.dataset[index]
        precision = self.config.compute.precision
        return (sample, *encode(self.built.network, [sample], self.device, precision))

    def _replacement(self, index: int) -> dict[str, Any]:
        """A partner's features."""
        return self._kept(index)[1]

    def _kept(self, index: int) -> Encoded:
        """A partner; kept, as it is often the next sample of the walk."""
        encoded = self._encoded(index)
        self._partner.clear()
        self._partner[index] = encoded
        return encoded

    def _compared(self, own: Encoded, partner: int) -> list[tuple[Any, ...]]:
        """The parts before and after each sensor was replaced by the partner's, measured as
        ``lmd evaluate`` does."""
        network = self.built.network
        clean, other = (_encoding(network, *each) for each in (own, self._kept(partner)))
        comparisons = measured_comparisons(network.modalities)
        task = Task(network, self.config.model.output, comparisons, [Variant.parse(self.variant)])
        return measure(task, Visit(VERIFIED, clean, [other])).pairs

    def _without(
        self,
        features: Mapping[str, Any],
        constants: Mapping[str, Any],
        other: Mapping[str, Any] | None,
        removed: frozenset[str],
    ) -> Tensor | None:
        """The output of the unchanged network with the features of some modalities zeroed, or
        those of another sample."""
        network, config = self.built.network, self.config
        fuse = fuse_function(network, config.model.output, constants)
        if other is not None:
            features = {**features, **{name: other[name] for name in removed}}
            removed = frozenset()
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

    def _segmentation(self, sample: Sample, total: Tensor) -> tuple[Tensor, Tensor] | None:
        """What IoU compares the shown output with, and the cells that count; as :mod:`.measure`."""
        truth, valid = (sample.tensors.get(name) for name in ("segmentation", "valid"))
        if truth is None or not getattr(self.dataset, "annotated", True):
            return None
        valid = torch.ones_like(truth) if valid is None else valid
        if not sample.batched:
            truth, valid = truth[None], valid[None]
        if truth.shape != total.shape:
            return None
        show = partial(_shown, self.built.network, self.config)
        shown_truth = show(truth)
        return (shown_truth, show(valid)) if shown_truth.numel() == truth.numel() else None


def _encoding(
    network: FusionNetwork, sample: Sample, features: dict[str, Any], constants: dict[str, Any]
) -> Encoding:
    fused = fused_parts(network, features) if isinstance(network, LinearFusion) else None
    return Encoding(0, sample.token, fused, features, constants)


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
