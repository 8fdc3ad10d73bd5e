"""One sample decomposed, with all that is needed to show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.build import BuiltNetwork, build_dataset, build_network, resolve_device
from lmd_cli.config import RunConfig
from lmd_cli.data import NuScenesSamples, Sample, collate, to_device
from lmd_cli.data.truth import Box3D
from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.errors import ConfigError
from lmd_cli.networks import SimpleBEV
from lmd_cli.progress import Progress


@dataclass(frozen=True, eq=False)
class SampleDecomposition:
    """One sample's prediction and its parts.

    Attributes:
        config: what was run.
        variant: the rules' name.
        built: the network and where its weights come from.
        sample: the sample.
        result: the decomposition of the output's tree, audited.
        total: the output (Z, X), and
        parts: for each modality and ``bias`` its part (Z, X), all on the CPU.
        boxes: the sample's annotated vehicles.
        description: its scene's, in the dataset's words.
    """

    config: RunConfig
    variant: str
    built: BuiltNetwork
    sample: Sample
    result: Decomposition
    total: Tensor
    parts: Mapping[str, Tensor]
    boxes: Sequence[Box3D] = ()
    description: str = ""

    @property
    def ground_truth(self) -> Tensor:
        """Vehicle mask (Z, X), 0 or 1."""
        return self.sample.tensors["segmentation"][0]

    @property
    def residual(self) -> float:
        """max |total - sum of parts| / max |total| of the output."""
        return self.result[self.config.model.output].residual


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
    """A config's data and network, opened once to decompose any number of samples."""

    config: RunConfig
    variant: str
    dataset: NuScenesSamples
    built: BuiltNetwork
    device: torch.device

    def decompose(self, index: int) -> SampleDecomposition:
        """One sample's prediction and its parts.

        Raises:
            DataError: a file is missing or damaged.
        """
        sample, output = self.dataset[index], self.config.model.output
        features = encode(self.built.network, [sample], self.device)
        result = split(self.built.network, features, output, self.variant)
        found = result[output]
        named = {**found.parts, "bias": found.bias}
        return SampleDecomposition(
            self.config,
            self.variant,
            self.built,
            sample,
            result,
            total=found.total[0, 0].cpu(),
            parts={name: part[0, 0].cpu() for name, part in named.items()},
            boxes=self.dataset.boxes(index),
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


def camera_images(split: SampleDecomposition) -> NDArray[np.float32]:
    """The sample's images as the network got them, (6, H, W, 3) in [0, 1]; reference first."""
    return (split.sample.tensors["images"] + 0.5).permute(0, 2, 3, 1).numpy()


def start(config: RunConfig) -> torch.device:
    """Sets the number of threads and returns the device.

    Raises:
        ConfigError: the device is not there.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return resolve_device(config.device)


def encode(
    network: SimpleBEV, samples: Sequence[Sample], device: torch.device
) -> dict[str, Tensor]:
    """Each sensor's features of a batch of samples, (B, channels, Z, X), on ``device``."""
    batch = to_device(collate(samples), device)
    with torch.no_grad():
        return network.encode(batch)


def split(
    network: SimpleBEV,
    features: Mapping[str, Tensor],
    output: str,
    variant: str,
    *,
    keep_frozen: bool = False,
) -> Decomposition:
    """The audited decomposition of one output of ``network.fuse`` at ``features``."""
    return decompose(
        fuse_function(network, output),
        features,
        variant,
        root=network,
        audit=True,
        keep_frozen=keep_frozen,
    )


def fuse_function(network: SimpleBEV, output: str) -> Callable[..., dict[str, Tensor]]:
    """``network.fuse`` to one output, called with the sensors' features by name."""

    def fuse(**features: Tensor) -> dict[str, Tensor]:
        return network.fuse(features, [output])

    return fuse
